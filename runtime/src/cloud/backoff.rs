//! When to try again: a random part of a pause that doubles (full jitter), so that a thousand gateways do not come back at
//! the same moment.

use std::time::Duration;

/// A pause this short is waited at most while the outage is young or the node has no network itself: what comes back then is
/// noticed within two seconds, and a try costs next to nothing.
const SHORT: Duration = Duration::from_secs(2);
/// How long an outage is young.
const YOUNG: Duration = Duration::from_secs(600);
/// A connection that lasted so long was a good one: the next failure starts from the beginning.
const GOOD: Duration = Duration::from_secs(30);
/// Never less: a broker that closes at once must not keep the node busy.
const LEAST: Duration = Duration::from_millis(50);

/// The pauses of one link.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses from `first` up to `max`.
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, failures: 0 }
    }

    /// A connection that was accepted has ended after this long.
    pub fn lasted(&mut self, online: Duration) {
        if online >= GOOD {
            self.failures = 0;
        }
    }

    /// The next pause. `outage` is how long the link has been down, `local` whether the failure never left the node, `random`
    /// any number.
    pub fn next(&mut self, outage: Duration, local: bool, random: u32) -> Duration {
        let ceiling = if local || outage < YOUNG { SHORT.min(self.max) } else { self.max };
        let pause = self.first.saturating_mul(1 << self.failures.min(16)).min(ceiling);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(f64::from(random) / f64::from(u32::MAX)).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_ceiling_of_the_moment() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        let young: Vec<u128> = (0..6).map(|_| backoff.next(Duration::ZERO, false, u32::MAX).as_millis()).collect();
        assert_eq!(young, [200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.next(YOUNG, true, u32::MAX), SHORT, "no network of its own: a try costs nothing");
        assert_eq!(backoff.next(YOUNG, false, u32::MAX), Duration::from_secs(15));
        assert_eq!(backoff.next(YOUNG, false, 0), LEAST);
        backoff.lasted(Duration::from_secs(1));
        assert_eq!(backoff.next(YOUNG, false, u32::MAX), Duration::from_secs(15), "a short success forgets nothing");
        backoff.lasted(GOOD);
        assert_eq!(backoff.next(Duration::ZERO, false, u32::MAX), Duration::from_millis(200));
    }
}
