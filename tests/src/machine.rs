//! A whole gateway in QEMU: a disk image made by `cargo xtask image`, booted, cut from its power and booted again.
//!
//! Outside is this machine: inside it is 10.0.2.2, where everything on the loopback address is reached, and ports of the gateway
//! are reached on ports of this machine's loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::binary::root;
use crate::ports::{self, Port};
use crate::{aarch64, http, wait};

/// This machine, seen from inside.
pub const OUTSIDE: &str = "10.0.2.2";

/// How long a boot may take: emulated, on a busy machine. The Raspberry Pi's four cores take longest.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Where the gateway's bus and metrics listen inside. Not on the loopback address as they do by default: a forwarded
/// connection comes from outside.
pub const LISTEN: &str = "[bus]\nlisten = \"0.0.0.0:1883\"\n[metrics]\nlisten = \"0.0.0.0:10255\"\n";

/// Debian's busybox for the boards' processor, which making an image leaves behind.
pub fn busybox() -> PathBuf {
    let package = root().join(".cache/image/arm64/packages/busybox-static");
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| package.join(place));
    let found = places.into_iter().find(|place| place.is_file());
    found.expect("an image was made, with busybox in it")
}

/// An image and, while it runs, the emulator.
pub struct Machine {
    folder: TempDir,
    bus: Port,
    metrics: Port,
    qemu: Option<Child>,
}

impl Machine {
    /// Makes an image of a board with the executable under test. `etc` fills its `/etc/edge-runtime`.
    ///
    /// # Panics
    /// When it cannot be made: the message names the packages that are missing.
    pub fn make(board: &str, etc: &[(&str, String)]) -> Machine {
        let folder = tempfile::Builder::new().prefix("edge-image-").tempdir().expect("a folder");
        let own = folder.path().join("etc");
        for (name, text) in etc {
            let path = own.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root()).args(["xtask", "image", "--board", board, "--etc"]).arg(&own);
        cargo.arg("--binary").arg(aarch64::edge_runtime()).arg("--out").arg(folder.path().join("image"));
        let output = cargo.output().expect("cargo starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the image of {board} cannot be made: {said}");
        Machine { folder, bus: ports::free(), metrics: ports::free(), qemu: None }
    }

    /// Turns it on.
    ///
    /// # Panics
    /// When it is on, or QEMU does not start.
    pub fn boot(&mut self) {
        assert!(self.qemu.is_none(), "the machine is on");
        let forward = |port: &Port, inside: u16| format!(",hostfwd=tcp:127.0.0.1:{port}-:{inside}");
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).expect("a log");
        let mut qemu = Command::new(self.folder.path().join("image/run.sh"));
        qemu.env("FORWARD", forward(&self.bus, 1883) + &forward(&self.metrics, 10255));
        qemu.env("CONSOLE", "stdio").stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.qemu = Some(qemu.spawn().expect("QEMU starts"));
    }

    /// Pulls the plug: from one moment to the next, nothing inside runs any more.
    ///
    /// # Panics
    /// When it is off.
    pub fn cut_power(&mut self) {
        let mut qemu = self.qemu.take().expect("the machine is on");
        // The script has become QEMU, so this is its process.
        qemu.kill().expect("QEMU can be killed");
        qemu.wait().expect("QEMU ends");
    }

    /// The port of this machine behind which the gateway's bus is.
    pub fn bus(&self) -> u16 {
        self.bus.number()
    }

    /// Where the gateway's metrics are.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics.address()
    }

    /// The value of a metric line; `None` while it cannot be asked.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = http::tcp(self.metrics(), "/metrics").ok()?.body;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Waits until the gateway says it is ready.
    #[track_caller]
    pub fn wait_ready(&self) {
        self.until("the gateway is ready", || {
            http::tcp(self.metrics(), "/readyz").ok().filter(|answer| answer.status == 200)
        });
    }

    /// Waits until `probe` gives a value; a failure shows the console.
    #[track_caller]
    pub fn until<T>(&self, what: &str, probe: impl FnMut() -> Option<T>) -> T {
        wait::until_or(PATIENCE, what, || format!("console:\n{}", self.log()), probe)
    }

    /// What the console has shown in all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("console")
    }

    /// A folder for whatever else a test needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the machine's console\n{}", self.log());
        }
        if let Some(mut qemu) = self.qemu.take() {
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}
