//! How long to wait before trying again: doubling, bounded, and different on every device.

use std::time::Duration;

/// A growing pause. The jitter (half to full) keeps a hundred gateways from knocking at the same moment after a power cut.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The first pause and the longest.
    pub const fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, failures: 0 }
    }

    /// It worked: the next pause is the first one again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// How often it has failed since it last worked.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// It failed: the pause before the next try.
    pub fn pause(&mut self) -> Duration {
        let mut random = [0u8; 1];
        // Without randomness the pause is the full one, which is only less polite.
        let share = getrandom::fill(&mut random).map_or(255, |()| random[0]);
        self.after(share)
    }

    fn after(&mut self, share: u8) -> Duration {
        let full = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        full / 2 + full / 2 * u32::from(share) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_starts_again() {
        let mut b = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let full: Vec<u128> = (0..6).map(|_| b.after(255).as_millis()).collect();
        assert_eq!(full, [100, 200, 400, 800, 1000, 1000]);
        b.reset();
        assert_eq!(b.after(0).as_millis(), 50);
        for _ in 0..100 {
            assert!(b.pause() <= Duration::from_secs(1));
        }
        assert_eq!(b.failures(), 101);
    }
}
