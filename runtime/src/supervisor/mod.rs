//! The supervisor: starts units in order, restarts what fails, and stops everything in reverse order within a deadline.
//!
//! ```text
//!             ready()                 Err / panic / early end
//!  Starting ──────────► Running ─────────────────────────────► BackOff ──(time)──► Starting
//!     │                    │                                      │ too many in a row
//!     │                    │ stop                                 ▼
//!     └────────────────────┴──────────► Stopped               GaveUp ──(a long time)──► Starting
//! ```
//!
//! A unit that gave up is tried again every ten minutes: nobody is at the gateway to restart it, and what was missing (a
//! port, a disk) may be there again. It never waits on what it supervises: each unit has its own keeper task.

mod keeper;
mod status;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use keeper::chain;
pub use status::{State, UnitStatus, Units};

/// What a unit's run ends with.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A run of a unit.
pub type Run = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// When and how often a failed unit is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The first pause; doubles with each failure.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// A run at least this long forgets earlier failures.
    pub good: Duration,
    /// So many failures in a row and it gives up.
    pub attempts: u32,
    /// How long a unit that gave up rests before it is tried again.
    pub rest: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            good: Duration::from_secs(60),
            attempts: 10,
            rest: Duration::from_secs(600),
        }
    }
}

/// What a run of a unit gets.
#[derive(Clone)]
pub struct Context {
    /// Cancelled when the unit shall end.
    pub stop: CancellationToken,
    name: &'static str,
    units: Units,
}

impl Context {
    /// The unit does its work from now on.
    pub fn ready(&self) {
        self.units.set(self.name, State::Running, "");
    }
}

/// A part of the runtime that is started and restarted as a whole.
pub struct Unit {
    name: &'static str,
    policy: Policy,
    factory: Box<dyn Fn(Context) -> Run + Send + Sync>,
}

impl Unit {
    /// A unit that is run by what `factory` returns.
    pub fn new<F, R>(name: &'static str, factory: F) -> Unit
    where
        F: Fn(Context) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        Unit { name, policy: Policy::default(), factory: Box::new(move |context| Box::pin(factory(context))) }
    }

    /// With another policy.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Unit {
        self.policy = policy;
        self
    }
}

/// Units that have been started, in order.
pub struct Supervisor {
    units: Units,
    running: Vec<(&'static str, CancellationToken, JoinHandle<()>)>,
}

impl Supervisor {
    /// Nothing yet.
    pub fn new() -> Supervisor {
        Supervisor { units: Units::default(), running: Vec::new() }
    }

    /// What is seen of the units.
    pub fn units(&self) -> Units {
        self.units.clone()
    }

    /// Starts a unit after those that were started before.
    pub fn start(&mut self, unit: Unit) {
        let stop = CancellationToken::new();
        self.units.set(unit.name, State::Starting, "");
        let name = unit.name;
        let keeper = keeper::keep(Arc::new(unit), self.units.clone(), stop.clone());
        self.running.push((name, stop, tokio::spawn(keeper)));
    }

    /// Stops all units, last first, each given what is left of the deadline. Returns the names of those that did not end in time.
    pub async fn stop(mut self, deadline: Duration) -> Vec<&'static str> {
        let until = Instant::now() + deadline;
        let mut late = Vec::new();
        while let Some((name, stop, mut task)) = self.running.pop() {
            stop.cancel();
            if tokio::time::timeout_at(until, &mut task).await.is_err() {
                task.abort();
                late.push(name);
            }
        }
        late
    }
}

impl Default for Supervisor {
    fn default() -> Supervisor {
        Supervisor::new()
    }
}
