//! A whole gateway in QEMU: a disk image made by `cargo xtask image`, booted, cut from its power and booted again.
//!
//! Outside is this machine: inside it is 10.0.2.2, where everything on the loopback address is reached, and ports of the gateway
//! are reached on ports of this machine's loopback.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
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
    asked: u32,
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
        Machine { folder, bus: ports::free(), metrics: ports::free(), qemu: None, asked: 0 }
    }

    /// Turns it on. From outside nothing reaches it before [`Machine::open`].
    ///
    /// # Panics
    /// When it is on, or QEMU does not start.
    pub fn boot(&mut self) {
        self.boot_by("kernel");
    }

    /// Turns it on, and lets the firmware find the kernel on the disk, where there is such firmware. There is no shell then.
    ///
    /// # Panics
    /// As [`Machine::boot`].
    pub fn boot_from_disk(&mut self) {
        self.boot_by("disk");
    }

    fn boot_by(&mut self, way: &str) {
        assert!(self.qemu.is_none(), "the machine is on");
        let _ = std::fs::remove_file(self.monitor());
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).expect("a log");
        let mut qemu = Command::new(self.folder.path().join("image/run.sh"));
        qemu.arg("-monitor").arg(format!("unix:{},server=on,wait=off", self.monitor().display()));
        qemu.env("CONSOLE", "stdio").env("APPEND", "edge.shell").env("BOOT", way);
        qemu.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.qemu = Some(qemu.spawn().expect("QEMU starts"));
    }

    /// Lets connections from outside in: to the bus and the metrics. Not from the beginning, because QEMU's USB network card
    /// gets stuck on what arrives before its driver is there.
    ///
    /// # Panics
    /// When QEMU refuses.
    pub fn open(&self) {
        let mut monitor = UnixStream::connect(self.monitor()).expect("QEMU's monitor");
        monitor.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        for (port, inside) in [(&self.bus, 1883), (&self.metrics, 10255)] {
            writeln!(monitor, "hostfwd_add net0 tcp:127.0.0.1:{port}-:{inside}").expect("it listens");
        }
        let (mut said, mut bytes) = (String::new(), [0; 1024]);
        while said.matches("(qemu) ").count() < 3 {
            let length = monitor.read(&mut bytes).expect("it answers");
            said += &String::from_utf8_lossy(&bytes[..length]);
            assert!(length > 0 && !said.contains("ould not") && !said.contains("rror"), "QEMU's monitor: {said}");
        }
    }

    /// Types a command into the shell on the console; whether it ended well, and what was on the console meanwhile.
    ///
    /// # Panics
    /// When the machine is off or nothing answers.
    #[track_caller]
    pub fn shell(&mut self, command: &str) -> (bool, String) {
        self.asked += 1;
        let mark = format!("@{}@", self.asked);
        let from = self.log().len();
        let stdin = self.qemu.as_mut().and_then(|qemu| qemu.stdin.as_mut()).expect("the machine is on");
        // The shell repeats what is typed, so the mark is only whole in what it says itself.
        writeln!(stdin, "{command}; echo '@'{}'@'$?@", self.asked).and_then(|()| stdin.flush()).expect("it listens");
        self.until(&format!("the shell has done {command:?}"), || {
            let log = self.log();
            let said = log.get(from..)?;
            let (said, rest) = said.split_once(&mark)?;
            let (code, _) = rest.split_once('@')?;
            Some((code == "0", said.to_owned()))
        })
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

    fn monitor(&self) -> PathBuf {
        self.folder.path().join("monitor")
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
