//! The network of pods: a namespace of its own for each pod that does not ask for the node's.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use edge_model::pod::container::Protocol;

mod netns;

/// How pods reach the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {}

impl Default for Settings {
    fn default() -> Settings {
        Settings {}
    }
}

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        source: std::io::Error,
    },
}

/// The networks of this node's pods; cheap to clone.
#[derive(Debug, Clone)]
pub struct Network {}

impl Network {
    /// Nothing is touched before the first pod.
    pub fn new(_settings: Settings) -> Network {
        Network {}
    }

    /// Gives a pod its network, or makes sure of the one it has; gives its address.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub async fn attach(
        &self,
        _uid: &str,
        path: &Path,
        _ports: &[HostPort],
        _before: Option<Ipv4Addr>,
    ) -> Result<Option<Ipv4Addr>, NetworkError> {
        let ns = path.to_owned();
        let made = tokio::task::spawn_blocking(move || netns::make(&ns)).await;
        let made = made.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        made.map_err(|source| NetworkError::Namespace { path: path.to_owned(), source })?;
        Ok(None)
    }

    /// Takes a pod's network away; fine when it has none.
    pub async fn detach(&self, _uid: &str, _path: &Path) {}
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
