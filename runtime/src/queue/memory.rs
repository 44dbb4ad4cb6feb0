//! The queue of a gateway without a writable disk: everything in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Entry, Message, PerStream, Stats, Stream, StreamStats};

#[derive(Default)]
struct Lane {
    entries: VecDeque<Entry>,
    last: u64,
    acked: u64,
}

#[derive(Default)]
pub(super) struct Memory {
    lanes: Mutex<PerStream<Lane>>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, PerStream<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, stream: Stream, message: Message) -> u64 {
        let mut lanes = self.lock();
        let lane = lanes.get_mut(stream);
        lane.last += 1;
        lane.entries.push_back(Entry { seq: lane.last, message });
        lane.last
    }

    pub(super) fn read(&self, stream: Stream, after: u64, max: usize) -> Vec<Entry> {
        self.lock().get(stream).entries.iter().filter(|e| e.seq > after).take(max).cloned().collect()
    }

    pub(super) fn ack(&self, stream: Stream, seq: u64) {
        let mut lanes = self.lock();
        let lane = lanes.get_mut(stream);
        lane.acked = lane.acked.max(seq.min(lane.last));
        lane.entries.retain(|e| e.seq > lane.acked);
    }

    pub(super) fn acked(&self, stream: Stream) -> u64 {
        self.lock().get(stream).acked
    }

    pub(super) fn stats(&self) -> Stats {
        let streams = self.lock().map(|_, lane| StreamStats {
            queued: lane.entries.len() as u64,
            payload_bytes: lane.entries.iter().map(|e| e.message.payload.len() as u64).sum(),
            oldest_ms: lane.entries.front().map(|e| e.message.time_ms),
            acked: lane.acked,
            last: lane.last,
            ..StreamStats::default()
        });
        Stats { streams, ..Stats::default() }
    }
}
