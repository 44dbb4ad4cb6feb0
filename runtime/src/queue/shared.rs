//! What the handles of the queue and its writer share.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::index::{Index, Meta};
use super::open::{Policy, Settings};
use super::{Entry, Message, PerStream, QueueError, Stats, Stream, StreamStats};
use crate::disk::Health;

/// Bytes of messages that may wait for the disk, all streams together. Pushes beyond that wait their turn.
pub(super) const ROOM: usize = 256 << 10;

/// This many chunks to forget are not left waiting for the next commit.
const FORGET_AT_ONCE: usize = 256;

/// What became of a push.
pub(super) type Outcome = Result<u64, Arc<io::Error>>;

/// A message on its way to the disk.
pub(super) struct Pending {
    pub message: Message,
    /// Nobody waits for a lazy one.
    pub done: Option<oneshot::Sender<Outcome>>,
    _room: OwnedSemaphorePermit,
}

impl Pending {
    pub(super) fn new(message: Message, done: Option<oneshot::Sender<Outcome>>, room: OwnedSemaphorePermit) -> Pending {
        Pending { message, done, _room: room }
    }
}

/// A chunk in memory.
#[derive(Clone)]
pub(super) struct Loaded {
    pub first: u64,
    pub messages: Arc<Vec<Message>>,
}

/// One stream, as the thread and the handles see it.
#[derive(Default)]
pub(super) struct Lane {
    pub index: Index,
    pub pending: Vec<Pending>,
    /// The last chunk, while it is small enough to grow.
    pub tail: Option<Loaded>,
    /// Whether a failed commit may have left a grown last chunk on disk, so that it has to be written again.
    pub rewrite_tail: bool,
    /// The chunk that is being read.
    pub cache: Option<Loaded>,
    /// Chunks that are to be deleted.
    pub gone: Vec<u64>,
    /// Chunks of a failed commit, which may be on disk all the same.
    pub suspect: Vec<u64>,
    refused: u64,
}

impl Lane {
    pub(super) fn new(index: Index, useless: Vec<u64>) -> Lane {
        Lane { index, gone: useless, ..Lane::default() }
    }

    fn loaded(&self, meta: &Meta) -> Option<&Loaded> {
        let whole = |l: &&Loaded| l.first == meta.first && l.messages.len() >= meta.count as usize;
        self.cache.as_ref().filter(whole).or(self.tail.as_ref().filter(whole))
    }
}

/// Somebody wants to read a chunk that is not in memory.
pub(super) struct Fetch {
    pub stream: Stream,
    pub meta: Meta,
    pub done: oneshot::Sender<Option<Arc<io::Error>>>,
}

pub(super) struct State {
    pub streams: PerStream<Lane>,
    pub pending_bytes: usize,
    /// When the next commit is due at the latest.
    pub due: Option<Instant>,
    pub fetches: Vec<Fetch>,
    pub closing: bool,
    pub disk_bytes: u64,
    pub commits: u64,
    /// Why the last commit that added something failed.
    pub failing: Option<String>,
    /// Since when a commit is under way.
    pub busy_since: Option<Instant>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    pub wake: Condvar,
    /// Permits are bytes.
    pub room: Arc<Semaphore>,
    pub thread: Mutex<Option<JoinHandle<()>>>,
    pub settings: Settings,
    /// The `max_bytes` of the settings, cut to what the file system has.
    pub caps: PerStream<u64>,
}

impl Shared {
    pub(super) fn new(settings: Settings, caps: PerStream<u64>, streams: PerStream<Lane>, disk_bytes: u64) -> Shared {
        let state = State {
            streams,
            pending_bytes: 0,
            due: None,
            fetches: Vec::new(),
            closing: false,
            disk_bytes,
            commits: 0,
            failing: None,
            busy_since: None,
        };
        let room = Arc::new(Semaphore::new(ROOM));
        Shared { state: Mutex::new(state), wake: Condvar::new(), room, thread: Mutex::default(), settings, caps }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enqueue(&self, stream: Stream, pending: Pending) -> Result<(), QueueError> {
        let mut state = self.lock();
        if state.closing {
            return Err(QueueError::Closed);
        }
        let lane = state.streams.get_mut(stream);
        let policy = self.settings.streams.get(stream).policy;
        if policy != Policy::DropOldest && lane.index.stored() >= *self.caps.get(stream) {
            if policy == Policy::DropNewest {
                lane.index.head.dropped.newest += 1;
            } else {
                lane.refused += 1;
            }
            return Err(QueueError::Full(stream.name()));
        }
        let linger = if pending.done.is_some() { self.settings.linger_ms } else { self.settings.lazy_ms };
        let bytes = pending.message.bytes();
        lane.pending.push(pending);
        state.pending_bytes += bytes;
        let full = state.pending_bytes >= self.settings.chunk_bytes;
        if state.due_in(Duration::from_millis(linger)) || full {
            self.wake.notify_one();
        }
        Ok(())
    }

    pub(super) fn ack(&self, stream: Stream, seq: u64) -> Result<(), QueueError> {
        let mut state = self.lock();
        if state.closing {
            return Err(QueueError::Closed);
        }
        let lane = state.streams.get_mut(stream);
        let gone = lane.index.ack(seq);
        if lane.cache.as_ref().is_some_and(|c| gone.contains(&c.first)) {
            lane.cache = None;
        }
        if lane.tail.as_ref().is_some_and(|t| gone.contains(&t.first)) {
            lane.tail = None;
        }
        lane.gone.extend(gone);
        let many = lane.gone.len() >= FORGET_AT_ONCE;
        let wait = if many { 0 } else { self.settings.ack_ms };
        if state.due_in(Duration::from_millis(wait)) {
            self.wake.notify_one();
        }
        Ok(())
    }

    pub(super) async fn read(&self, stream: Stream, after: u64, max: usize) -> Result<Vec<Entry>, QueueError> {
        loop {
            let wait = {
                let mut state = self.lock();
                if state.closing {
                    return Err(QueueError::Closed);
                }
                let lane = state.streams.get(stream);
                let Some(meta) = lane.index.find(after) else { return Ok(Vec::new()) };
                let after = after.max(lane.index.head.floor);
                if let Some(loaded) = lane.loaded(&meta) {
                    return Ok(entries(loaded, &meta, after, max));
                }
                let (done, wait) = oneshot::channel();
                state.fetches.push(Fetch { stream, meta, done });
                self.wake.notify_one();
                wait
            };
            match wait.await {
                Ok(None) => {}
                Ok(Some(error)) => return Err(QueueError::Disk(io::Error::new(error.kind(), error))),
                Err(_) => return Err(QueueError::Closed),
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let state = self.lock();
        let streams = state.streams.map(|_, lane| StreamStats {
            queued: lane.index.queued(),
            payload_bytes: lane.index.payload(),
            stored_bytes: lane.index.stored(),
            chunks: lane.index.chunks(),
            oldest_ms: lane.index.first().map(|m| m.time_ms),
            acked: lane.index.head.acked,
            last: lane.index.head.next - 1,
            dropped: lane.index.head.dropped,
            refused: lane.refused,
        });
        Stats { streams, disk_bytes: state.disk_bytes, commits: state.commits, failing: state.failing.is_some() }
    }

    pub(super) fn health(&self) -> Health {
        let ended =
            self.thread.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|t| t.is_finished());
        let state = self.lock();
        Health::of(state.failing.as_ref(), state.busy_since, ended && !state.closing)
    }

    pub(super) fn begin_close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
        // Whoever waits for room hears that there will be none.
        self.room.close();
    }
}

/// The messages of a chunk after `after`.
fn entries(loaded: &Loaded, meta: &Meta, after: u64, max: usize) -> Vec<Entry> {
    let numbered = (meta.first..=meta.last()).zip(loaded.messages.iter());
    numbered.filter(|(seq, _)| *seq > after).take(max).map(|(seq, m)| Entry { seq, message: m.clone() }).collect()
}

impl State {
    /// Makes a commit due within `wait`; whether that is sooner than it was.
    pub(super) fn due_in(&mut self, wait: Duration) -> bool {
        let at = Instant::now() + wait;
        let sooner = self.due.is_none_or(|due| at < due);
        if sooner {
            self.due = Some(at);
        }
        sooner
    }
}
