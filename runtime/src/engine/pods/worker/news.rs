//! What the jobs of a worker have come to: containers that run, that were refused, that ended.

use edge_model::event::EventType;
use edge_model::pod::RestartPolicy;

use super::super::launch::{Launched, NotLaunched};
use super::super::plan::{self, Ended, Health, Process, Refusal, Sandbox, State};
use super::super::{monotonic_ms, record};
use super::{EVICTED, Happened, Worker};
use crate::clock::now_ms;
use crate::engine::containers::End;
use crate::engine::shim::protocol::{FailureKind, Reason};

/// How long the remains of a container may take to go, before another with the same identity is made; milliseconds.
const SOON: i64 = 1_000;

impl Worker {
    pub(super) async fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Launched { container, hash, restarts, result } => {
                self.launched(&container, &hash, restarts, result)
            }
            Happened::Exited { container, id, end } => self.exited(&container, &id, &end),
            Happened::Probed { container, id, which, outcome } => self.probed(&container, &id, which, outcome).await,
            Happened::Measured(Some(message)) => {
                self.event(EventType::Warning, EVICTED, message.clone());
                self.facts.failed = Some((EVICTED.to_owned(), message));
            }
            Happened::Measured(None) | Happened::Cleaned => {}
        }
    }

    pub(super) fn launched(
        &mut self,
        container: &str,
        hash: &str,
        restarts: u32,
        result: Result<Launched, NotLaunched>,
    ) {
        self.launching.remove(container);
        let now = monotonic_ms();
        let policy = self.policy();
        let Some(unit) = self.known.containers.get_mut(container) else { return };
        match result {
            Ok(Launched { handle, record }) => {
                unit.restarts = restarts;
                unit.image_id.clone_from(&record.image_id);
                unit.refusals.reset();
                unit.health = Health::Starting;
                let started_at = handle.running().map_or_else(now_ms, |r| r.started_ms);
                unit.state = State::Running(Process { id: record.id.clone(), hash: hash.to_owned(), started_at });
                self.measure_at = None;
                self.container_event(container, EventType::Normal, "Started", "started the container");
                self.follow(container.to_owned(), handle, record);
            }
            Err(NotLaunched::Cancelled) => {
                let refusal = Refusal { reason: "ContainerCreating", message: String::new() };
                unit.state = State::Refused { refusal, retry_at: now };
            }
            Err(NotLaunched::Refused(refusal)) => {
                let retry_at = now + unit.refusals.refused();
                let (reason, message) = (refusal.reason, refusal.message.clone());
                unit.state = State::Refused { refusal, retry_at };
                self.container_event(container, EventType::Warning, "Failed", format!("{reason}: {message}"));
            }
            Err(NotLaunched::Failed { exit_code, message, image_id }) => {
                unit.restarts = restarts;
                unit.image_id = image_id;
                let init =
                    self.pod.as_ref().is_some_and(|p| p.spec.init_containers.iter().any(|c| c.name == container));
                let wait = if plan::is_restarted(policy, init, exit_code, false) { unit.crashes.failed(0) } else { 0 };
                let finished_at = now_ms();
                unit.state = State::Ended(Ended {
                    hash: hash.to_owned(),
                    exit_code,
                    reason: "StartError".to_owned(),
                    message: message.clone(),
                    finished_at,
                    wait,
                    retry_at: now + wait,
                    ..Ended::default()
                });
                self.container_event(container, EventType::Warning, "Failed", message);
            }
        }
    }

    pub(super) fn policy(&self) -> RestartPolicy {
        self.pod.as_ref().map_or(RestartPolicy::Never, |p| p.spec.restart_policy)
    }

    pub(super) fn exited(&mut self, container: &str, id: &str, end: &End) {
        let policy = self.policy();
        let init = self.pod.as_ref().is_some_and(|p| p.spec.init_containers.iter().any(|c| c.name == container));
        let Some(unit) = self.known.containers.get_mut(container) else { return };
        let (process, stopping, unhealthy) = match &unit.state {
            State::Running(process) if process.id == id => (process.clone(), false, false),
            State::Stopping { process, unhealthy, .. } if process.id == id => (process.clone(), !unhealthy, *unhealthy),
            _ => return,
        };
        if let End::Failed(failure) = end
            && failure.kind != FailureKind::Command
        {
            // The runtime was killed while it was starting, and the shim with it: it never ran, so nothing has ended.
            let refusal = Refusal { reason: "RunContainerError", message: failure.message.clone() };
            unit.state = State::Refused { refusal, retry_at: monotonic_ms() + SOON };
            self.let_go(container, id);
            return;
        }
        let mut ended = describe(&process, end);
        ended.unhealthy = unhealthy;
        let ran = ended.finished_at - ended.started_at;
        if !stopping && plan::is_restarted(policy, init, ended.exit_code, unhealthy) {
            ended.wait = unit.crashes.failed(ran);
        }
        ended.retry_at = monotonic_ms() + ended.wait;
        let (exit_code, wait, message) = (ended.exit_code, ended.wait, ended.message.clone());
        let oom = ended.reason == "OOMKilled";
        unit.state = State::Ended(ended);
        if init && exit_code == 0 {
            self.initialized(container);
        }
        self.let_go(container, id);
        if oom {
            self.container_event(
                container,
                EventType::Warning,
                "OOMKilled",
                "the container went over its memory limit",
            );
        }
        if wait > 0 {
            let message = format!("back-off of {} s: the container ended with {exit_code} {message}", wait / 1000);
            self.container_event(container, EventType::Warning, "BackOff", message.trim_end());
        }
    }

    /// What is left of a container that does not run any more goes once that is in the status.
    fn let_go(&mut self, container: &str, id: &str) {
        let about = self.about();
        self.ctx.running.remove(&about.namespace, &about.name, container, id);
        if let Some((handle, _)) = self.handles.remove(container) {
            self.ended.push(handle);
        }
    }

    pub(super) fn initialized(&mut self, container: &str) {
        if let Sandbox::Ready { initialized, .. } = &mut self.known.sandbox {
            initialized.insert(container.to_owned());
        }
        self.record.initialized.insert(container.to_owned());
        let path = record::sandbox_path(&self.dirs.run);
        if let Err(error) = record::write(&path, &self.record) {
            // After a restart of the runtime the init container would run once more.
            tracing::warn!(path = %path.display(), %error, "a sandbox could not be described");
        }
    }
}

/// How a container ended, in the words of Kubernetes.
fn describe(process: &Process, end: &End) -> Ended {
    let base = Ended {
        id: process.id.clone(),
        hash: process.hash.clone(),
        started_at: process.started_at,
        ..Ended::default()
    };
    match end {
        End::Exited(exit) => {
            let (reason, message) = match exit.reason {
                Reason::Rebooted => ("ContainerStatusUnknown", "the node was restarted while it ran"),
                Reason::ShimLost => ("Error", "the shim of the container was killed"),
                Reason::Ended if exit.oom_killed => ("OOMKilled", ""),
                Reason::Ended if exit.code == 0 => ("Completed", ""),
                Reason::Ended => ("Error", ""),
            };
            Ended {
                exit_code: exit.code,
                signal: exit.signal.unwrap_or(0),
                reason: reason.to_owned(),
                message: message.to_owned(),
                finished_at: exit.finished_ms,
                ..base
            }
        }
        End::Failed(failure) => Ended {
            exit_code: 128,
            reason: "StartError".to_owned(),
            message: failure.message.clone(),
            finished_at: now_ms(),
            ..base
        },
    }
}
