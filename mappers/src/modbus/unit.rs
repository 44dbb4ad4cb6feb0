//! One device behind a connection: what is due, what is known of its registers, whether it answers.
//!
//! ```text
//!            answer                     time-out, garbage, no connection
//! Unknown ───────────► Online ──────────────────────────────────────────► Offline ─┐
//!    └──────────────────────────────────────────────────────────────────►   ▲  │   │ still none: the pause doubles
//!                         ▲                  answer to the probe            │  │   │
//!                         └─────────────────────────────────────────────────┼──┘   │
//!                                                                           └──────┘
//! ```
//! While offline a device gets one probe per pause and nothing else, so a dead one costs the others on the same wire at most
//! its own time-out, rarely. A probe is an ordinary poll that ends at its first request without an answer.
//!
//! A poll is planned when it is due and worked off request by request, so that others on the wire get their turn in between,
//! also while this device needs a pause.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use edge_model::reading::Quality;
use tokio::time::Instant;

use super::config::Config;
use super::link::Fault;
use super::plan::{Map, Request, Span};
use crate::backoff::Backoff;
use crate::schedule::{LONGEST_WAIT, Schedule};
use crate::{Link, Sample, Stats};

/// How long registers that were refused alone are left out, at first and at last.
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How soon after a failure somebody's command may try an offline device again.
const COMMAND_PAUSE: Duration = Duration::from_secs(1);

/// Whether the device answers.
#[derive(Debug)]
enum State {
    Unknown,
    Online,
    Offline {
        /// When to probe it.
        until: Instant,
        /// When it last failed.
        since: Instant,
        /// Why.
        reason: Fault,
    },
}

/// One device of an endpoint.
#[derive(Debug)]
pub struct Unit {
    /// What it is.
    pub config: Arc<Config>,
    /// Its counters.
    pub stats: Stats,
    /// Its registers in the order of their addresses; below, `sorted` means indices into that order.
    pub map: Map,
    /// Sorted → point of the profile.
    points: Vec<u16>,
    /// Sorted → group of the schedule.
    groups: Vec<usize>,
    schedule: Schedule,
    /// What is left of the poll under way: its points (sorted), their requests, and until when it should be done.
    due: Vec<usize>,
    pending: VecDeque<Request>,
    /// The last poll's plan: most polls are alike.
    plan: Plan,
    deadline: Instant,
    /// Not before this, so that the device gets its pause.
    rested: Instant,
    state: State,
    backoff: Backoff,
    /// When refused registers are tried again.
    retry_refused: Instant,
    refused: Backoff,
}

/// What was asked for, and how.
#[derive(Debug, Default)]
struct Plan {
    due: Vec<usize>,
    version: u64,
    requests: Vec<Request>,
}

impl Unit {
    /// A device that is due at once.
    pub fn new(config: Arc<Config>, backoff: Backoff, now: Instant) -> Unit {
        let span = |i: u16| {
            config.registers.get(usize::from(i)).map(|r| Span { table: r.table, address: r.address, count: r.count })
        };
        let mut points: Vec<u16> = (0..u16::try_from(config.registers.len()).unwrap_or(u16::MAX)).collect();
        points.sort_by_key(|i| span(*i));
        let spans = points.iter().filter_map(|i| span(*i)).collect();
        let schedule = Schedule::new(config.registers.iter().map(|r| r.period), now);
        let period = |i: &u16| config.registers.get(usize::from(*i)).map_or(Duration::ZERO, |r| r.period);
        let groups = points.iter().map(|i| schedule.group(period(i)).unwrap_or(0)).collect();
        let map = Map::new(spans, config.limits);
        let (stats, state) = (Stats::default(), State::Unknown);
        let refused = Backoff::new(REFUSED_PAUSE.0, REFUSED_PAUSE.1);
        Unit {
            config,
            stats,
            map,
            points,
            groups,
            schedule,
            due: Vec::new(),
            pending: VecDeque::new(),
            plan: Plan::default(),
            deadline: now,
            rested: now,
            state,
            backoff,
            retry_refused: now,
            refused,
        }
    }

    /// When it wants the wire next, and until when it should have had it.
    pub fn next(&self) -> Option<(Instant, Instant)> {
        // Nobody answers to reads for everybody.
        if self.config.is_broadcast() {
            return None;
        }
        let (at, deadline) = match &self.state {
            _ if !self.pending.is_empty() => (self.rested, self.deadline),
            State::Unknown | State::Online => (self.schedule.next()?, self.schedule.deadline()?),
            // Those that answer go first.
            State::Offline { until, .. } => (*until, *until + LONGEST_WAIT),
        };
        Some((at.max(self.rested), deadline))
    }

    /// The next request of the poll under way; a new poll when that is done. The schedule moves on.
    pub fn next_request(&mut self, now: Instant) -> Option<Request> {
        if self.pending.is_empty() {
            self.deadline = self.schedule.deadline().unwrap_or(now);
            let mut due = std::mem::take(&mut self.due);
            self.take_due(now, &mut due);
            let version = self.map.version();
            if self.plan.version != version || self.plan.due != due {
                self.map.plan(&due, &mut self.plan.requests);
                self.plan.due.clone_from(&due);
                self.plan.version = version;
            }
            self.pending.extend(&self.plan.requests);
            self.due = due;
        }
        self.pending.pop_front()
    }

    /// The points (sorted) of the poll under way.
    pub fn due(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.due)
    }

    /// The points of the poll under way, given back, with the halves of a request that was refused.
    pub fn resume(&mut self, due: Vec<usize>, halves: Option<[Request; 2]>) {
        self.due = due;
        for request in halves.into_iter().flatten().rev() {
            self.pending.push_front(request);
        }
    }

    /// The device was spoken to just now.
    pub fn spoken_to(&mut self, now: Instant) {
        self.rested = now + self.config.interval;
    }

    /// The registers that are due now (sorted); the schedule moves on.
    fn take_due(&mut self, now: Instant, due: &mut Vec<usize>) {
        let retry = self.map.any_bad() && self.retry_refused <= now;
        if retry {
            self.retry_refused = now + self.refused.pause();
        }
        let wanted = |(i, group): (usize, &usize)| {
            (self.schedule.is_due(*group, now) && (retry || !self.map.is_bad(i))).then_some(i)
        };
        due.clear();
        due.extend(self.groups.iter().enumerate().filter_map(wanted));
        let skipped = self.schedule.advance(now);
        // What is not asked of a device that does not answer is no overrun.
        if !matches!(self.state, State::Offline { .. }) {
            self.stats.overruns = self.stats.overruns.saturating_add(skipped);
        }
    }

    /// A register was refused alone (sorted).
    pub fn set_refused(&mut self, index: usize, now: Instant) {
        if !self.map.any_bad() {
            self.refused.reset();
            self.retry_refused = now + self.refused.pause();
        }
        self.map.set_bad(index);
    }

    /// The sorted indices of some points, or of all.
    pub fn sorted(&self, wanted: Option<usize>) -> Vec<usize> {
        let all = self.points.iter().enumerate();
        all.filter(|(_, p)| wanted.is_none_or(|w| usize::from(**p) == w)).map(|(i, _)| i).collect()
    }

    /// Why a command should not even try: the device failed just now.
    pub fn known_fault(&self, now: Instant) -> Option<Fault> {
        match &self.state {
            State::Offline { since, reason, .. } if *since + COMMAND_PAUSE > now => Some(reason.clone()),
            _ => None,
        }
    }

    /// It answered (exceptions are answers too).
    pub fn answered(&mut self) {
        self.state = State::Online;
        self.backoff.reset();
    }

    /// It did not answer, or nonsense. Whether that is news. While the connection is refused (until `link`), that is when all
    /// its devices try again: the pauses are the connection's, and the first success helps them all.
    pub fn failed(&mut self, reason: Fault, now: Instant, link: Option<Instant>) -> bool {
        let news = !matches!(&self.state, State::Offline { reason: old, .. } if *old == reason);
        let until = link.unwrap_or_else(|| now + self.backoff.pause());
        self.state = State::Offline { until, since: now, reason };
        self.pending.clear();
        news
    }

    /// As a batch reports it.
    pub fn link(&self) -> Link {
        match &self.state {
            State::Unknown | State::Online => Link::Online,
            State::Offline { reason, .. } => Link::Offline(crate::AccessError::from(reason.clone()).to_string()),
        }
    }

    /// The samples of all points, without values.
    pub fn without_values(&self, quality: Quality) -> Vec<Sample> {
        self.points.iter().map(|point| Sample { point: *point, quality, value: None }).collect()
    }

    /// The points a request is for.
    pub fn points(&self, request: Request, due: &[usize]) -> Vec<u16> {
        let asked = due.get(request.first..request.last).unwrap_or_default();
        asked.iter().filter_map(|i| self.points.get(*i).copied()).collect()
    }

    /// The samples of the points a request is for, without values.
    pub fn refused(&self, request: Request, due: &[usize], quality: Quality) -> Vec<Sample> {
        let points = self.points(request, due).into_iter();
        points.map(|point| Sample { point, quality, value: None }).collect()
    }
}
