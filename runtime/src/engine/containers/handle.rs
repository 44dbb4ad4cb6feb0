//! One container: what can be asked of it and done to it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::Inner;
use super::adopt::ANSWER;
use super::error::EngineError;
use super::link::Link;
use crate::clock::now_ms;
use crate::engine::cgroup::{self, Condition, Stats};
use crate::engine::shim::protocol::{
    Exit, Failure, FailureKind, Phase, Reason, Reply, Request, Running, STATE, read_file, write_file,
};

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It ran, and ended like this.
    Exited(Exit),
    /// It never ran.
    Failed(Failure),
}

/// A container; cheap to clone. Dropping the last handle leaves the container as it is.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<Inner>,
    id: String,
    phase: watch::Receiver<Phase>,
    conditions: Vec<Condition>,
    tokens: AtomicU64,
    abandon: Arc<Notify>,
    watcher: Option<AbortHandle>,
}

impl Shared {
    fn plain(inner: Arc<Inner>, id: String, phase: watch::Receiver<Phase>) -> Shared {
        // Unlike those of a runtime before this one.
        let tokens = AtomicU64::new(now_ms().cast_unsigned().wrapping_mul(1000));
        Shared { inner, id, phase, conditions: Vec::new(), tokens, abandon: Arc::default(), watcher: None }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl Handle {
    /// A container with a living shim behind `link`.
    pub(super) fn watch(
        inner: Arc<Inner>,
        id: String,
        link: Link,
        child: Option<Child>,
        phase: Phase,
        conditions: Vec<Condition>,
    ) -> Handle {
        let (sender, phase) = watch::channel(phase);
        let abandon = Arc::new(Notify::new());
        let watcher =
            Watcher { inner: inner.clone(), id: id.clone(), link, child, phase: sender, abandon: abandon.clone() };
        let task = tokio::spawn(watcher.run());
        let mut shared = Shared::plain(inner, id, phase);
        (shared.watcher, shared.conditions, shared.abandon) = (Some(task.abort_handle()), conditions, abandon);
        Handle::new(shared)
    }

    /// A container that has ended, or never ran.
    pub(super) fn over(inner: Arc<Inner>, id: String, phase: Phase) -> Handle {
        Handle::new(Shared::plain(inner, id, watch::channel(phase).1))
    }

    fn new(shared: Shared) -> Handle {
        Handle { shared: Arc::new(shared) }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.shared.phase.borrow().clone()
    }

    /// Its first process: number on the host and start time; `None` if it never ran.
    pub fn running(&self) -> Option<Running> {
        match *self.shared.phase.borrow() {
            Phase::Running(running) | Phase::Ended(running, _) => Some(running),
            _ => None,
        }
    }

    /// How it ended; `None` while it runs.
    pub fn end(&self) -> Option<End> {
        end(&self.shared.phase.borrow())
    }

    /// What the kernel cannot keep of its specification; empty for an adopted one.
    pub fn conditions(&self) -> &[Condition] {
        &self.shared.conditions
    }

    /// Waits for its end. Can be cancelled, and asked by many.
    pub async fn wait(&self) -> End {
        let mut phase = self.shared.phase.clone();
        let ended = phase.wait_for(|phase| end(phase).is_some()).await.ok().and_then(|phase| end(&phase));
        // The sender goes away only with this handle's own watcher, after the last phase.
        ended.or_else(|| self.end()).unwrap_or(End::Exited(lost()))
    }

    /// Waits until it runs, or has failed to.
    pub(super) async fn started(&self, limit: Duration) -> Result<(), EngineError> {
        let mut phase = self.shared.phase.clone();
        let failed = |kind, message| EngineError::Start { id: self.shared.id.clone(), kind, message };
        let settled = tokio::time::timeout(limit, phase.wait_for(|phase| *phase != Phase::Starting)).await;
        match settled.map(|phase| phase.map(|phase| phase.clone())) {
            Ok(Ok(Phase::Failed(failure))) => Err(failed(failure.kind, failure.message)),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(failed(FailureKind::Setup, "the shim was lost".into())),
            Err(_) => {
                self.shared.abandon.notify_one();
                // Its end, so that nothing of it goes on after this has been reported.
                let _ = tokio::time::timeout(limit, phase.wait_for(|phase| end(phase).is_some())).await;
                Err(failed(FailureKind::TimedOut, "the shim did not answer".into()))
            }
        }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.shared.inner.settings.run_dir.join(&self.shared.id)
    }

    pub(super) fn token(&self) -> u64 {
        self.shared.tokens.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn still_running(&self) -> Result<(), EngineError> {
        match self.end() {
            Some(_) => {
                Err(EngineError::Refused { id: self.shared.id.clone(), message: "the container has ended".into() })
            }
            None => Ok(()),
        }
    }

    pub(super) fn shim_error(&self) -> impl Fn(io::Error) -> EngineError + '_ {
        |source| EngineError::Shim { id: self.shared.id.clone(), source }
    }

    async fn ask(&self, request: Request) -> Result<(), EngineError> {
        self.still_running()?;
        let link = Link::connect(&self.dir()).await.map_err(self.shim_error())?;
        link.send(&request, &[]).await.map_err(self.shim_error())?;
        match link.receive().await.map_err(self.shim_error())? {
            Reply::Done => Ok(()),
            Reply::Refused(message) => Err(EngineError::Refused { id: self.shared.id.clone(), message }),
            other => Err(EngineError::Refused {
                id: self.shared.id.clone(),
                message: format!("unexpected answer {other:?}"),
            }),
        }
    }

    /// Sends a signal to its first process, such as 15 to stop it.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when it has ended, [`EngineError::Shim`] when its shim is gone.
    pub async fn signal(&self, signal: i32) -> Result<(), EngineError> {
        self.ask(Request::Signal(signal)).await
    }

    /// Makes its shim open the log anew, after somebody has moved it away.
    ///
    /// # Errors
    /// [`EngineError::Shim`] when its shim is gone.
    pub async fn reopen_log(&self) -> Result<(), EngineError> {
        self.ask(Request::ReopenLog).await
    }

    /// Kills every process in it, without asking anybody.
    pub async fn kill(&self) {
        let dirs = self.shared.inner.layout.dirs(&self.shared.id);
        let _ = tokio::task::spawn_blocking(move || cgroup::kill(&dirs)).await;
    }

    /// What it uses now.
    pub fn stats(&self) -> Stats {
        Stats::read(&self.shared.inner.layout.dirs(&self.shared.id))
    }

    /// Kills it if it still runs, and removes everything of it but its log.
    pub async fn delete(&self) {
        if self.end().is_none() {
            self.kill().await;
            // A shim that does not notice the end of its container is beyond help; what is left goes with `discard`.
            let _ = tokio::time::timeout(Duration::from_secs(10), self.wait()).await;
        }
        self.shared.inner.discard(&self.shared.id).await;
    }
}

fn end(phase: &Phase) -> Option<End> {
    match phase {
        Phase::Ended(_, exit) => Some(End::Exited(*exit)),
        Phase::Failed(failure) => Some(End::Failed(failure.clone())),
        Phase::Starting | Phase::Running(_) => None,
    }
}

fn lost() -> Exit {
    Exit { code: 137, signal: Some(9), oom_killed: false, finished_ms: now_ms(), reason: Reason::ShimLost }
}

/// Follows one shim until it is gone.
struct Watcher {
    inner: Arc<Inner>,
    id: String,
    link: Link,
    child: Option<Child>,
    phase: watch::Sender<Phase>,
    /// Told when the shim is given up.
    abandon: Arc<Notify>,
}

impl Watcher {
    async fn run(mut self) {
        let abandon = self.abandon.clone();
        // Both can be cancelled: receiving loses nothing, and nothing is received after giving up.
        let given_up = tokio::select! {
            () = self.follow() => false,
            () = abandon.notified() => true,
        };
        if let Some(child) = self.child.as_mut().filter(|_| given_up) {
            let _ = child.start_kill();
        }
        if end(&self.phase.borrow()).is_none() {
            let phase = self.inner.lost_shim(&self.id).await;
            self.phase.send_replace(phase);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait().await;
        }
    }

    /// Until the container has ended, or its shim is gone or silent. A connection that is merely lost is made again.
    async fn follow(&mut self) {
        let dir = self.inner.settings.run_dir.join(&self.id);
        let mut asked = self.link.send(&Request::Watch, &[]).await;
        while asked.is_ok() {
            while let Ok(reply) = self.link.receive().await {
                if let Reply::Phase(phase) = reply {
                    self.phase.send_replace(phase);
                }
            }
            if end(&self.phase.borrow()).is_some() {
                return;
            }
            asked = match tokio::time::timeout(ANSWER, super::adopt::ask(&dir)).await {
                Ok(Ok((link, phase))) => {
                    self.link = link;
                    self.phase.send_replace(phase);
                    Ok(())
                }
                Ok(Err(e)) => Err(e),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
        }
    }
}

impl Inner {
    /// Where a container without a shim stands. What still runs of it is killed: nobody reads its output or would see its end.
    pub(super) async fn lost_shim(&self, id: &str) -> Phase {
        let state = self.settings.run_dir.join(id).join(STATE);
        let phase = match read_file(&state) {
            Ok(phase) if end(&phase).is_some() => return phase,
            Ok(Phase::Running(running)) => Phase::Ended(running, self.lost_exit(id)),
            _ => {
                let why = std::fs::read_to_string(self.settings.run_dir.join(id).join("error")).unwrap_or_default();
                let colon = if why.is_empty() { "" } else { ": " };
                let message = format!("the shim was lost while starting{colon}{why}");
                Phase::Failed(Failure { kind: FailureKind::Setup, message })
            }
        };
        if let Phase::Ended(running, _) = &phase {
            self.end_shim(id, running.shim);
        }
        let dirs = self.layout.dirs(id);
        let _ = tokio::task::spawn_blocking(move || cgroup::kill(&dirs)).await;
        tracing::warn!(id, "the shim of a container was lost; the container has been killed");
        if let Err(error) = write_file(&state, &phase) {
            tracing::warn!(id, %error, "cannot note the end of a container");
        }
        phase
    }

    /// Kills a shim that is there but does not answer. Its number may belong to somebody else by now: the descriptor holds on to
    /// one process, and its command line says whether it is the one.
    fn end_shim(&self, id: &str, pid: i32) {
        let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
        let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
        let wanted = format!("shim\0{}\0", self.settings.run_dir.join(id).display());
        let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        if line.ends_with(wanted.as_bytes()) {
            let _ = rustix::process::pidfd_send_signal(fd, rustix::process::Signal::KILL);
        }
    }

    fn lost_exit(&self, id: &str) -> Exit {
        let boot = std::fs::read_to_string(self.settings.run_dir.join(id).join("boot")).unwrap_or_default();
        let reason = if boot == self.boot { Reason::ShimLost } else { Reason::Rebooted };
        Exit { reason, ..lost() }
    }
}
