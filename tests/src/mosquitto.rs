//! Debian's `mosquitto` as the cloud, and `mosquitto_pub` / `mosquitto_sub` as clients (packages `mosquitto` and
//! `mosquitto-clients`; a test without them fails).

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::{self, Port};
use crate::wait::DEADLINE;

/// How the broker is to be set up.
#[derive(Debug, Default, Clone)]
pub struct Setup {
    /// CA, server certificate and key, as PEM; clients then need a certificate of that CA, too.
    pub tls: Option<(String, String, String)>,
    /// The only user and password allowed.
    pub user: Option<(String, String)>,
    /// More lines of its configuration.
    pub extra: String,
}

/// A running broker with its own directory; stopped when dropped. Its sessions survive a restart.
pub struct Mosquitto {
    dir: TempDir,
    port: Port,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one on a port of its own and waits until it listens.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(setup: &Setup) -> Mosquitto {
        let (port, dir) = (ports::free(), TempDir::new().expect("temporary directory"));
        write_config(dir.path(), port.number(), setup);
        let mut broker = Mosquitto { dir, port, child: None };
        assert!(broker.try_restart(), "mosquitto did not start");
        broker
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process identifier.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("mosquitto runs").id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).expect("pid")).expect("pid");
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    /// Stops it orderly: it saves its sessions.
    pub fn stop(&mut self) {
        if self.child.is_some() {
            self.signal(rustix::process::Signal::TERM);
            let _ = self.child.take().expect("runs").wait();
        }
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn restart(&mut self) {
        self.stop();
        assert!(self.try_restart(), "mosquitto did not start again");
    }

    fn try_restart(&mut self) -> bool {
        let config = self.dir.path().join("mosquitto.conf");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("log");
        let mut command = Command::new(binary("mosquitto"));
        command.arg("-c").arg(config).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("log")).stderr(log);
        let mut child = command.spawn().expect("mosquitto (Debian package `mosquitto`)");
        let start = Instant::now();
        loop {
            if child.try_wait().expect("wait").is_some() {
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port.number())).is_ok() {
                self.child = Some(child);
                return true;
            }
            assert!(start.elapsed() < DEADLINE, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn write_config(dir: &Path, port: u16, setup: &Setup) {
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        let mut file = std::fs::File::create(&path).expect("file");
        file.write_all(text.as_bytes()).expect("write");
        path
    };
    let user = if rustix::process::getuid().is_root() { "user root\n" } else { "" };
    let mut config = format!(
        "{user}persistence true\npersistence_location {}/\nmax_queued_messages 0\nmax_inflight_messages 0\n\
         listener {port} 127.0.0.1\n{}\n",
        dir.display(),
        setup.extra
    );
    if let Some((ca, cert, key)) = &setup.tls {
        let (ca, cert, key) = (put("ca.pem", ca), put("server.pem", cert), put("server.key", key));
        let _ = write!(
            config,
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
            ca.display(),
            cert.display(),
            key.display()
        );
    }
    match &setup.user {
        Some((user, password)) => {
            let path = put("passwords", "");
            let output = Command::new("mosquitto_passwd").arg("-b").arg(&path).args([user, password]).output();
            assert!(output.expect("mosquitto_passwd").status.success());
            let _ = write!(config, "allow_anonymous false\npassword_file {}\n", path.display());
        }
        None => config.push_str("allow_anonymous true\n"),
    }
    put("mosquitto.conf", &config);
}

fn binary(name: &str) -> PathBuf {
    // Debian keeps daemons out of a user's PATH.
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.exists() { sbin } else { PathBuf::from(name) }
}

/// Runs `mosquitto_pub -p <port> <args>` to its end.
///
/// # Panics
/// When the program is missing.
pub fn publish(port: u16, args: &[&str]) -> Output {
    Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(args)
        .output()
        .expect("mosquitto_pub (Debian package `mosquitto-clients`)")
}

/// Starts `mosquitto_sub -p <port> -W 60 <args>`, its output kept for [`Child::wait_with_output`].
///
/// # Panics
/// When the program is missing.
pub fn subscribe(port: u16, args: &[&str]) -> Child {
    Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-W", "60"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mosquitto_sub (Debian package `mosquitto-clients`)")
}

/// The lines a finished `mosquitto_sub` has printed.
///
/// # Panics
/// When it failed.
pub fn lines(child: Child) -> Vec<String> {
    let output = child.wait_with_output().expect("mosquitto_sub ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "mosquitto_sub: {text} {}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(str::to_owned).collect()
}
