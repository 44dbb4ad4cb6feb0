//! The worker of one pod: decides, acts, reports, and waits for what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use edge_model::Object;
use edge_model::event::{EventType, Reference};
use edge_model::pod::status::{Phase, PodStatus};
use edge_model::pod::{PodSpec, RestartPolicy};
use edge_model::topic::Topic;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::launch::{Launch, Launched, NotLaunched, chain, make_volumes};
use super::plan::{self, Action, Ended, Goal, Known, Process, Refusal, Sandbox, State, Unit, Wanted};
use super::record::{self, ContainerRecord, SandboxRecord};
use super::report::{self, Facts};
use super::{Context, files, hash, monotonic_ms, netns_path};
use crate::bus::Retain;
use crate::clock::now_ms;
use crate::engine::containers::{End, Handle};
use crate::engine::logs;
use crate::engine::network::{Attachment, HostPort};
use crate::engine::shim::protocol::Reason;
use crate::engine::volumes::{self, PodDirs};
use crate::store::{Durability, StoreError};

/// How long to wait before something of our own (a status, a removal) is tried again, in milliseconds.
const AGAIN: i64 = 10_000;
/// From this many restarts on, a crash loop's states reach the disk lazily: each round would otherwise be three writes.
const LAZY_RESTARTS: u32 = 5;

/// What the reconciler tells a worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Desired {
    /// The pod; `None` when it is gone.
    pub(super) object: Option<Arc<Object>>,
    /// Grows when a ConfigMap or Secret of the namespace changes.
    pub(super) related: u64,
}

/// A pod whose spec is understood.
pub(super) struct Pod {
    pub(super) object: Arc<Object>,
    pub(super) spec: PodSpec,
    hashes: BTreeMap<String, String>,
    sandbox: String,
}

/// Something that a job of the worker has come to.
enum Happened {
    Launched { container: String, hash: String, restarts: u32, result: Result<Launched, NotLaunched> },
    Exited { container: String, id: String, end: End },
    Cleaned,
}

/// What is being launched.
struct Launching {
    hash: String,
    cancel: CancellationToken,
}

/// The worker of one pod.
pub(super) struct Worker {
    ctx: Arc<Context>,
    uid: String,
    dirs: PodDirs,
    desired: watch::Receiver<Desired>,
    related: u64,
    goal: Goal,
    pod: Option<Arc<Pod>>,
    record: SandboxRecord,
    known: Known,
    facts: Facts,
    /// The containers that run.
    handles: BTreeMap<String, (Handle, ContainerRecord)>,
    launching: BTreeMap<String, Launching>,
    /// Containers that have ended, kept until that is in the status.
    ended: Vec<Handle>,
    jobs: JoinSet<Happened>,
    /// The status as last written.
    status: PodStatus,
    /// When something of our own is to be tried again.
    again_at: Option<i64>,
}

impl Worker {
    /// A worker for the pod with this uid, and the containers an earlier runtime has left of it.
    pub(super) fn new(ctx: Arc<Context>, uid: &str, desired: watch::Receiver<Desired>, found: Vec<Handle>) -> Worker {
        let dirs = ctx.dirs(uid);
        let mut worker = Worker {
            ctx,
            uid: uid.to_owned(),
            dirs,
            desired,
            related: 0,
            goal: Goal::Run,
            pod: None,
            record: SandboxRecord::default(),
            known: Known::default(),
            facts: Facts::default(),
            handles: BTreeMap::new(),
            launching: BTreeMap::new(),
            ended: Vec::new(),
            jobs: JoinSet::new(),
            status: PodStatus::default(),
            again_at: None,
        };
        worker.recall(found);
        worker
    }

    /// Runs until the pod is gone and nothing is left of it, or `stop`: then the containers go on without us.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.look();
        self.note_ends();
        loop {
            let Some(wake) = self.act().await else { return };
            self.report().await;
            self.clean();
            let wake = [wake, self.again_at].into_iter().flatten().min();
            let sleep = wake.map(|at| u64::try_from(at - monotonic_ms()).unwrap_or(0)).map(Duration::from_millis);
            tokio::select! {
                changed = self.desired.changed() => if changed.is_err() { return },
                Some(happened) = self.jobs.join_next() => match happened {
                    Ok(happened) => self.happened(happened),
                    Err(error) => tracing::error!(uid = self.uid, %error, "work on a pod has panicked"),
                },
                () = sleep_for(sleep) => {}
                () = stop.cancelled() => return,
            }
            self.look();
        }
    }

    /// What has ended while no runtime was there is never shown as running.
    fn note_ends(&mut self) {
        let ends = self.handles.iter().filter_map(|(name, (h, _))| Some((name.clone(), h.id().to_owned(), h.end()?)));
        for (container, id, end) in ends.collect::<Vec<_>>() {
            self.exited(&container, &id, &end);
        }
    }

    fn about(&self) -> Reference {
        match &self.pod {
            Some(pod) => Reference::to(&pod.object),
            None => Reference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                namespace: self.record.namespace.clone(),
                name: self.record.name.clone(),
                uid: self.uid.clone(),
                field_path: String::new(),
            },
        }
    }

    fn event(&self, kind: EventType, reason: &'static str, message: impl Into<String>) {
        self.ctx.events.record(self.about(), kind, reason, message);
    }

    fn container_event(&self, container: &str, kind: EventType, reason: &'static str, message: impl Into<String>) {
        self.ctx.events.record(self.about().container(container), kind, reason, message);
    }

    /// What an earlier runtime has left: the last status, the sandbox, containers that run or have ended meanwhile.
    fn recall(&mut self, found: Vec<Handle>) {
        let object = self.desired.borrow().object.clone();
        let (now, monotonic) = (now_ms(), monotonic_ms());
        if let Some(object) = &object {
            self.status = serde_json::from_value(object.status().clone()).unwrap_or_default();
            let policy = edge_model::pod::check(object.spec()).map(|s| s.restart_policy).unwrap_or_default();
            self.known = report::recall(&self.status, policy, now, monotonic);
        }
        self.facts.started_at = edge_model::time::parse_rfc3339(&self.status.start_time).unwrap_or(now);
        if self.status.reason == DEADLINE {
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
    fn adopt(&mut self, restarts: u32, handle: Handle) {
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
        }
        tracing::info!(id, running = handle.end().is_none(), "a container of an earlier runtime is taken over");
        self.follow(container, handle, record);
    }

    /// Keeps the handle of a running container and waits for its end.
    fn follow(&mut self, container: String, handle: Handle, record: ContainerRecord) {
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

    /// Takes in what is wanted now.
    fn look(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        let related = desired.related != self.related;
        self.related = desired.related;
        match desired.object {
            None => self.goal = Goal::Remove,
            Some(object) => {
                self.goal = Goal::Run;
                self.understand(object);
            }
        }
        if related && self.goal == Goal::Run {
            self.retry_what_was_missing();
        }
        let hashes = self.pod.as_ref().map(|p| &p.hashes);
        for (name, launching) in &self.launching {
            let wanted = self.goal == Goal::Run && hashes.and_then(|h| h.get(name)) == Some(&launching.hash);
            if !wanted {
                launching.cancel.cancel();
            }
        }
    }

    fn understand(&mut self, object: Arc<Object>) {
        let same = self.pod.as_ref().is_some_and(|p| p.object.metadata.generation == object.metadata.generation);
        if same {
            return;
        }
        let spec = match edge_model::pod::check(object.spec()) {
            Ok(spec) => spec,
            Err(error) => {
                // The doors check, too; this is for what came in before a rule was known.
                let about = Reference::to(&object);
                self.ctx.events.warning(about, "FailedValidation", error.to_string());
                if self.pod.is_none() {
                    self.status = report::refused("Invalid", &error.to_string());
                }
                return;
            }
        };
        let (hashes, sandbox) = (hash::containers(&spec), hash::sandbox(&spec));
        self.record.namespace.clone_from(&object.metadata.namespace);
        self.record.name.clone_from(&object.metadata.name);
        self.pod = Some(Arc::new(Pod { object, spec, hashes, sandbox }));
    }

    /// What waited for a ConfigMap or Secret is tried at once; files of volumes follow.
    fn retry_what_was_missing(&mut self) {
        let now = monotonic_ms();
        if let Sandbox::Failed { retry_at, .. } = &mut self.known.sandbox {
            *retry_at = now;
        }
        for unit in self.known.containers.values_mut() {
            if let State::Refused { refusal: Refusal { reason: "CreateContainerConfigError", .. }, retry_at } =
                &mut unit.state
            {
                *retry_at = now;
            }
        }
        let (Some(pod), Sandbox::Ready { .. }) = (self.pod.clone(), &self.known.sandbox) else { return };
        if pod.spec.volumes.iter().any(|v| v.config_map.is_some() || v.secret.is_some()) {
            let (ctx, dirs) = (Arc::clone(&self.ctx), self.dirs.clone());
            self.jobs.spawn_blocking(move || {
                // An object that is gone leaves the files as they were.
                if let Err(error) = make_volumes(&ctx, &pod, &dirs) {
                    let about = Reference::to(&pod.object);
                    ctx.events.warning(about, "FailedMount", chain(&error));
                }
                Happened::Cleaned
            });
        }
    }

    /// Decides and acts until there is nothing more to do; gives the time to look again, or `None` when nothing is left.
    async fn act(&mut self) -> Option<Option<i64>> {
        loop {
            self.forget_strangers();
            let now = monotonic_ms();
            let (goal, deadline) = self.goal(now);
            let empty = (PodSpec::default(), BTreeMap::new(), String::new());
            let pod = self.pod.clone();
            let (spec, hashes, sandbox) = match &pod {
                Some(pod) => (&pod.spec, &pod.hashes, &pod.sandbox),
                None if goal == Goal::Remove => (&empty.0, &empty.1, &empty.2),
                None => return Some(None),
            };
            let decision = plan::decide(Wanted { spec, hashes, sandbox, goal }, &self.known, now);
            if decision.actions.is_empty() {
                return Some([decision.wake_at, deadline].into_iter().flatten().min());
            }
            for action in decision.actions {
                match action {
                    Action::SetUp => self.set_up().await,
                    Action::Launch { container, restarts } => self.launch(&container, restarts),
                    Action::Terminate { container } => self.terminate(&container).await,
                    Action::Kill { container } => self.kill(&container).await,
                    Action::TearDown => {
                        if self.tear_down().await {
                            return None;
                        }
                        return Some(None);
                    }
                }
            }
        }
    }

    /// What is wanted of the pod now that its deadline is considered, and when that is.
    fn goal(&mut self, now: i64) -> (Goal, Option<i64>) {
        if self.goal == Goal::Remove {
            return (Goal::Remove, None);
        }
        if self.facts.failed.is_some() {
            return (Goal::Halt, None);
        }
        let Some(seconds) = self.pod.as_ref().and_then(|p| p.spec.active_deadline_seconds) else {
            return (Goal::Run, None);
        };
        let over = matches!(self.status.phase, Phase::Succeeded | Phase::Failed);
        let left = self.facts.started_at + i64::from(seconds) * 1000 - now_ms();
        if over || left > 0 {
            return (Goal::Run, (!over).then_some(now + left));
        }
        let message = format!("the pod was active for longer than {seconds} s");
        self.event(EventType::Warning, DEADLINE, message.clone());
        self.facts.failed = Some((DEADLINE.to_owned(), message));
        (Goal::Halt, None)
    }

    /// Containers that ended and are no longer in the spec are forgotten.
    fn forget_strangers(&mut self) {
        let Some(pod) = &self.pod else { return };
        self.known.containers.retain(|name, unit| unit.is_busy() || pod.hashes.contains_key(name));
    }

    async fn set_up(&mut self) {
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

    async fn try_set_up(&mut self, pod: &Arc<Pod>) -> Result<(), (&'static str, String)> {
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

    fn launch(&mut self, container: &str, restarts: u32) {
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

    async fn terminate(&mut self, container: &str) {
        let grace = self.pod.as_ref().map_or(self.record.grace, |p| p.spec.grace());
        let Some(unit) = self.known.containers.get_mut(container) else { return };
        let State::Running(process) = unit.state.clone() else { return };
        let kill_at = monotonic_ms() + i64::from(grace) * 1000;
        unit.state = State::Stopping { process, kill_at, killed: false };
        self.container_event(container, EventType::Normal, "Killing", "stopping the container");
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

    async fn kill(&mut self, container: &str) {
        if let Some(Unit { state: State::Stopping { killed, .. }, .. }) = self.known.containers.get_mut(container) {
            *killed = true;
        }
        if let Some((handle, _)) = self.handles.get(container) {
            handle.kill().await;
        }
    }

    fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Launched { container, hash, restarts, result } => {
                self.launched(&container, &hash, restarts, result)
            }
            Happened::Exited { container, id, end } => self.exited(&container, &id, &end),
            Happened::Cleaned => {}
        }
    }

    fn launched(&mut self, container: &str, hash: &str, restarts: u32, result: Result<Launched, NotLaunched>) {
        self.launching.remove(container);
        let now = monotonic_ms();
        let policy = self.policy();
        let Some(unit) = self.known.containers.get_mut(container) else { return };
        match result {
            Ok(Launched { handle, record }) => {
                unit.restarts = restarts;
                unit.image_id.clone_from(&record.image_id);
                unit.refusals.reset();
                let started_at = handle.running().map_or_else(now_ms, |r| r.started_ms);
                unit.state = State::Running(Process { id: record.id.clone(), hash: hash.to_owned(), started_at });
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
                let wait = if plan::is_restarted(policy, init, exit_code) { unit.crashes.failed(0) } else { 0 };
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

    fn policy(&self) -> RestartPolicy {
        self.pod.as_ref().map_or(RestartPolicy::Never, |p| p.spec.restart_policy)
    }

    fn exited(&mut self, container: &str, id: &str, end: &End) {
        let policy = self.policy();
        let init = self.pod.as_ref().is_some_and(|p| p.spec.init_containers.iter().any(|c| c.name == container));
        let Some(unit) = self.known.containers.get_mut(container) else { return };
        let (process, stopping) = match &unit.state {
            State::Running(process) if process.id == id => (process.clone(), false),
            State::Stopping { process, .. } if process.id == id => (process.clone(), true),
            _ => return,
        };
        let mut ended = describe(&process, end);
        let ran = ended.finished_at - ended.started_at;
        if !stopping && plan::is_restarted(policy, init, ended.exit_code) {
            ended.wait = unit.crashes.failed(ran);
        }
        ended.retry_at = monotonic_ms() + ended.wait;
        let (exit_code, wait, message) = (ended.exit_code, ended.wait, ended.message.clone());
        let oom = ended.reason == "OOMKilled";
        unit.state = State::Ended(ended);
        if init && exit_code == 0 {
            self.initialized(container);
        }
        let about = self.about();
        self.ctx.running.remove(&about.namespace, &about.name, container, id);
        if let Some((handle, _)) = self.handles.remove(container) {
            self.ended.push(handle);
        }
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

    fn initialized(&mut self, container: &str) {
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

    /// Writes the status if it has changed, and tells the bus.
    async fn report(&mut self) {
        self.again_at = None;
        if self.goal == Goal::Remove {
            return;
        }
        let object = self.desired.borrow().object.clone();
        let Some(object) = object else { return };
        let before: PodStatus = serde_json::from_value(object.status().clone()).unwrap_or_default();
        let status = match &self.pod {
            None => self.status.clone(),
            Some(pod) => {
                self.facts.host_ip = self.ctx.host_ip();
                let facts = Facts {
                    pod_ip: if pod.spec.host_network { self.facts.host_ip.clone() } else { self.facts.pod_ip.clone() },
                    ..self.facts.clone()
                };
                let wanted = Wanted { spec: &pod.spec, hashes: &pod.hashes, sandbox: &pod.sandbox, goal: Goal::Run };
                report::status(wanted, &self.known, &facts, &self.status, now_ms())
            }
        };
        if status == self.status && status == before {
            return;
        }
        let Ok(value) = serde_json::to_value(&status) else { return };
        let durability = durability(&self.status, &status);
        if let Ok(payload) = serde_json::to_vec(&status) {
            let topic = Topic::PodState(object.metadata.namespace.clone(), object.metadata.name.clone());
            self.ctx.bus.publish(&topic, payload, Retain::Yes);
        }
        match self.ctx.store.set_status(&object.key(), &self.uid, value, durability).await {
            Ok(_) => self.status = status,
            // The news that it is gone is under way.
            Err(StoreError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(pod = %object.key(), error = chain(&error), "a status could not be written");
                self.again_at = Some(monotonic_ms() + AGAIN);
            }
        }
    }

    /// Removes what is left of containers whose end is in the status by now.
    fn clean(&mut self) {
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
    async fn tear_down(&mut self) -> bool {
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

/// Kubernetes' reason for a pod that was active for too long.
const DEADLINE: &str = "DeadlineExceeded";

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
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

/// Transitions are on disk before anybody relies on them; waiting, and the rounds of a long crash loop, are not worth a write.
fn durability(before: &PodStatus, after: &PodStatus) -> Durability {
    let all = |s: &PodStatus| {
        let containers = s.init_container_statuses.iter().chain(&s.container_statuses);
        containers.map(|c| (c.name.clone(), c.container_id.clone(), c.state.terminated.is_some())).collect::<Vec<_>>()
    };
    let looping = after.container_statuses.iter().any(|c| c.restart_count > LAZY_RESTARTS);
    if before.phase != after.phase || (all(before) != all(after) && !looping) {
        Durability::Now
    } else {
        Durability::Lazy
    }
}
