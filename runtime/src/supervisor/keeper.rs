//! The keeper of one unit: runs it, and decides what follows when a run ends.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Context, Outcome, Policy, State, Unit, Units};

/// What follows a failed run. Pure, so that it can be tested as a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Start again after this pause.
    BackOff(Duration),
    /// Leave it alone for this long.
    GaveUp(Duration),
}

/// Decides by how many runs in a row have failed.
pub(super) fn next(policy: &Policy, failures: u32) -> Next {
    if failures >= policy.attempts {
        return Next::GaveUp(policy.rest);
    }
    let doubled = policy.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
    Next::BackOff(doubled.min(policy.longest))
}

/// Runs a unit until `stop`.
pub(super) async fn keep(unit: Arc<Unit>, units: Units, stop: CancellationToken) {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let context = Context { stop: stop.clone(), name: unit.name, units: units.clone() };
        // In a task of its own: a panic ends the run, not the keeper. Aborted with the keeper, so it is never detached.
        let mut run = Task(tokio::spawn((unit.factory)(context)));
        let reason = match (&mut run.0).await {
            Ok(outcome) if stop.is_cancelled() => return stopped(&unit, &units, outcome),
            Ok(Ok(())) => "ended without being asked to".to_owned(),
            Ok(Err(error)) => chain(error.as_ref()),
            Err(panic) => format!("panicked: {panic}"),
        };
        if stop.is_cancelled() {
            return stopped(&unit, &units, Ok(()));
        }
        failures = if started.elapsed() >= unit.policy.good { 1 } else { failures + 1 };
        let pause = match next(&unit.policy, failures) {
            Next::BackOff(pause) => {
                tracing::warn!(unit = unit.name, ?pause, "failed, will be started again: {reason}");
                units.set(unit.name, State::BackOff, &reason);
                pause
            }
            Next::GaveUp(pause) => {
                tracing::error!(unit = unit.name, failures, "gave up: {reason}");
                units.set(unit.name, State::GaveUp, &reason);
                failures = 0;
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => units.set(unit.name, State::Starting, &reason),
            () = stop.cancelled() => return stopped(&unit, &units, Ok(())),
        }
    }
}

fn stopped(unit: &Unit, units: &Units, outcome: Outcome) {
    if let Err(error) = outcome {
        tracing::warn!(unit = unit.name, "failed while stopping: {}", chain(error.as_ref()));
    }
    units.set(unit.name, State::Stopped, "");
}

/// An error with its sources, once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

struct Task(tokio::task::JoinHandle<Outcome>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
