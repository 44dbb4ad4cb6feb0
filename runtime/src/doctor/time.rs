//! The clock: whether it can be right, whether it is kept over a power cut, and whether somebody sets it.

use super::{Check, Verdict};

/// No clock of a node that runs this program is right before that: 2025-01-01, in UTC milliseconds.
const EARLIEST_MS: i64 = 1_735_689_600_000;
/// Nor after that: 2100-01-01.
const LATEST_MS: i64 = 4_102_444_800_000;

/// What was looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// The time, UTC milliseconds.
    pub now_ms: i64,
    /// Whether there is a clock that runs without power.
    pub rtc: bool,
    /// Whether the kernel's clock is synchronised, and its greatest error in microseconds; `None` when the kernel does not tell.
    pub synchronised: Option<(bool, i64)>,
}

impl Facts {
    /// Looks at this machine.
    pub fn look() -> Facts {
        let rtc = std::fs::read_dir("/sys/class/rtc").is_ok_and(|mut entries| entries.next().is_some());
        Facts { now_ms: crate::clock::now_ms(), rtc, synchronised: crate::sys::clock_synchronised() }
    }
}

/// All checks of the clock.
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![clock(facts), sync(facts)]
}

fn clock(facts: &Facts) -> Check {
    let shown = edge_model::time::rfc3339(facts.now_ms);
    if !(EARLIEST_MS..LATEST_MS).contains(&facts.now_ms) {
        let advice = "set the clock (`date -s`, or start a time service): certificates are refused and readings carry wrong times";
        return Check::new("clock", Verdict::Fail, shown, advice);
    }
    match facts.rtc {
        true => {
            Check::new("clock", Verdict::Ok, format!("{shown}, with a battery"), "the time is kept over a power cut")
        }
        false => Check::new(
            "clock",
            Verdict::Warn,
            format!("{shown}, without a battery"),
            "after a power cut without a network the time is wrong until somebody sets it: add a real-time clock if that matters",
        ),
    }
}

fn sync(facts: &Facts) -> Check {
    let advice = "start a time service (systemd-timesyncd, chrony, ntpd, PTP): nobody sets the clock";
    match facts.synchronised {
        None => Check::new("time sync", Verdict::Skip, "the kernel does not tell", "readings carry the node's time"),
        Some((false, _)) => Check::new("time sync", Verdict::Warn, "not synchronised", advice),
        Some((true, error)) => {
            let found = format!("synchronised, within {} ms", error / 1000);
            Check::new("time sync", Verdict::Ok, found, "readings carry the node's time")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        let verdicts = |facts| checks(&facts).iter().map(|c| c.verdict).collect::<Vec<_>>();
        let good = Facts { now_ms: 1_800_000_000_000, rtc: true, synchronised: Some((true, 500)) };
        assert_eq!(verdicts(good), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(verdicts(Facts { now_ms: 1000, ..good }), [Verdict::Fail, Verdict::Ok]);
        assert_eq!(verdicts(Facts { rtc: false, ..good }), [Verdict::Warn, Verdict::Ok]);
        assert_eq!(verdicts(Facts { synchronised: Some((false, 0)), ..good }), [Verdict::Ok, Verdict::Warn]);
        assert_eq!(verdicts(Facts { synchronised: None, ..good }), [Verdict::Ok, Verdict::Skip]);
    }
}
