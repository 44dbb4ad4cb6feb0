//! The queue to the cloud: what is pushed is on disk before it is acknowledged, leaves in order per stream, and is forgotten
//! only when the far side has acknowledged it.
//!
//! Messages are written in chunks: all that came within a few milliseconds, packed into one value, one commit for all streams
//! together. Memory holds the list of chunks, not of messages, and the chunk that is being read.
//!
//! At least once: an acknowledgement is on disk up to [`Settings::ack_ms`] later, so a crash can bring back what was
//! acknowledged within that time; receivers drop repeats by `(node, stream, seq)`.

mod age;
mod chunk;
mod index;
mod memory;
mod open;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

pub use index::Dropped;
pub use open::{OpenError, Policy, Report, Settings, StreamSettings};

use crate::disk::Health;
use memory::Memory;
use shared::{Pending, Shared};

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

/// One value for each stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerStream<T>([T; 3]);

impl<T> PerStream<T> {
    /// From the values in the order of [`Stream::ALL`].
    pub const fn new(replies: T, events: T, data: T) -> PerStream<T> {
        PerStream([replies, events, data])
    }

    /// The value of a stream.
    pub fn get(&self, stream: Stream) -> &T {
        let [replies, events, data] = &self.0;
        match stream {
            Stream::Replies => replies,
            Stream::Events => events,
            Stream::Data => data,
        }
    }

    /// The value of a stream, to change it.
    pub fn get_mut(&mut self, stream: Stream) -> &mut T {
        let [replies, events, data] = &mut self.0;
        match stream {
            Stream::Replies => replies,
            Stream::Events => events,
            Stream::Data => data,
        }
    }

    /// Every stream with its value.
    pub fn iter(&self) -> impl Iterator<Item = (Stream, &T)> {
        Stream::ALL.into_iter().zip(&self.0)
    }

    /// Every stream with its value, by value.
    fn into_iter(self) -> impl Iterator<Item = (Stream, T)> {
        Stream::ALL.into_iter().zip(self.0)
    }

    /// The same shape with other values.
    pub fn map<U>(&self, mut f: impl FnMut(Stream, &T) -> U) -> PerStream<U> {
        PerStream(Stream::ALL.map(|s| f(s, self.get(s))))
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
    #[serde(with = "whole")]
    pub payload: Vec<u8>,
}

/// Bytes at once instead of one by one, which is what serde does with a vector of them.
mod whole {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(Whole)
    }
}

impl Message {
    /// What it costs in memory and, unpacked, on disk; about.
    fn bytes(&self) -> usize {
        self.subject.len() + self.payload.len() + 16
    }
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
    /// Its policy says so: it is full. Trying again helps once something has left.
    #[error("queue {0} is full")]
    Full(&'static str),
    /// No message may be that large.
    #[error("message of {bytes} bytes is too large for the queue: at most {MAX_MESSAGE}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The disk refused.
    #[error("queue: cannot write")]
    Disk(#[source] io::Error),
    /// The queue has been closed.
    #[error("queue is closed")]
    Closed,
}

/// The largest message, subject and payload together, in bytes.
pub const MAX_MESSAGE: usize = 8 << 20;

/// How one stream stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Messages that wait.
    pub queued: u64,
    /// Bytes of their payloads; the first chunk counts whole until all of it is acknowledged.
    pub payload_bytes: u64,
    /// Bytes they take on disk, packed.
    pub stored_bytes: u64,
    /// Chunks they are in.
    pub chunks: usize,
    /// When the oldest of them happened, UTC milliseconds.
    pub oldest_ms: Option<i64>,
    /// The highest acknowledged sequence number.
    pub acked: u64,
    /// The last sequence number given out.
    pub last: u64,
    /// Messages given up, by reason: every gap in the sequence numbers is counted here.
    pub dropped: Dropped,
    /// Pushes refused because the stream was full; these used no sequence number.
    pub refused: u64,
}

/// How the queue stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Each stream.
    pub streams: PerStream<StreamStats>,
    /// Bytes of the database's file.
    pub disk_bytes: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Whether the last commit failed.
    pub failing: bool,
}

#[derive(Clone)]
enum Backend {
    Memory(Arc<Memory>),
    Disk(Arc<Handle>),
}

/// Ends the writer when the last handle is gone and nobody has closed the queue.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

impl std::ops::Deref for Handle {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Arc<Shared> {
        &self.0
    }
}

/// A handle to the queue; cheap to clone.
#[derive(Clone)]
pub struct Queue {
    backend: Backend,
    changed: watch::Sender<()>,
}

impl Queue {
    /// A queue in memory only, without limits.
    pub fn in_memory() -> Queue {
        Queue { backend: Backend::Memory(Arc::default()), changed: watch::Sender::new(()) }
    }

    /// Appends; returns the sequence number once the message is on disk. A future that is dropped before may or may not
    /// have appended.
    ///
    /// # Errors
    /// Any [`QueueError`]; the message is then not in the queue, except that after [`QueueError::Disk`] it may turn up after
    /// a crash.
    pub async fn push(&self, stream: Stream, message: Message) -> Result<u64, QueueError> {
        let shared = match &self.backend {
            Backend::Disk(shared) => shared,
            Backend::Memory(memory) => {
                let seq = memory.push(stream, message);
                self.changed.send_replace(());
                return Ok(seq);
            }
        };
        let bytes = check_size(&message)?;
        let permit = Arc::clone(&shared.room).acquire_many_owned(bytes).await.map_err(|_| QueueError::Closed)?;
        let (done, wait) = oneshot::channel();
        shared.enqueue(stream, Pending::new(message, Some(done), permit))?;
        match wait.await {
            Ok(Ok(seq)) => Ok(seq),
            Ok(Err(shared)) => Err(QueueError::Disk(io::Error::new(shared.kind(), shared))),
            Err(_) => Err(QueueError::Closed),
        }
    }

    /// Appends without waiting for the disk: the message is written within [`Settings::lazy_ms`], and lost if the power fails
    /// before. For values of which the next one comes soon.
    ///
    /// # Errors
    /// [`QueueError::Full`] also when the disk cannot keep up; the message is then not in the queue, and not counted.
    pub fn try_push(&self, stream: Stream, message: Message) -> Result<(), QueueError> {
        let shared = match &self.backend {
            Backend::Disk(shared) => shared,
            Backend::Memory(memory) => {
                memory.push(stream, message);
                self.changed.send_replace(());
                return Ok(());
            }
        };
        let bytes = check_size(&message)?;
        let permit = Arc::clone(&shared.room).try_acquire_many_owned(bytes);
        let permit = permit.map_err(|_| QueueError::Full(stream.name()))?;
        shared.enqueue(stream, Pending::new(message, None, permit))
    }

    /// Up to `max` messages after sequence number `after`, in order; empty when there are none yet. May return fewer although
    /// there are more. What is acknowledged is never returned.
    ///
    /// # Errors
    /// [`QueueError::Disk`], [`QueueError::Closed`].
    pub async fn read(&self, stream: Stream, after: u64, max: usize) -> Result<Vec<Entry>, QueueError> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.read(stream, after, max)),
            Backend::Disk(shared) => shared.read(stream, after, max).await,
        }
    }

    /// The far side has everything up to and including `seq`: it may be forgotten. Reading resumes after it. Returns at once;
    /// the disk hears of it within [`Settings::ack_ms`].
    ///
    /// # Errors
    /// [`QueueError::Closed`].
    pub async fn ack(&self, stream: Stream, seq: u64) -> Result<(), QueueError> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.ack(stream, seq);
                Ok(())
            }
            Backend::Disk(shared) => shared.ack(stream, seq),
        }
    }

    /// Up to here everything is acknowledged or dropped: where sending resumes.
    pub fn acked(&self, stream: Stream) -> u64 {
        match &self.backend {
            Backend::Memory(memory) => memory.acked(stream),
            Backend::Disk(shared) => shared.lock().streams.get(stream).index.head.floor,
        }
    }

    /// Marks changes (pushes) from now on; await `changed()` on it.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How it stands.
    pub fn stats(&self) -> Stats {
        match &self.backend {
            Backend::Memory(memory) => memory.stats(),
            Backend::Disk(shared) => shared.stats(),
        }
    }

    /// Whether its commits succeed and come back.
    pub fn health(&self) -> Health {
        match &self.backend {
            Backend::Memory(_) => Health::default(),
            Backend::Disk(shared) => shared.health(),
        }
    }

    /// Writes what is still to be written, ends the writer and lets go of the database. Later calls fail. May be called more
    /// than once.
    pub async fn close(&self) {
        let Backend::Disk(shared) = &self.backend else { return };
        shared.begin_close();
        let shared = Arc::clone(&shared.0);
        // The last commit and sled's lock take as long as they take: not on the reactor.
        let joined = tokio::task::spawn_blocking(move || {
            let thread = shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            thread.map(std::thread::JoinHandle::join)
        });
        if matches!(joined.await, Ok(Some(Err(_))) | Err(_)) {
            tracing::error!("the queue's writer has panicked");
        }
    }
}

fn check_size(message: &Message) -> Result<u32, QueueError> {
    let bytes = message.bytes();
    if bytes > MAX_MESSAGE {
        return Err(QueueError::TooLarge { bytes });
    }
    // One message that is larger than the whole room takes all of it.
    Ok(u32::try_from(bytes.min(shared::ROOM)).unwrap_or(u32::MAX))
}
