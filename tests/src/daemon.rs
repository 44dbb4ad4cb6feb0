//! A node: the real binary as a daemon with a folder of its own, through starts, stops and kills.
//!
//! ```no_run
//! let mut node = edge_tests::daemon::Node::new();
//! node.start();
//! node.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
//! node.kill();
//! node.start();
//! assert_eq!(node.json(&["get", "configmaps"])["items"][0]["metadata"]["name"], "a");
//! assert!(node.stop().success());
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::http::Answer;
use crate::ports::Port;
use crate::run::Output;
use crate::wait::{self, DEADLINE};
use crate::{binary, cleanup, http, ports, run};

/// How much of the daemon's standard error a failure shows.
const SHOWN_LINES: usize = 150;

/// A node's folder, ports and configuration, and the daemon while it runs.
#[derive(Debug)]
pub struct Node {
    folder: tempfile::TempDir,
    bus: Port,
    metrics: Port,
    board: String,
    environment: Vec<(String, OsString)>,
    arguments: Vec<OsString>,
    /// What the daemon is run by, for example `qemu-aarch64-static`; empty means directly.
    runner: Vec<OsString>,
    binary: Option<PathBuf>,
    child: Option<Child>,
}

impl Default for Node {
    fn default() -> Node {
        Node::new()
    }
}

impl Node {
    /// A node that has not been started, with an empty state, and the bus and the metrics on reserved loopback ports.
    pub fn new() -> Node {
        // Built now if need be, which takes minutes: not inside a wait for something else.
        binary::edge_runtime();
        // Short, because paths of Unix sockets end after 107 bytes.
        let folder = tempfile::Builder::new().prefix("edge-").tempdir().expect("a temporary folder");
        let node = Node {
            folder,
            bus: ports::free(),
            metrics: ports::free(),
            board: "generic-x86".to_owned(),
            environment: Vec::new(),
            arguments: Vec::new(),
            runner: Vec::new(),
            binary: None,
            child: None,
        };
        std::fs::create_dir_all(node.manifests()).expect("a folder for manifests");
        node.write_config(&toml::Table::new());
        node
    }

    /// Adds TOML to the configuration; a key given here wins over the kit's own (`bus.listen`, `metrics.listen`).
    #[must_use]
    pub fn config(self, text: &str) -> Node {
        self.reconfigure(text);
        self
    }

    /// Replaces the configuration by the kit's own keys and `text`; a running daemon sees it at its next start.
    pub fn reconfigure(&self, text: &str) {
        let added = text.parse().unwrap_or_else(|e| panic!("the test's configuration is no TOML: {e}\n{text}"));
        self.write_config(&added);
    }

    /// Chooses the board.
    #[must_use]
    pub fn board(mut self, name: &str) -> Node {
        self.board = name.to_owned();
        self
    }

    /// Sets a variable in the daemon's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Node {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Adds an argument to the daemon's command line.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Node {
        self.arguments.push(argument.into());
        self
    }

    /// Runs another executable than the one under test, through `runner` (empty: directly).
    #[must_use]
    pub fn binary(mut self, path: &Path, runner: &[&str]) -> Node {
        self.binary = Some(path.to_owned());
        self.runner = runner.iter().map(OsString::from).collect();
        self
    }

    /// The node's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The state directory (`--state-dir`).
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// The run directory (`--run-dir`).
    pub fn run(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// The manifests directory (`--manifests-dir`).
    pub fn manifests(&self) -> PathBuf {
        self.folder().join("manifests")
    }

    /// The socket of the local API.
    pub fn socket(&self) -> PathBuf {
        self.run().join("api.sock")
    }

    /// Where the bus listens.
    pub fn bus(&self) -> SocketAddr {
        self.bus.address()
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics.address()
    }

    /// The daemon's command line, for tests that start it in a way of their own.
    pub fn command(&self) -> Command {
        let binary = self.binary.as_deref().unwrap_or_else(|| binary::edge_runtime());
        let mut command = match self.runner.split_first() {
            None => Command::new(binary),
            Some((runner, rest)) => {
                let mut command = Command::new(runner);
                command.args(rest).arg(binary);
                command
            }
        };
        command
            .args(["--board", &self.board, "--config"])
            .arg(self.config_file())
            .arg("--state-dir")
            .arg(self.state())
            .arg("--run-dir")
            .arg(self.run())
            .arg("--manifests-dir")
            .arg(self.manifests())
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // A test must not tell the service manager of the machine anything.
            .env_remove("NOTIFY_SOCKET");
        command
    }

    /// Starts the daemon and waits until it says it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        self.launch();
        self.wait_ready();
    }

    /// Starts the daemon and waits for nothing.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a file for the log");
        let child = self.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("the daemon starts"));
    }

    /// Waits until `/readyz` answers 200 on the local API. Panics when the daemon ends instead.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let socket = self.socket();
        let child = self.child.as_mut().expect("the daemon was launched");
        let mut last = String::new();
        let ready = || {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return Some(Err(status));
            }
            match http::unix(&socket, "GET", "/readyz", "", "") {
                Ok(answer) if answer.status == 200 => Some(Ok(())),
                Ok(answer) => {
                    last = answer.body;
                    None
                }
                Err(_) => None,
            }
        };
        let log = self.folder.path().join("stderr.log");
        let state = || format!("log:\n{}", tail(&log));
        if let Err(status) = wait::until_or(DEADLINE, "the daemon is ready", state, ready) {
            self.child = None;
            panic!("the daemon ended with {status} instead of becoming ready; it last said: {last}\n{}", self.log());
        }
    }

    /// The daemon's process id. Panics when it does not run.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("the daemon runs");
        i32::try_from(child.id()).expect("a process id")
    }

    /// Whether the daemon was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends the daemon a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a process id");
        kill_process(pid, signal).expect("a signal can be sent to a child");
    }

    /// Kills the daemon with SIGKILL, as a power cut of the process.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child ends");
    }

    /// Asks the daemon to stop (SIGTERM) and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// Waits for the end of the daemon.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon runs");
        run::wait_for(&mut child, DEADLINE).unwrap_or_else(|| {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the daemon did not end\n{}", self.log())
        })
    }

    /// Runs a verb of the command line against this node.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.cli_with(arguments, "", DEADLINE)
    }

    /// Runs a verb with text on its standard input and a deadline of its own.
    #[track_caller]
    pub fn cli_with(&self, arguments: &[&str], input: &str, deadline: Duration) -> Output {
        let mut command = Command::new(binary::edge_runtime());
        command.args(arguments).arg("--socket").arg(self.socket());
        run::finish(&mut command, input, deadline)
    }

    /// Runs a verb with `-o json`, which must succeed.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut with_format = arguments.to_vec();
        with_format.extend(["-o", "json"]);
        self.cli(&with_format).ok().json()
    }

    /// Applies YAML through the command line, which must succeed.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> Output {
        self.cli_with(&["apply", "-f", "-"], yaml, DEADLINE).ok()
    }

    /// Puts a manifest into the watched folder, in one step as an editor or a deployment would.
    pub fn manifest(&self, name: &str, yaml: &str) {
        let (new, path) = (self.folder().join(format!("new-{name}")), self.manifests().join(name));
        std::fs::write(&new, yaml).and_then(|()| std::fs::rename(&new, &path)).expect("a manifest can be written");
    }

    /// Sends a request with a JSON body (may be empty) to the local API.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = http::unix(&self.socket(), method, path, "application/json", body);
        answer.unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.log()))
    }

    /// The value of a metric line, for example `edge_queue_dropped_total{stream="data"}`; `None` when it is not there.
    #[track_caller]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text =
            http::tcp(self.metrics(), "/metrics").unwrap_or_else(|e| panic!("/metrics: {e}\n{}", self.log())).body;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Waits until `probe` gives a value; a failure shows the node's log.
    #[track_caller]
    pub fn until<T>(&self, what: &str, probe: impl FnMut() -> Option<T>) -> T {
        wait::until_or(DEADLINE, what, || format!("log:\n{}", self.log()), probe)
    }

    /// The end of what the daemon has written to standard error in all its lives.
    pub fn log(&self) -> String {
        tail(&self.log_file())
    }

    fn log_file(&self) -> PathBuf {
        self.folder().join("stderr.log")
    }

    /// The configuration file (`--config`).
    pub fn config_file(&self) -> PathBuf {
        self.folder().join("config.toml")
    }

    fn write_config(&self, added: &toml::Table) {
        let own = format!("[bus]\nlisten = \"{}\"\n[metrics]\nlisten = \"{}\"\n", self.bus(), self.metrics());
        let mut table: toml::Table = own.parse().expect("the kit's own configuration");
        merge(&mut table, added);
        std::fs::write(self.config_file(), table.to_string()).expect("a configuration can be written");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
        // The daemon first, so that it starts nothing while its helpers are being taken away.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        cleanup::sweep(self.folder.path());
    }
}

/// Puts `added` over `table`, table by table.
fn merge(table: &mut toml::Table, added: &toml::Table) {
    for (key, value) in added {
        match (table.get_mut(key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
