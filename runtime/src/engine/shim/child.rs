//! A forked launcher: one `libcontainer` call in a process of its own, and its report.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::protocol::{Failure, FailureKind, decode, encode};
use crate::engine::sys::{self, Forked};

/// A launcher at work.
pub struct Launcher {
    report: File,
    received: Vec<u8>,
    pid: i32,
    /// When it is killed.
    pub deadline: Instant,
}

impl Launcher {
    /// Runs `work` in a fork of this process.
    ///
    /// # Errors
    /// The system's.
    pub fn start(limit: Duration, work: impl FnOnce() -> Result<i32, Failure>) -> io::Result<Launcher> {
        let (report, mut reporter) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map(|(r, w)| (File::from(r), File::from(w)))?;
        match sys::fork()? {
            Forked::Child => {
                // A launcher whose shim is killed has nobody to report to.
                let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
                    Err(Failure { kind: FailureKind::Setup, message: "libcontainer panicked".into() })
                });
                let sent = encode(&done).and_then(|bytes| reporter.write_all(&bytes));
                sys::exit_now(i32::from(sent.is_err()))
            }
            Forked::Parent(pid) => {
                rustix::io::ioctl_fionbio(&report, true)?;
                Ok(Launcher { report, received: Vec::new(), pid, deadline: Instant::now() + limit })
            }
        }
    }

    /// To poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Its report, once it is complete.
    pub fn report(&mut self) -> Option<Result<i32, Failure>> {
        match self.report.read_to_end(&mut self.received) {
            Ok(_) => Some(decode(&self.received).unwrap_or_else(|_| {
                Err(Failure { kind: FailureKind::Setup, message: "the launcher was killed".into() })
            })),
            Err(_) => None,
        }
    }

    /// Ends it. What it had started is in the container's cgroup and is killed there.
    pub fn kill(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
