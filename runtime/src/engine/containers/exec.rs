//! Commands in a running container, beside its own program.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{Process, Spec, UserBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::error::{EngineError, at};
use super::handle::Handle;
use super::link::Link;
use crate::engine::shim::protocol::{Exit, FailureKind, Reply, Request};

/// A command to run in a container, confined as its first process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The command; never empty.
    pub args: Vec<String>,
    /// Added to the environment of the container's first process.
    pub env: Vec<(String, String)>,
    /// Instead of the container's working directory.
    pub cwd: Option<PathBuf>,
    /// Instead of the container's user and group.
    pub user: Option<(u32, u32)>,
}

/// What a command said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// Its standard error, up to the limit.
    pub stderr: Vec<u8>,
    /// Whether more was said than is kept.
    pub truncated: bool,
}

/// A command at work. Dropping this kills it.
pub struct Running {
    id: String,
    link: Link,
    /// Its process id on the host.
    pub pid: i32,
}

impl Running {
    /// Waits for its end. Can be cancelled.
    ///
    /// # Errors
    /// [`EngineError::Shim`] when the container's shim is lost meanwhile.
    pub async fn wait(&self) -> Result<Exit, EngineError> {
        loop {
            match self.link.receive().await.map_err(|source| EngineError::Shim { id: self.id.clone(), source })? {
                Reply::ExecEnded(exit) => return Ok(exit),
                other => tracing::debug!(?other, "unexpected message from a shim"),
            }
        }
    }
}

impl Handle {
    /// Starts a command with these standard descriptors.
    ///
    /// # Errors
    /// [`EngineError::Exec`] when it cannot be started, [`EngineError::Refused`] when the container does not run.
    pub async fn exec_with(&self, request: &ExecRequest, stdio: [OwnedFd; 3]) -> Result<Running, EngineError> {
        self.still_running()?;
        let token = self.token();
        let file = self.dir().join(format!("exec-{token}.json"));
        let process = self.process(request)?;
        let json =
            serde_json::to_vec(&process).map_err(|e| EngineError::File { path: file.clone(), source: e.into() })?;
        fs::write(&file, json).map_err(at(&file))?;
        let started = self.exec_start(token, &stdio).await;
        let _ = fs::remove_file(&file);
        started
    }

    async fn exec_start(&self, token: u64, stdio: &[OwnedFd; 3]) -> Result<Running, EngineError> {
        let id = self.id().to_owned();
        let link = Link::connect(&self.dir()).await.map_err(self.shim_error())?;
        let [stdin, stdout, stderr] = stdio;
        link.send(&Request::Exec(token), &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
            .await
            .map_err(self.shim_error())?;
        match link.receive().await.map_err(self.shim_error())? {
            Reply::ExecStarted(pid) => Ok(Running { id, link, pid }),
            Reply::ExecFailed(failure) => Err(EngineError::Exec { id, kind: failure.kind, message: failure.message }),
            Reply::Refused(message) => Err(EngineError::Refused { id, message }),
            other => {
                Err(EngineError::Exec { id, kind: FailureKind::Setup, message: format!("unexpected answer {other:?}") })
            }
        }
    }

    /// Runs a command to its end: `input` is its standard input, at most `limit` bytes of each output are kept, and after
    /// `timeout` it is killed.
    ///
    /// # Errors
    /// As [`Handle::exec_with`], and [`EngineError::ExecTimedOut`].
    pub async fn exec(
        &self,
        request: &ExecRequest,
        input: &[u8],
        limit: usize,
        timeout: Duration,
    ) -> Result<ExecResult, EngineError> {
        let run = self.exec_to_end(request, input, limit);
        tokio::time::timeout(timeout, run)
            .await
            .unwrap_or_else(|_| Err(EngineError::ExecTimedOut(self.id().to_owned())))
    }

    async fn exec_to_end(&self, request: &ExecRequest, input: &[u8], limit: usize) -> Result<ExecResult, EngineError> {
        let dir = self.dir();
        let pipe = || pipe::pipe().map_err(at(&dir));
        let ((mut stdin, inner_in), (inner_out, stdout), (inner_err, stderr)) = (pipe()?, pipe()?, pipe()?);
        let stdio = [
            inner_in.into_blocking_fd().map_err(at(&dir))?,
            inner_out.into_blocking_fd().map_err(at(&dir))?,
            inner_err.into_blocking_fd().map_err(at(&dir))?,
        ];
        let running = self.exec_with(request, stdio).await?;
        let feed = async move {
            // A command that does not read its input is within its rights.
            let _ = stdin.write_all(input).await;
        };
        let (_, (stdout, more_out), (stderr, more_err), exit) =
            tokio::join!(feed, collect(stdout, limit), collect(stderr, limit), running.wait());
        Ok(ExecResult { exit: exit?, stdout, stderr, truncated: more_out || more_err })
    }

    fn process(&self, request: &ExecRequest) -> Result<Process, EngineError> {
        let config = self.dir().join("config.json");
        let text = fs::read(&config).map_err(at(&config))?;
        let broken = |e: serde_json::Error| EngineError::File { path: config.clone(), source: e.into() };
        let spec: Spec = serde_json::from_slice(&text).map_err(broken)?;
        let mut process = spec.process().clone().unwrap_or_default();
        process.set_args(Some(request.args.clone()));
        let mut env = process.env().clone().unwrap_or_default();
        for (name, value) in &request.env {
            env.retain(|known| known.split('=').next() != Some(name.as_str()));
            env.push(format!("{name}={value}"));
        }
        process.set_env(Some(env));
        if let Some(cwd) = &request.cwd {
            process.set_cwd(cwd.clone());
        }
        if let Some((uid, gid)) = request.user {
            let user = UserBuilder::default().uid(uid).gid(gid).build();
            process.set_user(user.map_err(|e| EngineError::Spec(crate::engine::spec::SpecError::Oci(e)))?);
        }
        // What the container was given at its start holds for its own process only.
        process.set_oom_score_adj(None);
        Ok(process)
    }
}

/// Reads to the end, keeping the first `limit` bytes; whether there were more.
async fn collect(mut pipe: pipe::Receiver, limit: usize) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let mut more = false;
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        let room = limit.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
        more |= room < read;
    }
    (kept, more)
}
