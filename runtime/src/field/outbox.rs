//! What a device has to tell the cloud: many readings in one message, once per report cycle.
//!
//! The payload is compact JSON, `{"time":T,"readings":[{"p":"level","t":0,"v":71.5},{"p":"flow","t":250,"q":"timeout"}]}`:
//! property, milliseconds after `time` (UTC milliseconds), and value or quality. Types and units are in the model.

use std::collections::VecDeque;
use std::fmt::Write as _;

use edge_model::reading::{Quality, Value};

/// Readings in one message at most: about 20 KB, well below what brokers take.
const MESSAGE: usize = 500;
/// Readings kept while the queue does not take messages. Beyond this the oldest are dropped and counted: memory is bounded,
/// and the queue is the place for patience.
const KEPT: usize = 2_000;
/// A report cycle never sends more often than this, in milliseconds: one message of ten readings is cheaper than ten.
const SHORTEST: u64 = 1_000;

/// One device's readings on their way to the queue.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    readings: VecDeque<Kept>,
    /// Per property: its report cycle in milliseconds (0 for every reading), or `None` when it does not go to the cloud.
    cycles: Vec<Option<u64>>,
    /// Per property: when its last reading was taken.
    taken: Vec<i64>,
    every_ms: u64,
    /// Readings dropped since the device was configured.
    pub(super) dropped: u64,
}

#[derive(Debug)]
struct Kept {
    point: u16,
    time_ms: i64,
    quality: Quality,
    value: Option<Value>,
}

impl Outbox {
    /// Per property its report cycle (`None`: not to the cloud) and its collect cycle, in milliseconds.
    pub(super) fn new(cycles: Vec<(Option<u64>, u64)>) -> Outbox {
        let every =
            cycles.iter().filter_map(|(report, collect)| report.map(|r| if r == 0 { *collect } else { r })).min();
        Outbox {
            taken: vec![i64::MIN; cycles.len()],
            cycles: cycles.into_iter().map(|(report, _)| report).collect(),
            every_ms: every.unwrap_or(SHORTEST).max(SHORTEST),
            ..Outbox::default()
        }
    }

    /// Takes a reading if its property goes to the cloud and its cycle is over. `news` (another quality) is always taken.
    pub(super) fn take(&mut self, point: u16, time_ms: i64, quality: Quality, value: Option<&Value>, news: bool) {
        let at = usize::from(point);
        let (Some(Some(cycle)), Some(last)) = (self.cycles.get(at), self.taken.get_mut(at)) else { return };
        let cycle = i64::try_from(*cycle).unwrap_or(i64::MAX);
        // Half a tick of tolerance, or a poll that came a moment early would halve the rate.
        if !news && time_ms.saturating_sub(*last) < cycle.saturating_sub(cycle / 20) && time_ms >= *last {
            return;
        }
        *last = time_ms;
        if self.readings.len() >= KEPT {
            self.readings.pop_front();
            self.dropped += 1;
        }
        self.readings.push_back(Kept { point, time_ms, quality, value: value.cloned() });
    }

    /// Whether a message is due at this time.
    pub(super) fn is_due(&self, now_ms: i64) -> bool {
        let every = i64::try_from(self.every_ms).unwrap_or(i64::MAX);
        // A clock that was set back must not hold readings for as long.
        let waited = |first: &Kept| !(0..every - every / 20).contains(&now_ms.saturating_sub(first.time_ms));
        self.readings.len() >= MESSAGE || self.readings.front().is_some_and(waited)
    }

    /// The next message: its time and payload, with how many readings it has. They stay until [`Outbox::sent`].
    pub(super) fn message<'a>(&self, name: impl Fn(u16) -> &'a str) -> Option<(i64, Vec<u8>, usize)> {
        let base = self.readings.front()?.time_ms;
        let count = self.readings.len().min(MESSAGE);
        let mut text = String::with_capacity(40 * count);
        let _ = write!(text, "{{\"time\":{base},\"readings\":[");
        for (i, r) in self.readings.iter().take(count).enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let property = serde_json::Value::from(name(r.point));
            let _ = write!(text, "{comma}{{\"p\":{property},\"t\":{}", r.time_ms.saturating_sub(base));
            let _ = match &r.value {
                Some(v) => write!(text, ",\"v\":{}}}", v.to_json()),
                None => write!(text, ",\"q\":\"{}\"}}", r.quality.as_str()),
            };
        }
        text.push_str("]}");
        Some((base, text.into_bytes(), count))
    }

    /// The queue has the first `count` readings.
    pub(super) fn sent(&mut self, count: usize) {
        self.readings.drain(..count.min(self.readings.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_readings_leave_in_one_message() {
        let mut o = Outbox::new(vec![(Some(0), 100), (None, 100), (Some(10_000), 1_000)]);
        for i in 0..10 {
            o.take(0, 1_000 + 100 * i, Quality::Good, Some(&Value::Int(i)), false);
            o.take(1, 1_000, Quality::Good, Some(&Value::Int(0)), false);
            o.take(2, 1_000 + 1_000 * i, Quality::Good, Some(&Value::Float(0.5)), false);
        }
        o.take(2, 1_950, Quality::Timeout, None, true);
        assert!(!o.is_due(1_500) && o.is_due(2_000) && o.is_due(0));
        let (time, payload, count) = o.message(|i| if i == 0 { "a" } else { "b" }).unwrap();
        assert_eq!((time, count), (1_000, 12));
        let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(json["readings"][0], serde_json::json!({"p": "a", "t": 0, "v": 0}));
        assert_eq!(json["readings"][11], serde_json::json!({"p": "b", "t": 950, "q": "timeout"}));
        o.sent(count);
        assert!(o.message(|_| "").is_none());
    }

    #[test]
    fn memory_is_bounded_and_drops_are_counted() {
        let mut o = Outbox::new(vec![(Some(0), 10)]);
        for i in 0..3_000 {
            o.take(0, i, Quality::Good, Some(&Value::Int(i)), false);
        }
        assert_eq!(o.dropped, 1_000);
        assert_eq!(o.message(|_| "p").unwrap().2, MESSAGE);
    }
}
