//! The health gate: a new version proves itself by being well for a while without a break, or gives way to the one before.
//!
//! Well means what `/readyz` means, that all units are at work but those that were not before either, and that every probe gives
//! a sign of life.

use std::time::Duration;

use super::launch::own_slot;
use super::slots::{Ending, Phase};
use super::{Handle, kept};
use crate::supervisor::{Context, Outcome, State as UnitState, UnitStatus};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);

/// How long a new version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long it must be well without a break.
    pub health: Duration,
    /// How long after its start it must have been.
    pub deadline: Duration,
    /// How often it may be started until then.
    pub tries: u32,
}

/// What is seen of the node at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// All is as it should be.
    Well,
    /// Something is not, and may still become so.
    Unwell(String),
    /// A unit has given up.
    Lost(String),
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// It has proved itself.
    Commit,
    /// It has not.
    RollBack(String),
}

/// The gate: pure, so that it can be tested as a table. Times are since the start.
#[derive(Debug, Clone)]
pub struct Gate {
    settings: Settings,
    well_since: Option<Duration>,
}

impl Gate {
    /// A gate at the start.
    pub fn new(settings: Settings) -> Gate {
        Gate { settings, well_since: None }
    }

    /// What follows from what is seen now.
    pub fn look(&mut self, now: Duration, sight: Sight) -> Verdict {
        let why = match sight {
            Sight::Lost(why) => return Verdict::RollBack(why),
            Sight::Well => {
                let since = *self.well_since.get_or_insert(now);
                if now.saturating_sub(since) >= self.settings.health {
                    return Verdict::Commit;
                }
                "it was not well for long enough".to_owned()
            }
            Sight::Unwell(why) => {
                self.well_since = None;
                why
            }
        };
        if now >= self.settings.deadline {
            let seconds = self.settings.deadline.as_secs();
            return Verdict::RollBack(format!("not healthy within {seconds} s: {why}"));
        }
        Verdict::Wait
    }
}

/// What is seen, from the units, whether the node is ready, and the probes that were silent.
pub fn sight(units: &[UnitStatus], excused: &[String], ready: Result<(), String>, silent: &[&'static str]) -> Sight {
    let held = || units.iter().filter(|u| !excused.iter().any(|name| name == u.name));
    let words = |u: &UnitStatus| format!("{} is {}: {}", u.name, u.state.name(), u.reason);
    if let Some(lost) = held().find(|u| u.state == UnitState::GaveUp) {
        return Sight::Lost(words(lost));
    }
    if let Some(unwell) = held().find(|u| !matches!(u.state, UnitState::Running | UnitState::Stopped)) {
        return Sight::Unwell(words(unwell));
    }
    match (ready, silent) {
        (Err(why), _) => Sight::Unwell(why),
        (Ok(()), []) => Sight::Well,
        (Ok(()), silent) => Sight::Unwell(format!("no sign of life from {}", silent.join(", "))),
    }
}

/// Tells what became of the last change, and watches a version that is on trial until it has proved itself or gives way.
///
/// # Errors
/// The state cannot be read or replaced.
pub async fn run(handle: &Handle, settings: Settings, context: Context) -> Outcome {
    context.ready();
    let folder = handle.folder().clone();
    let state = tokio::task::spawn_blocking(move || folder.read()).await?.unwrap_or_default();
    tell(handle).await?;
    let ours = |state: &super::State| state.phase == Phase::Trial && state.current == own_slot();
    if let Some(state) = state.filter(ours) {
        tracing::info!(version = %state.version(state.current), ?settings, "on trial");
        let (started, mut gate) = (tokio::time::Instant::now(), Gate::new(settings));
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = context.stop.cancelled() => return Ok(()),
            }
            match gate.look(started.elapsed(), handle.sight(&state.excused)) {
                Verdict::Wait => {}
                Verdict::Commit => {
                    commit(handle).await?;
                    tell(handle).await?;
                    break;
                }
                Verdict::RollBack(why) => {
                    tracing::error!("the version on trial gives way: {why}");
                    // Told by the version before: it is the one that goes on.
                    change(handle, move |state| state.roll_back(&why, crate::clock::now_ms())).await?;
                    handle.restart_now();
                    break;
                }
            }
        }
    }
    context.stop.cancelled().await;
    Ok(())
}

async fn commit(handle: &Handle) -> Outcome {
    change(handle, |state| state.commit("healthy", crate::clock::now_ms())).await?;
    crate::sys::alarm(0);
    let folder = handle.folder().clone();
    if let Err(error) = tokio::task::spawn_blocking(move || kept::forget(&folder)).await? {
        tracing::warn!(%error, "the copy of the object store cannot be removed");
    }
    Ok(())
}

/// Changes the state if this version is still the one on trial.
async fn change(handle: &Handle, change: impl FnOnce(&mut super::State) + Send + 'static) -> Outcome {
    let folder = handle.folder().clone();
    let changing = move || {
        folder.change(|state| {
            let ours = state.phase == Phase::Trial && state.current == own_slot();
            ours.then(|| change(state))
        })
    };
    tokio::task::spawn_blocking(changing).await??;
    Ok(())
}

/// Records an event of what became of the last change, once.
async fn tell(handle: &Handle) -> Outcome {
    let folder = handle.folder().clone();
    let untold = move || {
        folder.change(|state| {
            let last = state.last.as_mut().filter(|last| !last.told)?;
            last.told = true;
            Some(last.clone())
        })
    };
    // No folder is no change to tell of.
    if !handle.folder().path().exists() {
        return Ok(());
    }
    match tokio::task::spawn_blocking(untold).await? {
        Ok(Some(last)) => {
            let (from, to, why) = (&last.from, &last.to, &last.why);
            match last.ending {
                Ending::Committed => {
                    handle.event("UpdateCommitted", false, format!("updated from {from} to {to}: {why}"))
                }
                Ending::RolledBack => {
                    handle.event("UpdateRolledBack", true, format!("went back from {from} to {to}: {why}"));
                }
                Ending::Superseded => {
                    handle.event("UpdateSuperseded", false, format!("{from} gave way to {to}: {why}"))
                }
            }
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "what became of the last update cannot be told"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        let second = Duration::from_secs;
        Gate::new(Settings { health: second(10), deadline: second(60), tries: 3 })
    }

    fn looks(sights: &[(u64, Sight)]) -> Verdict {
        let mut gate = gate();
        let mut last = Verdict::Wait;
        for (at, sight) in sights {
            assert_eq!(last, Verdict::Wait);
            last = gate.look(Duration::from_secs(*at), sight.clone());
        }
        last
    }

    #[test]
    fn health_counts_without_a_break_until_the_deadline() {
        let unwell = || Sight::Unwell("bus".into());
        assert_eq!(looks(&[(0, Sight::Well), (9, Sight::Well)]), Verdict::Wait);
        assert_eq!(looks(&[(0, Sight::Well), (10, Sight::Well)]), Verdict::Commit);
        assert_eq!(looks(&[(0, Sight::Well), (9, unwell()), (10, Sight::Well), (19, Sight::Well)]), Verdict::Wait);
        let late = looks(&[(0, unwell()), (60, unwell())]);
        assert!(matches!(&late, Verdict::RollBack(why) if why.contains("60 s: bus")), "{late:?}");
        assert_eq!(looks(&[(1, Sight::Lost("x".into()))]), Verdict::RollBack("x".into()));
        // Just in time.
        assert_eq!(looks(&[(52, Sight::Well), (62, Sight::Well)]), Verdict::Commit);
    }

    #[test]
    fn what_was_not_well_before_is_excused() {
        let unit = |name, state| UnitStatus { name, state, reason: "port taken".into(), restarts: 0 };
        let units = [unit("bus", UnitState::GaveUp), unit("api", UnitState::Running), unit("x", UnitState::Stopped)];
        assert_eq!(sight(&units, &["bus".into()], Ok(()), &[]), Sight::Well);
        assert!(matches!(sight(&units, &[], Ok(()), &[]), Sight::Lost(_)));
        assert!(matches!(sight(&units[1..], &[], Err("store".into()), &[]), Sight::Unwell(_)));
        assert!(matches!(sight(&units[1..], &[], Ok(()), &["queue"]), Sight::Unwell(_)));
    }
}
