//! Debian's `snmpd` as an agent, and `snmptrap` as one that calls (packages `snmpd` and `snmp`; a test without them fails).

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::{self, Port};
use crate::wait::DEADLINE;

/// A running agent with its own folder. Dropping it kills it.
pub struct Snmpd {
    folder: TempDir,
    port: Port,
    child: Option<Child>,
}

impl Snmpd {
    /// Starts one: community `public` may read, `private` may write; `users` are lines such as
    /// `createUser u SHA password`, beside their `rwuser`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(users: &str) -> Snmpd {
        let (folder, port) = (TempDir::new().expect("a folder"), ports::free());
        let config = format!(
            "agentaddress udp:127.0.0.1:{port}\nrocommunity public 127.0.0.1\nrwcommunity private 127.0.0.1\n\
             sysName bench\nsysServices 72\n{users}\n"
        );
        std::fs::write(folder.path().join("snmpd.conf"), config).expect("a configuration");
        let mut agent = Snmpd { folder, port, child: None };
        agent.launch();
        agent
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Kills it: the agent is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch(&mut self) {
        let folder = self.folder.path();
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
        let sbin = Path::new("/usr/sbin/snmpd");
        let mut command = Command::new(if sbin.exists() { sbin } else { Path::new("snmpd") });
        command.args(["-f", "-Lo", "-C", "-c"]).arg(folder.join("snmpd.conf"));
        command.env("SNMP_PERSISTENT_DIR", folder.join("persistent")).env("SNMPCONFPATH", folder).env("MIBS", "");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("snmpd (Debian package `snmpd`)"));
        self.wait();
    }

    /// Waits until it answers: sysUpTime.0 by SNMPv2c, as bytes.
    fn wait(&mut self) {
        let ask = b"\x30\x26\x02\x01\x01\x04\x06public\xa0\x19\x02\x01\x01\x02\x01\x00\x02\x01\x00\x30\x0e\x30\x0c\
            \x06\x08\x2b\x06\x01\x02\x01\x01\x03\x00\x05\x00";
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        let start = Instant::now();
        loop {
            let mut answer = [0; 200];
            // Until it listens, both fail.
            if socket.send_to(ask, self.port.address()).is_ok() && socket.recv(&mut answer).is_ok() {
                return;
            }
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let ended = self.child.as_mut().is_none_or(|c| !matches!(c.try_wait(), Ok(None)));
            assert!(!ended && start.elapsed() < DEADLINE, "snmpd does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Snmpd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `snmptrap` (or, with `-Ci`, sends an inform and waits for its confirmation) to its end.
///
/// # Panics
/// When it fails or is missing.
pub fn trap(port: u16, version: &str, arguments: &[&str]) {
    let mut command = Command::new("snmptrap");
    command.args(["-v", version, "-c", "public"]);
    // Informs are repeated for as long as a loaded machine may need.
    command.args(["-r", "30", "-t", "2"]);
    let (options, rest) = arguments.split_at(usize::from(arguments.first() == Some(&"-Ci")));
    command.args(options).arg(format!("udp:127.0.0.1:{port}")).args(rest).env("MIBS", "");
    let output = command.output().expect("snmptrap (Debian package `snmp`)");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `snmptrap` in version 3 with these options and the engine and folder of a sender that is started anew each time;
/// says whether it thinks that it succeeded, which of a trap nobody confirms is always.
///
/// # Panics
/// When it is missing.
pub fn trap_v3(port: u16, options: &[&str], rest: &[&str]) -> bool {
    let folder = TempDir::new().expect("a folder");
    let mut command = Command::new("snmptrap");
    command.args(["-v", "3", "-r", "3", "-t", "2"]).args(options).arg(format!("udp:127.0.0.1:{port}")).args(rest);
    command.env("MIBS", "").env("SNMP_PERSISTENT_DIR", folder.path()).env("SNMPCONFPATH", folder.path());
    command.output().expect("snmptrap (Debian package `snmp`)").status.success()
}
