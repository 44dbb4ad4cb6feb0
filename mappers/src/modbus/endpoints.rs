//! All Modbus endpoints of a node: which devices are polled, and where commands for them go.
//!
//! What is wanted of an endpoint is state (a watched list of devices), not a series of events: a task that was busy sees the
//! last word, and a device that did not change keeps its schedule, its counters and what was learnt of its registers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::config::Config;
use super::endpoint::{Caller, Endpoint};
use super::inbound::Lobby;
use super::link::Link;
use super::poll::Poller;
use crate::Batch;
use crate::backoff::Backoff;
use crate::port::{Command, Port, inbox};

/// How long to wait after failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The first and the longest pause of a device that does not answer.
    pub unit: (Duration, Duration),
    /// The first and the longest pause between attempts to connect.
    pub link: (Duration, Duration),
}

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses {
            unit: (Duration::from_secs(1), Duration::from_secs(60)),
            link: (Duration::from_millis(500), Duration::from_secs(10)),
        }
    }
}

/// All Modbus endpoints of a node.
pub struct Modbus {
    out: mpsc::Sender<Batch>,
    clock: fn() -> i64,
    pauses: Pauses,
    endpoints: HashMap<Endpoint, Handle>,
    /// Where devices call in, with the task that listens.
    lobbies: HashMap<SocketAddr, (Arc<Lobby>, AbortHandle)>,
    tasks: JoinSet<()>,
}

struct Handle {
    wanted: watch::Sender<Vec<Arc<Config>>>,
    inbox: mpsc::Sender<Command>,
}

impl Modbus {
    /// Nothing polled yet. Samples go to `out`; when it is full, polling waits. `clock` gives UTC milliseconds.
    pub fn new(out: mpsc::Sender<Batch>, clock: fn() -> i64, pauses: Pauses) -> Modbus {
        Modbus { out, clock, pauses, endpoints: HashMap::new(), lobbies: HashMap::new(), tasks: JoinSet::new() }
    }

    /// The devices to poll from now on. Those that are equal to what they were are left alone.
    pub fn set(&mut self, devices: &[Arc<Config>]) {
        let mut wanted: HashMap<&Endpoint, Vec<Arc<Config>>> = HashMap::new();
        for device in devices {
            wanted.entry(&device.endpoint).or_default().push(Arc::clone(device));
        }
        // A task whose list is dropped ends.
        self.endpoints.retain(|endpoint, _| wanted.contains_key(endpoint));
        self.listen(wanted.keys().copied());
        for (endpoint, list) in wanted {
            match self.endpoints.get(endpoint) {
                Some(handle) => {
                    handle.wanted.send_if_modified(|old| {
                        let differs = *old != list;
                        *old = list;
                        differs
                    });
                }
                None => self.start(endpoint.clone(), list),
            }
        }
    }

    /// Listens where devices call in, and nowhere else.
    fn listen<'a>(&mut self, endpoints: impl Iterator<Item = &'a Endpoint>) {
        let mut wanted: HashMap<SocketAddr, Vec<_>> = HashMap::new();
        for endpoint in endpoints {
            if let Endpoint::Inbound { at, caller, .. } = endpoint {
                let peers = wanted.entry(*at).or_default();
                if let Caller::Peer(peer) = caller {
                    peers.push(*peer);
                }
            }
        }
        self.lobbies.retain(|at, (_, task)| {
            let stays = wanted.contains_key(at);
            if !stays {
                task.abort();
            }
            stays
        });
        for (at, peers) in wanted {
            let tasks = &mut self.tasks;
            let (lobby, _) = self.lobbies.entry(at).or_insert_with(|| {
                let lobby = Arc::new(Lobby::new(at));
                let task = tasks.spawn(Arc::clone(&lobby).listen());
                (lobby, task)
            });
            lobby.claim(peers);
        }
    }

    fn start(&mut self, endpoint: Endpoint, list: Vec<Arc<Config>>) {
        let (wanted, watched) = watch::channel(list);
        let (inbox, commands) = inbox();
        let (first, longest) = self.pauses.link;
        let lobby = match &endpoint {
            Endpoint::Inbound { at, .. } => self.lobbies.get(at).map(|(lobby, _)| Arc::clone(lobby)),
            _ => None,
        };
        let poller = Poller {
            link: Link::new(endpoint.clone(), lobby, Backoff::new(first, longest)),
            units: Vec::new(),
            wanted: watched,
            inbox: commands,
            out: self.out.clone(),
            clock: self.clock,
            pauses: self.pauses,
            kept: None,
        };
        self.tasks.spawn(poller.run());
        self.endpoints.insert(endpoint, Handle { wanted, inbox });
    }

    /// Where commands for a device go.
    pub fn port(&self, device: &Config) -> Option<Port> {
        let handle = self.endpoints.get(&device.endpoint)?;
        Some(Port::new(handle.inbox.clone(), &device.profile.namespace, &device.profile.name))
    }

    /// Waits until a task has failed, which none does by itself. Cancel safe.
    pub async fn failure(&mut self) -> tokio::task::JoinError {
        loop {
            match self.tasks.join_next().await {
                // Listeners nobody needs any more are cancelled.
                Some(Err(e)) if !e.is_cancelled() => return e,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Ends every task and waits for it.
    pub async fn shutdown(&mut self) {
        self.endpoints.clear();
        self.tasks.shutdown().await;
    }
}
