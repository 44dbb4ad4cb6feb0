//! A runtime in a process of its own, so that it can be killed: the test's own executable, told what to do line by line.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use edge_model::pod::PodStatus;
use edge_model::{Key, Kind, Object};
use edge_runtime::bus::Bus;
use edge_runtime::engine::containers::{self, Containers};
use edge_runtime::engine::pods::{self, Context, Settings};
use edge_runtime::events;
use edge_runtime::images::{self, ImageStore};
use edge_runtime::store::{self, Store};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

const DIR: &str = "EDGE_PODS_TEST_DIR";

fn settings(dir: &Path) -> Settings {
    Settings {
        node_name: "gw".into(),
        run_dir: dir.join("run"),
        state_dir: dir.join("state"),
        log_dir: dir.join("logs"),
        network: super::network(),
        ..Settings::default()
    }
}

/// The process: answers one line for each line it reads, until its standard input ends or it is killed.
pub fn main() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let reactor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    reactor.block_on(async {
        let (store, _) = Store::open(&dir.join("store"), store::Settings::default()).unwrap();
        let images = ImageStore::open(dir.join("images"), images::Settings::default()).await.unwrap();
        let containers = Containers::new(containers::Settings {
            run_dir: dir.join("run/containers"),
            shim_exe: crate::binary::edge_runtime().into(),
            ..containers::Settings::default()
        });
        let (recorder, mut inbox) = events::channel("test");
        let (bus, stop) = (Bus::in_memory(), CancellationToken::new());
        let settings = Settings { network: fixed(&dir), ..settings(&dir) };
        let ctx = Context::new(settings, store.clone(), bus.clone(), containers.unwrap(), images, recorder);
        let pods = tokio::spawn(pods::run(ctx, stop.clone()));
        let (kept, token) = (store.clone(), stop.clone());
        let events = tokio::spawn(async move {
            events::run(&mut inbox, &kept, &bus, "gw", &events::Settings::default(), token).await;
        });
        let (sender, mut lines) = tokio::sync::mpsc::channel(1);
        std::thread::spawn(move || {
            std::io::stdin().lines().map_while(Result::ok).all(|l| sender.blocking_send(l).is_ok())
        });
        while let Some(line) = lines.recv().await {
            let answer = answer(&store, &serde_json::from_str(&line).unwrap()).await;
            println!("\n{answer}");
        }
        stop.cancel();
        pods.await.unwrap().unwrap();
        events.await.unwrap();
        store.close().await;
    });
}

async fn answer(store: &Store, request: &Value) -> Value {
    let key = |name: &str| Key::new(Kind::Pod, "", name);
    if let Some(name) = request["apply"].as_str() {
        store.apply(Object::new(Kind::Pod, "", name, request["spec"].clone())).await.unwrap();
    } else if let Some(name) = request["delete"].as_str() {
        store.delete(&key(name), None).await.unwrap();
    } else if let Some(name) = request["status"].as_str() {
        let object = store.get(&key(name));
        return json!({"uid": object.as_ref().map(|o| &o.metadata.uid), "status": object.map(|o| o.status().clone())});
    }
    json!({})
}

/// The same network for every life of the process.
fn fixed(dir: &Path) -> edge_runtime::engine::network::Settings {
    let text = std::fs::read_to_string(dir.join("network")).unwrap();
    let (bridge, subnet) = text.split_once(' ').unwrap();
    edge_runtime::engine::network::Settings { bridge: bridge.into(), subnet: subnet.parse().unwrap(), expose: vec![] }
}

/// A node whose runtime can be killed and started again.
pub struct Node {
    pub dir: PathBuf,
    child: Option<(Child, ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Node {
    /// A node in a directory that has `images`.
    pub fn new(dir: &Path) -> Node {
        let network = super::network();
        std::fs::write(dir.join("network"), format!("{} {}", network.bridge, network.subnet)).unwrap();
        Node { dir: dir.to_owned(), child: None }
    }

    pub fn start(&mut self) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "node_process", "--nocapture", "--test-threads=1"])
            .env(DIR, &self.dir)
            .env("EDGE_RUNTIME_BIN", crate::binary::edge_runtime())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        self.child = Some((child, input, BufReader::new(output).lines()));
    }

    /// Kills the runtime, as the kernel does when memory is out.
    pub fn kill(&mut self) {
        let (mut child, ..) = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends the runtime in good order.
    pub fn stop(&mut self) {
        let (mut child, input, mut output) = self.child.take().unwrap();
        drop(input);
        output.by_ref().for_each(drop);
        assert!(child.wait().unwrap().success());
    }

    pub fn ask(&mut self, request: Value) -> Value {
        let (_, input, output) = self.child.as_mut().unwrap();
        writeln!(input, "{request}").unwrap();
        let line = output.map(Result::unwrap).find(|l| l.starts_with('{')).expect("the node has answered");
        serde_json::from_str(&line).unwrap()
    }

    pub fn apply(&mut self, name: &str, spec: Value) {
        edge_model::pod::check(&spec).unwrap();
        self.ask(json!({"apply": name, "spec": spec}));
    }

    pub fn status(&mut self, name: &str) -> PodStatus {
        serde_json::from_value(self.ask(json!({"status": name}))["status"].clone()).unwrap_or_default()
    }

    pub fn wait(&mut self, name: &str, good: impl Fn(&PodStatus) -> bool) -> PodStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(name);
            if good(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{name} did not come to it: {status:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The ids of the containers that have a directory.
    pub fn containers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join("run/containers")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Deletes pods and waits until nothing is left.
    pub fn delete(&mut self, names: &[&str]) {
        for name in names {
            self.ask(json!({"delete": name}));
        }
        let deadline = Instant::now() + PATIENCE;
        let left = |node: &Node| {
            let pods = std::fs::read_dir(node.dir.join("run/pods")).map_or(0, Iterator::count);
            pods + node.containers().len()
        };
        while left(self) > 0 {
            assert!(Instant::now() < deadline, "{:?} are left", self.containers());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a reboot does while no runtime is there: every process and everything in memory is gone.
    pub fn reboot(&mut self) {
        for id in self.containers() {
            let groups = Command::new("find")
                .args(["/sys/fs/cgroup", "-maxdepth", "4", "-type", "d", "-path", &format!("*{id}")])
                .output()
                .unwrap();
            for group in String::from_utf8(groups.stdout).unwrap().lines() {
                let _ = std::fs::write(Path::new(group).join("cgroup.kill"), "1");
                kill_all(&Path::new(group).join("cgroup.procs"));
            }
            kill_shims(&self.dir.join("run/containers").join(&id));
        }
        self.unmount();
        std::fs::remove_dir_all(self.dir.join("run")).unwrap();
        std::fs::remove_dir_all(self.dir.join("logs")).unwrap();
    }

    fn unmount(&self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
        let ours: Vec<PathBuf> = points.filter(|p| p.starts_with(&self.dir)).collect();
        for point in ours.iter().rev() {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn kill_all(procs: &Path) {
    for pid in std::fs::read_to_string(procs).unwrap_or_default().lines().filter_map(|l| l.parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The shim of a container is the process with its directory on the command line.
fn kill_shims(dir: &Path) {
    let dir = dir.to_str().unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|b| *b == 0).any(|a| a == dir.as_bytes())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if self.dir.join("run/containers").exists() {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.reboot()));
        }
        self.unmount();
        let bridge = std::fs::read_to_string(self.dir.join("network")).unwrap();
        let bridge = bridge.split(' ').next().unwrap();
        let _ = Command::new("ip").args(["link", "del", bridge]).output();
    }
}
