//! What the runtime and a shim say to each other. A shim outlives upgrades of the runtime, so every message begins with the
//! version of the protocol, variants are only ever appended, and both sides refuse a version they do not know.
//!
//! One message is one packet of a `SOCK_SEQPACKET` socket: `[version][postcard]`. Files of the container's directory hold the
//! same frames.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::spec::Seccomp;

/// The version spoken.
pub const VERSION: u8 = 1;
/// The longest message in bytes; what can be long (a command line, a specification) goes through a file.
pub const MAX_MESSAGE: usize = 4096;

/// The control socket, in the container's directory.
pub const SOCKET: &str = "ctl";
/// What the shim shall start: a [`Start`].
pub const START: &str = "start";
/// Where the container stands: a [`Phase`], replaced atomically.
pub const STATE: &str = "state";
/// libcontainer's own directory and name for the container.
pub const OCI_ID: &str = "oci";

/// What the shim shall start; the OCI specification is `config.json` beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The system call filter.
    pub seccomp: Seccomp,
    /// The container's capabilities, one bit each by number.
    pub capabilities: u64,
    /// Whether the shim drops the other capabilities itself, after it has installed the filter: without `no_new_privs` only a
    /// privileged process may install one. Else libcontainer drops them.
    pub drop_late: bool,
    /// Milliseconds the start may take.
    pub timeout_ms: u32,
    /// The log.
    pub log: Log,
    /// `cgroup.procs` files the shim moves itself to, so that it is not ended with the runtime's own cgroup.
    pub shim_cgroups: Vec<PathBuf>,
    /// Directories of the container's cgroup, one per hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// The device program for cgroup v2, and the directory to attach it to.
    pub devices: Option<Devices>,
}

/// Device rules for cgroup v2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// The cgroup's directory.
    pub cgroup: PathBuf,
    /// `struct bpf_insn`, 8 bytes each.
    pub program: Vec<u8>,
}

/// Where the container's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The file, in the format of the Kubernetes container runtime interface; `None` discards the output.
    pub path: Option<PathBuf>,
    /// Bytes of one file.
    pub max_bytes: u64,
    /// Number of files, the current one included; the older ones are `path.1`, `path.2`, …
    pub files: u32,
}

/// Where a container stands.
///
/// ```text
/// Starting ──► Running ──► Ended
///     └──────► Failed
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// libcontainer is at work.
    Starting,
    /// Its first process runs.
    Running(Running),
    /// It never ran.
    Failed(Failure),
    /// It ran, and has ended.
    Ended(Running, Exit),
}

/// The first process of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process id on the host.
    pub pid: i32,
    /// When it started, in clock ticks since boot: with the pid this names one process for good.
    pub start_ticks: u64,
    /// When it started, UTC milliseconds.
    pub started_ms: i64,
    /// The process id of its shim.
    pub shim: i32,
}

/// Why a container could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// The causes, outermost first, joined with `: `.
    pub message: String,
}

/// Kinds of failure to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program does not exist, or cannot be executed.
    Command,
    /// It took too long.
    TimedOut,
    /// Anything else: a mount, a cgroup, a namespace, …
    Setup,
}

/// How a container, or a command in it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + signal when a signal ended it; 137 when the shim was lost.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed for lack of memory inside the container's limit.
    pub oom_killed: bool,
    /// When, UTC milliseconds.
    pub finished_ms: i64,
    /// How this is known.
    pub reason: Reason,
}

/// How an end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The shim saw it end.
    Ended,
    /// The shim was killed; the rest of the container was then killed by the runtime.
    ShimLost,
    /// The node was restarted meanwhile.
    Rebooted,
}

/// From the runtime to the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Tell the phase now and at every change.
    Watch,
    /// Send a signal to the first process.
    Signal(i32),
    /// Run the command in `exec-<token>.json`; its standard input, output and error come along as descriptors. Closing the
    /// connection kills it.
    Exec(u64),
    /// Close and open the log file.
    ReopenLog,
}

/// From the shim to the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Watch`].
    Phase(Phase),
    /// It is done.
    Done,
    /// It cannot be done now.
    Refused(String),
    /// The command runs, with this process id on the host.
    ExecStarted(i32),
    /// The command could not be started.
    ExecFailed(Failure),
    /// The command has ended.
    ExecEnded(Exit),
}

/// A message or file content.
///
/// # Errors
/// `InvalidData` when it cannot be encoded.
pub fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_extend(value, vec![VERSION]).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// The value of a message or file.
///
/// # Errors
/// `Unsupported` for another version, `InvalidData` when it cannot be decoded.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
        Some((other, _)) => {
            let text = format!("version {other} of the shim protocol, this is {VERSION}");
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Replaces a file of the container's directory as a whole. It is in memory (`/run`), so nothing is synchronised.
///
/// # Errors
/// The system's.
pub fn write_file<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, encode(value)?)?;
    std::fs::rename(&temporary, path)
}

/// Reads such a file.
///
/// # Errors
/// The system's, and those of [`decode`].
pub fn read_file<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    decode(&std::fs::read(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_other_versions() {
        let reply = Reply::Phase(Phase::Failed(Failure { kind: FailureKind::Command, message: "no".into() }));
        let mut bytes = encode(&reply).unwrap();
        assert_eq!(decode::<Reply>(&bytes).unwrap(), reply);
        bytes[0] = 9;
        assert_eq!(decode::<Reply>(&bytes).unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert!(decode::<Reply>(&[]).is_err());
        assert!(decode::<Reply>(&[VERSION, 200, 1, 2]).is_err());
    }

    /// The bytes on the wire are a promise to shims of earlier versions: a change of this test is a change of [`VERSION`].
    #[test]
    fn the_wire_is_frozen() {
        assert_eq!(encode(&Request::Watch).unwrap(), [1, 0]);
        assert_eq!(encode(&Request::Signal(15)).unwrap(), [1, 1, 30]);
        assert_eq!(encode(&Request::Exec(3)).unwrap(), [1, 2, 3]);
        assert_eq!(encode(&Request::ReopenLog).unwrap(), [1, 3]);
        let exit = Exit { code: 137, signal: Some(9), oom_killed: true, finished_ms: 5, reason: Reason::Ended };
        let running = Running { pid: 7, start_ticks: 8, started_ms: 9, shim: 6 };
        let ended = Reply::Phase(Phase::Ended(running, exit));
        assert_eq!(encode(&ended).unwrap(), [1, 0, 3, 14, 8, 18, 12, 146, 2, 1, 18, 1, 10, 0]);
    }
}
