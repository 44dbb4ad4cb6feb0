//! The shim's loop: one `poll` over everything it waits for.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::child::Launcher;
use super::control::{Connection, Received};
use super::launch::{self, Streams};
use super::log::{LogFile, Output};
use super::protocol::{Exit, Failure, FailureKind, Phase, Reason, Reply, Request, Running, STATE, Start, write_file};
use crate::clock::now_ms;
use crate::engine::{cgroup, sys};

/// How long the output of a container that has ended is still read: a process that left the container's process namespace could
/// hold the pipes open for ever.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a command may take to start in a running container.
const EXEC_START: Duration = Duration::from_secs(30);
/// Ends of processes nobody has claimed yet, because the report of their launcher is still on its way; more than ever are.
const UNCLAIMED: usize = 64;
/// Control connections at once; the runtime needs one, and one per command.
const CONNECTIONS: usize = 64;

/// A running shim.
pub struct Shim {
    dir: PathBuf,
    start: Start,
    phase: Phase,
    signals: File,
    listener: OwnedFd,
    connections: Vec<Connection>,
    launcher: Option<Launcher>,
    outputs: Vec<Output>,
    log: LogFile,
    unclaimed: VecDeque<(i32, WaitStatus)>,
    drain_until: Option<Instant>,
}

/// What a polled descriptor is.
enum Source {
    Signals,
    Listener,
    Launcher,
    Output(usize),
    Connection(usize),
    ExecLauncher(usize),
}

impl Shim {
    /// Starts the container: the launcher is at work when this returns.
    pub fn new(dir: &Path, start: Start, listener: OwnedFd, first: OwnedFd) -> io::Result<Shim> {
        let signals = sys::child_signals()?;
        let (out, out_inner) = pipe()?;
        let (err, err_inner) = pipe()?;
        let null = File::open("/dev/null")?;
        let streams = Streams { stdin: null.into(), stdout: out_inner, stderr: err_inner };
        let limit = Duration::from_millis(start.timeout_ms.into());
        let launcher = Launcher::start(limit, || launch::init(dir, &start, streams))?;
        Ok(Shim {
            dir: dir.to_owned(),
            log: LogFile::new(start.log.clone()),
            start,
            phase: Phase::Starting,
            signals,
            listener,
            connections: vec![Connection::new(first)],
            launcher: Some(launcher),
            outputs: vec![Output::new(out, "stdout"), Output::new(err, "stderr")],
            unclaimed: VecDeque::new(),
            drain_until: None,
        })
    }

    /// Until the container has ended and everybody knows.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            for source in self.wait()? {
                match source {
                    Source::Signals => self.reap(),
                    Source::Listener => self.accept(),
                    Source::Launcher => self.launched(),
                    Source::Output(index) => {
                        if self.outputs.get_mut(index).is_some_and(|output| !output.pump(&mut self.log)) {
                            self.outputs.remove(index);
                        }
                    }
                    Source::Connection(index) => self.serve(index),
                    Source::ExecLauncher(index) => self.exec_launched(index),
                }
            }
            self.connections.retain(|c| !c.closed || c.launcher.is_some());
            self.deadlines();
            if self.finished() {
                break;
            }
        }
        for output in &mut self.outputs {
            output.finish(&mut self.log);
        }
        let written = write_file(Path::new(STATE), &self.phase);
        self.announce();
        written
    }

    /// What is ready, in an order in which handling one does not move another's index: last of a list first.
    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = Vec::with_capacity(8);
        let mut fds = Vec::with_capacity(8);
        let mut add = |source, fd| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        };
        if let Some(launcher) = &self.launcher {
            add(Source::Launcher, launcher.fd());
        }
        for (index, connection) in self.connections.iter().enumerate().rev() {
            if let Some(launcher) = &connection.launcher {
                add(Source::ExecLauncher(index), launcher.fd());
            }
            // What is closed is always readable.
            if !connection.closed {
                add(Source::Connection(index), connection.fd());
            }
        }
        for (index, output) in self.outputs.iter().enumerate().rev() {
            add(Source::Output(index), output.fd());
        }
        add(Source::Signals, self.signals.as_fd());
        add(Source::Listener, self.listener.as_fd());
        let timeout = self.next_deadline().map(|at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        Ok(sources.into_iter().zip(ready).filter_map(|(source, ready)| ready.then_some(source)).collect())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let launchers = self.connections.iter().filter_map(|c| c.launcher.as_ref()).chain(&self.launcher);
        launchers.map(|l| l.deadline).chain(self.drain_until).min()
    }

    fn deadlines(&mut self) {
        let now = Instant::now();
        if self.launcher.as_ref().is_some_and(|l| l.deadline <= now) {
            if let Some(launcher) = self.launcher.take() {
                launcher.kill();
            }
            let message = format!("not started after {} ms", self.start.timeout_ms);
            self.fail(Failure { kind: FailureKind::TimedOut, message });
        }
        for index in 0..self.connections.len() {
            let Some(connection) = self.connections.get_mut(index) else { continue };
            if connection.launcher.as_ref().is_some_and(|l| l.deadline <= now) {
                if let Some(launcher) = connection.launcher.take() {
                    launcher.kill();
                }
                let message = "the command did not start in time".to_owned();
                connection.send(&Reply::ExecFailed(Failure { kind: FailureKind::TimedOut, message }));
            }
        }
    }

    fn finished(&self) -> bool {
        match self.phase {
            Phase::Failed(_) => true,
            Phase::Ended(..) => self.outputs.is_empty() || self.drain_until.is_none_or(|at| at <= Instant::now()),
            _ => false,
        }
    }

    /// The launcher of the container has reported.
    fn launched(&mut self) {
        let Some(report) = self.launcher.as_mut().and_then(Launcher::report) else { return };
        self.launcher = None;
        match report {
            Ok(pid) => {
                // Unknown only if it is gone already, which is then found among the unclaimed.
                let start_ticks = cgroup::start_ticks(pid).unwrap_or_default();
                self.phase = Phase::Running(Running {
                    pid,
                    start_ticks,
                    started_ms: now_ms(),
                    shim: rustix::process::getpid().as_raw_nonzero().get(),
                });
                // Failing to write this costs a later runtime the pid of a lost shim's container, not this one's work.
                let _ = write_file(Path::new(STATE), &self.phase);
                self.announce();
                if let Some(status) = self.claim(pid) {
                    self.ended(status);
                }
            }
            Err(failure) => self.fail(failure),
        }
    }

    fn fail(&mut self, failure: Failure) {
        // What was begun may not have come as far as the cgroup, or may go on making one: first the processes, then the rest.
        kill_children();
        cgroup::kill(&self.start.cgroups);
        self.phase = Phase::Failed(failure);
    }

    /// A command's launcher has reported.
    fn exec_launched(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let Some(report) = connection.launcher.as_mut().and_then(Launcher::report) else { return };
        connection.launcher = None;
        match report {
            Ok(pid) => {
                connection.command = Some(pid);
                if connection.closed {
                    connection.abandon();
                } else {
                    connection.send(&Reply::ExecStarted(pid));
                }
                if let Some(status) = self.claim(pid) {
                    self.command_ended(pid, status);
                }
            }
            Err(failure) => connection.send(&Reply::ExecFailed(failure)),
        }
    }

    fn claim(&mut self, pid: i32) -> Option<WaitStatus> {
        let index = self.unclaimed.iter().position(|(known, _)| *known == pid)?;
        self.unclaimed.remove(index).map(|(_, status)| status)
    }

    /// Collects every child that has ended: the container's first process, commands, launchers, and what they left behind.
    fn reap(&mut self) {
        let mut info = [0; 128];
        while matches!((&self.signals).read(&mut info), Ok(n) if n > 0) {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            match &self.phase {
                Phase::Running(running) if running.pid == pid => self.ended(status),
                _ if self.connections.iter().any(|c| c.command == Some(pid)) => self.command_ended(pid, status),
                _ => {
                    self.unclaimed.push_back((pid, status));
                    if self.unclaimed.len() > UNCLAIMED {
                        self.unclaimed.pop_front();
                    }
                }
            }
        }
        // Numbers are used again: an end may be claimed only by a launcher that was at work when it happened.
        if self.launcher.is_none() && self.connections.iter().all(|c| c.launcher.is_none()) {
            self.unclaimed.clear();
        }
    }

    fn ended(&mut self, status: WaitStatus) {
        let Phase::Running(running) = self.phase else { return };
        // A first process that ends well has got over whatever was killed beside it.
        let oom_killed = status.exit_status() != Some(0) && cgroup::oom_killed(&self.start.cgroups);
        // Whatever outlived the first process, such as in a process namespace shared with other containers.
        cgroup::kill(&self.start.cgroups);
        self.phase = Phase::Ended(running, exit(status, oom_killed));
        self.drain_until = Some(Instant::now() + DRAIN);
    }

    fn command_ended(&mut self, pid: i32, status: WaitStatus) {
        let oom_killed = status.terminating_signal() == Some(libc::SIGKILL) && cgroup::oom_killed(&self.start.cgroups);
        for connection in self.connections.iter_mut().filter(|c| c.command == Some(pid)) {
            connection.command = None;
            connection.send(&Reply::ExecEnded(exit(status, oom_killed)));
        }
    }

    fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        while let Ok(fd) = rustix::net::accept_with(&self.listener, flags) {
            if self.connections.len() < CONNECTIONS {
                self.connections.push(Connection::new(fd));
            }
        }
    }

    fn announce(&mut self) {
        for connection in self.connections.iter_mut().filter(|c| c.watching) {
            connection.send(&Reply::Phase(self.phase.clone()));
        }
    }

    fn serve(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let (request, fds) = match connection.receive() {
            Received::Nothing => return,
            Received::Closed => {
                connection.abandon();
                return;
            }
            Received::Request(request, fds) => (request, fds),
            Received::Unknown(message) => return connection.send(&Reply::Refused(message)),
        };
        let reply = match request {
            Request::Watch => {
                connection.watching = true;
                Reply::Phase(self.phase.clone())
            }
            Request::Signal(signal) => match &self.phase {
                Phase::Running(running) => send_signal(running.pid, signal),
                _ => Reply::Refused("the container does not run".into()),
            },
            Request::Exec(token) => match (&self.phase, <[OwnedFd; 3]>::try_from(fds)) {
                (Phase::Running(_), Ok([stdin, stdout, stderr]))
                    if connection.launcher.is_none() && connection.command.is_none() =>
                {
                    let streams = Streams { stdin, stdout, stderr };
                    let file = self.dir.join(format!("exec-{token}.json"));
                    match Launcher::start(EXEC_START, || launch::exec(&self.dir, &self.start, file, streams)) {
                        Ok(launcher) => {
                            connection.launcher = Some(launcher);
                            return;
                        }
                        Err(e) => Reply::Refused(format!("cannot start a launcher: {e}")),
                    }
                }
                (Phase::Running(_), _) => {
                    Reply::Refused("a command needs three descriptors and a connection of its own".into())
                }
                _ => Reply::Refused("the container does not run".into()),
            },
            Request::ReopenLog => {
                self.log.reopen();
                Reply::Done
            }
        };
        if let Some(connection) = self.connections.get_mut(index) {
            connection.send(&reply);
        }
    }
}

/// Kills and collects every child, and theirs, which become ours when their parents end.
fn kill_children() {
    while let Ok(ended) = rustix::process::wait(WaitOptions::NOHANG) {
        if ended.is_none() {
            for pid in cgroup::children().into_iter().filter_map(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The child is ours and not yet reaped, so the number cannot have passed to another process.
fn send_signal(pid: i32, signal: i32) -> Reply {
    let sent = Pid::from_raw(pid)
        .zip(Signal::from_named_raw(signal))
        .map(|(pid, signal)| rustix::process::kill_process(pid, signal));
    match sent {
        Some(Ok(())) => Reply::Done,
        Some(Err(e)) => Reply::Refused(e.to_string()),
        None => Reply::Refused(format!("{signal} is not a signal")),
    }
}

fn exit(status: WaitStatus, oom_killed: bool) -> Exit {
    let signal = status.terminating_signal();
    let code = status.exit_status().unwrap_or_else(|| 128 + signal.unwrap_or_default());
    Exit { code, signal, oom_killed, finished_ms: now_ms(), reason: Reason::Ended }
}

/// A pipe whose reading end does not block.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}
