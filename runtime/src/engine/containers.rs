//! The runtime's side of the shims: starts containers, finds those an earlier runtime has left, and hands out [`Handle`]s.
//!
//! A container is a directory in memory, `/run/edge-runtime/containers/<id>`: its specification, its shim's socket, and where
//! it stands. Nothing else is kept, so that a new runtime knows what the old one knew.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;

mod adopt;
mod error;
mod exec;
mod handle;
mod link;

pub use error::EngineError;
pub use exec::{ExecRequest, ExecResult, Running as ExecRunning};
pub use handle::{End, Handle};

use self::error::at;
use self::link::Link;
use super::cgroup::{self, Condition, Controller, Layout, Rule, Version};
use super::shim::protocol::{Devices, Log, Phase, START, Start, write_file};
use super::spec::{self, ALL_CAPABILITIES, ContainerSpec, Seccomp};
use super::sys;

/// The directory of the containers where nothing else is said.
const RUN_DIR: &str = "/run/edge-runtime/containers";
/// What a shim is given on top of the container's own time to start, before it is taken for dead.
const SHIM_GRACE: Duration = Duration::from_secs(5);
/// The longest id: a file name with room for what is appended.
const MAX_ID: usize = 128;

/// How containers are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the containers' directories are; in memory (`/run`), so that a restart of the node forgets them.
    pub run_dir: PathBuf,
    /// The executable with the `shim` subcommand: this one.
    pub shim_exe: PathBuf,
    /// The cgroup above those of the containers, from the root of the hierarchies; chosen by the layout when `None`.
    pub cgroup_parent: Option<String>,
    /// How long a container may take to start; 1 s – 1 h.
    pub start_timeout: Duration,
    /// Bytes of one log file; 4 KiB – 1 GiB.
    pub log_max_bytes: u64,
    /// Log files per container, the current one included; 1 – 100.
    pub log_files: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            run_dir: RUN_DIR.into(),
            shim_exe: "/proc/self/exe".into(),
            cgroup_parent: None,
            start_timeout: Duration::from_secs(30),
            log_max_bytes: 1 << 20,
            log_files: 2,
        }
    }
}

/// A container to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its name among the running ones: a letter or digit, then those, `-`, `_` and `.`; at most 128 bytes.
    pub id: String,
    /// What it shall be.
    pub spec: ContainerSpec,
    /// Its log; `None` discards its output. The directory has to exist.
    pub log_path: Option<PathBuf>,
    /// Instead of [`Settings::log_max_bytes`].
    pub log_max_bytes: Option<u64>,
    /// Instead of [`Settings::start_timeout`].
    pub start_timeout: Option<Duration>,
}

/// Starts and finds containers; cheap to clone.
#[derive(Clone)]
pub struct Containers {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) layout: Layout,
    /// The executable of the shims on a read-only mount of its own, kept open.
    _sealed: Option<OwnedFd>,
    exe: PathBuf,
    conditions: Vec<Condition>,
    boot: String,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.layout.leave();
    }
}

/// Whether containers can be run here.
///
/// # Errors
/// [`EngineError::NotPossible`] says what cannot be done, why, and what would help.
pub fn probe() -> Result<(), EngineError> {
    let not =
        |why: String, advice: &str| EngineError::NotPossible { what: "run containers", why, advice: advice.to_owned() };
    if !rustix::process::geteuid().is_root() {
        return Err(not(
            "the runtime does not run as root".into(),
            "start edge-runtime as root; everything else works without",
        ));
    }
    let held = rustix::thread::capabilities(None).map_err(|e| not(e.to_string(), "mount /proc"))?;
    if !held.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN) {
        return Err(not(
            "CAP_SYS_ADMIN is missing".into(),
            "start edge-runtime with all capabilities, outside a container or in a privileged one",
        ));
    }
    for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
        if !Path::new("/proc/self/ns").join(namespace).exists() {
            return Err(not(
                format!("the kernel has no {namespace} namespaces"),
                "use a kernel with CONFIG_NAMESPACES and all kinds of them",
            ));
        }
    }
    Ok(())
}

impl Containers {
    /// Looks at the system and gets ready.
    ///
    /// # Errors
    /// Those of [`probe`], [`EngineError::Cgroup`], or a directory that cannot be made.
    pub fn new(settings: Settings) -> Result<Containers, EngineError> {
        probe()?;
        // Two runtimes on one machine (tests do that) are told apart by their directories, and shall be by their groups.
        let own_parent =
            (settings.run_dir != Path::new(RUN_DIR)).then(|| format!("edge-runtime-{:08x}", fnv(&settings.run_dir)));
        let layout = Layout::prepare(settings.cgroup_parent.as_deref().or(own_parent.as_deref()))
            .map_err(EngineError::Cgroup)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&settings.run_dir).map_err(at(&settings.run_dir))?;
        let mut conditions = Vec::new();
        let sealed = match fs::File::open(&settings.shim_exe).and_then(|exe| sys::readonly_clone(exe.as_fd())) {
            Ok(sealed) => Some(sealed),
            Err(error) => {
                tracing::warn!(%error, "the executable of the shims is not sealed");
                conditions.push(Condition::ExecutableUnsealed);
                None
            }
        };
        // The path is resolved by the child, which still has the descriptor while it executes what is behind it.
        let exe = sealed
            .as_ref()
            .map_or_else(|| settings.shim_exe.clone(), |fd| format!("/proc/self/fd/{}", fd.as_raw_fd()).into());
        let boot = boot_id();
        Ok(Containers { inner: Arc::new(Inner { settings, layout, _sealed: sealed, exe, conditions, boot }) })
    }

    /// Which kind of cgroups are used.
    pub fn cgroup_version(&self) -> Version {
        self.inner.layout.version
    }

    /// What this system cannot do for any container.
    pub fn conditions(&self) -> &[Condition] {
        &self.inner.conditions
    }

    /// Starts a container; returns once its program runs. Many may be started at once.
    ///
    /// Not to be cancelled: what has begun then goes on, and is found by [`Containers::adopt`] only.
    ///
    /// # Errors
    /// Any [`EngineError`]; nothing of the container is left then.
    pub async fn start(&self, request: Request) -> Result<Handle, EngineError> {
        let id = valid_id(&request.id)?.to_owned();
        let dir = self.inner.settings.run_dir.join(&id);
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(EngineError::Exists(id)),
            made => made.map_err(at(&dir))?,
        }
        let started = self.start_in(&dir, request).await;
        if started.is_err() {
            self.inner.discard(&id).await;
        }
        started
    }

    async fn start_in(&self, dir: &Path, request: Request) -> Result<Handle, EngineError> {
        let inner = &self.inner;
        let limit = request.start_timeout.unwrap_or(inner.settings.start_timeout);
        let conditions = inner.write_bundle(dir, &request, limit)?;
        let (ours, theirs) = link::pair().map_err(at(dir))?;
        let mut command = Command::new(&inner.exe);
        // Nothing of the runtime's environment is a shim's business, and it may hold secrets.
        command.arg0("edge-runtime").arg("shim").arg(dir).env_clear().current_dir("/");
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|source| EngineError::Shim { id: request.id.clone(), source })?;
        // The command keeps the shim's end of the connection open: without it the end of the shim is seen.
        drop(command);
        let link = Link::new(ours).map_err(at(dir))?;
        let handle = Handle::watch(self.inner.clone(), request.id, link, Some(child), Phase::Starting, conditions);
        handle.started(limit + SHIM_GRACE).await?;
        Ok(handle)
    }
}

impl Inner {
    /// Writes what the shim shall start; returns what the kernel cannot keep of it.
    fn write_bundle(&self, dir: &Path, request: &Request, limit: Duration) -> Result<Vec<Condition>, EngineError> {
        let mut wanted = request.spec.clone();
        wanted.cgroup_path = self.layout.path(&request.id);
        let seccomp = if wanted.privileged { Seccomp::Unconfined } else { wanted.seccomp };
        if let Some(mounts) = self.layout.inner_mounts(&request.id).filter(|_| !wanted.privileged) {
            // First, because a mount of the caller's may be below.
            wanted.mounts.splice(0..0, mounts);
        }
        let mut spec = spec::build(&wanted).map_err(EngineError::Spec)?;
        if let Some(paths) = spec
            .linux_mut()
            .as_mut()
            .and_then(|linux| linux.readonly_paths_mut().as_mut())
            .filter(|_| !wanted.privileged)
        {
            paths.push(cgroup::INNER_ROOT.to_owned());
        }
        let mut conditions = self.layout.prune(&mut spec);
        conditions.extend(self.conditions.iter().cloned());

        // Nobody can pass on what it does not hold; a list of all is taken for all there are.
        let held = held_capabilities();
        let mut capabilities = wanted.capability_set().map_err(EngineError::Spec)?;
        let named = |name: &str| {
            wanted.capabilities.add.iter().any(|n| n.to_ascii_uppercase().trim_start_matches("CAP_") == name)
        };
        conditions.extend(capabilities.difference(&held).filter(|n| named(n)).map(|n| Condition::CapabilityNotHeld(n)));
        capabilities.retain(|name| held.contains(name));
        // A filter needs no_new_privs or a privileged process: without the former the shim keeps every capability until then.
        let drop_late = seccomp == Seccomp::Default && !wanted.no_new_privileges;
        spec::set_capabilities(&mut spec, if drop_late { &held } else { &capabilities }).map_err(EngineError::Spec)?;

        let rules = device_rules(&wanted);
        let guarded = !wanted.privileged && self.layout.has(Controller::Devices);
        let devices = self.layout.unified_dir(&request.id).filter(|_| guarded).map(|cgroup| Devices {
            cgroup,
            program: cgroup::program(&rules).iter().flat_map(|i| i.bytes()).collect(),
        });
        let start = Start {
            seccomp,
            capabilities: capability_bits(&capabilities),
            drop_late,
            timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
            log: Log {
                path: request.log_path.clone(),
                max_bytes: request.log_max_bytes.unwrap_or(self.settings.log_max_bytes),
                files: self.settings.log_files.max(1),
            },
            shim_cgroups: self.layout.shim_groups(),
            cgroups: self.layout.dirs(&request.id),
            devices,
        };
        let config = dir.join("config.json");
        let json =
            serde_json::to_vec(&spec).map_err(|e| EngineError::File { path: config.clone(), source: e.into() })?;
        fs::write(&config, json).map_err(at(&config))?;
        fs::write(dir.join("boot"), &self.boot).map_err(at(dir))?;
        write_file(&dir.join(START), &start).map_err(at(dir))?;
        Ok(conditions)
    }

    /// Removes everything of a container that is not running.
    pub(crate) async fn discard(&self, id: &str) {
        let dirs = self.layout.dirs(id);
        // The kernel lets go of a group a moment after its last process has been reaped.
        for _ in 0..200 {
            let again = dirs.clone();
            let removed = tokio::task::spawn_blocking(move || {
                cgroup::kill(&again);
                cgroup::remove(&again)
            });
            match removed.await {
                Ok(Err(error)) => tracing::debug!(id, %error, "cgroup is still in use"),
                _ => break,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let dir = self.settings.run_dir.join(id);
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(id, %error, "cannot remove the container's directory");
        }
    }
}

fn valid_id(id: &str) -> Result<&str, EngineError> {
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ok = id.len() <= MAX_ID && id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(rest);
    if ok { Ok(id) } else { Err(EngineError::InvalidId(id.to_owned())) }
}

/// Capabilities as a set of bits by number.
fn capability_bits(names: &BTreeSet<&str>) -> u64 {
    ALL_CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(_, name)| names.contains(*name))
        .fold(0, |bits, (number, _)| bits | 1 << number)
}

/// The capabilities this process may hand to a child.
fn held_capabilities() -> BTreeSet<&'static str> {
    let held = rustix::thread::capabilities(None).map(|sets| sets.permitted.bits()).unwrap_or_default();
    ALL_CAPABILITIES.iter().enumerate().filter(|(number, _)| held & (1 << number) != 0).map(|(_, name)| *name).collect()
}

fn device_rules(spec: &ContainerSpec) -> Vec<Rule> {
    let mut rules = Rule::usual();
    rules.extend(spec.devices.iter().map(|d| Rule::new(Some(d.block), Some(d.major), Some(d.minor), &d.access)));
    rules
}

/// Names this boot of the machine.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// A short name for a path: FNV-1a.
fn fnv(path: &Path) -> u32 {
    path.to_string_lossy().bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
