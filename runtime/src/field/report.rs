//! What of a device's readings is told: deadbands, changes only, one value for a window. Pure: time comes with the readings.
//!
//! ```text
//!  reading ─► deadband ─┬─► twin
//!                       └─► every, on change, or the window's aggregate ─► bus and cloud
//! ```

use edge_model::device::behaviour::{Aggregate, Report};
use edge_model::reading::{Quality, Value};

/// A reading that is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) point: u16,
    pub(super) time_ms: i64,
    pub(super) quality: Quality,
    pub(super) value: Option<Value>,
}

/// The reports of one device.
#[derive(Debug, Default)]
pub(super) struct Reports {
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    rule: Report,
    /// The last value beyond the deadband, and the quality of the last reading.
    value: Option<Value>,
    quality: Option<Quality>,
    told_ms: i64,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    start_ms: i64,
    last_ms: i64,
    count: u32,
    sum: f64,
    low: f64,
    high: f64,
    last: Value,
}

impl Reports {
    /// One rule per property.
    pub(super) fn new(rules: Vec<Report>) -> Reports {
        let point = |rule| Point { rule, value: None, quality: None, told_ms: i64::MIN, window: None };
        Reports { points: rules.into_iter().map(point).collect() }
    }

    /// Whether these are the same rules.
    pub(super) fn same_rules(&self, other: &Reports) -> bool {
        self.points.iter().map(|p| &p.rule).eq(other.points.iter().map(|p| &p.rule))
    }

    /// How old a value may become, in milliseconds; 0 for any age.
    pub(super) fn stale_ms(&self, point: usize) -> u64 {
        self.points.get(point).map_or(0, |p| p.rule.stale)
    }

    /// Takes a reading. Whether it is another value (beyond the deadband) or quality than before, and what is told.
    pub(super) fn take(
        &mut self,
        point: u16,
        time_ms: i64,
        quality: Quality,
        value: Option<&Value>,
        out: &mut Vec<Told>,
    ) -> bool {
        let Some(p) = self.points.get_mut(usize::from(point)) else { return true };
        let other_quality = p.quality != Some(quality);
        let moved = value.is_some_and(|new| p.value.as_ref().is_none_or(|old| p.rule.is_beyond(old, new)));
        p.quality = Some(quality);
        if moved {
            p.value = value.cloned();
        }
        if p.rule.aggregate.is_some() {
            // A window of good readings ends with them: what is bad is told at once.
            if other_quality || p.is_over(time_ms) {
                out.extend(p.close(point));
            }
            match value {
                Some(value) => p.add(time_ms, value),
                None if other_quality => out.push(Told { point, time_ms, quality, value: None }),
                None => {}
            }
            return moved || other_quality;
        }
        let aged = p.rule.max_age > 0 && !within(p.told_ms, time_ms, p.rule.max_age);
        if !p.rule.only_changes() || moved || other_quality || aged {
            p.told_ms = time_ms;
            out.push(Told { point, time_ms, quality, value: value.cloned() });
        }
        moved || other_quality
    }

    /// Closes the windows that are over, also of devices that have fallen silent.
    pub(super) fn due(&mut self, now_ms: i64, out: &mut Vec<Told>) {
        for (index, p) in self.points.iter_mut().enumerate().filter(|(_, p)| p.window.is_some()) {
            if p.is_over(now_ms) {
                out.extend(p.close(u16::try_from(index).unwrap_or(u16::MAX)));
            }
        }
    }
}

/// Whether `now` is less than `ms` after `then`; a clock that was set back is no reason to wait.
fn within(then: i64, now: i64, ms: u64) -> bool {
    (0..i64::try_from(ms).unwrap_or(i64::MAX)).contains(&now.saturating_sub(then))
}

impl Point {
    fn is_over(&self, now_ms: i64) -> bool {
        self.window.as_ref().is_some_and(|w| !within(w.start_ms, now_ms, self.rule.window))
    }

    fn add(&mut self, time_ms: i64, value: &Value) {
        let x = value.as_f64().unwrap_or_default();
        let fresh =
            || Window { start_ms: time_ms, last_ms: time_ms, count: 0, sum: 0.0, low: x, high: x, last: value.clone() };
        let w = self.window.get_or_insert_with(fresh);
        w.count += 1;
        w.sum += x;
        (w.low, w.high) = (w.low.min(x), w.high.max(x));
        (w.last, w.last_ms) = (value.clone(), time_ms);
    }

    /// The window's one value, as of its last reading.
    fn close(&mut self, point: u16) -> Option<Told> {
        let w = self.window.take()?;
        let number = |x: f64| match w.last {
            // What only has whole values keeps them, but a mean of them.
            Value::Int(_) | Value::UInt(_) | Value::Float(_) if x.is_finite() => typed(&w.last, x),
            _ => w.last.clone(),
        };
        let value = match self.rule.aggregate {
            Some(Aggregate::Min) => number(w.low),
            Some(Aggregate::Max) => number(w.high),
            Some(Aggregate::Mean) if w.last.as_f64().is_some() => Value::Float(w.sum / f64::from(w.count.max(1))),
            _ => w.last.clone(),
        };
        Some(Told { point, time_ms: w.last_ms, quality: Quality::Good, value: Some(value) })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it came from such an integer")]
fn typed(like: &Value, x: f64) -> Value {
    match like {
        Value::Int(_) => Value::Int(x as i64),
        Value::UInt(_) => Value::UInt(x as u64),
        _ => Value::Float(x),
    }
}

/// What the rule says of values.
trait Rule {
    fn only_changes(&self) -> bool;
    fn is_beyond(&self, old: &Value, new: &Value) -> bool;
}

impl Rule for Report {
    fn only_changes(&self) -> bool {
        self.on_change || self.deadband > 0.0 || self.deadband_percent > 0.0
    }

    fn is_beyond(&self, old: &Value, new: &Value) -> bool {
        match (old.as_f64(), new.as_f64()) {
            (Some(a), Some(b)) if self.deadband > 0.0 || self.deadband_percent > 0.0 => {
                (a - b).abs() > self.deadband.max(a.abs() * self.deadband_percent / 100.0)
            }
            _ => old != new,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rule: Report, readings: &[(i64, Option<f64>)]) -> (Vec<bool>, Vec<(i64, Option<Value>)>) {
        let mut reports = Reports::new(vec![rule]);
        let (mut moved, mut out) = (Vec::new(), Vec::new());
        for (time, x) in readings {
            let quality = if x.is_some() { Quality::Good } else { Quality::Timeout };
            moved.push(reports.take(0, *time, quality, x.map(Value::Float).as_ref(), &mut out));
        }
        (moved, out.into_iter().map(|t| (t.time_ms, t.value)).collect())
    }

    fn f(x: f64) -> Option<Value> {
        Some(Value::Float(x))
    }

    #[test]
    fn a_deadband_is_measured_from_what_was_told() {
        let rule = Report { deadband: 1.0, ..Report::default() };
        let (moved, told) = run(rule, &[(0, Some(10.0)), (1, Some(10.9)), (2, Some(11.0)), (3, Some(11.1))]);
        assert_eq!(moved, [true, false, false, true], "creeping does not go unseen");
        assert_eq!(told, [(0, f(10.0)), (3, f(11.1))]);
        let percent = Report { deadband_percent: 10.0, ..Report::default() };
        let (_, told) = run(percent, &[(0, Some(100.0)), (1, Some(109.0)), (2, Some(89.0))]);
        assert_eq!(told, [(0, f(100.0)), (2, f(89.0))]);
    }

    #[test]
    fn changes_only_with_a_sign_of_life_and_every_change_of_quality() {
        let rule = Report { on_change: true, max_age: 10, ..Report::default() };
        let readings = [(0, Some(1.0)), (5, Some(1.0)), (10, Some(1.0)), (12, None), (14, None), (15, Some(1.0))];
        let (moved, told) = run(rule, &readings);
        assert_eq!(told, [(0, f(1.0)), (10, f(1.0)), (12, None), (15, f(1.0))]);
        assert_eq!(moved, [true, false, false, true, false, true]);
    }

    #[test]
    fn a_window_makes_one_value_and_ends_with_its_good_readings() {
        let rule = |aggregate| Report { aggregate: Some(aggregate), window: 100, ..Report::default() };
        let readings = [(0, Some(1.0)), (50, Some(3.0)), (99, Some(2.0)), (100, Some(9.0)), (150, None)];
        for (aggregate, first, second) in [
            (Aggregate::Mean, 2.0, 9.0),
            (Aggregate::Min, 1.0, 9.0),
            (Aggregate::Max, 3.0, 9.0),
            (Aggregate::Last, 2.0, 9.0),
        ] {
            let (_, told) = run(rule(aggregate), &readings);
            assert_eq!(told, [(99, f(first)), (100, f(second)), (150, None)], "{aggregate:?}");
        }
        let mut reports = Reports::new(vec![rule(Aggregate::Mean)]);
        let mut out = Vec::new();
        reports.take(0, 0, Quality::Good, Some(&Value::Int(4)), &mut out);
        reports.due(99, &mut out);
        assert!(out.is_empty());
        reports.due(100, &mut out);
        assert_eq!(out.len(), 1, "a silent device's window is closed, too");
    }
}
