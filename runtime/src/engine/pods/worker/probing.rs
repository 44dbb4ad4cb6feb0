//! The probes of the containers that run: started when they are due, and what follows from what they say.

use edge_model::event::EventType;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::ask::{Outcome, Target};
use super::super::monotonic_ms;
use super::super::plan::State;
use super::super::probe::{Probes, Verdict, Which};
use super::{Happened, Worker};
use crate::clock::now_ms;

/// The probes of one container that runs. Those under way end when this is dropped.
pub(super) struct Probing {
    probes: Probes,
    cancel: CancellationToken,
    _end: DropGuard,
}

impl Worker {
    /// Starts the probes that are due; gives the time of the next.
    pub(super) fn probe(&mut self) -> Option<i64> {
        let pod = self.pod.clone()?;
        let now = monotonic_ms();
        let mut next = None;
        for container in &pod.spec.containers {
            let name = &container.name;
            let Some(unit) = self.known.containers.get_mut(name) else { continue };
            let (State::Running(process), Some((handle, _))) = (&unit.state, self.handles.get(name)) else {
                self.probing.remove(name);
                continue;
            };
            if self.probing.get(name).is_none_or(|p| p.probes.id != process.id) {
                // The clock may have been set since; a container never started after now.
                let age = (now_ms() - process.started_at).clamp(0, now);
                let probes = Probes::new(&process.id, container, now - age, unit.health);
                let cancel = CancellationToken::new();
                self.probing.insert(name.clone(), Probing { probes, _end: cancel.clone().drop_guard(), cancel });
            }
            let Some(probing) = self.probing.get_mut(name) else { continue };
            for (which, probe) in probing.probes.due(now) {
                let target = Target {
                    handle: handle.clone(),
                    address: self.record.network.ip,
                    port: probe.port().and_then(|port| container.port(port)),
                };
                let (container, id, cancel) = (name.clone(), process.id.clone(), probing.cancel.clone());
                self.jobs.spawn(async move {
                    tokio::select! {
                        outcome = target.ask(&probe) => Happened::Probed { container, id, which, outcome },
                        () = cancel.cancelled() => Happened::Cleaned,
                    }
                });
            }
            unit.health = probing.probes.health();
            next = [next, probing.probes.next()].into_iter().flatten().min();
        }
        next
    }

    /// Takes what a probe has said of a container that still runs.
    pub(super) async fn probed(&mut self, container: &str, id: &str, which: Which, outcome: Outcome) {
        let Some(probing) = self.probing.get_mut(container).filter(|p| p.probes.id == id) else { return };
        let failure = match outcome {
            Outcome::Success => None,
            Outcome::Failure(message) => Some(message),
            Outcome::Unknown(message) => {
                tracing::warn!(container = id, probe = which.name(), message, "a probe could not be made");
                return probing.probes.unknown(which);
            }
        };
        let (verdict, failures) = probing.probes.take(which, failure.is_none());
        let ends = verdict == Verdict::End;
        // The first failure of a row and the last say it all.
        if let Some(message) = failure.filter(|_| failures == 1 || ends) {
            let message = format!("{} probe failed: {message}", which.name());
            self.container_event(container, EventType::Warning, "Unhealthy", message);
        }
        if ends {
            let why = format!("the container failed its {} probe {failures} times", which.name().to_ascii_lowercase());
            self.container_event(container, EventType::Normal, "Killing", why);
            let spec = self.pod.as_ref().map(|p| &p.spec);
            let probe =
                spec.and_then(|s| s.containers.iter().find(|c| c.name == container)).and_then(|c| match which {
                    Which::Startup => c.startup_probe.as_ref(),
                    Which::Liveness => c.liveness_probe.as_ref(),
                    Which::Readiness => None,
                });
            let grace = probe.and_then(|p| p.termination_grace_period_seconds);
            let grace = grace.unwrap_or_else(|| spec.map_or(self.record.grace, edge_model::pod::PodSpec::grace));
            self.stop(container, grace, true).await;
        }
    }
}
