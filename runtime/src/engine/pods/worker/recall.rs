//! What an earlier runtime has left of a pod is found and taken over.

use super::super::plan::{Health, Process, Sandbox, State};
use super::super::record::{self, ContainerRecord, SandboxRecord};
use super::super::{monotonic_ms, report};
use super::{DEADLINE, EVICTED, Happened, Worker};
use crate::clock::now_ms;
use crate::engine::containers::Handle;

impl Worker {
    /// What has ended while no runtime was there is never shown as running.
    pub(super) fn note_ends(&mut self) {
        let ends = self.handles.iter().filter_map(|(name, (h, _))| Some((name.clone(), h.id().to_owned(), h.end()?)));
        for (container, id, end) in ends.collect::<Vec<_>>() {
            self.exited(&container, &id, &end);
        }
    }

    /// What an earlier runtime has left: the last status, the sandbox, containers that run or have ended meanwhile.
    pub(super) fn recall(&mut self, found: Vec<Handle>) {
        let object = self.desired.borrow().object.clone();
        let (now, monotonic) = (now_ms(), monotonic_ms());
        if let Some(object) = &object {
            self.status = serde_json::from_value(object.status().clone()).unwrap_or_default();
            let policy = edge_model::pod::check(object.spec()).map(|s| s.restart_policy).unwrap_or_default();
            self.known = report::recall(&self.status, policy, now, monotonic);
        }
        self.facts.started_at = edge_model::time::parse_rfc3339(&self.status.start_time).unwrap_or(now);
        if [DEADLINE, EVICTED].contains(&self.status.reason.as_str()) {
            self.facts.failed = Some((self.status.reason.clone(), self.status.message.clone()));
        }
        let record: Option<SandboxRecord> = record::read(&record::sandbox_path(&self.dirs.run));
        if let Some(record) = record {
            if record.boot == self.ctx.boot {
                let initialized = record.initialized.clone();
                self.known.sandbox = Sandbox::Ready { hash: record.hash.clone(), initialized };
                self.facts.pod_ip = record.network.ip.map(|ip| ip.to_string()).unwrap_or_default();
            }
            self.record = record;
        }
        let mut found: Vec<(u32, Handle)> =
            found.into_iter().filter_map(|h| Some((record::parse_id(h.id())?.2, h.clone()))).collect();
        found.sort_by_key(|(restarts, _)| *restarts);
        for (restarts, handle) in found {
            self.adopt(restarts, handle);
        }
    }

    /// Takes over one container, the oldest of a name first.
    pub(super) fn adopt(&mut self, restarts: u32, handle: Handle) {
        let Some((_, container, _)) = record::parse_id(handle.id()) else { return };
        let (container, id) = (container.to_owned(), handle.id().to_owned());
        let record: Option<ContainerRecord> = record::read(&record::container_path(&self.dirs.run, &container));
        // One without a record is not the newest of its name: it is replaced, should it still run.
        let record = record.filter(|r| r.id == id).unwrap_or_else(|| ContainerRecord {
            id: id.clone(),
            hash: "unknown".to_owned(),
            image_id: String::new(),
            stop_signal: libc::SIGTERM,
        });
        let started_at = handle.running().map_or(0, |r| r.started_ms);
        let process = Process { id: id.clone(), hash: record.hash.clone(), started_at };
        let unit = self.known.containers.entry(container.clone()).or_default();
        unit.restarts = unit.restarts.max(restarts);
        if !record.image_id.is_empty() {
            unit.image_id.clone_from(&record.image_id);
        }
        if let State::Ended(before) = std::mem::replace(&mut unit.state, State::Running(process))
            && before.id != id
        {
            unit.last = Some(before);
            unit.health = Health::Starting;
        }
        tracing::info!(id, running = handle.end().is_none(), "a container of an earlier runtime is taken over");
        self.follow(container, handle, record);
    }

    /// Keeps the handle of a running container and waits for its end.
    pub(super) fn follow(&mut self, container: String, handle: Handle, record: ContainerRecord) {
        let (waiting, name, id) = (handle.clone(), container.clone(), record.id.clone());
        self.jobs.spawn(async move {
            let end = waiting.wait().await;
            Happened::Exited { container: name, id, end }
        });
        let about = self.about();
        self.ctx.running.insert(&about.namespace, &about.name, &container, handle.clone());
        if let Some((older, _)) = self.handles.insert(container, (handle, record)) {
            self.ended.push(older);
        }
    }
}
