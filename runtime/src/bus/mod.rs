//! The event bus: in-process links for the runtime's own parts, and an MQTT broker on a loopback port for pods and local
//! devices ([`listener`]).
//!
//! ```text
//!   Bus::publish ──────────┐                        ┌──► Subscription (bounded inbox) ── a part of the runtime
//!                          ▼                        │
//!                   [ tree of filters, retained ] ──┤
//!                          ▲                        │
//!   client ── connection ──┘                        └──► Session (bounded outbox) ── connection ── client
//! ```
//!
//! Publishing never waits: whoever reads too slowly loses messages, its own ones only, and each loss is counted. What must
//! not be lost goes to the [queue](crate::queue) instead; a client that publishes to an upload topic gets its PUBACK only
//! once its message is on disk there.
//!
//! The packets are rumqttd's (its public `protocol` module, behind [`codec`]); routing and sessions are ours. rumqttd's own
//! router cannot be used for this bus: it never matches a topic that starts with `$` (all of KubeEdge's do), its thread
//! panics on a topic that starts with a non-ASCII letter, it keeps every topic and filter it has ever seen, holds 200
//! messages of any size for a client that does not read, and cannot be stopped (rumqttd 0.20: `protocol::matches`,
//! `router/logs.rs`, `router/iobufs.rs`).

pub mod codec;
mod connect;
mod connection;
pub mod filter;
pub mod listener;
mod retained;
mod session;
mod sessions;
mod settings;
mod tree;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use bytes::Bytes;
use edge_model::topic::Topic;
use rumqttd::protocol::{PublishProperties, QoS};
use tokio::sync::Notify;

pub use filter::matches;
pub use listener::{BusError, Listener};
pub use settings::Settings;

use retained::Retained;
use session::Session;
use sessions::Sessions;
use tree::{SubscriberId, Tree};

/// Messages a part of the runtime may lag behind: enough for the burst of a whole device (125 properties) and its answers.
const INBOX_MESSAGES: usize = 512;
/// The same in payload bytes, so that a flood of large messages cannot fill a 512 MB gateway.
const INBOX_BYTES: usize = 1 << 20;

/// A message as a subscriber sees it.
#[derive(Debug, Clone)]
pub struct Message {
    /// The topic, as text: clients publish to topics that are not ours, too.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
}

/// Whether the broker keeps the message for later subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retain {
    /// Keep it.
    Yes,
    /// Only for those who listen now.
    No,
}

/// A message on its way through the bus.
#[derive(Debug)]
struct Publication {
    topic: String,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    /// What an MQTT 5 publisher attached and an MQTT 5 subscriber is given.
    properties: Option<Box<PublishProperties>>,
    /// When it is of no use any more (MQTT 5.0, section 3.3.2.3.3).
    expires: Option<Instant>,
    /// The client it comes from, for subscriptions that do not want their own messages.
    from: Option<SubscriberId>,
}

impl Publication {
    fn new(topic: String, payload: Bytes, retain: bool) -> Publication {
        // In-process messages are as good as acknowledged: a subscriber may have them with the QoS it asked for.
        Publication { topic, payload, qos: QoS::AtLeastOnce, retain, properties: None, expires: None, from: None }
    }
}

/// What a subscription asks for (MQTT 5.0, section 3.8.3.1).
#[derive(Debug, Clone, Copy)]
struct Options {
    qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    identifier: Option<usize>,
}

/// What the bus has done since it started, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Clients connected now.
    pub connections: usize,
    /// Clients ever connected (an accepted CONNECT).
    pub connections_total: u64,
    /// Connections refused: too many, a bad CONNECT, or none in time.
    pub refused_total: u64,
    /// Messages published, by clients and in the process.
    pub messages_in_total: u64,
    /// Messages handed to in-process subscribers or written to clients.
    pub messages_out_total: u64,
    /// Messages that in-process subscribers were too slow for.
    pub dropped_inbox_total: u64,
    /// Messages that clients were too slow for or that were too large for them.
    pub dropped_client_total: u64,
    /// Retained messages that did not fit.
    pub dropped_retained_total: u64,
    /// Uploads brought to the queue.
    pub uploads_total: u64,
    /// Uploads the queue refused; the client got no acknowledgement.
    pub uploads_refused_total: u64,
    /// Subscriptions now.
    pub subscriptions: usize,
    /// Sessions now, connected or not.
    pub sessions: usize,
    /// Retained messages now.
    pub retained: usize,
}

#[derive(Default)]
struct Counters {
    connections: AtomicUsize,
    connections_total: AtomicU64,
    refused: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    dropped_inbox: AtomicU64,
    dropped_client: AtomicU64,
    dropped_retained: AtomicU64,
    uploads: AtomicU64,
    uploads_refused: AtomicU64,
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

enum Subscriber {
    Local(Arc<Inbox>),
    Client(Arc<Session>),
}

/// Everything the bus remembers, behind one lock that is held for a lookup and some pushes, never across an await.
struct State {
    tree: Tree<Options>,
    subscribers: HashMap<SubscriberId, Subscriber>,
    next_id: SubscriberId,
    retained: Retained,
    sessions: Sessions,
}

struct Shared {
    state: Mutex<State>,
    counters: Counters,
    settings: Settings,
}

/// The last handle is gone: nothing can be published any more, so subscribers are told.
impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for subscriber in state.subscribers.values() {
            if let Subscriber::Local(inbox) = subscriber {
                inbox.lock().closed = true;
                inbox.arrived.notify_one();
            }
        }
    }
}

/// A handle to the bus; cheap to clone.
#[derive(Clone)]
pub struct Bus {
    shared: Arc<Shared>,
}

impl Bus {
    /// A bus with these limits. Nothing listens yet: see [`Listener::bind`].
    pub fn new(settings: &Settings) -> Bus {
        let state = State {
            tree: Tree::default(),
            subscribers: HashMap::new(),
            next_id: 0,
            retained: Retained::new(settings.retained_messages, settings.retained_bytes),
            sessions: Sessions::default(),
        };
        let (state, counters) = (Mutex::new(state), Counters::default());
        Bus { shared: Arc::new(Shared { state, counters, settings: settings.clone() }) }
    }

    /// A bus with the embedded limits and no listener.
    pub fn in_memory() -> Bus {
        Bus::new(&Settings::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Sends to everybody who has subscribed. Never waits: what does not fit is dropped and counted.
    pub fn publish(&self, topic: &Topic, payload: impl Into<Bytes>, retain: Retain) {
        self.route(Publication::new(topic.to_string(), payload.into(), retain == Retain::Yes));
    }

    /// Messages on topics that match an MQTT filter, from now on. An invalid filter matches nothing.
    pub fn subscribe(&self, filter: &str) -> Subscription {
        let inbox = Arc::new(Inbox::default());
        let mut state = self.lock();
        let id = state.new_id();
        state.subscribers.insert(id, Subscriber::Local(Arc::clone(&inbox)));
        if filter::valid_filter(filter) {
            let qos = QoS::ExactlyOnce;
            state.tree.insert(
                filter,
                id,
                Options { qos, no_local: false, retain_as_published: false, identifier: None },
            );
        }
        Subscription { bus: Arc::downgrade(&self.shared), inbox, id, filter: filter.to_owned() }
    }

    /// What the bus has done and holds.
    pub fn stats(&self) -> Stats {
        let c = self.counters();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.lock();
        Stats {
            connections: c.connections.load(Ordering::Relaxed),
            connections_total: get(&c.connections_total),
            refused_total: get(&c.refused),
            messages_in_total: get(&c.messages_in),
            messages_out_total: get(&c.messages_out),
            dropped_inbox_total: get(&c.dropped_inbox),
            dropped_client_total: get(&c.dropped_client),
            dropped_retained_total: get(&c.dropped_retained),
            uploads_total: get(&c.uploads),
            uploads_refused_total: get(&c.uploads_refused),
            subscriptions: state.tree.len(),
            sessions: state.sessions.len(),
            retained: state.retained.len(),
        }
    }

    /// Brings a message to everybody whose filter matches, once each (MQTT 5.0, section 3.3.4: with the highest QoS and all
    /// the identifiers of its matching subscriptions). Returns how many there were.
    fn route(&self, publication: Publication) -> usize {
        count(&self.counters().messages_in, 1);
        let publication = Arc::new(publication);
        let mut state = self.lock();
        if publication.retain && !state.retained.set(&publication) {
            count(&self.counters().dropped_retained, 1);
        }
        let mut found: Vec<(SubscriberId, Options)> = Vec::new();
        state.tree.matching(&publication.topic, &mut |id, options| {
            if !(options.no_local && publication.from == Some(id)) {
                found.push((id, *options));
            }
        });
        found.sort_unstable_by_key(|(id, _)| *id);
        let mut receivers = 0;
        for same in found.chunk_by(|a, b| a.0 == b.0) {
            let Some((id, _)) = same.first() else { continue };
            receivers += 1;
            match state.subscribers.get(id) {
                Some(Subscriber::Local(inbox)) => {
                    let dropped = !inbox.push(&publication);
                    count(&self.counters().dropped_inbox, u64::from(dropped));
                    count(&self.counters().messages_out, u64::from(!dropped));
                }
                Some(Subscriber::Client(session)) => {
                    let dropped = !session.offer(&publication, same, &self.shared.settings);
                    count(&self.counters().dropped_client, u64::from(dropped));
                }
                None => {}
            }
        }
        receivers
    }
}

impl State {
    fn new_id(&mut self) -> SubscriberId {
        self.next_id += 1;
        self.next_id
    }

    fn forget(&mut self, id: SubscriberId, filters: &[String]) {
        for filter in filters {
            self.tree.remove(filter, id);
        }
        self.subscribers.remove(&id);
    }
}

/// What waits for one in-process subscriber.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Arc<Publication>>,
    bytes: usize,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when it is full; the newest message is the one that is dropped, so that what is read stays in order.
    fn push(&self, publication: &Arc<Publication>) -> bool {
        let mut waiting = self.lock();
        let bytes = waiting.bytes + publication.payload.len();
        // One message always fits, however large.
        if waiting.messages.len() >= INBOX_MESSAGES || (bytes > INBOX_BYTES && !waiting.messages.is_empty()) {
            return false;
        }
        waiting.bytes = bytes;
        waiting.messages.push_back(Arc::clone(publication));
        drop(waiting);
        self.arrived.notify_one();
        true
    }
}

/// Messages that match a filter.
pub struct Subscription {
    bus: Weak<Shared>,
    inbox: Arc<Inbox>,
    id: SubscriberId,
    filter: String,
}

impl Subscription {
    /// The next message; `None` once the bus is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            {
                let mut waiting = self.inbox.lock();
                if let Some(publication) = waiting.messages.pop_front() {
                    waiting.bytes -= publication.payload.len();
                    return Some(Message { topic: publication.topic.clone(), payload: publication.payload.clone() });
                }
                if waiting.closed {
                    return None;
                }
            }
            self.inbox.arrived.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(shared) = self.bus.upgrade() {
            Bus { shared }.lock().forget(self.id, std::slice::from_ref(&self.filter));
        }
    }
}

#[cfg(test)]
mod tests;
