//! A place of its own for one test: containers, their root, their logs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edge_runtime::engine::containers::{Containers, End, Handle, Request, Settings};
use edge_runtime::engine::shim::protocol::{Exit, Phase, STATE, read_file};
use edge_runtime::engine::spec::ContainerSpec;

/// How long a condition may take on a machine busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A place of its own for one test.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub containers: Containers,
}

impl Bench {
    pub fn settings(dir: &Path) -> Settings {
        let shim_exe = env!("CARGO_BIN_EXE_edge-runtime").into();
        Settings { run_dir: dir.join("run"), shim_exe, start_timeout: PATIENCE, ..Settings::default() }
    }

    pub fn new() -> Bench {
        Bench::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        make_root(&dir.path().join("root"));
        let mut settings = Self::settings(dir.path());
        change(&mut settings);
        let containers = Containers::new(settings).expect("root, cgroups and namespaces");
        Bench { dir, containers }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    pub fn request(&self, id: &str, args: &[&str]) -> Request {
        request(self.dir.path(), id, args)
    }

    pub async fn start(&self, id: &str, args: &[&str]) -> Handle {
        self.containers.start(self.request(id, args)).await.expect("a container")
    }

    /// Runs a shell script in a container of its own to its end: exit code and standard output.
    pub async fn shell(&self, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> (i32, String) {
        let id = format!("sh-{:016x}", fastrand());
        let mut request = self.request(&id, &["sh", "-c", script]);
        change(&mut request.spec);
        let handle = self.containers.start(request).await.expect("a container");
        let exit = exit(&handle).await;
        handle.delete().await;
        (exit.code, self.output(&id))
    }

    /// What a container has said, without the log's own columns.
    pub fn output(&self, id: &str) -> String {
        let text = fs::read(self.log(id)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(|line| format!("{line}\n")).collect()
    }

    /// Waits until a container has said this.
    pub async fn said(&self, id: &str, what: &str) {
        until(what, || self.output(id).contains(what)).await;
    }

    /// A runtime that comes after the one of this bench.
    pub fn successor(&self) -> Containers {
        Containers::new(Self::settings(self.dir.path())).expect("root, cgroups and namespaces")
    }
}

/// A test that failed leaves no containers.
impl Drop for Bench {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.path().join("run")).into_iter().flatten().flatten() {
            let phase = read_file(&entry.path().join(STATE));
            if let (Ok(Phase::Running(running)), true) = (phase, std::thread::panicking()) {
                for pid in [running.pid, running.shim].into_iter().filter_map(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }
}

pub fn request(dir: &Path, id: &str, args: &[&str]) -> Request {
    let args = args.iter().map(|a| (*a).to_owned()).collect();
    let spec = ContainerSpec { args, rootfs: dir.join("root"), ..ContainerSpec::default() };
    let log_path = Some(dir.join(format!("{id}.log")));
    Request { id: id.into(), spec, log_path, log_max_bytes: None, start_timeout: None }
}

fn make_root(root: &Path) {
    for sub in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(sub)).expect("a root");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("/bin/busybox: install busybox-static");
    let names = "sh true false sleep cat echo dd kill id ls mount umount mknod ps head yes awk env readlink seq tr unshare chroot mkdir";
    for name in names.split(' ') {
        symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
}

/// A number no other test has.
fn fastrand() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// How a container ended.
pub async fn exit(handle: &Handle) -> Exit {
    match tokio::time::timeout(PATIENCE, handle.wait()).await.expect("its end") {
        End::Exited(exit) => exit,
        End::Failed(failure) => panic!("{failure:?}"),
    }
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The shim of a container.
pub fn shim_of(handle: &Handle) -> i32 {
    handle.running().expect("a process").shim
}

/// Whether a process is there and not a zombie.
pub fn alive(pid: i32) -> bool {
    edge_runtime::engine::cgroup::start_ticks(pid).is_some()
}
