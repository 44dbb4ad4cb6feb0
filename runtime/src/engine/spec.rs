//! From what a container shall be to the OCI runtime specification that libcontainer runs. A pure function: secure by default,
//! and what is loosened is loosened by a field the caller has set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use oci_spec::OciSpecError;
use serde::{Deserialize, Serialize};

mod build;
#[cfg(test)]
mod tests;

pub use build::{build, set_capabilities};

/// What a container shall be. [`ContainerSpec::default`] is the most confined one: own namespaces (the network too), the
/// default capabilities without `MKNOD`, seccomp, no new privileges, the usual device nodes and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// The command: program (looked up in `PATH` of `env` when it has no `/`) and arguments; never empty.
    pub args: Vec<String>,
    /// The whole environment. `PATH` is added when missing; nothing comes from the host.
    pub env: Vec<(String, String)>,
    /// Working directory inside; absolute. It has to exist, or be creatable in a writable root.
    pub cwd: PathBuf,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// The root file system, a directory on the host; absolute.
    pub rootfs: PathBuf,
    /// Whether the root is mounted read-only.
    pub readonly_rootfs: bool,
    /// Host name inside; only with a UTS namespace of its own.
    pub hostname: Option<String>,
    /// Mounts after the basic ones (`/proc`, `/dev`, `/sys`, …), in this order.
    pub mounts: Vec<Mount>,
    /// What is added to and dropped from the default capabilities.
    pub capabilities: Capabilities,
    /// Whether set-uid programs and file capabilities are powerless inside.
    pub no_new_privileges: bool,
    /// Everything allowed: all capabilities, all devices, no seccomp, nothing masked. For trusted system pods only.
    pub privileged: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Limits on memory, processor and processes.
    pub limits: Limits,
    /// The network.
    pub network: Namespace,
    /// Processes seen inside.
    pub pid: Namespace,
    /// System V IPC, POSIX queues.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// The control group, below the engine's own: set by the engine, callers leave it empty.
    pub cgroup_path: String,
    /// Kernel parameters, only those that belong to the container's own namespaces (`net.*`, `kernel.shm*`, …).
    pub sysctls: BTreeMap<String, String>,
    /// Device nodes beyond the usual ones.
    pub devices: Vec<Device>,
    /// `-1000`–`1000`: how readily the kernel kills it when memory is out.
    pub oom_score_adj: Option<i32>,
    /// Resource limits of its processes.
    pub rlimits: Vec<Rlimit>,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted: a host path for `bind`, else a name.
    pub source: String,
    /// Where, inside; absolute.
    pub destination: PathBuf,
    /// `bind`, `tmpfs`, `proc`, …
    pub kind: String,
    /// `rbind`, `ro`, `nosuid`, `size=64k`, …
    pub options: Vec<String>,
}

impl Mount {
    /// A bind mount of a host file or folder: without set-uid programs and device nodes.
    pub fn bind(source: impl Into<PathBuf>, destination: impl Into<PathBuf>, readonly: bool) -> Mount {
        let mut options: Vec<String> = ["rbind", "rprivate", "nosuid", "nodev"].map(String::from).into();
        options.push(if readonly { "ro" } else { "rw" }.into());
        let source = source.into().to_string_lossy().into_owned();
        Mount { source, destination: destination.into(), kind: "bind".into(), options }
    }

    /// A file system in memory of at most `bytes`.
    pub fn tmpfs(destination: impl Into<PathBuf>, bytes: u64) -> Mount {
        let mut options: Vec<String> = ["nosuid", "nodev", "mode=1777"].map(String::from).into();
        options.push(format!("size={bytes}"));
        Mount { source: "tmpfs".into(), destination: destination.into(), kind: "tmpfs".into(), options }
    }
}

/// Capabilities as in Kubernetes' `securityContext.capabilities`: names with or without `CAP_`, or `ALL`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Added after dropping.
    pub add: Vec<String>,
    /// Dropped first.
    pub drop: Vec<String>,
}

/// The system call filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The allow-list of `engine::seccomp`.
    #[default]
    Default,
    /// None.
    Unconfined,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// The host's.
    Host,
    /// A new one.
    New,
    /// The one behind this path (`/run/netns/…`, `/proc/PID/ns/net`).
    Join(PathBuf),
}

/// Limits; `None` is no limit. A limit whose controller the kernel lacks is left out and reported as a condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes, swap included.
    pub memory_bytes: Option<u64>,
    /// Processor time in microseconds per `cpu_period_us`.
    pub cpu_quota_us: Option<u64>,
    /// The period of `cpu_quota_us` in microseconds, 1,000–1,000,000; 100,000 when `None`.
    pub cpu_period_us: Option<u64>,
    /// Share of the processor under contention, 2–262,144; 1024 is one processor's worth.
    pub cpu_shares: Option<u64>,
    /// Number of processes and threads.
    pub pids: Option<u32>,
}

/// A device node inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where, inside, below `/dev`.
    pub path: PathBuf,
    /// Whether it is a block device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Some of `r`, `w`, `m`.
    pub access: String,
    /// Permission bits of the node.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A resource limit (`setrlimit`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`, …
    pub name: String,
    /// What applies.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// Why there is no specification.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// No command.
    #[error("container has no command")]
    NoCommand,
    /// The root has to be an absolute path.
    #[error("root file system {} is not an absolute path", .0.display())]
    Root(PathBuf),
    /// The working directory has to be absolute.
    #[error("working directory {} is not an absolute path", .0.display())]
    WorkingDirectory(PathBuf),
    /// A mount destination has to be absolute.
    #[error("mount destination {} is not an absolute path", .0.display())]
    Destination(PathBuf),
    /// Not the name of a capability.
    #[error("unknown capability {0}")]
    Capability(String),
    /// Not the name of a resource limit.
    #[error("unknown resource limit {0}")]
    Rlimit(String),
    /// A number the specification has no room for.
    #[error("{field} is out of range: {value}")]
    Range {
        /// Which.
        field: &'static str,
        /// What was given.
        value: u64,
    },
    /// A NUL byte or `=` where none may be.
    #[error("environment variable name {0:?} is not valid")]
    Variable(String),
    /// The OCI types refused.
    #[error("cannot build the OCI specification")]
    Oci(#[source] OciSpecError),
}

impl Default for ContainerSpec {
    fn default() -> Self {
        ContainerSpec {
            args: Vec::new(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            uid: 0,
            gid: 0,
            additional_gids: Vec::new(),
            rootfs: PathBuf::new(),
            readonly_rootfs: false,
            hostname: None,
            mounts: Vec::new(),
            capabilities: Capabilities::default(),
            no_new_privileges: true,
            privileged: false,
            seccomp: Seccomp::Default,
            limits: Limits::default(),
            network: Namespace::New,
            pid: Namespace::New,
            ipc: Namespace::New,
            uts: Namespace::New,
            cgroup_path: String::new(),
            sysctls: BTreeMap::new(),
            devices: Vec::new(),
            oom_score_adj: None,
            rlimits: Vec::new(),
            shm_bytes: 64 << 20,
        }
    }
}

impl ContainerSpec {
    /// The capabilities it will have: the defaults less `drop`, plus `add`; all of them when privileged.
    ///
    /// # Errors
    /// [`SpecError::Capability`].
    pub fn capability_set(&self) -> Result<BTreeSet<&'static str>, SpecError> {
        let mut set: BTreeSet<&'static str> = DEFAULT_CAPABILITIES.into();
        if self.privileged {
            return Ok(ALL_CAPABILITIES.into());
        }
        for name in &self.capabilities.drop {
            match capability(name)? {
                Named::All => set.clear(),
                Named::One(one) => {
                    set.remove(one);
                }
            }
        }
        for name in &self.capabilities.add {
            match capability(name)? {
                Named::All => set.extend(ALL_CAPABILITIES),
                Named::One(one) => {
                    set.insert(one);
                }
            }
        }
        Ok(set)
    }
}

enum Named {
    All,
    One(&'static str),
}

fn capability(name: &str) -> Result<Named, SpecError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok(Named::All);
    }
    let known = ALL_CAPABILITIES.iter().find(|known| **known == bare);
    known.map(|known| Named::One(known)).ok_or_else(|| SpecError::Capability(name.to_owned()))
}

/// Docker's default set without `MKNOD`, which no application of a gateway needs and which opens every device.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// capabilities(7) in the kernel's order, of numbers 0–40.
pub const ALL_CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
