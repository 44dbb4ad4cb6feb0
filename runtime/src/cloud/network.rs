//! News of the machine's own network: a link, an address or a route that came. What failed before may work now, so a long
//! pause need not be waited for.
//!
//! Source: rtnetlink(7), the groups of `linux/rtnetlink.h`. Anybody may listen.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// `RTM_NEWLINK`, `RTM_NEWADDR`, `RTM_NEWROUTE`: something came, or is another now. Only what goes is no reason to try.
const NEW: [u16; 3] = [16, 20, 24];
/// A link that comes up brings addresses and routes with it; they are waited for.
const SETTLE: Duration = Duration::from_millis(200);

/// Listens for changes; what happens between two calls of [`Changes::next`] is not missed.
#[derive(Debug)]
pub(super) struct Changes {
    /// `None` where the kernel does not tell.
    socket: Option<AsyncFd<OwnedFd>>,
}

impl Changes {
    /// Listens from now on.
    pub(super) fn listen() -> Changes {
        let socket = listen().inspect_err(|error| tracing::debug!(%error, "changes of the network are not seen"));
        Changes { socket: socket.ok() }
    }

    /// Waits for the next change. Cancel safe.
    pub(super) async fn next(&self) {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        loop {
            let heard = socket.async_io(Interest::READABLE, news).await;
            // Too many at once is news as well (ENOBUFS); other errors would not end, and the caller keeps a pace.
            if heard.unwrap_or(true) {
                tokio::time::sleep(SETTLE).await;
                return;
            }
        }
    }
}

fn listen() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol it is the first one, NETLINK_ROUTE.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    crate::sys::async_fd(socket)
}

/// Reads one datagram; whether something came. `WouldBlock` when there is none.
fn news(socket: &OwnedFd) -> io::Result<bool> {
    let mut header = [0; 16];
    let (read, _, from) = rustix::net::recvfrom(socket, &mut header, RecvFlags::empty())?;
    // Only the kernel is believed: it has the number 0.
    let kernel = from.and_then(|a| SocketAddrNetlink::try_from(a).ok()).is_some_and(|a| a.pid() == 0);
    let [_, _, _, _, low, high, ..] = header;
    Ok(kernel && read == header.len() && NEW.contains(&u16::from_ne_bytes([low, high])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a network namespace of its own thread, so that the machine's network is left alone. Needs root.
    #[test]
    fn an_address_that_comes_is_news() {
        let alone = std::thread::spawn(|| {
            // SAFETY: only this thread's network changes, and nothing else runs on it.
            #[expect(
                unsafe_code,
                reason = "unshare is unsafe for file descriptors and memory, which are not unshared"
            )]
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
                .expect("a network namespace (needs root)");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let changes = Changes::listen();
                let ip = |args: &[&str]| {
                    let ended = std::process::Command::new("ip").args(args).status().expect("iproute2 is installed");
                    assert!(ended.success(), "{args:?}");
                };
                ip(&["link", "set", "lo", "up"]);
                tokio::time::timeout(Duration::from_secs(30), changes.next()).await.expect("the link is news");
                ip(&["address", "add", "192.0.2.1/32", "dev", "lo"]);
                tokio::time::timeout(Duration::from_secs(30), changes.next()).await.expect("the address is news");
            });
        });
        alone.join().expect("the thread of the namespace");
    }
}
