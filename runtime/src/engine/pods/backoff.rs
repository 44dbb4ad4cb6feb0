//! How long to wait before trying again: Kubernetes' crash and image back-off.
//!
//! Source: Kubernetes documentation, "Pod Lifecycle", container restarts: the first restart is immediate, then 10 s, 20 s,
//! 40 s, … up to 5 minutes; 10 minutes without a failure reset it.

/// The first wait, in milliseconds.
const FIRST: i64 = 10_000;
/// The longest wait, in milliseconds.
const LONGEST: i64 = 300_000;
/// A container that ran this long, in milliseconds, has recovered.
const RECOVERED: i64 = 600_000;

/// The wait of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    /// The wait that the next failure brings; 0 when the next try is immediate.
    next: i64,
}

impl Backoff {
    /// The state it would have after this many restarts, the last failure having been at `failed`: a restart of the
    /// runtime does not let a crash loop start over.
    pub fn resume(restarts: u32, failed: i64, now: i64) -> Backoff {
        let mut backoff = Backoff::default();
        if now.saturating_sub(failed) < RECOVERED {
            for _ in 0..restarts.min(8) {
                backoff.failed(0);
            }
        }
        backoff
    }

    /// A failure after `ran` milliseconds: how many milliseconds to wait from the failure on.
    pub fn failed(&mut self, ran: i64) -> i64 {
        if ran >= RECOVERED {
            self.next = 0;
        }
        let wait = self.next;
        self.next = (wait * 2).clamp(FIRST, LONGEST);
        wait
    }

    /// A failure whose next try is never immediate (an image that cannot be had): how many milliseconds to wait.
    pub fn refused(&mut self) -> i64 {
        let wait = self.next.max(FIRST);
        self.next = (wait * 2).min(LONGEST);
        wait
    }

    /// The next failure counts as the first.
    pub fn reset(&mut self) {
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_five_minutes_and_start_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<i64> = (0..8).map(|_| backoff.failed(1000) / 1000).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.failed(RECOVERED), 0);
        assert_eq!(backoff.failed(RECOVERED - 1), FIRST);
        backoff.reset();
        let waits: Vec<i64> = (0..7).map(|_| backoff.refused() / 1000).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_crash_loop_survives_the_runtime() {
        assert_eq!(Backoff::resume(3, 0, 1000).failed(0), 40_000);
        assert_eq!(Backoff::resume(0, 0, 1000).failed(0), 0);
        assert_eq!(Backoff::resume(50, 0, 1000).failed(0), LONGEST);
        assert_eq!(Backoff::resume(3, 0, RECOVERED).failed(0), 0);
    }
}
