//! A place of its own for each test: a store, an image, an engine, a reconciler.

pub mod process;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use edge_model::pod::PodStatus;
use edge_model::{Key, Kind, Object};
use edge_runtime::bus::Bus;
use edge_runtime::engine::containers::{self, Containers};
use edge_runtime::engine::logs::{Logs, Options};
use edge_runtime::engine::network;
use edge_runtime::engine::pods::{self, Context, Settings};
use edge_runtime::events;
use edge_runtime::images::{self, ImageStore, Source};
use edge_runtime::store::{Filter, Store};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} must be installed: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A directory with an image store that has `busybox:1`.
pub async fn with_image() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let layout = make_layout(dir.path());
    let images = ImageStore::open(dir.path().join("images"), images::Settings::default()).await.unwrap();
    images.import(Source::Path(layout), Some("busybox:1")).await.unwrap();
    dir
}

/// An OCI layout with `busybox:1`.
fn make_layout(dir: &Path) -> PathBuf {
    let layout = dir.join("oci");
    let image = format!("{}:1", layout.display());
    let bundle = dir.join("bundle");
    run("umoci", &["init", "--layout", layout.to_str().unwrap()]);
    run("umoci", &["new", "--image", &image]);
    run("umoci", &["unpack", "--image", &image, bundle.to_str().unwrap()]);
    let root = bundle.join("rootfs");
    for sub in ["bin", "etc", "tmp"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static must be installed");
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|n| *n != "busybox") {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    run("umoci", &["repack", "--image", &image, bundle.to_str().unwrap()]);
    run("umoci", &["config", "--image", &image, "--config.env", "PATH=/bin", "--config.cmd", "/bin/sh"]);
    layout
}

/// A container that runs a line of shell.
pub fn sh(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox:1", "command": ["/bin/sh", "-c", script]})
}

/// A bridge and a subnet that no other test uses at the same time.
fn network() -> network::Settings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id() % 4096 * 16 + NEXT.fetch_add(1, Ordering::Relaxed) % 16;
    let [_, _, high, low] = number.to_be_bytes();
    network::Settings {
        bridge: format!("eb{number}"),
        subnet: format!("10.{}.{low}.0/24", 100 + high % 100).parse().unwrap(),
        expose: vec![],
    }
}

/// Everything a node has for its pods, in a temporary directory.
pub struct Bench {
    pub dir: TempDir,
    pub store: Store,
    pub images: ImageStore,
    pub settings: Settings,
}

impl Bench {
    pub async fn new() -> Bench {
        let dir = with_image().await;
        let images = ImageStore::open(dir.path().join("images"), images::Settings::default()).await.unwrap();
        let settings = Settings {
            node_name: "gw".into(),
            run_dir: dir.path().join("run"),
            state_dir: dir.path().join("state"),
            log_dir: dir.path().join("logs"),
            network: network(),
            ..Settings::default()
        };
        Bench { dir, store: Store::in_memory(), images, settings }
    }

    /// Starts a runtime.
    pub fn start(&self) -> Running {
        let containers = Containers::new(containers::Settings {
            run_dir: self.settings.run_dir.join("containers"),
            shim_exe: crate::binary::edge_runtime().into(),
            ..containers::Settings::default()
        })
        .expect("root, cgroups and namespaces");
        let (recorder, mut inbox) = events::channel("test");
        let bus = Bus::in_memory();
        let store = self.store.clone();
        let ctx =
            Context::new(self.settings.clone(), store.clone(), bus.clone(), containers, self.images.clone(), recorder);
        let stop = CancellationToken::new();
        let (ctx2, stop2) = (Arc::clone(&ctx), stop.clone());
        let pods = tokio::spawn(async move { pods::run(ctx2, stop2).await.unwrap() });
        let stop2 = stop.clone();
        let events = tokio::spawn(async move {
            events::run(&mut inbox, &store, &bus, "gw", &events::Settings::default(), stop2).await;
        });
        Running { ctx, stop, pods, events }
    }

    pub async fn apply(&self, name: &str, spec: Value) -> Arc<Object> {
        edge_model::pod::check(&spec).unwrap();
        self.store.apply(Object::new(Kind::Pod, "", name, spec)).await.unwrap().0
    }

    pub fn status(&self, name: &str) -> Option<PodStatus> {
        let object = self.store.get(&Key::new(Kind::Pod, "", name))?;
        serde_json::from_value(object.status().clone()).ok()
    }

    /// Waits until the status is as it should be.
    pub async fn wait(&self, name: &str, good: impl Fn(&PodStatus) -> bool) -> PodStatus {
        let (_, from) = self.store.list(Kind::Pod, None);
        let mut watch = self.store.watch(Filter::kind(Kind::Pod), from);
        let wait = async {
            loop {
                if let Some(status) = self.status(name).filter(|s| good(s)) {
                    return status;
                }
                watch.next().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(status) => status,
            Err(_) => {
                let events = self.store.list(Kind::Event, None).0;
                let events: Vec<_> = events.iter().map(|e| e.to_json().to_string()).collect();
                panic!("{name} did not come to it: {:#?}\n{}", self.status(name), events.join("\n"));
            }
        }
    }

    pub async fn running(&self, name: &str) -> PodStatus {
        self.wait(name, |s| s.container_statuses.iter().all(|c| c.ready) && !s.container_statuses.is_empty()).await
    }

    pub async fn logs(&self, name: &str, container: Option<&str>) -> String {
        let logs = Logs::new(&self.settings.log_dir, self.store.clone());
        let mut stream = logs.open("default", name, container, Options::default()).await.unwrap();
        let mut text = Vec::new();
        while let Some(bytes) = stream.next().await {
            text.extend_from_slice(&bytes.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    /// Deletes a pod and waits until nothing is left of it.
    pub async fn delete(&self, name: &str) {
        let object = self.store.delete(&Key::new(Kind::Pod, "", name), None).await.unwrap();
        let uid = object.metadata.uid.clone();
        let left = || {
            let dirs = [
                self.settings.run_dir.join("pods"),
                self.settings.state_dir.join("pods"),
                self.settings.run_dir.join("containers"),
                self.settings.log_dir.clone(),
            ];
            let names = dirs.iter().filter_map(|d| fs::read_dir(d).ok()).flatten().flatten();
            names.filter(|e| e.file_name().to_string_lossy().contains(&uid)).map(|e| e.path()).collect::<Vec<_>>()
        };
        until(|| left().is_empty(), || format!("{:?} is left", left())).await;
    }
}

/// Whatever became of the test, nothing of it is left on the machine.
impl Drop for Bench {
    fn drop(&mut self) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                reactor.block_on(async {
                    let run = self.start();
                    for pod in self.store.list(Kind::Pod, None).0 {
                        let mut hasty = pod.as_ref().clone();
                        hasty.fields["spec"]["terminationGracePeriodSeconds"] = json!(0);
                        let _ = self.store.apply(hasty).await;
                        self.delete(&pod.metadata.name).await;
                    }
                    run.stop().await;
                });
            });
        });
    }
}

/// Waits for a condition that nothing announces.
pub async fn until(good: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !good() {
        assert!(tokio::time::Instant::now() < deadline, "{}", otherwise());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A runtime at work.
pub struct Running {
    pub ctx: Arc<Context>,
    stop: CancellationToken,
    pods: JoinHandle<()>,
    events: JoinHandle<()>,
}

impl Running {
    /// Stops it in good order; containers go on.
    pub async fn stop(self) {
        self.stop.cancel();
        self.pods.await.unwrap();
        self.events.await.unwrap();
    }
}
