//! The worker of one pod: decides, acts, reports, and waits for what happens next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edge_model::Object;
use edge_model::event::{EventType, Reference};
use edge_model::pod::PodSpec;
use edge_model::pod::status::{Phase, PodStatus};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ask::Outcome;
use super::launch::{Launched, NotLaunched, chain, make_volumes};
use super::plan::{self, Action, Goal, Known, Refusal, Sandbox, State, Wanted};
use super::probe::Which;
use super::record::{ContainerRecord, SandboxRecord};
use super::report::{self, Facts};
use super::{Context, hash, monotonic_ms};
use crate::clock::now_ms;
use crate::engine::containers::{End, Handle};
use crate::engine::volumes::PodDirs;

mod news;
mod probing;
mod recall;
mod steps;
mod tell;

use probing::Probing;

/// How long to wait before something of our own (a status, a removal) is tried again, in milliseconds.
const AGAIN: i64 = 10_000;

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
    Probed { container: String, id: String, which: Which, outcome: Outcome },
    Measured(Option<String>),
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
    /// The probes of the containers that run.
    probing: BTreeMap<String, Probing>,
    /// Containers that have ended, kept until that is in the status.
    ended: Vec<Handle>,
    jobs: JoinSet<Happened>,
    /// The status as last written.
    status: PodStatus,
    /// When something of our own is to be tried again.
    again_at: Option<i64>,
    /// When the volumes with a limit are to be measured.
    measure_at: Option<i64>,
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
            probing: BTreeMap::new(),
            ended: Vec::new(),
            jobs: JoinSet::new(),
            status: PodStatus::default(),
            again_at: None,
            measure_at: None,
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
            let probe = self.probe();
            self.report().await;
            self.clean();
            self.measure();
            let wake = [wake, probe, self.again_at, self.measure_at].into_iter().flatten().min();
            let sleep = wake.map(|at| u64::try_from(at - monotonic_ms()).unwrap_or(0)).map(Duration::from_millis);
            tokio::select! {
                changed = self.desired.changed() => if changed.is_err() { return },
                Some(happened) = self.jobs.join_next() => match happened {
                    Ok(happened) => self.happened(happened).await,
                    Err(error) => tracing::error!(uid = self.uid, %error, "work on a pod has panicked"),
                },
                () = sleep_for(sleep) => {}
                () = stop.cancelled() => return,
            }
            self.look();
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

    /// What waited for a ConfigMap or Secret is tried at once, an image that needs a Secret too; files of volumes follow.
    fn retry_what_was_missing(&mut self) {
        let now = monotonic_ms();
        let with_secret = self.pod.as_ref().is_some_and(|p| !p.spec.image_pull_secrets.is_empty());
        if let Sandbox::Failed { retry_at, .. } = &mut self.known.sandbox {
            *retry_at = now;
        }
        for unit in self.known.containers.values_mut() {
            let State::Refused { refusal: Refusal { reason, .. }, retry_at } = &mut unit.state else { continue };
            if *reason == "CreateContainerConfigError" || (with_secret && *reason == "ErrImagePull") {
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
}

/// Kubernetes' reason for a pod that was active for too long.
const DEADLINE: &str = "DeadlineExceeded";
/// Kubernetes' reason for a pod whose volumes outgrew their limits.
const EVICTED: &str = "Evicted";

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
