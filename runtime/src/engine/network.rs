//! The network of pods: for each that does not ask for the node's, a namespace of its own behind a bridge.
//!
//! ```text
//!   node ── edge0 (bridge, first address of the subnet) ──┬── ev3f… ══ eth0   pod (a namespace bound to a file; all its
//!            │  masquerade outwards                       │                   containers join it by path)
//!            │  hostPort: DNAT inwards                    └── ev81… ══ eth0   pod
//!            └─ table `edge-runtime` of nftables, replaced as a whole at every change
//! ```
//!
//! Everything is done with netlink alone: no `ip`, `nft` or CNI plugin is needed on the node. What the node has on its loopback
//! stays out of reach of pods, but for the ports in [`Settings::expose`], which they find at the bridge's address
//! (`host.edge.internal` in their `/etc/hosts`). A node whose own firewall drops forwarded packets keeps dropping them.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_model::pod::container::Protocol;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

mod link;
mod netlink;
mod netns;
mod rules;
mod subnet;
#[cfg(test)]
mod tests;

pub use subnet::Subnet;

/// How pods reach the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The bridge, a name of at most 15 characters; nothing else on the node may use it.
    pub bridge: String,
    /// The addresses of pods, `/16` to `/29`; nothing else on the node's networks may use them.
    pub subnet: Subnet,
    /// Ports on the node's loopback that pods reach at the bridge's address: the event bus. TCP.
    pub expose: Vec<u16>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { bridge: "edge0".to_owned(), subnet: Subnet::DEFAULT, expose: vec![1883] }
    }
}

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The address of the node; every one when `None`.
    pub host_ip: Option<Ipv4Addr>,
    /// The port of the node.
    pub host_port: u16,
    /// The port of the pod.
    pub pod_port: u16,
}

/// What a pod has of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// The ports of the node that lead to it.
    pub ports: Vec<HostPort>,
}

/// Why a pod has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A namespace could not be made.
    #[error("cannot make the network namespace {}", path.display())]
    Namespace {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step: without CAP_NET_ADMIN, bridges or veth there are only pods on the node's own network.
    #[error("cannot {step}; pods with hostNetwork: true do without")]
    Link {
        /// Which step.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the rules: it has no nftables, or no address translation.
    #[error("cannot set the rules of nftables for host ports")]
    Rules(#[source] io::Error),
    /// Every address of the subnet is taken.
    #[error("every address of {0} is taken")]
    Full(Subnet),
    /// Another pod has the port.
    #[error("port {port} of the node belongs to another pod")]
    PortTaken {
        /// The port.
        port: u16,
    },
}

/// The networks of this node's pods; cheap to clone.
#[derive(Debug, Clone)]
pub struct Network {
    settings: Settings,
    /// Who has what, by uid. Held over every change, so that the kernel sees one after the other.
    pods: Arc<Mutex<BTreeMap<String, Attachment>>>,
}

/// The answer to [`Network::attach`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// What does not work although the pod has its network, for people.
    pub limited: Option<String>,
}

impl Network {
    /// Nothing is touched before the first pod. `known` are the pods an earlier runtime has attached.
    pub fn new(settings: Settings, known: BTreeMap<String, Attachment>) -> Network {
        Network { settings, pods: Arc::new(Mutex::new(known)) }
    }

    /// The address at which pods reach the node.
    pub fn gateway(&self) -> Ipv4Addr {
        self.settings.subnet.gateway()
    }

    /// Sets the rules anew, should there be pods: somebody may have flushed them while no runtime was there.
    pub async fn refresh(&self) {
        let pods = self.pods.lock().await;
        if pods.is_empty() {
            return;
        }
        if let Err(error) = self.set_rules(&pods).await {
            tracing::warn!(%error, "the rules of pods' networks could not be set again");
        }
    }

    /// Gives a pod its network, or makes sure of the one it has.
    ///
    /// # Errors
    /// [`NetworkError`]; what was made so far goes with [`Network::detach`].
    pub async fn attach(&self, uid: &str, path: &Path, ports: &[HostPort]) -> Result<Attached, NetworkError> {
        let mut pods = self.pods.lock().await;
        let taken = |(other, has): (&String, &Attachment)| {
            if other == uid { None } else { has.ports.iter().find_map(|p| ports.iter().find(|q| clash(p, q))) }
        };
        if let Some(port) = pods.iter().find_map(taken) {
            return Err(NetworkError::PortTaken { port: port.host_port });
        }
        let ip = match pods.get(uid).and_then(|a| a.ip) {
            Some(ip) if self.settings.subnet.has(ip) => ip,
            _ => {
                let taken = |ip| pods.values().any(|a| a.ip == Some(ip));
                let free = self.settings.subnet.hosts().find(|ip| !taken(*ip));
                free.ok_or(NetworkError::Full(self.settings.subnet))?
            }
        };
        let (settings, ns, name) = (self.settings.clone(), path.to_owned(), veth(uid));
        let made = tokio::task::spawn_blocking(move || join(&settings, &ns, &name, ip)).await;
        made.unwrap_or_else(|e| Err(NetworkError::Link { step: "wait for a thread", source: io::Error::other(e) }))?;
        pods.insert(uid.to_owned(), Attachment { ip: Some(ip), ports: ports.to_vec() });
        match self.set_rules(&pods).await {
            Ok(()) => Ok(Attached { ip, limited: None }),
            Err(error) if ports.is_empty() => {
                let limited = format!("the pod cannot speak beyond this node: nftables: {error}");
                Ok(Attached { ip, limited: Some(limited) })
            }
            Err(error) => {
                pods.remove(uid);
                Err(NetworkError::Rules(error))
            }
        }
    }

    /// Takes a pod's network away; fine when it has none. With the last pod go the bridge and the rules.
    pub async fn detach(&self, uid: &str, path: &Path) {
        let mut pods = self.pods.lock().await;
        let had = pods.remove(uid).is_some();
        let (ns, name) = (path.to_owned(), veth(uid));
        let last = (pods.is_empty() && had).then(|| self.settings.bridge.clone());
        let table = rules::table(&self.settings.bridge);
        let removed = tokio::task::spawn_blocking(move || {
            // The link goes with the namespace, but only when the kernel gets to it.
            link::remove(&name)?;
            netns::remove(&ns)?;
            if let Some(bridge) = last {
                link::remove(&bridge)?;
                rules::remove(&table)?;
            }
            Ok::<(), io::Error>(())
        });
        if let Ok(Err(error)) = removed.await {
            tracing::debug!(uid, %error, "something of a pod's network is left");
        }
        if !pods.is_empty()
            && had
            && let Err(error) = self.set_rules(&pods).await
        {
            tracing::debug!(uid, %error, "the rules of a pod's network are left");
        }
    }

    async fn set_rules(&self, pods: &BTreeMap<String, Attachment>) -> io::Result<()> {
        let batch = rules::batch(&self.settings, pods);
        tokio::task::spawn_blocking(move || rules::send(&batch)).await.map_err(io::Error::other)?
    }
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    let address = a.host_ip.is_none() || b.host_ip.is_none() || a.host_ip == b.host_ip;
    a.protocol == b.protocol && a.host_port == b.host_port && address
}

/// The node's end of a pod's link: at most 15 characters, the same for the same pod.
fn veth(uid: &str) -> String {
    let hash = Sha256::digest(uid);
    let hex: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
    format!("ev{hex}")
}

/// Makes the namespace, the bridge and the link between them, each unless it is there. Blocks.
fn join(settings: &Settings, path: &Path, veth: &str, ip: Ipv4Addr) -> Result<(), NetworkError> {
    let step = |step: &'static str| move |source: io::Error| NetworkError::Link { step, source };
    netns::make(path).map_err(|source| NetworkError::Namespace { path: path.to_owned(), source })?;
    let subnet = settings.subnet;
    link::bridge(&settings.bridge, subnet).map_err(step("make the bridge for pods"))?;
    link::veth(veth, &settings.bridge, path).map_err(step("make a pod's link"))?;
    let inside = move || link::configure(ip, subnet);
    netns::inside(path, inside).map_err(step("configure a pod's link"))
}

/// The address this node speaks from; `None` without a route to anywhere.
pub fn host_ip() -> Option<Ipv4Addr> {
    // Connecting a UDP socket sends nothing: it only asks the kernel for the route. The address is one of RFC 5737's.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(ip) if !ip.is_loopback() => Some(ip),
        _ => None,
    }
}
