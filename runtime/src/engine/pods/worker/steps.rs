//! The actions of a worker: make the sandbox, launch, terminate, kill, take everything away.

use std::collections::BTreeSet;
use std::sync::Arc;

use edge_model::event::EventType;
use edge_model::pod::{Medium, PodSpec, Volume};
use edge_model::topic::Topic;

use tokio_util::sync::CancellationToken;

use super::super::launch::{Launch, chain, make_volumes};
use super::super::plan::{Goal, Sandbox, State, Unit};
use super::super::record::{self, SandboxRecord};
use super::super::{Context, files, monotonic_ms, netns_path};
use super::{AGAIN, Happened, Launching, Pod, Worker};
use crate::bus::Retain;
use crate::engine::containers::Handle;
use crate::engine::logs;
use crate::engine::network::{Attachment, HostPort};
use crate::engine::volumes;

/// How often volumes on disk are measured, in milliseconds; only those with a limit.
const MEASURE: i64 = 60_000;

impl Worker {
    pub(super) async fn set_up(&mut self) {
        let Some(pod) = self.pod.clone() else { return };
        match self.try_set_up(&pod).await {
            Ok(()) => {
                self.known.sandbox = Sandbox::Ready { hash: pod.sandbox.clone(), initialized: BTreeSet::new() };
            }
            Err((reason, message)) => {
                self.event(EventType::Warning, reason, message.clone());
                self.known.sandbox = Sandbox::Failed { message, retry_at: monotonic_ms() + AGAIN };
            }
        }
    }

    pub(super) async fn try_set_up(&mut self, pod: &Arc<Pod>) -> Result<(), (&'static str, String)> {
        let meta = &pod.object.metadata;
        let mut record = SandboxRecord {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            hash: pod.sandbox.clone(),
            boot: self.ctx.boot.clone(),
            initialized: BTreeSet::new(),
            network: Attachment::default(),
            grace: pod.spec.grace(),
        };
        let netns = netns_path(&self.dirs);
        if pod.spec.host_network {
            self.ctx.network.detach(&self.uid, &netns).await;
        } else {
            let ports = host_ports(&pod.spec);
            let attached = self.ctx.network.attach(&self.uid, &netns, &ports).await;
            let attached = attached.map_err(|e| ("FailedCreatePodSandBox", chain(&e)))?;
            record.network = Attachment { ip: Some(attached.ip), ports };
            if let Some(limited) = attached.limited {
                self.event(EventType::Warning, "NetworkLimited", limited);
            }
        }
        let (ctx, dirs, shared) = (Arc::clone(&self.ctx), self.dirs.clone(), Arc::clone(pod));
        let (ip, gateway) = (record.network.ip, self.ctx.network.gateway());
        let made = tokio::task::spawn_blocking(move || {
            let hostname = files::hostname(&shared.spec, &shared.object.metadata.name);
            let dir = dirs.run.join("files");
            let written = files::write(&dir, &shared.spec, &hostname, ip, gateway);
            written.map_err(|e| ("FailedCreatePodSandBox", format!("{}: {e}", dir.display())))?;
            make_volumes(&ctx, &shared, &dirs).map_err(|e| ("FailedMount", chain(&e)))
        });
        made.await.unwrap_or_else(|e| Err(("FailedCreatePodSandBox", e.to_string())))?;
        let path = record::sandbox_path(&self.dirs.run);
        record::write(&path, &record).map_err(|e| ("FailedCreatePodSandBox", format!("{}: {e}", path.display())))?;
        self.facts.pod_ip = record.network.ip.map(|ip| ip.to_string()).unwrap_or_default();
        self.record = record;
        Ok(())
    }

    pub(super) fn launch(&mut self, container: &str, restarts: u32) {
        let Some(pod) = self.pod.clone() else { return };
        let Some(spec) = pod.spec.all_containers().find(|c| c.name == container).cloned() else { return };
        let hash = pod.hashes.get(container).cloned().unwrap_or_default();
        let unit = self.known.containers.entry(container.to_owned()).or_default();
        if let State::Ended(end) = std::mem::replace(&mut unit.state, State::Launching) {
            unit.last = Some(end);
        }
        let cancel = CancellationToken::new();
        self.launching.insert(container.to_owned(), Launching { hash: hash.clone(), cancel: cancel.clone() });
        let launch = Launch {
            ctx: Arc::clone(&self.ctx),
            pod,
            dirs: self.dirs.clone(),
            container: spec,
            hash: hash.clone(),
            restarts,
            ip: self.record.network.ip,
            cancel,
        };
        let container = container.to_owned();
        self.jobs.spawn(async move {
            let result = launch.run().await;
            Happened::Launched { container, hash, restarts, result }
        });
    }

    pub(super) async fn terminate(&mut self, container: &str) {
        let grace = self.pod.as_ref().map_or(self.record.grace, |p| p.spec.grace());
        self.stop(container, grace, false).await;
    }

    /// Asks a container to end; SIGKILL follows after `grace` seconds.
    pub(super) async fn stop(&mut self, container: &str, grace: u32, unhealthy: bool) {
        let Some(unit) = self.known.containers.get_mut(container) else { return };
        let State::Running(process) = unit.state.clone() else { return };
        let kill_at = monotonic_ms() + i64::from(grace) * 1000;
        unit.state = State::Stopping { process, kill_at, killed: false, unhealthy };
        if !unhealthy {
            self.container_event(container, EventType::Normal, "Killing", "stopping the container");
        }
        if grace == 0 {
            return;
        }
        if let Some((handle, record)) = self.handles.get(container)
            && let Err(error) = handle.signal(record.stop_signal).await
        {
            // It has just ended, or its shim is gone: SIGKILL goes around the shim.
            tracing::debug!(container, error = chain(&error), "a container could not be signalled");
        }
    }

    pub(super) async fn kill(&mut self, container: &str) {
        if let Some(Unit { state: State::Stopping { killed, .. }, .. }) = self.known.containers.get_mut(container) {
            *killed = true;
        }
        if let Some((handle, _)) = self.handles.get(container) {
            handle.kill().await;
        }
    }

    /// Measures, from time to time, the volumes on disk that have a limit: the kernel keeps none there.
    pub(super) fn measure(&mut self) {
        let Some(pod) = self.pod.clone() else { return };
        let limited = pod.spec.volumes.iter().any(|v| disk_limit(v).is_some());
        let now = monotonic_ms();
        if !limited || self.goal != Goal::Run || self.facts.failed.is_some() {
            self.measure_at = None;
            return;
        }
        let due = self.measure_at.is_none_or(|at| at <= now);
        if !due {
            return;
        }
        self.measure_at = Some(now + MEASURE);
        let dirs = self.dirs.clone();
        self.jobs.spawn_blocking(move || {
            let over = pod.spec.volumes.iter().find_map(|volume| {
                let limit = disk_limit(volume)?;
                let used = volumes::usage(&dirs.volume(volume));
                let message = || format!("volume {:?} takes {used} bytes, {limit} is its limit", volume.name);
                (used > limit).then(message)
            });
            Happened::Measured(over)
        });
    }

    /// Removes what is left of containers whose end is in the status by now.
    pub(super) fn clean(&mut self) {
        if self.again_at.is_some() {
            return;
        }
        for handle in self.ended.drain(..) {
            let ctx = Arc::clone(&self.ctx);
            self.jobs.spawn(async move {
                remove(&ctx, &handle).await;
                Happened::Cleaned
            });
        }
    }

    /// Takes everything of the pod away; whether nothing is left.
    pub(super) async fn tear_down(&mut self) -> bool {
        for handle in self.ended.drain(..) {
            remove(&self.ctx, &handle).await;
        }
        // Cleanings that are under way, and waits for ends that have come, end soon by themselves.
        while self.jobs.join_next().await.is_some() {}
        self.ctx.network.detach(&self.uid, &netns_path(&self.dirs)).await;
        let about = self.about();
        let (dirs, uid) = (self.dirs.clone(), self.uid.clone());
        let logs = logs::pod_dir(&self.ctx.settings.log_dir, &about.namespace, &about.name, &uid);
        let removed = tokio::task::spawn_blocking(move || {
            let removed = volumes::tear_down(&dirs);
            // A log nobody can ask for any more; not worth holding up the rest.
            let _ = std::fs::remove_dir_all(logs);
            removed
        });
        match removed.await {
            Ok(Ok(())) => {
                let another = edge_model::Key::new(edge_model::Kind::Pod, &about.namespace, &about.name);
                if !about.name.is_empty() && self.ctx.store.get(&another).is_none() {
                    let topic = Topic::PodState(about.namespace.clone(), about.name.clone());
                    self.ctx.bus.publish(&topic, Vec::new(), Retain::Yes);
                }
                true
            }
            Ok(Err(error)) => {
                self.event(EventType::Warning, "FailedKillPod", chain(&error));
                self.again_at = Some(monotonic_ms() + AGAIN);
                false
            }
            Err(error) => {
                self.event(EventType::Warning, "FailedKillPod", error.to_string());
                self.again_at = Some(monotonic_ms() + AGAIN);
                false
            }
        }
    }
}

/// Removes a container that has ended, and its root file system.
async fn remove(ctx: &Context, handle: &Handle) {
    handle.delete().await;
    if let Err(error) = ctx.images.release(handle.id()).await {
        tracing::warn!(id = handle.id(), error = chain(&error), "a root file system could not be removed");
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let ports = spec.containers.iter().flat_map(|c| &c.ports);
    let mapped = ports.filter_map(|p| {
        let host_port = p.host_port?;
        Some(HostPort { protocol: p.protocol, host_ip: p.host_ip, host_port, pod_port: p.container_port })
    });
    mapped.collect()
}

/// The limit of an emptyDir on disk, in bytes.
fn disk_limit(volume: &Volume) -> Option<u64> {
    let empty = volume.empty_dir.as_ref().filter(|e| e.medium == Medium::Disk)?;
    u64::try_from(empty.size_limit.as_ref()?.value()).ok()
}
