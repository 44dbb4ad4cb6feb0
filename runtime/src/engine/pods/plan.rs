//! What to do next for one pod: wanted and known in, actions out. Pure, so that its tests are tables.
//!
//! ```text
//!           launch                    started              exit
//!   New ─────────────► Launching ─────────────► Running ───────────► Ended
//!    │                     │ refused               │ spec changed,      │
//!    │                     ▼                       │ pod deleted,       │ restart policy says so
//!    └────── retry ──── Refused                    ▼ deadline           │ and the back-off is over
//!                                              Stopping ──── exit ──────┤
//!                                         (TERM, grace, KILL)           └──► Launching
//! ```
//!
//! A pod first gets a sandbox (network, files, volumes) that lives until the pod is deleted or the node reboots. In a new
//! sandbox the init containers run one after the other; then all containers start.
//!
//! `now`, `retry_at`, `kill_at` and `wake_at` are milliseconds of the monotonic clock: a gateway without a real-time clock
//! jumps by decades when it first hears from a time server, and no back-off may come to last as long.

use std::collections::{BTreeMap, BTreeSet};

use edge_model::pod::{Container, PodSpec, RestartPolicy};

use super::backoff::Backoff;

#[cfg(test)]
mod tests;

/// What a pod is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The spec.
    pub spec: &'a PodSpec,
    /// For each container, what its spec and the parts of the pod that concern it hash to.
    pub hashes: &'a BTreeMap<String, String>,
    /// What the parts of the spec that make the sandbox hash to; part of every container's hash, too.
    pub sandbox: &'a str,
    /// What is wanted of the pod as a whole.
    pub goal: Goal,
}

/// What is wanted of a pod as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// It runs.
    Run,
    /// It has failed for good (its deadline is over): nothing runs, but it stays to be looked at.
    Halt,
    /// It is deleted: nothing is left of it.
    Remove,
}

/// What is known about a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// Its network, files and volumes.
    pub sandbox: Sandbox,
    /// Its containers by name; one that is not here is new.
    pub containers: BTreeMap<String, Unit>,
}

/// The network, files and volumes that a pod's containers share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// There is none.
    #[default]
    None,
    /// It could not be made.
    Failed {
        /// Why.
        message: String,
        /// When to try again.
        retry_at: i64,
    },
    /// It is there.
    Ready {
        /// The hash of the parts of the spec it was made from.
        hash: String,
        /// The init containers that have ended with 0 in it.
        initialized: BTreeSet<String>,
    },
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unit {
    /// What it does.
    pub state: State,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended before the current state.
    pub last: Option<Ended>,
    /// The back-off of its crashes.
    pub crashes: Backoff,
    /// The back-off of its refusals.
    pub refusals: Backoff,
    /// The digest of its image, once known.
    pub image_id: String,
    /// What its probes say while it runs.
    pub health: Health,
}

/// What the probes of a running container say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// It has started and is ready; also one without probes.
    #[default]
    Ready,
    /// It has started but is not ready.
    Unready,
    /// It has not started yet.
    Starting,
}

impl Unit {
    /// Whether it has, or may have, a process.
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Launching | State::Running(_) | State::Stopping { .. })
    }
}

/// What a container does.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum State {
    /// It never ran.
    #[default]
    New,
    /// Its image is fetched, its files are made, it is started.
    Launching,
    /// It could not be launched.
    Refused {
        /// Why.
        refusal: Refusal,
        /// When to try again.
        retry_at: i64,
    },
    /// It runs.
    Running(Process),
    /// It runs, but has been told to end.
    Stopping {
        /// The container.
        process: Process,
        /// When SIGKILL follows.
        kill_at: i64,
        /// Whether SIGKILL was sent.
        killed: bool,
        /// Whether that is because of a probe: its end is a crash then, whatever it ends with.
        unhealthy: bool,
    },
    /// It ended.
    Ended(Ended),
}

/// A container that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its identity in the engine.
    pub id: String,
    /// The hash of the spec it was made from.
    pub hash: String,
    /// Since when, UTC milliseconds.
    pub started_at: i64,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its identity in the engine; empty when it never got one.
    pub id: String,
    /// The hash of the spec it was made from; empty when that is not known any more, and then taken as the current one.
    pub hash: String,
    /// The exit code; 128 + the signal when a signal ended it.
    pub exit_code: i32,
    /// The signal that ended it; 0 when none did.
    pub signal: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it started, UTC milliseconds; 0 when it did not.
    pub started_at: i64,
    /// When it ended, UTC milliseconds.
    pub finished_at: i64,
    /// How long to wait before it is started again, in milliseconds; 0 when that is at once, or never.
    pub wait: i64,
    /// When it may be started again.
    pub retry_at: i64,
    /// Whether it was ended because of a probe; such a container is started again even after it has ended with 0.
    pub unhealthy: bool,
}

/// Why a container could not be launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// What it is called while waiting for the next try.
    pub fn waiting_reason(&self) -> &'static str {
        if self.reason == "ErrImagePull" { "ImagePullBackOff" } else { self.reason }
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the sandbox.
    SetUp,
    /// Fetch the image, make the files, start.
    Launch {
        /// The container's name.
        container: String,
        /// How often it has been started again, this time included.
        restarts: u32,
    },
    /// Send SIGTERM; SIGKILL follows after the grace.
    Terminate {
        /// The container's name.
        container: String,
    },
    /// Send SIGKILL.
    Kill {
        /// The container's name.
        container: String,
    },
    /// Nothing runs any more in a pod that is to go: take everything away.
    TearDown,
}

/// What to do, and when to look again if nothing else happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// In order.
    pub actions: Vec<Action>,
    /// When to look again if nothing else happens.
    pub wake_at: Option<i64>,
}

impl Decision {
    fn wake(&mut self, at: i64) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

/// What to do for a pod at `now`.
pub fn decide(wanted: Wanted<'_>, known: &Known, now: i64) -> Decision {
    let mut decision = Decision::default();
    stop_what_is_not_wanted(wanted, known, now, &mut decision);
    match wanted.goal {
        Goal::Run if is_over(wanted, known) => return decision,
        Goal::Run => {}
        Goal::Halt => return decision,
        Goal::Remove => {
            if !known.containers.values().any(Unit::is_busy) {
                decision.actions.push(Action::TearDown);
            }
            return decision;
        }
    }
    let initialized = match &known.sandbox {
        Sandbox::Ready { hash, initialized } if hash == wanted.sandbox => initialized,
        Sandbox::Failed { retry_at, .. } if *retry_at > now => {
            decision.wake(*retry_at);
            return decision;
        }
        // Whatever still lives in an old sandbox has to end before it is made anew.
        Sandbox::None | Sandbox::Failed { .. } | Sandbox::Ready { .. } => {
            if !known.containers.values().any(Unit::is_busy) {
                decision.actions.push(Action::SetUp);
            }
            return decision;
        }
    };
    let next = wanted.spec.init_containers.iter().find(|c| !initialized.contains(&c.name));
    if let Some(container) = next {
        advance(wanted, known, container, now, &mut decision);
        return decision;
    }
    for container in &wanted.spec.containers {
        advance(wanted, known, container, now, &mut decision);
    }
    decision
}

/// Terminates what runs and is not wanted (any more, or in this form), and kills what outstays its grace.
fn stop_what_is_not_wanted(wanted: Wanted<'_>, known: &Known, now: i64, decision: &mut Decision) {
    for (name, unit) in &known.containers {
        match &unit.state {
            State::Running(process) if wanted.goal != Goal::Run || wanted.hashes.get(name) != Some(&process.hash) => {
                decision.actions.push(Action::Terminate { container: name.clone() });
            }
            State::Stopping { killed: false, kill_at, .. } if *kill_at > now => decision.wake(*kill_at),
            State::Stopping { killed: false, .. } => decision.actions.push(Action::Kill { container: name.clone() }),
            _ => {}
        }
    }
}

/// Launches one container if it should run, does not, and the time has come.
fn advance(wanted: Wanted<'_>, known: &Known, container: &Container, now: i64, decision: &mut Decision) {
    let fresh = Unit::default();
    let unit = known.containers.get(&container.name).unwrap_or(&fresh);
    let launch = |restarts: u32| Action::Launch { container: container.name.clone(), restarts };
    match &unit.state {
        State::Launching | State::Running(_) | State::Stopping { .. } => {}
        State::New => decision.actions.push(launch(unit.restarts)),
        State::Refused { retry_at, .. } if *retry_at > now => decision.wake(*retry_at),
        State::Refused { .. } => {
            let again = u32::from(unit.last.is_some());
            decision.actions.push(launch(unit.restarts + again));
        }
        State::Ended(end) => match start_again_at(wanted, container, end) {
            None => {}
            Some(at) if at > now => decision.wake(at),
            Some(_) => decision.actions.push(launch(unit.restarts + 1)),
        },
    }
}

/// When a container that ended is to be started again; `None` if it is not.
fn start_again_at(wanted: Wanted<'_>, container: &Container, end: &Ended) -> Option<i64> {
    if !end.hash.is_empty() && wanted.hashes.get(&container.name) != Some(&end.hash) {
        return Some(0);
    }
    // An init container that ended well is asked for again only in a new sandbox, after a reboot.
    let init = wanted.spec.init_containers.iter().any(|c| c.name == container.name);
    if init && end.exit_code == 0 {
        return Some(0);
    }
    is_restarted(wanted.spec.restart_policy, init, end.exit_code, end.unhealthy).then_some(end.retry_at)
}

/// Whether a container that ended with this code, or was ended because of a probe, is started again by policy.
pub fn is_restarted(policy: RestartPolicy, init: bool, exit_code: i32, unhealthy: bool) -> bool {
    match policy {
        RestartPolicy::Always => !(init && exit_code == 0),
        RestartPolicy::OnFailure => unhealthy || exit_code != 0,
        RestartPolicy::Never => false,
    }
}

/// Whether the pod has come to its end: nothing runs and nothing will be started again.
pub fn is_over(wanted: Wanted<'_>, known: &Known) -> bool {
    let ended_for_good = |c: &Container| match known.containers.get(&c.name).map(|u| &u.state) {
        Some(State::Ended(end)) => start_again_at(wanted, c, end).is_none(),
        _ => false,
    };
    wanted.spec.containers.iter().all(ended_for_good) || wanted.spec.init_containers.iter().any(ended_for_good)
}
