//! From what is known about a pod to the status that everybody sees. Pure.
//!
//! Source: Kubernetes documentation, "Pod Lifecycle": phases, conditions, container states.

use edge_model::node::Condition;
use edge_model::pod::status::{ContainerState, ContainerStatus, Phase, PodStatus, Terminated};
use edge_model::pod::{Container, RestartPolicy};
use edge_model::time::rfc3339;

use super::backoff::Backoff;
use super::plan::{Ended, Health, Known, Sandbox, State, Unit, Wanted, is_over, is_restarted};

#[cfg(test)]
mod tests;

/// Kubernetes' reason for a container that waits for its next start after a crash.
const CRASH_LOOP: &str = "CrashLoopBackOff";

/// What a status needs beside the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The node's address; empty when it has none.
    pub host_ip: String,
    /// The pod's address; empty when it has none.
    pub pod_ip: String,
    /// When the node took the pod up, UTC milliseconds.
    pub started_at: i64,
    /// Why the pod was ended for good (`DeadlineExceeded`, `Evicted`), with a message for people.
    pub failed: Option<(String, String)>,
}

/// The status of a pod; `before` gives the times of conditions that have not changed.
pub fn status(wanted: Wanted<'_>, known: &Known, facts: &Facts, before: &PodStatus, now: i64) -> PodStatus {
    let spec = wanted.spec;
    let initialized = is_initialized(wanted, known);
    let init = |c: &Container| container(c, known, true, initialized);
    let main = |c: &Container| container(c, known, false, initialized);
    let mut status = PodStatus {
        phase: phase(wanted, known, facts),
        host_ip: facts.host_ip.clone(),
        pod_ip: facts.pod_ip.clone(),
        start_time: rfc3339(facts.started_at),
        init_container_statuses: spec.init_containers.iter().map(init).collect(),
        container_statuses: spec.containers.iter().map(main).collect(),
        ..PodStatus::default()
    };
    if let Some((reason, message)) = &facts.failed {
        status.reason.clone_from(reason);
        status.message.clone_from(message);
    }
    conditions(&mut status, known, initialized, before, now);
    status
}

/// A status for a pod whose spec is not understood, or that is not for this node to run.
pub fn refused(reason: &str, message: &str) -> PodStatus {
    PodStatus { phase: Phase::Failed, reason: reason.to_owned(), message: message.to_owned(), ..PodStatus::default() }
}

/// A status for a pod on a node that cannot run it now.
pub fn waiting(reason: &str, message: &str) -> PodStatus {
    PodStatus { reason: reason.to_owned(), message: message.to_owned(), ..PodStatus::default() }
}

fn is_initialized(wanted: Wanted<'_>, known: &Known) -> bool {
    let in_sandbox = |name: &str| match &known.sandbox {
        Sandbox::Ready { initialized, .. } => initialized.contains(name),
        _ => false,
    };
    let over = is_over(wanted, known) && wanted.spec.containers.iter().all(|c| known.containers.contains_key(&c.name));
    over || wanted.spec.init_containers.iter().all(|c| in_sandbox(&c.name))
}

fn phase(wanted: Wanted<'_>, known: &Known, facts: &Facts) -> Phase {
    if facts.failed.is_some() {
        return Phase::Failed;
    }
    let unit = |c: &Container| known.containers.get(&c.name);
    let failed = |c: &Container| matches!(unit(c).map(|u| &u.state), Some(State::Ended(end)) if end.exit_code != 0);
    if is_over(wanted, known) {
        let any = wanted.spec.all_containers().any(failed);
        return if any { Phase::Failed } else { Phase::Succeeded };
    }
    // A container that has run before (and is about to run again) counts as running, as in Kubernetes.
    let has_run = |c: &Container| match unit(c) {
        None => false,
        Some(u) => match &u.state {
            State::Running(_) | State::Stopping { .. } | State::Ended(_) => true,
            State::New | State::Launching | State::Refused { .. } => u.last.is_some(),
        },
    };
    if wanted.spec.containers.iter().all(has_run) { Phase::Running } else { Phase::Pending }
}

fn container(c: &Container, known: &Known, init: bool, initialized: bool) -> ContainerStatus {
    let fresh = Unit::default();
    let unit = known.containers.get(&c.name).unwrap_or(&fresh);
    let last = unit.last.as_ref().map(terminated).unwrap_or_default();
    let (state, last_state) = match &unit.state {
        State::New | State::Launching => {
            let reason = if init || initialized { "ContainerCreating" } else { "PodInitializing" };
            let message = match &known.sandbox {
                Sandbox::Failed { message, .. } => message.as_str(),
                _ => "",
            };
            (ContainerState::waiting(reason, message), last)
        }
        State::Refused { refusal, .. } => (ContainerState::waiting(refusal.waiting_reason(), &refusal.message), last),
        State::Running(process) | State::Stopping { process, .. } => {
            (ContainerState::running(rfc3339(process.started_at)), last)
        }
        State::Ended(end) if end.wait > 0 => {
            let message = format!("back-off of {} s before the next start", end.wait / 1000);
            (ContainerState::waiting(CRASH_LOOP, &message), terminated(end))
        }
        State::Ended(end) => (terminated(end), last),
    };
    let running = matches!(unit.state, State::Running(_) | State::Stopping { .. });
    let done = matches!(&unit.state, State::Ended(end) if end.exit_code == 0);
    let id = match &unit.state {
        State::Running(process) | State::Stopping { process, .. } => Some(&process.id),
        State::Ended(end) => Some(&end.id),
        _ => unit.last.as_ref().map(|end| &end.id),
    };
    ContainerStatus {
        name: c.name.clone(),
        state,
        last_state,
        ready: if init { done } else { running && unit.health == Health::Ready },
        started: running && unit.health != Health::Starting,
        restart_count: unit.restarts,
        image: c.image.clone(),
        image_id: unit.image_id.clone(),
        container_id: id.map(|id| container_id(id)).unwrap_or_default(),
    }
}

fn container_id(id: &str) -> String {
    if id.is_empty() { String::new() } else { format!("edge://{id}") }
}

fn terminated(end: &Ended) -> ContainerState {
    ContainerState::terminated(Terminated {
        exit_code: end.exit_code,
        signal: end.signal,
        reason: end.reason.clone(),
        message: end.message.clone(),
        started_at: if end.started_at == 0 { String::new() } else { rfc3339(end.started_at) },
        finished_at: rfc3339(end.finished_at),
        container_id: container_id(&end.id),
    })
}

fn conditions(status: &mut PodStatus, known: &Known, initialized: bool, before: &PodStatus, now: i64) {
    let not_ready: Vec<&str> = status.container_statuses.iter().filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
    let over = matches!(status.phase, Phase::Succeeded | Phase::Failed);
    let unready = match (over, not_ready.is_empty()) {
        (true, _) => ("PodCompleted", String::new()),
        (false, true) => ("", String::new()),
        (false, false) => ("ContainersNotReady", format!("containers not ready: {}", not_ready.join(", "))),
    };
    let sandbox = match &known.sandbox {
        Sandbox::Ready { .. } => (true, "", String::new()),
        Sandbox::Failed { message, .. } => (false, "FailedCreatePodSandBox", message.clone()),
        Sandbox::None => (false, "", String::new()),
    };
    let ready = unready.0.is_empty();
    let all = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", (initialized, if initialized { "" } else { "ContainersNotInitialized" }, String::new())),
        ("ContainersReady", (ready, unready.0, unready.1.clone())),
        ("Ready", (ready, unready.0, unready.1)),
    ];
    for (kind, (holds, reason, message)) in all {
        let mut condition = Condition {
            kind: kind.to_owned(),
            status: holds.into(),
            reason: reason.to_owned(),
            message,
            last_transition_time: String::new(),
        };
        let same = before.conditions.iter().find(|c| c.kind == kind && c.status == condition.status);
        condition.last_transition_time = same.map_or_else(|| rfc3339(now), |c| c.last_transition_time.clone());
        status.conditions.push(condition);
    }
}

/// What the last status of a pod says about its containers, for a runtime that has just started. What ran then is given as
/// ended with an unknown status; whoever finds it still running corrects that. `now` is UTC, `monotonic` what
/// [`super::plan`] counts in.
pub fn recall(status: &PodStatus, policy: RestartPolicy, now: i64, monotonic: i64) -> Known {
    let init = status.init_container_statuses.iter().map(|c| (c, true));
    let main = status.container_statuses.iter().map(|c| (c, false));
    let units = init.chain(main).map(|(c, init)| (c.name.clone(), recall_unit(c, init, policy, now, monotonic)));
    Known { sandbox: Sandbox::None, containers: units.collect() }
}

fn recall_unit(c: &ContainerStatus, init: bool, policy: RestartPolicy, now: i64, monotonic: i64) -> Unit {
    let ended = |s: &ContainerState| s.terminated.as_ref().map(|end| read_terminated(end, now));
    let mut unit = Unit { restarts: c.restart_count, image_id: c.image_id.clone(), ..Unit::default() };
    if let Some(running) = &c.state.running {
        let id = c.container_id.strip_prefix("edge://").unwrap_or("").to_owned();
        unit.state = State::Ended(lost(id, &running.started_at, now));
        unit.health = match (c.started, c.ready) {
            (false, _) => Health::Starting,
            (true, false) => Health::Unready,
            (true, true) => Health::Ready,
        };
        unit.last = ended(&c.last_state);
        return unit;
    }
    // What waited had ended before, or never ran.
    let (current, last) = (ended(&c.state), ended(&c.last_state));
    let (current, last) = if current.is_some() { (current, last) } else { (last, None) };
    let Some(mut end) = current else { return unit };
    // What waits in a crash loop after an end with 0 was ended because of a probe.
    end.unhealthy = c.state.waiting.as_ref().is_some_and(|w| w.reason == CRASH_LOOP);
    if is_restarted(policy, init, end.exit_code, end.unhealthy) {
        unit.crashes = Backoff::resume(c.restart_count, end.finished_at, now);
        end.wait = unit.crashes.failed(0);
        // Never longer than the back-off itself, whatever the clock has done meanwhile.
        end.retry_at = monotonic + (end.finished_at + end.wait - now).clamp(0, end.wait);
    }
    unit.state = State::Ended(end);
    unit.last = last;
    unit
}

/// A container that was running when it was last heard of and is not there any more: the node has rebooted.
fn lost(id: String, started_at: &str, now: i64) -> Ended {
    Ended {
        id,
        hash: String::new(),
        exit_code: 137,
        signal: 0,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "the node was restarted, or the container was removed, while it ran".to_owned(),
        started_at: edge_model::time::parse_rfc3339(started_at).unwrap_or(0),
        finished_at: now,
        wait: 0,
        retry_at: 0,
        unhealthy: false,
    }
}

fn read_terminated(end: &Terminated, now: i64) -> Ended {
    let time = |text: &str| edge_model::time::parse_rfc3339(text).unwrap_or(0);
    Ended {
        id: end.container_id.strip_prefix("edge://").unwrap_or("").to_owned(),
        hash: String::new(),
        exit_code: end.exit_code,
        signal: end.signal,
        reason: end.reason.clone(),
        message: end.message.clone(),
        started_at: time(&end.started_at),
        finished_at: time(&end.finished_at).min(now),
        wait: 0,
        retry_at: 0,
        unhealthy: false,
    }
}
