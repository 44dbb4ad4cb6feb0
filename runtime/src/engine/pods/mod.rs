//! Pods: from the Pod objects of the store to running containers, and back to their status.
//!
//! ```text
//!   store: Pod, ConfigMap, Secret ──watch──► reconciler ──► one worker per pod (by uid)
//!                                                             │   decide (plan) ─► set up · launch · terminate · tear down
//!   store: status, events ◄── report ─────────────────────────┘                         │
//!   bus:   edge/pods/<namespace>/<name>                                engine, images, network, volumes
//! ```
//!
//! Containers outlive the runtime: a worker that starts first finds what an earlier runtime has left (records in memory, shims
//! that answer) and touches nothing that is as it should be. Only after a reboot is everything started anew, with the counts
//! that the status has kept. Nothing here needs a network.
//!
//! Where Kubernetes forbids a change of a pod's spec, the containers concerned are recreated (see [`hash`]). A change of an
//! init container alone takes effect in the next sandbox: after a change of the pod's network, or a reboot.

use std::path::PathBuf;
use std::sync::Arc;

use crate::bus::Bus;
use crate::engine::containers::{Containers, EngineError};
use crate::engine::network::{self, Network};
use crate::engine::volumes::PodDirs;
use crate::events::Recorder;
use crate::images::ImageStore;
use crate::store::Store;

mod ask;
pub mod backoff;
mod collect;
pub mod env;
pub mod files;
pub mod hash;
mod launch;
pub mod plan;
pub mod probe;
mod reconcile;
pub mod record;
pub mod registry;
pub mod report;
pub mod shape;
pub mod user;
mod worker;

pub use collect::collect;
pub use reconcile::{run, run_without};
pub use registry::{Registry, Usage};

/// What can be chosen about pods.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// This node's name: pods that name another are left alone.
    pub node_name: String,
    /// Where things live until the next reboot; in memory.
    pub run_dir: PathBuf,
    /// Where things live that last; on disk.
    pub state_dir: PathBuf,
    /// Where logs are written; in memory, unless they are worth the wear of the flash.
    pub log_dir: PathBuf,
    /// Most bytes of one log file, 4 KiB to 1 GiB; a container has up to four (two, and two of the run before).
    pub log_max_bytes: u64,
    /// Most processes and threads of one container, 16 to 4,194,304; no limit when `None`.
    pub pids_limit: Option<u32>,
    /// Whether pods may be privileged, which is to be root on the node.
    pub allow_privileged: bool,
    /// The network of pods.
    pub network: network::Settings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            node_name: "edge".to_owned(),
            run_dir: PathBuf::from("/run/edge-runtime"),
            state_dir: PathBuf::from("/var/lib/edge-runtime"),
            log_dir: PathBuf::from("/run/edge-runtime/logs"),
            log_max_bytes: 512 << 10,
            pids_limit: Some(4096),
            allow_privileged: false,
            network: network::Settings::default(),
        }
    }
}

/// Why the pods of this node cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The containers of an earlier runtime cannot be seen.
    #[error("cannot adopt the containers that are running")]
    Adopt(#[source] EngineError),
    /// The worker of a pod has panicked.
    #[error("the worker of a pod has panicked")]
    Worker(#[source] tokio::task::JoinError),
}

/// What pods are made with.
pub struct Context {
    /// What was chosen.
    pub settings: Settings,
    /// The objects.
    pub store: Store,
    /// Where states are told.
    pub bus: Bus,
    /// The engine.
    pub containers: Containers,
    /// The images.
    pub images: ImageStore,
    /// Where events are recorded.
    pub events: Recorder,
    /// The containers that run, for others to find.
    pub running: Registry,
    network: Network,
    node_memory: u64,
    boot: String,
}

impl Context {
    /// Everything pods need.
    pub fn new(
        settings: Settings,
        store: Store,
        bus: Bus,
        containers: Containers,
        images: ImageStore,
        events: Recorder,
    ) -> Arc<Context> {
        let running = Registry::default();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let known = record::networks(&settings.run_dir.join("pods"), &boot);
        let network = Network::new(settings.network.clone(), known);
        let node_memory = total_memory();
        let events = events.component("pods");
        Arc::new(Context { settings, store, bus, containers, images, events, running, network, node_memory, boot })
    }

    fn dirs(&self, uid: &str) -> PodDirs {
        PodDirs {
            run: self.settings.run_dir.join("pods").join(uid),
            state: self.settings.state_dir.join("pods").join(uid),
        }
    }

    /// The node's address; empty when it has none but loopback.
    fn host_ip(&self) -> String {
        network::host_ip().map(|ip| ip.to_string()).unwrap_or_default()
    }
}

/// The namespace of a pod that does not share the node's network.
fn netns_path(dirs: &PodDirs) -> PathBuf {
    dirs.run.join("netns")
}

/// Milliseconds of a clock that never jumps.
fn monotonic_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// The memory of the node, in bytes (proc(5): `MemTotal` in kibibytes).
fn total_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
}
