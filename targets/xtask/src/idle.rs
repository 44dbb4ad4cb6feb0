//! The memory and the start of an idle node, for the budgets of a target. `cargo xtask bench` measures both with more care.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, read};

/// How long the node may take to become ready before this is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may settle before its memory is looked at: past the first round of its signs of life, every 10 s, which map in
/// what an idle node needs all the time.
const SETTLE: Duration = Duration::from_secs(15);

/// What was measured.
#[derive(Debug)]
pub struct Idle {
    /// Proportional set size.
    pub pss_kib: u64,
    /// From the start of the process until `/readyz` says yes.
    pub start_ms: u128,
}

/// Starts a node on a state of its own, waits until it is ready, and looks.
pub fn measure(binary: &Path) -> Result<Idle, Error> {
    let folder = std::env::temp_dir().join(format!("edge-idle-{}", std::process::id()));
    let failed = |error| Error::File(folder.clone(), error);
    std::fs::create_dir_all(folder.join("manifests")).map_err(failed)?;
    let [bus, metrics] = ports().map_err(failed)?;
    let config = format!("[bus]\nlisten = \"127.0.0.1:{bus}\"\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n");
    std::fs::write(folder.join("config.toml"), config).map_err(failed)?;
    // The second start is how a gateway boots every other time.
    let measured = start(binary, &folder, Duration::ZERO).and_then(|_| start(binary, &folder, SETTLE));
    let _ = std::fs::remove_dir_all(&folder);
    measured
}

fn start(binary: &Path, folder: &Path, settle: Duration) -> Result<Idle, Error> {
    let socket = folder.join("run/api.sock");
    let _ = std::fs::remove_file(&socket);
    let mut command = Command::new(binary);
    command.arg("--config").arg(folder.join("config.toml")).arg("--state-dir").arg(folder.join("state"));
    command.arg("--run-dir").arg(folder.join("run")).arg("--manifests-dir").arg(folder.join("manifests"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env_remove("NOTIFY_SOCKET");
    let began = Instant::now();
    let node = command.spawn().map_err(|error| Error::Program(format!("{command:?}"), error.to_string()))?;
    let mut node = Running(node);
    while !is_ready(&socket) {
        if began.elapsed() > PATIENCE || !matches!(node.0.try_wait(), Ok(None)) {
            return Err(Error::Program(format!("{command:?}"), "did not become ready".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let start_ms = began.elapsed().as_millis();
    std::thread::sleep(settle);
    let path = std::path::PathBuf::from(format!("/proc/{}/smaps_rollup", node.0.id()));
    let pss = read(&path)?.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok());
    let pss_kib = pss.ok_or_else(|| Error::Content(path, "says no Pss".to_owned()))?;
    Ok(Idle { pss_kib, start_ms })
}

fn is_ready(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

/// Two ports that were free just now.
fn ports() -> std::io::Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

/// A node that is asked to end when this is dropped, so that it takes its own things away.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let end = Instant::now();
        while end.elapsed() < PATIENCE && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
