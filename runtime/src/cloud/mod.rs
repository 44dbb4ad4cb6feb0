//! The link to the cloud: any MQTT 3.1.1 broker, over TCP or TLS.
//!
//! ```text
//!                    ┌───────────────────────────── pause ◄──────────────────────────┐
//!                    ▼                                                               │ lost, refused, silent
//!   Offline ──► Connecting ──► Online: queue ─► envelope ─► QoS 1 window ─► PUBACK ──┤
//!                                      queue ◄─ answer ◄─ carried out ◄─ command     │
//! ```
//!
//! * Up: each stream in its order, at least once; the queue forgets a message when the broker has acknowledged it and all
//!   before it. After an interruption sending goes on behind the last of these, so at most one window comes twice, and
//!   receivers can tell by `(node, stream, seq)`. What goes first is decided in [`uplink`].
//! * Down: commands, carried out once and answered ([`downlink`]). The broker keeps them while the node is away.
//! * The documents are described in [`edge_model::envelope`], the topics in [`edge_model::topic::CloudTopic`].

mod backoff;
mod downlink;
mod ledger;
mod network;
mod session;
mod settings;
mod transport;
mod uplink;
mod window;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_model::topic::Topic;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use settings::{Address, SettingError, Settings};
pub use transport::{TransportError, check_files};

use crate::api::backend::Properties;
use crate::bus::{Bus, Retain};
use crate::queue::Queue;
use crate::store::Store;
use backoff::Backoff;
use downlink::Downlink;
use network::Changes;
use session::{End, Shared};

/// Whether the cloud can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// There is no cloud in the settings.
    Disabled,
    /// It cannot be reached.
    Offline {
        /// Since when, UTC milliseconds.
        since_ms: i64,
        /// Why.
        reason: String,
        /// When it is tried again, UTC milliseconds.
        next_try_ms: i64,
    },
    /// It is being tried.
    Connecting {
        /// Why it did not work before; empty the first time.
        reason: String,
    },
    /// Messages go up.
    Online {
        /// Since when, UTC milliseconds.
        since_ms: i64,
    },
}

impl LinkState {
    /// The word in status, metrics and topics.
    pub const fn word(&self) -> &'static str {
        match self {
            LinkState::Disabled => "disabled",
            LinkState::Offline { .. } => "offline",
            LinkState::Connecting { .. } => "connecting",
            LinkState::Online { .. } => "online",
        }
    }
}

/// What the link has done since the runtime started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages handed to the broker, repeats included.
    pub sent_total: u64,
    /// Of these, the ones that had been sent before.
    pub resent_total: u64,
    /// Messages the broker has acknowledged.
    pub acked_total: u64,
    /// Messages left out because they were too large.
    pub oversize_total: u64,
    /// Connections that were accepted.
    pub connects_total: u64,
    /// Connections that failed or were lost.
    pub failures_total: u64,
    /// Commands received.
    pub commands_total: u64,
    /// Of these, the ones that had been carried out before.
    pub repeated_commands_total: u64,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    resent: AtomicU64,
    acked: AtomicU64,
    oversize: AtomicU64,
    connects: AtomicU64,
    failures: AtomicU64,
    commands: AtomicU64,
    repeated_commands: AtomicU64,
    left_out: Mutex<Option<String>>,
}

impl Counters {
    fn sent(&self, again: bool) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.resent.fetch_add(u64::from(again), Ordering::Relaxed);
    }

    fn acked(&self) {
        self.acked.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was left out; `which` names it in a sentence.
    fn oversize(&self, which: String) {
        self.oversize.fetch_add(1, Ordering::Relaxed);
        *self.left_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(which);
    }

    fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn command(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
    }

    fn repeated_command(&self) {
        self.repeated_commands.fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            sent_total: get(&self.sent),
            resent_total: get(&self.resent),
            acked_total: get(&self.acked),
            oversize_total: get(&self.oversize),
            connects_total: get(&self.connects),
            failures_total: get(&self.failures),
            commands_total: get(&self.commands),
            repeated_commands_total: get(&self.repeated_commands),
        }
    }
}

/// The link as others see it; cheap to clone, and there before the unit runs.
#[derive(Clone)]
pub struct Link {
    state: watch::Sender<LinkState>,
    counters: Arc<Counters>,
}

impl Default for Link {
    fn default() -> Link {
        Link { state: watch::Sender::new(LinkState::Disabled), counters: Arc::default() }
    }
}

impl Link {
    /// Its state, now and as it changes.
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Its state now.
    pub fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }

    /// What it has done.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// The last message that was left out because it was too large, in a sentence.
    pub fn left_out(&self) -> Option<String> {
        self.counters.left_out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tells everybody about the link: who watches it, and who listens on the bus.
struct Links {
    link: Link,
    bus: Bus,
    /// What the bus was told last: it is not told the same at each try.
    told: String,
}

impl Links {
    fn set(&mut self, state: LinkState) {
        let time = |ms| edge_model::time::rfc3339_millis(ms);
        let document = match &state {
            LinkState::Online { since_ms } => Some(json!({ "state": state.word(), "since": time(*since_ms) })),
            LinkState::Offline { since_ms, reason, .. } => {
                Some(json!({ "state": state.word(), "since": time(*since_ms), "reason": reason }))
            }
            LinkState::Disabled => Some(json!({ "state": state.word() })),
            LinkState::Connecting { .. } => None,
        };
        if let Some(text) = document.map(|d| d.to_string())
            && text != self.told
        {
            self.bus.publish(&Topic::Link, text.clone(), Retain::Yes);
            self.told = text;
        }
        self.link.state.send_replace(state);
    }

    fn online(&mut self) {
        tracing::info!("cloud is online");
        self.set(LinkState::Online { since_ms: crate::clock::now_ms() });
    }
}

/// What the link works with.
pub struct Parts {
    /// Where messages for the cloud wait.
    pub queue: Queue,
    /// Where the state of the link is told.
    pub bus: Bus,
    /// Where commands change objects.
    pub store: Store,
    /// Where commands write to devices; without it such commands are answered as unavailable.
    pub properties: Option<Arc<dyn Properties>>,
    /// The file that remembers commands, such as `<state-dir>/cloud/commands.jsonl`.
    pub ledger: PathBuf,
}

/// Why the link cannot work at all. That the cloud cannot be reached is no error but a [`LinkState`].
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The memory of commands cannot be opened.
    #[error("memory of commands: cannot open {path}")]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The link as a unit of the supervisor: connects, sends, receives, and tries again for ever.
///
/// # Errors
/// Any [`CloudError`].
pub async fn run(
    settings: Settings,
    parts: Parts,
    link: &Link,
    ready: impl FnOnce(),
    stop: CancellationToken,
) -> Result<(), CloudError> {
    let mut links = Links { link: link.clone(), bus: parts.bus, told: String::new() };
    let Some(address) = settings.check()? else {
        links.set(LinkState::Disabled);
        ready();
        stop.cancelled().await;
        return Ok(());
    };
    let counters = Arc::clone(&link.counters);
    let path = parts.ledger.clone();
    let downlink =
        Downlink::open(parts.store, parts.queue.clone(), parts.properties, parts.ledger, Arc::clone(&counters))
            .map_err(|source| CloudError::Ledger { path, source })?;
    ready();
    let mut backoff = Backoff::new(settings.back_off_first, settings.back_off_max);
    let base = settings.base();
    let downlink = Arc::new(downlink);
    let mut shared =
        Shared { settings, base, queue: parts.queue, downlink, counters, links, sent: [0; 3], working: JoinSet::new() };
    let changes = Changes::listen();
    let mut down_since: Option<i64> = None;
    // An outage is young again when the machine's network has changed.
    let mut young_since = Instant::now();
    let mut last_reason = String::new();
    let mut discard = false;
    while !stop.is_cancelled() {
        shared.links.set(LinkState::Connecting { reason: last_reason.clone() });
        let began = Instant::now();
        let end = connect(&mut shared, &address, discard, &stop).await;
        if discard && end.online.is_some() {
            // Only now is it certain that they are gone.
            let _ = shared.downlink.discarded(transport::COMMAND_MAX).await;
        }
        discard = end.poisoned || (discard && end.online.is_none());
        if stop.is_cancelled() {
            break;
        }
        shared.counters.failed();
        if let Some(online) = end.online {
            backoff.lasted(online);
            down_since = None;
            last_reason.clear();
        }
        let since_ms = *down_since.get_or_insert_with(|| {
            young_since = Instant::now();
            crate::clock::now_ms()
        });
        let pause = backoff.next(young_since.elapsed(), end.local, getrandom::u32().unwrap_or(u32::MAX / 2));
        if end.reason == last_reason {
            tracing::debug!(reason = end.reason, "cloud is still offline");
        } else {
            tracing::warn!(reason = end.reason, "cloud is offline");
            last_reason.clone_from(&end.reason);
        }
        let next_try_ms = crate::clock::now_ms().saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        shared.links.set(LinkState::Offline { since_ms, reason: end.reason, next_try_ms });
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
            () = changed(&changes, began) => young_since = Instant::now(),
        }
    }
    let (since_ms, reason) = (crate::clock::now_ms(), "the runtime stops".to_owned());
    shared.links.set(LinkState::Offline { since_ms, reason, next_try_ms: since_ms });
    Ok(())
}

/// Waits for news of the network, and until trying again cannot become a habit: containers come and go, too.
async fn changed(changes: &Changes, began: Instant) {
    changes.next().await;
    tokio::time::sleep(AT_MOST_EVERY.saturating_sub(began.elapsed())).await;
}

/// How often news of the network may cut a pause short.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

async fn connect(shared: &mut Shared, address: &Address, discard: bool, stop: &CancellationToken) -> End {
    let (settings, address) = (shared.settings.clone(), address.clone());
    let failed = |reason: String| End { reason, local: false, online: None, poisoned: false };
    match tokio::task::spawn_blocking(move || transport::options(&settings, &address)).await {
        Ok(Ok(options)) => Box::pin(session::run(shared, options, discard, stop)).await,
        Ok(Err(error)) => failed(crate::supervisor::chain(&error)),
        Err(error) => failed(error.to_string()),
    }
}

/// The longest a stop takes: the last acknowledgements, and the goodbye.
pub const STOP_WITHIN: Duration = Duration::from_secs(2);
