//! Ports that the configuration names: free, or the node's own.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::{Check, Findings, Verdict};
use crate::config::Config;

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Free,
    /// The node that runs.
    Ours,
    /// Somebody else; their name, when it can be told.
    Other(String),
    /// The address is not one of this machine, or may not be bound.
    Unusable(String),
}

/// What was looked at: key, address, owner.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The ports.
    pub ports: Vec<(&'static str, SocketAddr, Owner)>,
}

impl Facts {
    /// Tries the ports of the configuration. `node` is the process of the node that runs.
    pub fn look(config: &Config, node: Option<i32>) -> Facts {
        let named = [
            ("bus.listen", Some(config.bus.listen)),
            ("metrics.listen", config.api.metrics),
            ("modbus-server.listen", config.modbus_server),
        ];
        let named = named.into_iter().filter_map(|(key, address)| Some((key, address?)));
        Facts { ports: named.filter(|(_, a)| a.port() != 0).map(|(key, a)| (key, a, owner(a, node))).collect() }
    }
}

fn owner(address: SocketAddr, node: Option<i32>) -> Owner {
    match TcpListener::bind(address) {
        Ok(_) => Owner::Free,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let sockets = listeners(address.port());
            if node.is_some_and(|pid| holds(pid, &sockets)) {
                return Owner::Ours;
            }
            let name = holder(&sockets).unwrap_or_else(|| "another program".to_owned());
            Owner::Other(name)
        }
        Err(error) => Owner::Unusable(error.to_string()),
    }
}

/// The inodes of sockets that listen on a port (proc_pid_net(5), `/proc/net/tcp`; state 0A is LISTEN).
fn listeners(port: u16) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(|line| inode(line, port)));
    }
    found
}

fn inode(line: &str, port: u16) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = words.get(1)?.rsplit_once(':')?;
    let listens = *words.get(3)? == "0A" && u16::from_str_radix(local, 16) == Ok(port);
    listens.then(|| words.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
}

fn holds(pid: i32, sockets: &BTreeSet<String>) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|e| std::fs::read_link(e.path()).ok()).any(|to| to.to_str().is_some_and(|t| sockets.contains(t)))
}

/// The name and number of the process that holds one of these sockets; only root sees everybody's.
fn holder(sockets: &BTreeSet<String>) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let pid = processes.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()).find(|pid| holds(*pid, sockets))?;
    let name = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")).unwrap_or_default();
    Some(format!("{} (process {pid})", name.trim()))
}

/// The check.
pub fn check(facts: &Facts) -> Check {
    let mut all = Findings::default();
    for (key, address, owner) in &facts.ports {
        match owner {
            Owner::Free => all.good(format!("{address} free")),
            Owner::Ours => all.good(format!("{address} ours")),
            Owner::Other(name) => all.bad(
                Verdict::Fail,
                format!("{address} is taken by {name}"),
                format!("stop that program, or set {key} to another port"),
            ),
            Owner::Unusable(why) => {
                all.bad(Verdict::Fail, format!("{address}: {why}"), format!("set {key} to an address of this machine"));
            }
        }
    }
    let beyond = facts.ports.iter().find(|(_, a, _)| !a.ip().is_loopback());
    if let Some((key, address, _)) = beyond {
        let advice = format!("set {key} to 127.0.0.1 unless others must reach it: nobody has to log in there");
        all.bad(Verdict::Warn, format!("{address} can be reached from other machines"), advice);
    }
    all.check("ports", "clients find the node there", "the configuration names none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_judged() {
        let verdict = |address: &str, owner| {
            check(&Facts { ports: vec![("bus.listen", address.parse().unwrap(), owner)] }).verdict
        };
        for (owner, expected) in [
            (Owner::Free, Verdict::Ok),
            (Owner::Ours, Verdict::Ok),
            (Owner::Other("x".into()), Verdict::Fail),
            (Owner::Unusable("x".into()), Verdict::Fail),
        ] {
            assert_eq!(verdict("127.0.0.1:1883", owner), expected);
        }
        assert_eq!(verdict("0.0.0.0:1883", Owner::Ours), Verdict::Warn);
    }

    #[test]
    fn a_listener_is_found_by_its_socket() {
        let line =
            "   0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0";
        assert_eq!(inode(line, 1883).as_deref(), Some("socket:[77]"));
        assert_eq!(inode(line, 1884), None);
        assert_eq!(inode("x", 1883), None);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(owner(address, Some(own)), Owner::Ours);
        assert!(matches!(owner(address, None), Owner::Other(name) if name.contains(&own.to_string())));
    }
}
