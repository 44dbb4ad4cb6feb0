//! TCP ports that stay ours.
//!
//! "Bind port 0, close, hand the number over" races with every other test and with every outgoing connection. So a port is
//! taken from below the range the kernel gives to outgoing connections, and reserved by a lock on a file that all
//! processes of the kit share. The lock lasts as long as the [`Port`]; the kernel drops it if the process dies.

use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

/// First port handed out.
const FIRST: u16 = 20_000;
/// How many there are; they end below Linux's usual first ephemeral port, 32768.
const COUNT: u16 = 12_000;

/// A reserved port on 127.0.0.1. Keep it for as long as something may listen there, restarts included.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on the loopback address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

/// Reserves a port on which nobody listens.
pub fn free() -> Port {
    /// Where the search goes on, so that a port just given back is not the next one handed out.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let folder = lock_folder();
    // Processes start at different places, so that they seldom try the same file.
    let offset = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0).wrapping_mul(97) % COUNT;
    for _ in 0..COUNT {
        let number = FIRST + (offset + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let lock = File::options().create(true).append(true).open(folder.join(number.to_string()));
        let lock =
            lock.unwrap_or_else(|e| panic!("cannot open the lock of port {number} in {}: {e}", folder.display()));
        if lock.try_lock().is_err() {
            continue;
        }
        // Somebody outside the kit may listen there.
        if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
            return Port { number, _lock: lock };
        }
    }
    panic!("none of the {COUNT} ports from {FIRST} on is free");
}

/// The folder of the lock files, one per user: another user's files could not be opened.
fn lock_folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("edge-tests-ports-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("cannot make {}: {e}", folder.display()));
    folder
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ports_in_use_are_not_given_twice() {
        let held: Vec<Port> = (0..50).map(|_| free()).collect();
        let numbers: HashSet<u16> = held.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), held.len());
    }
}
