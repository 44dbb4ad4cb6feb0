//! The thread that writes the queue.
//!
//! ```text
//!  push ─► pending ──(linger, or a chunk is full)──► packed ──► one commit ──► in the list; futures resolve
//!                                                                  └─ failed ─► futures get the error; the numbers are
//!                                                                               used again
//!  ack ──► the list forgets whole chunks at once; the disk hears of it with the next commit
//!  read ─► from the chunk in memory, or the thread fetches the next one
//! ```
//! The order inside a commit is chunk, its entry in the list, heads, deletions: whatever prefix of it a crash leaves, the next
//! open finds a queue in which nothing acknowledged to a producer is missing.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::age::Clock;
use super::index::{Meta, Reason};
use super::open::{HEADS, Heads, Policy, encode, key};
use super::shared::{Fetch, Lane, Loaded, Pending, Shared, State};
use super::{Message, PerStream, Stream, chunk};
use crate::clock::now_ms;
use crate::disk::{self, Ceiling, Change, Database, DiskError, Purpose};

/// A file at least this large is compacted when little is left in it.
const COMPACT_FROM: u64 = 8 << 20;
/// Compact when the file is this many times what waits in it: then copying costs little.
const COMPACT_RATIO: u64 = 8;
/// How long to wait after a compaction, or one that failed.
const COMPACT_PAUSE: Duration = Duration::from_secs(60);

/// How soon deletions are tried again after an error.
const RETRY: Duration = Duration::from_secs(2);

/// Expired messages are looked for no more often than this, or a sixteenth of the age limit, so that they go in few commits.
const EXPIRE_PAUSE_MS: u64 = 30_000;

/// What the thread woke up for.
enum Turn {
    Fetch(Vec<Fetch>),
    Commit,
    End,
}

/// A chunk that is about to be written.
struct New {
    meta: Meta,
    messages: Arc<Vec<Message>>,
    value: Vec<u8>,
}

/// What of one stream goes into a commit.
#[derive(Default)]
struct Part {
    pending: Vec<Pending>,
    chunks: Vec<New>,
    gone: Vec<u64>,
    suspect: Vec<u64>,
    /// The number of the first pending message.
    from: u64,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    database: Database,
    ceiling: Ceiling,
    clock: Clock,
    changed: watch::Sender<()>,
    compact_after: Instant,
    expired_at: Option<Instant>,
}

impl Writer {
    pub(super) fn start(
        shared: &Arc<Shared>,
        database: Database,
        ceiling: Ceiling,
        clock: Clock,
        changed: watch::Sender<()>,
    ) -> io::Result<()> {
        let compact_after = Instant::now();
        let shared_too = Arc::clone(shared);
        let writer = Writer { shared: shared_too, database, ceiling, clock, changed, compact_after, expired_at: None };
        let thread = std::thread::Builder::new().name("queue".to_owned()).spawn(move || writer.run())?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    fn run(mut self) {
        loop {
            match self.wait() {
                Turn::Fetch(fetches) => fetches.into_iter().for_each(|f| self.fetch(f)),
                Turn::Commit => self.commit(),
                Turn::End => break,
            }
        }
        let next = self.shared.lock().streams.iter().map(|(_, l)| l.index.head.next).max().unwrap_or(1);
        if let Err(error) = self.ceiling.set(next) {
            tracing::debug!(%error, "the queue's numbers keep their ceiling");
        }
        self.database.close();
        // Whoever still waits hears that nobody answers any more.
        let mut state = self.shared.lock();
        state.fetches.clear();
        for stream in Stream::ALL {
            state.streams.get_mut(stream).pending.clear();
        }
    }

    /// Sleeps until there is something to do; without end when nothing is pending, acknowledged or ageing.
    fn wait(&self) -> Turn {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if !state.fetches.is_empty() && !state.closing {
                return Turn::Fetch(std::mem::take(&mut state.fetches));
            }
            let now = Instant::now();
            let full = state.pending_bytes >= shared.settings.chunk_bytes;
            if full || state.due.is_some_and(|due| state.closing || due <= now) {
                return Turn::Commit;
            }
            if state.closing {
                return Turn::End;
            }
            let expiry = self.expiry(&state, now);
            if expiry.is_some_and(|at| at <= now) {
                return Turn::Commit;
            }
            state = match state.due.into_iter().chain(expiry).min() {
                None => shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// When the first message gets too old.
    fn expiry(&self, state: &State, now: Instant) -> Option<Instant> {
        let now_ms = self.clock.now_ms();
        let each = state.streams.iter().filter_map(|(stream, lane)| {
            let limit = self.shared.settings.streams.get(stream).max_age_ms;
            let age = i64::try_from(limit).unwrap_or(i64::MAX);
            let first = lane.index.first().filter(|_| age > 0)?;
            let left = first.stamp_ms.saturating_add(age).saturating_sub(now_ms).max(0);
            Some((left.unsigned_abs(), Duration::from_millis(EXPIRE_PAUSE_MS.min(limit / 16))))
        });
        let (left, pause) = each.min()?;
        let at = now + Duration::from_millis(left);
        Some(self.expired_at.map_or(at, |last| at.max(last + pause)))
    }

    fn fetch(&mut self, fetch: Fetch) {
        let Fetch { stream, meta, done } = fetch;
        let value = match self.database.get(&key(b'c', stream, meta.first)) {
            Ok(value) => value,
            Err(error) => {
                // A reader that has gone away does not want to know.
                let _ = done.send(Some(Arc::new(error.into())));
                return;
            }
        };
        let messages = value.and_then(|v| chunk::decode(&v, meta.count as usize).ok());
        let mut state = self.shared.lock();
        let lane = state.streams.get_mut(stream);
        match messages {
            Some(messages) => lane.cache = Some(Loaded { first: meta.first, messages: Arc::new(messages) }),
            // It may have been acknowledged in the meantime; only what is still in the list is missing.
            None if lane.index.find(meta.first - 1).is_some_and(|m| m.first == meta.first) => {
                tracing::error!(stream = stream.name(), first = meta.first, count = meta.count, "chunk cannot be read");
                lane.index.drop_damaged(meta.first);
                lane.gone.push(meta.first);
            }
            None => {}
        }
        drop(state);
        let _ = done.send(None);
    }

    fn commit(&mut self) {
        let mut parts = self.take();
        for stream in Stream::ALL {
            self.pack(stream, parts.get_mut(stream));
        }
        let heads = self.make_room(&mut parts);
        match self.write(&parts, &heads) {
            Ok(purpose) => self.succeed(parts, purpose),
            Err(error) => self.fail(parts, error),
        }
    }

    fn take(&mut self) -> PerStream<Part> {
        let mut state = self.shared.lock();
        state.due = None;
        state.busy_since = Some(Instant::now());
        state.pending_bytes = 0;
        let mut parts = PerStream::<Part>::default();
        for stream in Stream::ALL {
            let (lane, part) = (state.streams.get_mut(stream), parts.get_mut(stream));
            part.pending = std::mem::take(&mut lane.pending);
            part.suspect = std::mem::take(&mut lane.suspect);
            part.from = lane.index.head.next;
        }
        parts
    }

    /// Packs what is pending into chunks; the first may be the last one on disk, grown.
    fn pack(&self, stream: Stream, part: &mut Part) {
        let tail = {
            let state = self.shared.lock();
            let lane = state.streams.get(stream);
            let small = lane.index.last().is_some_and(|m| m.stored < self.shared.settings.grow_bytes);
            lane.tail.clone().filter(|_| small || lane.rewrite_tail)
        };
        if part.pending.is_empty() {
            return;
        }
        let mut first = tail.as_ref().map_or(part.from, |t| t.first);
        let mut messages: Vec<Message> = tail.map(|t| t.messages.to_vec()).unwrap_or_default();
        let mut bytes: usize = messages.iter().map(Message::bytes).sum();
        let incoming: Vec<Message> = part.pending.iter().map(|p| p.message.clone()).collect();
        for message in incoming {
            if bytes > 0 && bytes + message.bytes() > self.shared.settings.chunk_bytes {
                let full = self.seal(first, std::mem::take(&mut messages));
                first = full.meta.last() + 1;
                part.chunks.push(full);
                bytes = 0;
            }
            bytes += message.bytes();
            messages.push(message);
        }
        part.chunks.push(self.seal(first, messages));
    }

    fn seal(&self, first: u64, messages: Vec<Message>) -> New {
        let value = chunk::encode(&messages, self.shared.settings.pack_level);
        let payload: usize = messages.iter().map(|m| m.payload.len()).sum();
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let meta = Meta {
            first,
            count: small(messages.len()),
            stored: small(value.len()),
            payload: small(payload),
            stamp_ms: self.clock.now_ms(),
            time_ms: messages.first().map_or(0, |m| m.time_ms),
        };
        New { meta, messages: Arc::new(messages), value }
    }

    /// Drops what is too old or too much, takes what is to be deleted, and returns the heads as they will be.
    fn make_room(&mut self, parts: &mut PerStream<Part>) -> Heads {
        let now = self.clock.now_ms();
        let mut expired = false;
        let mut state = self.shared.lock();
        let mut heads = Heads { clock_ms: now, wall_ms: now_ms(), ..Heads::default() };
        for stream in Stream::ALL {
            let (lane, part) = (state.streams.get_mut(stream), parts.get_mut(stream));
            let limits = self.shared.settings.streams.get(stream);
            let age = i64::try_from(limits.max_age_ms).unwrap_or(i64::MAX);
            let growing = part.chunks.first().map(|c| c.meta.first);
            let mut incoming: u64 = part.chunks.iter().map(|c| u64::from(c.meta.stored)).sum();
            if growing.is_some() && lane.index.last().map(|m| m.first) == growing {
                incoming = incoming.saturating_sub(lane.index.last().map_or(0, |m| u64::from(m.stored)));
            }
            while let Some(first) = lane.index.first().copied()
                && Some(first.first) != growing
            {
                let too_old = age > 0 && now.saturating_sub(first.stamp_ms) >= age;
                let too_much = limits.policy == Policy::DropOldest
                    && lane.index.stored() + incoming > *self.shared.caps.get(stream);
                let reason = match (too_old, too_much) {
                    (true, _) => Reason::Age,
                    (false, true) => Reason::Oldest,
                    (false, false) => break,
                };
                expired |= too_old;
                lane.index.drop_first(reason);
                lane.forget(first.first);
                lane.gone.push(first.first);
            }
            part.gone = std::mem::take(&mut lane.gone);
            let head = heads.streams.get_mut(stream);
            *head = lane.index.head;
            if let Some(last) = part.chunks.last() {
                head.next = head.next.max(last.meta.last() + 1);
            }
        }
        drop(state);
        if expired {
            self.expired_at = Some(Instant::now());
        }
        heads
    }

    fn write(&mut self, parts: &PerStream<Part>, heads: &Heads) -> Result<Purpose, DiskError> {
        let highest = heads.streams.iter().map(|(_, h)| h.next).max().unwrap_or(1);
        let covered = self.ceiling.cover(highest);
        covered.map_err(|source| DiskError::Io {
            what: "write",
            path: self.database.dir().join("sequence"),
            source,
        })?;
        let mut changes = Vec::new();
        // With nothing to add and nothing to delete, this finds out whether adding works again.
        let trial = parts.iter().all(|(_, p)| p.gone.is_empty()) && self.shared.lock().failing.is_some();
        let mut purpose = if trial { Purpose::Add } else { Purpose::Tidy };
        for (stream, part) in parts.iter() {
            for New { meta, value, .. } in &part.chunks {
                purpose = Purpose::Add;
                changes.push(Change::Put(key(b'c', stream, meta.first), value.clone()));
                changes.push(Change::Put(key(b'm', stream, meta.first), encode(meta)));
            }
        }
        changes.push(Change::Put(HEADS.to_vec(), encode(heads)));
        if let Some((keys, bytes)) = self.worth_compacting() {
            self.compact_after = Instant::now() + COMPACT_PAUSE;
            match self.database.commit_only(&keys, bytes, &changes) {
                Ok(()) => return Ok(purpose),
                Err(error) => tracing::warn!(%error, "the queue could not be compacted"),
            }
        }
        let mut before = Vec::new();
        for (stream, part) in parts.iter() {
            for first in &part.suspect {
                before.push(Change::Delete(key(b'm', stream, *first)));
                before.push(Change::Delete(key(b'c', stream, *first)));
            }
        }
        changes.splice(0..0, before);
        for (stream, part) in parts.iter() {
            let written = |first: &u64| part.chunks.iter().any(|c| c.meta.first == *first);
            for first in part.gone.iter().filter(|f| !written(f)) {
                changes.push(Change::Delete(key(b'c', stream, *first)));
                changes.push(Change::Delete(key(b'm', stream, *first)));
            }
        }
        self.database.commit(purpose, &changes).map(|()| purpose)
    }

    fn succeed(&mut self, parts: PerStream<Part>, purpose: Purpose) {
        let mut waiting = Vec::new();
        let mut state = self.shared.lock();
        state.commits += 1;
        state.busy_since = None;
        if purpose == Purpose::Add {
            state.failing = None;
        } else if state.failing.is_some() {
            state.due_in(disk::TRY_AGAIN);
        }
        state.disk_bytes = self.database.file_bytes();
        let mut news = false;
        for (stream, part) in parts.into_iter() {
            let lane = state.streams.get_mut(stream);
            let idle = lane.index.first().is_none();
            for (i, New { meta, messages, .. }) in part.chunks.into_iter().enumerate() {
                news = true;
                // What was acknowledged while this was written may have been this chunk before it grew.
                lane.gone.retain(|first| *first != meta.first);
                lane.index.commit(meta);
                let loaded = Loaded { first: meta.first, messages };
                if idle && i == 0 {
                    // Whoever reads is waiting for just this one.
                    lane.cache = Some(loaded.clone());
                }
                lane.tail = (meta.stored < self.shared.settings.grow_bytes).then_some(loaded);
                lane.rewrite_tail = false;
            }
            let numbered = (part.from..).zip(part.pending);
            waiting.extend(numbered.filter_map(|(seq, p)| Some((p.done?, seq))));
        }
        drop(state);
        if news {
            self.changed.send_replace(());
        }
        for (done, seq) in waiting {
            // A producer that has gone away does not want to know.
            let _ = done.send(Ok(seq));
        }
    }

    fn fail(&mut self, parts: PerStream<Part>, error: DiskError) {
        let error = Arc::new(io::Error::from(error));
        let mut waiting = Vec::new();
        let mut state = self.shared.lock();
        if state.failing.is_none() {
            tracing::error!(%error, "the queue cannot write");
        }
        state.failing = Some(crate::supervisor::chain(&*error));
        state.busy_since = None;
        for (stream, part) in parts.into_iter() {
            let lane = state.streams.get_mut(stream);
            lane.gone.extend(part.gone);
            lane.suspect = part.suspect;
            for New { meta, .. } in &part.chunks {
                if lane.tail.as_ref().is_some_and(|t| t.first == meta.first) {
                    lane.rewrite_tail = true;
                } else {
                    lane.suspect.push(meta.first);
                }
            }
            for Pending { done, .. } in part.pending {
                match done {
                    Some(done) => waiting.push(done),
                    None => lane.index.head.dropped.disk += 1,
                }
            }
        }
        if state.streams.iter().any(|(_, l)| !l.gone.is_empty()) && !state.closing {
            // Deleting is what makes room; nobody else may come and ask for it.
            state.due_in(RETRY);
        }
        if !state.closing {
            state.due_in(disk::TRY_AGAIN);
        }
        drop(state);
        for done in waiting {
            let _ = done.send(Err(Arc::clone(&error)));
        }
    }

    /// The keys to keep and about how much they hold, when the file is large and little in it is still needed.
    fn worth_compacting(&self) -> Option<(Vec<Vec<u8>>, u64)> {
        let file = self.database.file_bytes();
        if file < COMPACT_FROM || Instant::now() < self.compact_after {
            return None;
        }
        let state = self.shared.lock();
        let stored: u64 = state.streams.iter().map(|(_, l)| l.index.stored()).sum();
        if file < COMPACT_RATIO.saturating_mul(stored) {
            return None;
        }
        let mut keys = Vec::new();
        for (stream, lane) in state.streams.iter() {
            for meta in lane.index.iter() {
                keys.push(key(b'c', stream, meta.first));
                keys.push(key(b'm', stream, meta.first));
            }
        }
        Some((keys, stored))
    }
}

impl Lane {
    /// Lets go of a chunk in memory.
    fn forget(&mut self, first: u64) {
        for loaded in [&mut self.cache, &mut self.tail] {
            if loaded.as_ref().is_some_and(|l| l.first == first) {
                *loaded = None;
            }
        }
    }
}
