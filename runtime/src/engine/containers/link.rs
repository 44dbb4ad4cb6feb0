//! A connection to a shim.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::engine::shim::protocol::{MAX_MESSAGE, Reply, Request, SOCKET, decode, encode};

/// One connection.
pub struct Link {
    socket: AsyncFd<OwnedFd>,
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Both ends of a connection: ours, and the one a shim is started with.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

impl Link {
    /// Over our end of [`pair`].
    pub fn new(socket: OwnedFd) -> io::Result<Link> {
        Ok(Link { socket: crate::sys::async_fd(socket)? })
    }

    /// To the shim of the container in `dir`. The address goes through a descriptor of the directory, because the path of a Unix
    /// socket has room for 107 bytes only.
    pub async fn connect(dir: &Path) -> io::Result<Link> {
        let dir = std::fs::File::open(dir)?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
        // EAGAIN is a full backlog: many at once, which the shim works off quickly.
        for _ in 0..500 {
            match rustix::net::connect(&socket, &address) {
                Err(rustix::io::Errno::AGAIN) => tokio::time::sleep(Duration::from_millis(10)).await,
                done => {
                    done?;
                    return Link::new(socket);
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Sends a request, with descriptors.
    pub async fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = encode(request)?;
        let send = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Ok(rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?)
        };
        self.socket.async_io(Interest::WRITABLE, send).await.map(|_| ())
    }

    /// The next message; `UnexpectedEof` when the shim is gone. Can be cancelled without losing one.
    pub async fn receive(&self) -> io::Result<Reply> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let length = self
            .socket
            .async_io(Interest::READABLE, |socket| {
                let (length, _) = rustix::net::recv(socket, bytes.as_mut_slice(), RecvFlags::empty())?;
                Ok(length)
            })
            .await?;
        decode(bytes.get(..length).unwrap_or_default())
    }
}
