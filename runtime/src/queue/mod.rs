//! The queue to the cloud: what is pushed is on disk before it is acknowledged, leaves in order per stream, and is forgotten
//! only when the far side has acknowledged it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A stream of messages: order is kept inside one, and earlier variants go before later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// Answers to what the cloud asked.
    Replies,
    /// State changes and events.
    Events,
    /// Readings and what applications upload.
    Data,
}

impl Stream {
    /// Every stream, most urgent first.
    pub const ALL: [Stream; 3] = [Stream::Replies, Stream::Events, Stream::Data];

    /// The name in metrics, status and topics: `replies`, `events`, `data`.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Replies => "replies",
            Stream::Events => "events",
            Stream::Data => "data",
        }
    }
}

/// A message on its way to the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// When it happened, UTC milliseconds.
    pub time_ms: i64,
    /// What it is about, relative to the node's topic in the cloud, such as `devices/default/pump/data`.
    pub subject: String,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A message in the queue. `(node, stream, seq)` is its stable identity: receivers can drop repeats by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts from 1 in each stream, never reused, without gaps but for what was dropped (and counted).
    pub seq: u64,
    /// The message.
    pub message: Message,
}

/// Why the queue refused.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Its policy says so: it is full.
    #[error("queue {0} is full")]
    Full(&'static str),
    /// The disk refused.
    #[error("queue: cannot write")]
    Disk(#[source] std::io::Error),
    /// The queue has been closed.
    #[error("queue is closed")]
    Closed,
}

#[derive(Default)]
struct State {
    streams: [VecDeque<Entry>; 3],
    next: [u64; 3],
}

/// A handle to the queue; cheap to clone.
#[derive(Clone)]
pub struct Queue {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl Queue {
    /// A queue in memory only.
    pub fn in_memory() -> Queue {
        Queue { state: Arc::default(), changed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends; returns the sequence number once the message is on disk.
    ///
    /// # Errors
    /// Any [`QueueError`]; the message is then not in the queue.
    pub async fn push(&self, stream: Stream, message: Message) -> Result<u64, QueueError> {
        let mut state = self.lock();
        let s = stream as usize;
        state.next[s] += 1;
        let seq = state.next[s];
        state.streams[s].push_back(Entry { seq, message });
        drop(state);
        self.changed.send_replace(());
        Ok(seq)
    }

    /// Up to `max` messages after sequence number `after`, in order; empty when there are none yet.
    ///
    /// # Errors
    /// [`QueueError::Disk`].
    pub async fn read(&self, stream: Stream, after: u64, max: usize) -> Result<Vec<Entry>, QueueError> {
        let state = self.lock();
        Ok(state.streams[stream as usize].iter().filter(|e| e.seq > after).take(max).cloned().collect())
    }

    /// The far side has everything up to and including `seq`: it may be forgotten. Reading resumes after it.
    ///
    /// # Errors
    /// [`QueueError::Disk`].
    pub async fn ack(&self, stream: Stream, seq: u64) -> Result<(), QueueError> {
        self.lock().streams[stream as usize].retain(|e| e.seq > seq);
        Ok(())
    }

    /// The last acknowledged sequence number: where sending resumes.
    pub fn acked(&self, stream: Stream) -> u64 {
        let state = self.lock();
        let s = stream as usize;
        state.streams[s].front().map_or(state.next[s], |e| e.seq - 1)
    }

    /// Marks changes (pushes) from now on; await `changed()` on it.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
