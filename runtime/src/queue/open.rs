//! Opening the queue: settings, limits, and the list of chunks.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::age::Clock;
use super::index::{Head, Index, Meta};
use super::shared::{Lane, Shared};
use super::writer::Writer;
use super::{Backend, Handle, PerStream, Queue, Stream};
use crate::clock::now_ms;
use crate::disk::{self, Ceiling, Database, DiskError, Opened};

/// What happens when a stream is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The oldest messages go; the push succeeds.
    DropOldest,
    /// The new message goes: the push fails, and the message is counted as dropped.
    DropNewest,
    /// The push fails, and its producer keeps the message and tries again.
    Refuse,
}

/// Limits of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// Milliseconds after which a message is dropped undelivered; 0 for never.
    pub max_age_ms: u64,
    /// Bytes on disk, packed; at least one chunk always fits.
    pub max_bytes: u64,
    /// What happens at `max_bytes`.
    pub policy: Policy,
}

/// How the queue uses disk and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The database.
    pub disk: disk::Settings,
    /// The limits of each stream.
    pub streams: PerStream<StreamSettings>,
    /// Milliseconds a push waits for others to share its commit with; 0 to 1000. Every commit costs the flash about the same,
    /// however little is in it.
    pub linger_ms: u64,
    /// Milliseconds that a message nobody waits for may stay in memory.
    pub lazy_ms: u64,
    /// Milliseconds after which an acknowledgement is written even if nothing else is.
    pub ack_ms: u64,
    /// Bytes of messages, unpacked, at which a chunk is full; 4 KiB to 1 MiB. One or two chunks per stream are in memory.
    pub chunk_bytes: usize,
    /// Bytes, packed, up to which the last chunk is written again with more messages in it instead of starting a new one.
    pub grow_bytes: u32,
    /// How hard chunks are packed, 0 (not at all) to 9 (deflate's levels).
    pub pack_level: u32,
    /// Of the file system, how many percent all streams together may take; the `max_bytes` shrink to fit.
    pub disk_percent: u8,
}

impl Default for Settings {
    fn default() -> Settings {
        const DAY: u64 = 24 * 3600 * 1000;
        let stream = |days: u64, mib: u64| StreamSettings {
            max_age_ms: days * DAY,
            max_bytes: mib << 20,
            policy: Policy::DropOldest,
        };
        Settings {
            disk: disk::Settings::default(),
            streams: PerStream::new(stream(1, 4), stream(30, 16), stream(30, 256)),
            linger_ms: 30,
            lazy_ms: 2000,
            ack_ms: 1000,
            chunk_bytes: 64 << 10,
            grow_bytes: 2 << 10,
            pack_level: 6,
            disk_percent: 25,
        }
    }
}

/// Why the queue did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The thread that writes did not start.
    #[error("queue: cannot start its thread")]
    Thread(#[source] io::Error),
}

/// What was found at open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The database: new, there, or set aside (with every message in it).
    pub opened: Opened,
    /// Messages that wait in each stream.
    pub queued: PerStream<u64>,
    /// Whether sequence numbers were skipped because the database has lost some: the numbers before were in use.
    pub skipped: bool,
}

/// What is written with every commit, besides chunks.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Heads {
    /// The queue's own clock.
    pub clock_ms: i64,
    /// The wall clock at the same moment.
    pub wall_ms: i64,
    /// Each stream.
    pub streams: PerStream<Head>,
}

/// The first byte of the heads and of every entry of the list of chunks.
const LAYOUT: u8 = 1;

pub(super) const HEADS: &[u8] = b"h";

/// A layout byte and postcard.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising numbers into a growing vector cannot fail.
    postcard::to_extend(value, vec![LAYOUT]).unwrap_or_default()
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match bytes {
        [LAYOUT, rest @ ..] => postcard::from_bytes(rest).ok(),
        _ => None,
    }
}

/// `c` for a chunk or `m` for its entry in the list, the stream, the first sequence number.
pub(super) fn key(what: u8, stream: Stream, first: u64) -> Vec<u8> {
    let mut key = vec![what, stream as u8];
    key.extend_from_slice(&first.to_be_bytes());
    key
}

impl Queue {
    /// Opens the queue in `dir`. Blocks for as long as the disk takes; not for the reactor.
    ///
    /// # Errors
    /// [`OpenError`]. A damaged database is no error: it is set aside and the report says so.
    pub fn open(dir: &Path, settings: Settings) -> Result<(Queue, Report), OpenError> {
        let (mut database, opened) = Database::open(dir, settings.disk.clone())?;
        let heads: Heads = database.get(HEADS)?.and_then(|bytes| decode(&bytes)).unwrap_or_default();
        let ceiling = Ceiling::open(dir.join("sequence"));
        let mut lanes = load(&mut database, &heads)?;
        // The ceiling is at most a step and a commit ahead of what is on disk, and no commit has as many messages as a step has
        // numbers: if it is further, what used those numbers is gone.
        let highest = lanes.iter().map(|(_, l)| l.index.head.next).max().unwrap_or(1);
        let lost = highest.saturating_add(2 * Ceiling::STEP) < ceiling.get();
        let skipped = lost || matches!(opened, Opened::SetAside { .. });
        if skipped {
            for stream in Stream::ALL {
                let head = &mut lanes.get_mut(stream).index.head;
                head.next = head.next.max(ceiling.get());
            }
        }
        let report = Report { opened, queued: lanes.map(|_, lane| lane.index.queued()), skipped };
        let caps = caps(dir, &settings, database.file_bytes());
        let clock = Clock::resume(heads.clock_ms, heads.wall_ms, now_ms());
        let changed = watch::Sender::new(());
        let shared = Arc::new(Shared::new(settings, caps, lanes, database.file_bytes()));
        Writer::start(&shared, database, ceiling, clock, changed.clone()).map_err(OpenError::Thread)?;
        Ok((Queue { backend: Backend::Disk(Arc::new(Handle(shared))), changed }, report))
    }
}

fn load(database: &mut Database, heads: &Heads) -> Result<PerStream<Lane>, DiskError> {
    let mut lanes = PerStream::<Lane>::default();
    for stream in Stream::ALL {
        let (mut found, mut useless) = (Vec::new(), Vec::new());
        database.scan(&[b'm', stream as u8], |key, value| {
            let first = key.last_chunk::<8>().map_or(0, |n| u64::from_be_bytes(*n));
            match decode::<Meta>(&value) {
                Some(meta) if meta.first == first => found.push(meta),
                _ => useless.push(first),
            }
            true
        })?;
        let (index, more) = Index::load(*heads.streams.get(stream), found);
        useless.extend(more);
        *lanes.get_mut(stream) = Lane::new(index, useless);
    }
    Ok(lanes)
}

/// The byte cap of each stream, cut so that all of them stay well below what the file system has: sled takes up to about
/// twice what is in it, and cannot tidy up on a full disk.
fn caps(dir: &Path, settings: &Settings, file_bytes: u64) -> PerStream<u64> {
    let wanted: u64 = settings.streams.iter().map(|(_, s)| s.max_bytes).fold(0, u64::saturating_add);
    let Ok(space) = disk::space_of(dir) else { return settings.streams.map(|_, s| s.max_bytes) };
    let share = space.total / 100 * u64::from(settings.disk_percent);
    let budget = share.min((space.free + file_bytes) / 2);
    if wanted <= budget {
        return settings.streams.map(|_, s| s.max_bytes);
    }
    tracing::info!(wanted, budget, "the queue's limits are cut to what the file system allows");
    let cut = |bytes: u64| u64::try_from(u128::from(bytes) * u128::from(budget) / u128::from(wanted)).unwrap_or(bytes);
    settings.streams.map(|_, s| cut(s.max_bytes))
}
