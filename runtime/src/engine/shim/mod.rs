//! The shim: one small single-threaded process per container. It starts the container with libcontainer, keeps its log, knows
//! how it ended, and is there for whichever runtime asks – the one that started it, or the next after a crash or an upgrade.
//!
//! ```text
//! edge-runtime shim DIR          the same executable, started by exec: libcontainer may not be called, nor anything forked,
//!   │                            in the runtime's threaded process
//!   ├─ fork: launcher            runs libcontainer, reports, ends: its memory is not kept
//!   │    └─ first process        reparented to the shim, which is a subreaper
//!   ├─ poll: signals, pipes, control socket, deadlines
//!   └─ writes `state`, tells the watchers, ends
//! ```

mod child;
mod control;
mod diagnose;
pub mod launch;
pub mod log;
pub mod protocol;
mod serve;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use self::protocol::{SOCKET, START, Start};
use self::serve::Shim;
use super::sys;

/// The shim's program: `edge-runtime shim DIR`. `args` are those after `shim`.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(dir) = args.next().map(PathBuf::from) else {
        return ExitCode::from(64);
    };
    match run(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody listens on standard error, and the runtime sees the connection end: the directory is where to look.
        Err(e) => {
            let _ = std::fs::write(dir.join("error"), e.to_string());
            ExitCode::from(70)
        }
    }
}

fn run(dir: &Path) -> io::Result<()> {
    std::env::set_current_dir(dir)?;
    let start: Start = protocol::read_file(Path::new(START))?;
    detach(&start)?;
    let first = take_stdin()?;
    // Bound by its short name: the path of a Unix socket has room for 107 bytes only.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(SOCKET)?)?;
    rustix::net::listen(&listener, 8)?;
    Shim::new(dir, start, listener, first)?.run()
}

/// Leaves everything that could end this process together with the runtime.
fn detach(start: &Start) -> io::Result<()> {
    rustix::process::setsid()
        .or_else(|e| if e == rustix::io::Errno::PERM { rustix::process::getsid(None) } else { Err(e) })?;
    rustix::process::set_parent_process_death_signal(None)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let _ = rustix::thread::set_name(c"edge-shim");
    for procs in &start.shim_cgroups {
        // Where this is not possible the shim stays with the runtime; the unit's KillMode then leaves it alone.
        let _ = std::fs::write(procs, "0");
    }
    Ok(())
}

/// Standard input is the first control connection; all three standard descriptors become `/dev/null`.
fn take_stdin() -> io::Result<OwnedFd> {
    let first = rustix::io::fcntl_dupfd_cloexec(sys::stdio(sys::Stdio::In), 3)?;
    rustix::io::ioctl_fionbio(&first, true)?;
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    for to in [sys::Stdio::In, sys::Stdio::Out, sys::Stdio::Err] {
        sys::replace_stdio(std::os::fd::AsFd::as_fd(&null), to)?;
    }
    Ok(first)
}
