//! What systemd is told: the `sd_notify` protocol (systemd's `sd_notify(3)`), a datagram per message.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A connection to the service manager; silent when there is none.
#[derive(Debug)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> Notify {
        let read = |name| std::env::var(name).ok();
        let ours = read("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = read("WATCHDOG_USEC").filter(|_| ours).and_then(|us| us.parse().ok()).map(Duration::from_micros);
        Notify { socket: read("NOTIFY_SOCKET").and_then(|path| connect(&path)), watchdog }
    }

    /// How often systemd wants to hear that we live: half of what it waits, as `sd_watchdog_enabled(3)` advises.
    pub fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.map(|w| w / 2)
    }

    /// Everything is up.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// A line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// We live.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// We start again as another version of ourselves, in the same process: not to be taken for an end, and to be waited for
    /// until we are ready again (`MONOTONIC_USEC` is for `Type=notify-reload`).
    pub fn restarting(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nWATCHDOG=1", now.tv_sec * 1_000_000 + now.tv_nsec / 1000));
    }

    /// We are going down.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // A service manager that does not listen is no reason to stop.
            let _ = socket.send(message.as_bytes());
        }
    }
}

fn connect(path: &str) -> Option<UnixDatagram> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok()?,
        None => SocketAddr::from_pathname(path).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(&address).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}
