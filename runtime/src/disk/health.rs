//! Whether a database takes what is written to it, for `status`, `/readyz` and the watchdogs.

use std::time::{Duration, Instant};

/// A commit that takes longer than this is taken for one that never ends: slow cards stall for seconds, not for minutes.
const STUCK: Duration = Duration::from_secs(120);
/// How soon a writer whose commits fail tries by itself whether they still do.
pub const TRY_AGAIN: Duration = Duration::from_secs(10);

/// How the last commits went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why the last commit that added something failed; `None` when it did not.
    pub failing: Option<String>,
    /// How long the commit under way has taken so far; `None` when there is none.
    pub busy: Option<Duration>,
    /// Whether the thread that writes has ended though nobody has asked it to.
    pub ended: bool,
}

impl Health {
    /// Looks at a writer: why its commits fail, since when it is in one, and whether it has ended.
    pub fn of(failing: Option<&String>, since: Option<Instant>, ended: bool) -> Health {
        Health { failing: failing.cloned(), busy: since.map(|at| at.elapsed()), ended }
    }

    /// What is wrong, in a sentence. A full disk is wrong, but no reason to reset the machine: see [`Health::is_alive`].
    pub fn trouble(&self) -> Option<String> {
        if self.ended {
            return Some("the thread that writes has ended".to_owned());
        }
        if let Some(busy) = self.busy.filter(|b| *b > STUCK) {
            return Some(format!("a write to disk has not come back for {} s", busy.as_secs()));
        }
        self.failing.as_ref().map(|why| format!("writes fail: {why}"))
    }

    /// Whether it answers at all. Errors are answers: a reset would not make room on a full disk.
    pub fn is_alive(&self) -> bool {
        !self.ended && self.busy.is_none_or(|b| b <= STUCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_and_a_stuck_one_is_no_sign_of_life() {
        let full = Health { failing: Some("disk is full".into()), ..Health::default() };
        assert!(full.is_alive() && full.trouble().is_some_and(|t| t.contains("disk is full")));
        let busy = |seconds| Health { busy: Some(Duration::from_secs(seconds)), ..Health::default() };
        assert!(busy(60).is_alive() && busy(60).trouble().is_none());
        assert!(!busy(200).is_alive() && busy(200).trouble().is_some());
        let ended = Health { ended: true, ..Health::default() };
        assert!(!ended.is_alive() && ended.trouble().is_some());
        assert!(Health::default().is_alive() && Health::default().trouble().is_none());
    }
}
