//! What the queue knows of one stream without looking at its chunks: pure bookkeeping, no disk, no clock.
//!
//! ```text
//!   seq    1 … 40 │ 41 … 100 │ 101 … 160 │ 161 … 170        171
//!   forgotten ────┘          │           │        │         └ next
//!                 chunks ────┴───────────┴────────┘
//!              floor = 57: everything up to here is acknowledged or dropped
//! ```

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// One chunk: which messages are in it and what it weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Sequence number of its first message.
    pub first: u64,
    /// How many messages, at least 1.
    pub count: u32,
    /// Bytes of the packed value.
    pub stored: u32,
    /// Bytes of the payloads.
    pub payload: u32,
    /// When its newest message came, by the queue's own clock (see [`super::age`]).
    pub stamp_ms: i64,
    /// When its first message happened, UTC.
    pub time_ms: i64,
}

impl Meta {
    /// Sequence number of its last message.
    pub(super) fn last(&self) -> u64 {
        self.first + u64::from(self.count.max(1)) - 1
    }
}

/// Messages that were given up, by reason, since the queue was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Older than the stream's age limit.
    pub age: u64,
    /// The oldest, to make room under the byte cap.
    pub oldest: u64,
    /// The newest, because the stream was full.
    pub newest: u64,
    /// Could not be written (only those nobody waited for).
    pub disk: u64,
    /// Could not be read back.
    pub damaged: u64,
}

impl Dropped {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.age + self.oldest + self.newest + self.disk + self.damaged
    }
}

/// What of a stream is written with every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The next sequence number.
    pub next: u64,
    /// The highest acknowledged one.
    pub acked: u64,
    /// Up to here everything is acknowledged or dropped.
    pub floor: u64,
    /// What was dropped.
    pub dropped: Dropped,
}

impl Default for Head {
    fn default() -> Head {
        Head { next: 1, acked: 0, floor: 0, dropped: Dropped::default() }
    }
}

/// Why messages are dropped from the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Age,
    Oldest,
    Damaged,
}

/// The chunks of one stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub head: Head,
    chunks: VecDeque<Meta>,
    stored: u64,
    payload: u64,
}

impl Index {
    /// From what was found on disk, in any order. Returns also the chunks that are of no use any more.
    pub(super) fn load(mut head: Head, mut found: Vec<Meta>) -> (Index, Vec<u64>) {
        found.sort_unstable_by_key(|m| m.first);
        let mut index = Index::default();
        let mut useless = Vec::new();
        for meta in found {
            let overlaps = index.chunks.back().is_some_and(|b: &Meta| b.last() >= meta.first);
            if meta.last() <= head.floor || overlaps || meta.count == 0 {
                useless.push(meta.first);
            } else {
                head.next = head.next.max(meta.last() + 1);
                index.append(meta);
            }
        }
        index.head = head;
        (index, useless)
    }

    fn append(&mut self, meta: Meta) {
        self.stored += u64::from(meta.stored);
        self.payload += u64::from(meta.payload);
        self.chunks.push_back(meta);
    }

    /// Takes a committed chunk in: a new one, or the last one grown.
    pub(super) fn commit(&mut self, meta: Meta) {
        if self.chunks.back().is_some_and(|b| b.first == meta.first) {
            self.pop_back();
        }
        self.head.next = self.head.next.max(meta.last() + 1);
        self.append(meta);
    }

    fn pop_back(&mut self) {
        if let Some(old) = self.chunks.pop_back() {
            self.forget(old);
        }
    }

    fn forget(&mut self, meta: Meta) {
        self.stored -= u64::from(meta.stored).min(self.stored);
        self.payload -= u64::from(meta.payload).min(self.payload);
    }

    /// The last chunk, if it is still there to be grown.
    pub(super) fn last(&self) -> Option<&Meta> {
        self.chunks.back()
    }

    /// All chunks, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Meta> {
        self.chunks.iter()
    }

    /// The first chunk.
    pub(super) fn first(&self) -> Option<&Meta> {
        self.chunks.front()
    }

    /// Notes an acknowledgement; returns the chunks that are no longer needed.
    pub(super) fn ack(&mut self, seq: u64) -> Vec<u64> {
        let seq = seq.min(self.head.next - 1);
        self.head.acked = self.head.acked.max(seq);
        self.head.floor = self.head.floor.max(seq);
        let mut gone = Vec::new();
        while let Some(front) = self.chunks.front().copied()
            && front.last() <= self.head.floor
        {
            self.chunks.pop_front();
            self.forget(front);
            gone.push(front.first);
        }
        gone
    }

    /// Gives up the first chunk and counts what of it was not acknowledged yet.
    pub(super) fn drop_first(&mut self, reason: Reason) -> Option<Meta> {
        let front = self.chunks.pop_front()?;
        self.forget(front);
        let lost = front.last().saturating_sub(self.head.floor.max(front.first - 1));
        let dropped = &mut self.head.dropped;
        match reason {
            Reason::Age => dropped.age += lost,
            Reason::Oldest => dropped.oldest += lost,
            Reason::Damaged => dropped.damaged += lost,
        }
        self.head.floor = self.head.floor.max(front.last());
        Some(front)
    }

    /// Gives up a chunk that cannot be read, wherever it is.
    pub(super) fn drop_damaged(&mut self, first: u64) {
        if self.chunks.front().is_some_and(|f| f.first == first) {
            self.drop_first(Reason::Damaged);
        } else if let Ok(at) = self.chunks.binary_search_by_key(&first, |m| m.first)
            && let Some(meta) = self.chunks.remove(at)
        {
            self.forget(meta);
            self.head.dropped.damaged += u64::from(meta.count);
        }
    }

    /// The chunk with the first message after `after` that is neither acknowledged nor dropped.
    pub(super) fn find(&self, after: u64) -> Option<Meta> {
        let after = after.max(self.head.floor);
        let at = self.chunks.partition_point(|m| m.last() <= after);
        self.chunks.get(at).copied()
    }

    /// Bytes of the packed chunks.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Bytes of the payloads, those of a partly acknowledged first chunk included.
    pub(super) fn payload(&self) -> u64 {
        self.payload
    }

    /// Messages that wait.
    pub(super) fn queued(&self) -> u64 {
        let all: u64 = self.chunks.iter().map(|m| u64::from(m.count)).sum();
        let gone = self.chunks.front().map_or(0, |f| (self.head.floor + 1).saturating_sub(f.first));
        all.saturating_sub(gone)
    }

    /// Chunks on disk.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(first: u64, count: u32) -> Meta {
        Meta { first, count, stored: 10 * count, payload: 100 * count, stamp_ms: 0, time_ms: 0 }
    }

    fn index() -> Index {
        let mut index = Index::default();
        for (first, count) in [(1, 40), (41, 60), (101, 60), (161, 10)] {
            index.commit(meta(first, count));
        }
        index
    }

    #[test]
    fn acknowledged_chunks_go_as_a_whole() {
        let mut index = index();
        assert_eq!(index.ack(39), [0; 0]);
        assert_eq!(index.queued(), 131);
        assert_eq!(index.ack(105), [1, 41]);
        assert_eq!((index.queued(), index.chunks(), index.stored()), (65, 2, 700));
        assert_eq!(index.find(0).unwrap().first, 101);
        assert_eq!(index.find(160).unwrap().first, 161);
        assert_eq!(index.find(170), None);
        // An acknowledgement of what was never sent is cut to what exists, and none goes backwards.
        assert_eq!(index.ack(9999), [101, 161]);
        index.ack(3);
        assert_eq!((index.head.acked, index.head.floor, index.head.next, index.queued()), (170, 170, 171, 0));
        assert_eq!((index.stored(), index.payload()), (0, 0));
    }

    #[test]
    fn what_is_dropped_is_counted_once() {
        let mut index = index();
        index.ack(10);
        index.drop_first(Reason::Oldest);
        index.drop_first(Reason::Age);
        assert_eq!((index.head.dropped.oldest, index.head.dropped.age), (30, 60));
        index.drop_damaged(161);
        assert_eq!((index.head.dropped.damaged, index.queued()), (10, 60));
        assert_eq!(index.head.acked, 10);
        assert_eq!(index.head.floor, 100);
        assert_eq!(index.head.next, 171);
    }

    #[test]
    fn the_last_chunk_can_grow() {
        let mut index = index();
        index.commit(meta(161, 30));
        assert_eq!((index.chunks(), index.queued(), index.head.next), (4, 190, 191));
    }

    #[test]
    fn loading_sorts_out_what_is_useless() {
        let head = Head { next: 50, acked: 45, floor: 45, ..Head::default() };
        let found = vec![meta(101, 60), meta(1, 40), meta(41, 60), meta(95, 3)];
        let (index, useless) = Index::load(head, found);
        assert_eq!(useless, [1, 95]);
        assert_eq!((index.queued(), index.head.next), (115, 161));
    }
}
