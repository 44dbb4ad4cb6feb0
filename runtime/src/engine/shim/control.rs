//! One control connection of a shim.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags};
use rustix::process::{Pid, Signal};

use super::child::Launcher;
use super::protocol::{Reply, Request, decode, encode};

/// Longest request in bytes: a few numbers.
const MAX_REQUEST: usize = 64;

/// A connection, and the command that runs for it.
pub struct Connection {
    socket: OwnedFd,
    /// Whether it is told of every change.
    pub watching: bool,
    /// The launcher of its command.
    pub launcher: Option<Launcher>,
    /// The process id of its command.
    pub command: Option<i32>,
    /// Whether the other side is gone.
    pub closed: bool,
}

/// What came in.
pub enum Received {
    /// Nothing after all.
    Nothing,
    /// The other side is gone.
    Closed,
    /// A request, with the descriptors that came along.
    Request(Request, Vec<OwnedFd>),
    /// Something this version does not understand.
    Unknown(String),
}

impl Connection {
    /// Over this socket, which has to be non-blocking.
    pub fn new(socket: OwnedFd) -> Connection {
        Connection { socket, watching: false, launcher: None, command: None, closed: false }
    }

    /// To poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes one message.
    pub fn receive(&mut self) -> Received {
        let mut bytes = [0; MAX_REQUEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message = match rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
        {
            Ok(message) => message,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Received::Nothing,
            Err(_) => return Received::Closed,
        };
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        match bytes.get(..message.bytes) {
            Some([]) | None => Received::Closed,
            Some(_) if message.flags.contains(ReturnFlags::TRUNC) => {
                Received::Unknown("the request is too long".into())
            }
            Some(request) => match decode(request) {
                Ok(request) => Received::Request(request, fds),
                Err(e) => Received::Unknown(e.to_string()),
            },
        }
    }

    /// Sends one message; a peer that does not read its few replies is given up.
    pub fn send(&mut self, reply: &Reply) {
        let sent = encode(reply)
            .ok()
            .map(|bytes| rustix::net::send(&self.socket, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT));
        if !matches!(sent, Some(Ok(_))) {
            self.abandon();
        }
    }

    /// The other side is gone: its command ends with it, process group and all.
    pub fn abandon(&mut self) {
        // A launcher at work is let finish: killed half-way it could leave a process nobody knows in the container.
        self.closed = true;
        if let Some(pid) = self.command.take().and_then(Pid::from_raw) {
            // The command leads its own session; what it started may have left its group, and then ends with the container.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}
