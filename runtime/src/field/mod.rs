//! The field: devices as objects, polled by the mappers, with their twins.
//!
//! ```text
//!  store: Device, DeviceModel ──► [reconcile] ──► mappers ──► devices
//!                                     │              │ batches
//!  commands (API, cloud) ─────────────┤              ▼
//!  bus: twin/update, twin/get ────────┤         [twin, outbox]
//!                                     ▼          │       │       │
//!                              desired writes   status   bus    queue
//! ```
//! One task holds every device's twin, so there are no locks; what takes time (reads, writes, commits to the queue) runs in
//! tasks it owns. Devices whose protocol has no mapper here belong to a mapper in a pod, which speaks KubeEdge's topics.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::queue::Queue;
use crate::store::Store;

mod access;
mod commands;
mod device;
mod outbox;
mod reconcile;
mod report;
mod topics;
mod unit;

pub use commands::{CommandError, Commands, Inbox, commands};

/// Settings of the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of this node: devices with another `nodeName` are left alone. Empty: all devices are ours.
    pub node_name: String,
    /// How often the status of a device is renewed at most, in milliseconds, 1000 to 60000. It is looked at once a second.
    pub status_interval_ms: u64,
    /// The longest pause before a device that does not answer is probed again, in milliseconds, 100 to 3600000.
    pub probe_max_ms: u64,
    /// The longest pause between attempts to connect to an endpoint, in milliseconds, 100 to 3600000.
    pub connect_max_ms: u64,
    /// The folder whose files virtual devices may replay.
    pub replay_dir: std::path::PathBuf,
    /// Where the node's own bus listens: the broker of MQTT devices that name none.
    pub bus_listen: std::net::SocketAddr,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            node_name: String::new(),
            status_interval_ms: 1_000,
            probe_max_ms: 60_000,
            connect_max_ms: 10_000,
            replay_dir: "/etc/edge-runtime/replay".into(),
            bus_listen: ([127, 0, 0, 1], 1883).into(),
        }
    }
}

/// What the field works with.
#[derive(Clone)]
pub struct Context {
    /// Devices and models come from here; statuses and desired values go there.
    pub store: Store,
    /// Readings, twins and states go on the bus; twin updates come from it.
    pub bus: Bus,
    /// Readings and states for the cloud.
    pub queue: Queue,
    /// Commands, from [`commands`]. It outlives a restart of the unit.
    pub inbox: Inbox,
    /// Settings.
    pub settings: Settings,
}

/// Why the field stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task of an endpoint failed.
    #[error("a mapper failed")]
    Mapper(#[source] tokio::task::JoinError),
    /// A task that reads, writes or queues failed.
    #[error("a field task failed")]
    Task(#[source] tokio::task::JoinError),
    /// The bus is closed.
    #[error("the bus is closed")]
    Bus,
}

/// Runs the field until told to stop. What was read until then is queued and the last statuses are in the store.
///
/// # Errors
/// Any [`Error`]; the unit can be started again.
pub async fn run(context: Context, stop: CancellationToken) -> Result<(), Error> {
    let inbox = context.inbox.clone();
    let mut inbox = inbox.lock().await;
    let mut field = unit::Field::new(context);
    let ended = field.run(&mut inbox, &stop).await;
    field.finish().await;
    ended
}

/// How often outboxes, statuses and retries are looked at, while there are devices.
const TICK: Duration = Duration::from_secs(1);
