//! The queue's own clock, for the age limit: wall clocks of gateways jump.
//!
//! It runs with the monotonic clock while the runtime runs. Over a restart it advances by as much as the wall clock says, if
//! that went forward. So a clock that is set (1970 to today, or back by an hour) while messages wait neither expires them nor
//! keeps them for ever.

use std::time::Instant;

/// Milliseconds of the queue's life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    base_ms: i64,
    since: Instant,
}

impl Clock {
    /// Goes on from what was noted last: the queue's time and the wall time of then; `wall_ms` is the wall time now.
    pub(super) fn resume(noted_ms: i64, noted_wall_ms: i64, wall_ms: i64) -> Clock {
        let away = wall_ms.saturating_sub(noted_wall_ms).max(0);
        Clock { base_ms: noted_ms.saturating_add(away), since: Instant::now() }
    }

    /// Now.
    pub(super) fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.base_ms.saturating_add(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_off_counts_only_forwards() {
        let later = Clock::resume(1_000, 50_000, 80_000).now_ms();
        assert!((31_000..91_000).contains(&later), "{later}");
        let back = Clock::resume(1_000, 50_000, 20_000).now_ms();
        assert!((1_000..61_000).contains(&back), "{back}");
        assert_eq!(Clock::resume(0, i64::MIN, i64::MAX).now_ms(), i64::MAX);
    }
}
