//! When which points are due: points of one period form a group, and groups keep to one grid so that they coincide.

use std::time::Duration;

use tokio::time::Instant;

/// What is due waits no longer than this for others that are due more often, however much they ask.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The groups of one device. Multiples of a period fall on the same moments (1 s and 5 s meet every 5 s), so that what is due
/// together is read together.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    period: Duration,
    next: Instant,
}

impl Schedule {
    /// A group per distinct period, all due at once.
    pub fn new(periods: impl Iterator<Item = Duration>, start: Instant) -> Schedule {
        let mut periods: Vec<Duration> = periods.collect();
        periods.sort_unstable();
        periods.dedup();
        Schedule { start, groups: periods.into_iter().map(|period| Group { period, next: start }).collect() }
    }

    /// The group of a period. Groups are in ascending order of periods.
    pub fn group(&self, period: Duration) -> Option<usize> {
        self.groups.binary_search_by_key(&period, |g| g.period).ok()
    }

    /// When the next group is due; `None` without any points.
    pub fn next(&self) -> Option<Instant> {
        self.groups.iter().map(|g| g.next).min()
    }

    /// Whether a group is due.
    pub fn is_due(&self, group: usize, now: Instant) -> bool {
        self.groups.get(group).is_some_and(|g| g.next <= now)
    }

    /// When the first group that is due (or will be) must be done: before it is due again, and at most [`LONGEST_WAIT`] later.
    pub fn deadline(&self) -> Option<Instant> {
        self.groups.iter().map(|g| g.next + g.period.min(LONGEST_WAIT)).min()
    }

    /// Moves every due group to its next moment on the grid after `now`: a slow device skips, it does not pile up. How many
    /// moments were skipped.
    pub fn advance(&mut self, now: Instant) -> u64 {
        let mut skipped = 0u64;
        for g in self.groups.iter_mut().filter(|g| g.next <= now) {
            let period = g.period.as_nanos().max(1);
            let turns = now.saturating_duration_since(self.start).as_nanos() / period + 1;
            let offset = Duration::from_nanos(u64::try_from(turns * period).unwrap_or(u64::MAX));
            let missed = now.saturating_duration_since(g.next).as_nanos() / period;
            skipped = skipped.saturating_add(u64::try_from(missed).unwrap_or(u64::MAX));
            g.next = self.start.checked_add(offset).unwrap_or(now + g.period);
        }
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_meet_on_the_grid_and_never_pile_up() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut s = Schedule::new([ms(500), ms(100), ms(500)].into_iter(), start);
        let (fast, slow) = (s.group(ms(100)).unwrap(), s.group(ms(500)).unwrap());
        assert!(s.is_due(fast, start) && s.is_due(slow, start));
        assert_eq!(s.deadline(), Some(start + ms(100)));
        assert_eq!(s.advance(start), 0);
        assert_eq!((s.next(), s.deadline()), (Some(start + ms(100)), Some(start + ms(200))));
        // Three periods late: one poll, then on the grid again.
        assert_eq!(s.advance(start + ms(450)), 3);
        assert_eq!(s.next(), Some(start + ms(500)));
        assert!(s.is_due(fast, start + ms(500)) && s.is_due(slow, start + ms(500)));
    }
}
