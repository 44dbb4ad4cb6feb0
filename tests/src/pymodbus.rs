//! pymodbus' server as a device: another implementation, in a process that can vanish and come back.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// The version tested with; it is installed from PyPI once, below `.cache`.
const PACKAGE: &str = "pymodbus[serial]==3.16.1";

/// The workspace's folder for what tests fetch or build.
pub fn cache() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let cache = root.join(".cache");
    fs::create_dir_all(&cache).expect("a cache folder");
    cache
}

/// Does something once for all test processes: the first makes `ready`, the others wait for it.
pub fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let place = cache().join(name);
    let lock = File::create(cache().join(format!("{name}.lock"))).expect("a lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the lock");
    let ready = cache().join(format!("{name}.ready"));
    if !(ready.exists() && place.exists()) {
        make(&place);
        File::create(ready).expect("a mark");
    }
    place
}

/// Runs a command.
///
/// # Panics
/// With its output when it fails: the machine lacks something, and the message says what.
pub fn run(command: &mut Command, needs: &str) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; this test needs {needs}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {text}\nthis test needs {needs}");
}

/// A Python with packages from PyPI, given with their versions; made once for each such set.
pub fn venv(name: &str, packages: &[&str]) -> PathBuf {
    let version: String = packages.join("-").chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    let venv = once(&format!("venv-{name}-{version}"), |place| {
        let _ = fs::remove_dir_all(place);
        run(Command::new("python3").args(["-m", "venv"]).arg(place), "python3 with venv (python3-venv)");
        let mut pip = Command::new(place.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
        run(&mut pip, "PyPI, once");
    });
    venv.join("bin/python")
}

fn python() -> PathBuf {
    venv("pymodbus", &[PACKAGE])
}

/// A free port that stays free while its server is away: outside the range the kernel takes ports from for connections
/// (32768–60999). There, another connection could take it, or the mapper's own retries connect to themselves.
pub fn lasting_port() -> u16 {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.subsec_nanos());
    let seed = seed.wrapping_add(std::process::id().wrapping_mul(7_919));
    let mut ports = (0..12_000u32).map(|i| 20_000 + seed.wrapping_add(i.wrapping_mul(31)) % 12_000);
    let free = ports.find_map(|p| {
        let port = u16::try_from(p).ok()?;
        std::net::TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    });
    free.expect("a free port between 20000 and 32000")
}

/// Runs the client script with some arguments; what it printed.
///
/// # Panics
/// When it fails.
pub fn client(arguments: &[String]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/pymodbus_client.py");
    let output = Command::new(python()).arg(script).args(arguments).output().expect("python starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pymodbus' client failed: {error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A running server. Dropping it kills it: the device vanishes.
pub struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Where it listens, on loopback.
    pub port: u16,
}

impl Server {
    /// Starts one on a free port. `devices` as the script documents: `unit`, tables of `[address, values]`, `delay`.
    pub fn start(devices: Value) -> Server {
        Server::start_on(0, devices)
    }

    /// Starts one on a given port.
    pub fn start_on(port: u16, devices: Value) -> Server {
        Server::start_as(json!({"port": port}), devices)
    }

    /// Starts one of another kind: `kind` (`tcp`, `udp`, `tls`, `serial`), `framer`, and what the kind needs; see the script.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_as(kind: Value, devices: Value) -> Server {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/pymodbus_server.py");
        let mut config = kind;
        config["devices"] = devices;
        let config = config.to_string();
        let mut command = Command::new(python());
        command.arg(script).arg(config).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python starts");
        let (stdin, stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("pymodbus did not start: {line:?}"));
        Server { child, stdin, stdout, port }
    }

    fn control(&mut self, command: &Value) -> Value {
        writeln!(self.stdin, "{command}").expect("it listens");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The requests since the last time: unit, function, address, count.
    pub fn requests(&mut self) -> Vec<(u8, u8, u16, u16)> {
        serde_json::from_value(self.control(&json!({"op": "requests"}))).expect("requests")
    }

    /// From now on answers of a unit take so many milliseconds.
    pub fn delay(&mut self, unit: u8, ms: u64) {
        self.control(&json!({"op": "delay", "unit": unit, "ms": ms}));
    }

    /// A register changes by itself.
    pub fn poke(&mut self, unit: u8, function: u8, address: u16, value: u16) {
        self.control(&json!({"op": "poke", "unit": unit, "function": function, "address": address, "value": value}));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
