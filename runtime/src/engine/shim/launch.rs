//! Starting a process with libcontainer. This runs in a forked child of the shim, so that whatever libcontainer allocates,
//! changes about its process (`oom_score_adj`, dumpable, working directory) or leaves undone ends with that child.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;

use super::diagnose::Diagnosis;
use super::protocol::{Devices, Failure, FailureKind, OCI_ID, Start};
use crate::engine::spec::Seccomp;
use crate::engine::{seccomp, sys};

/// What the launched process reads from and writes to.
pub struct Streams {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// Creates the container in `dir` and starts its first process; returns its process id once it runs the program.
///
/// # Errors
/// What failed, for people.
pub fn init(dir: &Path, start: &Start, streams: Streams) -> Result<i32, Failure> {
    let diagnosis = Diagnosis::listen().map_err(setup)?;
    let (result, told) = executor(start).map_err(setup)?;
    let launched = build(dir, streams, result).and_then(|builder| {
        let builder = builder.as_init(dir).with_systemd(false).with_detach(true);
        let mut container = builder.build().map_err(chain)?;
        if let Some(devices) = &start.devices {
            restrict_devices(devices).map_err(|e| format!("cannot restrict devices: {e}"))?;
        }
        container.start().map_err(chain)?;
        pid(&container)
    });
    finish(launched, told, diagnosis)
}

/// Starts the command described in `file` (an OCI `process`) in the running container.
///
/// # Errors
/// What failed, for people.
pub fn exec(dir: &Path, start: &Start, file: PathBuf, streams: Streams) -> Result<i32, Failure> {
    let diagnosis = Diagnosis::listen().map_err(setup)?;
    let (result, told) = executor(start).map_err(setup)?;
    let launched = build(dir, streams, result).and_then(|builder| {
        let builder = builder.as_tenant().with_process(Some(file)).with_detach(true);
        builder.build().map(|pid| pid.as_raw()).map_err(chain)
    });
    finish(launched, told, diagnosis)
}

fn build(dir: &Path, streams: Streams, executor: Confined) -> Result<ContainerBuilder, String> {
    let builder = ContainerBuilder::new(OCI_ID.to_owned(), SyscallType::default()).with_executor(executor);
    let builder = builder.with_root_path(dir).map_err(chain)?;
    Ok(builder.with_stdin(streams.stdin).with_stdout(streams.stdout).with_stderr(streams.stderr))
}

fn pid(container: &Container) -> Result<i32, String> {
    container.pid().map(|pid| pid.as_raw()).ok_or_else(|| "the container has no process".to_owned())
}

/// Waits until the process has become the program, or has said why not: the other end of `told` closes at `execve`.
fn finish(launched: Result<i32, String>, mut told: File, diagnosis: Diagnosis) -> Result<i32, Failure> {
    let mut message = String::new();
    let read = told.read_to_string(&mut message);
    match (launched, read) {
        (_, Ok(_)) if !message.is_empty() => Err(Failure { kind: FailureKind::Command, message }),
        (Ok(pid), Ok(_)) => Ok(pid),
        (Ok(_), Err(e)) => Err(setup(e)),
        (Err(message), _) => {
            let message = diagnosis.cause().map_or_else(|| message.clone(), |cause| format!("{message}: {cause}"));
            Err(Failure { kind: FailureKind::Setup, message })
        }
    }
}

fn setup(error: io::Error) -> Failure {
    Failure { kind: FailureKind::Setup, message: error.to_string() }
}

/// An error with its causes. libcontainer repeats a cause in some messages: those are left out.
fn chain(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn restrict_devices(devices: &Devices) -> io::Result<()> {
    let (program, rest) = devices.program.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let program: Vec<sys::BpfInstruction> = program
        .iter()
        .map(|[code, registers, o0, o1, i0, i1, i2, i3]| sys::BpfInstruction {
            code: *code,
            registers: *registers,
            offset: i16::from_ne_bytes([*o0, *o1]),
            immediate: i32::from_ne_bytes([*i0, *i1, *i2, *i3]),
        })
        .collect();
    sys::attach_device_program(File::open(&devices.cgroup)?.as_fd(), &program)
}

/// The last step inside the container, the same for its first process and for every later command: filter system calls, give
/// back what the shim had changed about signals, become the program.
#[derive(Clone)]
struct Confined {
    filter: Rc<Option<Vec<sys::Instruction>>>,
    late_capabilities: Option<u64>,
    environment: Rc<RefCell<HashMap<String, String>>>,
    /// Where a program that cannot be run is reported; closed by `execve` itself.
    tell: Rc<OwnedFd>,
}

fn executor(start: &Start) -> io::Result<(Confined, File)> {
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let filter = match start.seccomp {
        Seccomp::Default => Some(seccomp::default_filter(start.capabilities)),
        Seccomp::Unconfined => None,
    };
    let executor = Confined {
        filter: Rc::new(filter),
        late_capabilities: start.drop_late.then_some(start.capabilities),
        environment: Rc::default(),
        tell: Rc::new(tell),
    };
    Ok((executor, told.into()))
}

impl Confined {
    /// Says why, where the shim hears it even after libcontainer has stopped listening.
    fn tell(&self, message: &str) {
        if let Ok(fd) = self.tell.try_clone() {
            let _ = File::from(fd).write_all(message.as_bytes());
        }
    }

    /// The program and its arguments.
    fn command(spec: &Spec) -> Option<(&str, &[String])> {
        let args = spec.process().as_ref()?.args().as_deref()?;
        Some((args.first()?.as_str(), args))
    }
}

impl Executor for Confined {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let found = Self::command(spec).ok_or_else(|| "no command".to_owned()).and_then(|(program, _)| {
            let env = spec.process().as_ref().and_then(|p| p.env().as_ref());
            find(program, env.and_then(|env| env.iter().find_map(|v| v.strip_prefix("PATH="))).unwrap_or_default())
        });
        found.map(|_| ()).map_err(|message| {
            self.tell(&message);
            ExecutorValidationError::ArgValidationError(message)
        })
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        self.environment.replace(envs);
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let message = match self.become_program(spec) {
            Ok(never) => match never {},
            Err(message) => message,
        };
        self.tell(&message);
        Err(ExecutorError::Other(message))
    }
}

impl Confined {
    fn become_program(&self, spec: &Spec) -> Result<std::convert::Infallible, String> {
        let (program, args) = Self::command(spec).ok_or("no command")?;
        let environment = self.environment.borrow();
        let path = find(program, environment.get("PATH").map(String::as_str).unwrap_or_default())?;
        let c =
            |text: String| CString::new(text).map_err(|_| "a NUL byte in the command or its environment".to_owned());
        let file = c(path.to_string_lossy().into_owned())?;
        let args = args.iter().cloned().map(c).collect::<Result<Vec<_>, _>>()?;
        let env = environment.iter().map(|(k, v)| c(format!("{k}={v}"))).collect::<Result<Vec<_>, _>>()?;
        sys::reset_signals();
        if let Some(filter) = self.filter.as_ref() {
            sys::install_seccomp(filter).map_err(|e| format!("cannot install the system call filter: {e}"))?;
        }
        if let Some(keep) = self.late_capabilities {
            drop_capabilities(keep).map_err(|e| format!("cannot drop capabilities: {e}"))?;
        }
        let error = sys::exec(&file, &args, &env);
        Err(format!("cannot execute {}: {error}", path.display()))
    }
}

/// Leaves only the capabilities in `keep`, one bit each by number.
fn drop_capabilities(keep: u64) -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    for number in 0..64_u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep & (1 << number) == 0 && matches!(rustix::thread::capability_is_in_bounding_set(capability), Ok(true)) {
            rustix::thread::remove_capability_from_bounding_set(capability)?;
        }
    }
    let held = rustix::thread::capabilities(None)?;
    let kept = held.permitted & CapabilitySet::from_bits_retain(keep);
    let sets =
        CapabilitySets { effective: held.effective & kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// The file of a program: as given when it has a `/`, else looked for in `search`.
fn find(program: &str, search: &str) -> Result<PathBuf, String> {
    let runnable = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if program.contains('/') {
        let path = PathBuf::from(program);
        return match path.metadata() {
            Err(e) => Err(format!("cannot execute {program}: {e}")),
            Ok(meta) if meta.is_dir() => Err(format!("cannot execute {program}: it is a directory")),
            Ok(_) if !runnable(&path) => Err(format!("cannot execute {program}: permission denied")),
            Ok(_) => Ok(path),
        };
    }
    let found = search
        .split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(program))
        .find(|p| runnable(p));
    found.ok_or_else(|| format!("executable {program} not found in PATH {search}"))
}
