//! `edge-runtime demo`: a whole gateway in one command, with a simulated plant and a cloud that can be unplugged.
//!
//! ```text
//! plant (Modbus TCP) ◄── node (everything as on a gateway, in a temporary folder) ──► cloud (a second broker)
//!                              ▲ objects: a device and its model, a pod from an image of this binary
//! ```
//! All of it is one process but the pod. Without a terminal it plays the plug by itself, prints a line a second, and ends
//! with success only when the cloud has lost nothing.

mod cloud;
mod terminal;
mod view;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use edge_model::{Kind, manifest};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{self, Node};
use crate::cloud::LinkState;
use crate::command::{complain, print};
use crate::config::{self, Sources};
use crate::engine::logs;
use crate::exit::Exit;
use crate::images::{BuildFile, ImageConfig};
use crate::supervisor::chain;
use crate::telemetry::log::{self, Levels};
use cloud::Cloud;
use terminal::Terminal;
use view::View;

/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(250);
/// How long the demo without a terminal waits at the end for the queue to drain.
const DRAIN: Duration = Duration::from_secs(60);
/// How long the pod's container may take to go.
const GONE: Duration = Duration::from_secs(20);
/// The image of the sample pod.
const IMAGE: &str = "localhost/edge-runtime/demo:latest";
const OBJECTS: &str = include_str!("plant.yaml");
/// The plant's port in [`OBJECTS`], which is replaced by the one it got.
const PORT: &str = "port: 5020";

/// What the demo can be told.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// End after so many seconds. Without a terminal the default is 15.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Print a line a second instead of a screen, and pull the plug by itself.
    #[arg(long)]
    plain: bool,
}

/// What the sample pod does: says that it is there, until it is told to stop.
pub fn sample_pod() -> Exit {
    let Ok(runtime) = app::runtime() else { return Exit::Fatal };
    runtime.block_on(async {
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return Exit::Fatal };
        let start = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_secs(2));
        loop {
            tokio::select! {
                _ = ticks.tick() => print(&format!("hello from the pod, {} s after its start\n", start.elapsed().as_secs())),
                _ = terminate.recv() => return Exit::Clean,
            };
        }
    })
}

/// Runs the demo.
pub fn main(demo: &Demo) -> Exit {
    let folder = match Folder::new() {
        Ok(folder) => folder,
        Err(error) => {
            complain(&format!("cannot make a temporary folder: {error}"));
            return Exit::Fatal;
        }
    };
    let Ok(runtime) = app::runtime() else { return Exit::Fatal };
    let exit = runtime.block_on(run(demo, &folder.0));
    runtime.shutdown_background();
    exit.unwrap_or_else(|error| {
        complain(&chain(error.as_ref()));
        Exit::Fatal
    })
}

/// A folder that goes with the demo.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("edge-demo-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn run(demo: &Demo, folder: &Path) -> Result<Exit, Failure> {
    // The plant.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let stop = CancellationToken::new();
    let plant = tokio::spawn(edge_mappers::plant::serve(listener, stop.clone()));
    // The cloud.
    let mut cloud = Cloud::start().await?;
    // The gateway.
    let (config, _) = config::load(&sources(folder, &cloud.url()))?;
    // Logs would draw over the screen: what is wrong is seen in the status.
    log::start(Levels::off(), "text");
    let node = Node::start(config).await?;
    let remarks = bring_objects(&node, port).await?;

    let terminal = if demo.plain { None } else { Terminal::take() };
    let played = match terminal {
        Some(terminal) => screen(&node, &mut cloud, demo, remarks, &terminal).await.map(|()| Exit::Clean),
        None => plain(&node, &mut cloud, demo, remarks).await,
    };
    clean_up(node, folder).await;
    cloud.stop().await;
    stop.cancel();
    let _ = plant.await;
    played
}

fn sources(folder: &Path, cloud: &str) -> Sources {
    let path = |name: &str| folder.join(name).display().to_string();
    let keys = [
        ("node.name", "demo".to_owned()),
        ("paths.state-dir", path("state")),
        ("paths.run-dir", path("run")),
        ("paths.manifests-dir", path("manifests")),
        ("bus.listen", "127.0.0.1:0".to_owned()),
        ("metrics.listen", "127.0.0.1:0".to_owned()),
        ("cloud.address", cloud.to_owned()),
    ];
    let flags = keys.into_iter().map(|(key, value)| (key.to_owned(), value, "demo".to_owned())).collect();
    Sources { board: "auto".to_owned(), flags, ..Sources::default() }
}

/// Writes the demo's objects through the same check as every other door. Returns what cannot be shown here, and why.
async fn bring_objects(node: &Node, port: u16) -> Result<Vec<String>, Failure> {
    let mut remarks = Vec::new();
    if let Some(address) = node.bus_address.get() {
        remarks.push(format!("the bus is at {address}: mosquitto_sub -p {} -t '$hw/#' -t '$ke/#' -v", address.port()));
    }
    let image = BuildFile { path: "/edge-runtime".into(), source: std::env::current_exe()?, mode: 0o755 };
    let config = ImageConfig { entrypoint: vec!["/edge-runtime".to_owned()], ..ImageConfig::default() };
    let containers = match (&node.containers, &node.images) {
        (Err(why), _) => Err(why.clone()),
        (Ok(()), Some(images)) => images.build(IMAGE, vec![image], config).await.map(drop).map_err(|e| chain(&e)),
        (Ok(()), None) => Err("there is no image store".to_owned()),
    };
    if let Err(why) = &containers {
        remarks.push(format!("no pod here: {why}"));
    }
    let text = OBJECTS.replace(PORT, &format!("port: {port}"));
    let documents = manifest::parse("demo", text.as_bytes())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    for document in documents {
        if document.object.kind != Kind::Pod || containers.is_ok() {
            node.store.apply(document.object).await?;
        }
    }
    Ok(remarks)
}

async fn look(node: &Node, cloud: &Cloud, start: Instant, remarks: &[String]) -> View {
    let kinds = [Kind::Device, Kind::Pod];
    let objects = kinds.iter().flat_map(|kind| node.store.list(*kind, None).0).map(|o| (*o).clone()).collect();
    View {
        seconds: start.elapsed().as_secs(),
        objects,
        link: (node.link.state().word().to_owned(), matches!(node.link.state(), LinkState::Online { .. })),
        queue: node
            .queue
            .stats()
            .streams
            .iter()
            .map(|(s, q)| (s.name(), q.queued, q.stored_bytes, q.dropped.total()))
            .collect(),
        plugged: cloud.is_up(),
        arrived: cloud.arrived().into_iter().collect(),
        remarks: remarks.to_vec(),
        log: last_line(node).await.unwrap_or_default(),
    }
}

/// The last line of the sample pod's log.
async fn last_line(node: &Node) -> Option<String> {
    let options = logs::Options { tail_lines: Some(1), ..logs::Options::default() };
    let mut stream = node.logs.open("default", "hello", Some("hello"), options).await.ok()?;
    let mut line = Vec::new();
    while let Some(Ok(part)) = stream.next().await {
        line.extend_from_slice(&part);
    }
    Some(String::from_utf8_lossy(&line).trim().to_owned())
}

async fn screen(
    node: &Node,
    cloud: &mut Cloud,
    demo: &Demo,
    remarks: Vec<String>,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let start = Instant::now();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut frames = tokio::time::interval(FRAME);
    loop {
        tokio::select! {
            _ = frames.tick() => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
        match terminal.key() {
            Some(b'q') => return Ok(()),
            Some(b'c') => cloud.toggle().await?,
            Some(b'p') => switch_pump(node).await,
            _ => {}
        }
        if demo.seconds.is_some_and(|s| start.elapsed().as_secs() >= s) {
            return Ok(());
        }
        terminal.draw(&look(node, cloud, start, &remarks).await.lines());
    }
}

/// Writes the pump through the twin; a plant that says no is seen as a value that does not change.
async fn switch_pump(node: &Node) {
    if let Ok(readings) = node.commands.get("default", "tank", Some("pump")).await {
        let on = matches!(readings.first().and_then(|r| r.value.clone()), Some(edge_model::reading::Value::Bool(true)));
        let _ = node.commands.set("default", "tank", "pump", json!(!on)).await;
    }
}

async fn plain(node: &Node, cloud: &mut Cloud, demo: &Demo, remarks: Vec<String>) -> Result<Exit, Failure> {
    let (start, seconds) = (Instant::now(), demo.seconds.unwrap_or(15).max(3));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    for remark in &remarks {
        print(&format!("{remark}\n"));
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for second in 0..=seconds {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = interrupt.recv() => return Ok(Exit::Clean),
            _ = terminate.recv() => return Ok(Exit::Clean),
        }
        if second == seconds / 3 {
            print("--- the cloud's plug is pulled\n");
            cloud.toggle().await?;
        }
        if second == seconds * 2 / 3 {
            print("--- and put back\n");
            cloud.toggle().await?;
            switch_pump(node).await;
        }
        print(&format!("{}\n", look(node, cloud, start, &[]).await.summary()));
    }
    let drained = tokio::time::timeout(DRAIN, async {
        while look(node, cloud, start, &[]).await.queue.iter().map(|q| q.1).sum::<u64>() > 8 {
            tokio::time::sleep(FRAME).await;
        }
    });
    let drained = drained.await.is_ok();
    let view = look(node, cloud, start, &[]).await;
    print(&format!("{}\n", view.summary()));
    let well =
        drained && view.arrived.iter().all(|(_, a)| a.lost == 0) && view.arrived.iter().any(|(_, a)| a.messages > 0);
    print(if well { "the cloud has everything\n" } else { "the cloud does not have everything\n" });
    Ok(if well { Exit::Clean } else { Exit::Refused })
}

/// Removes the pod, waits until its container is gone, and stops the node.
async fn clean_up(node: Node, folder: &Path) {
    let (pods, _) = node.store.list(Kind::Pod, None);
    for pod in &pods {
        let _ = node.store.delete(&pod.key(), None).await;
    }
    // Their containers would go on without the node: it stays until they are gone.
    let until = Instant::now() + GONE;
    while !pods.is_empty() && has_entries(&folder.join("run/containers")) && Instant::now() < until {
        tokio::time::sleep(FRAME).await;
    }
    let _ = node.stop().await;
}

fn has_entries(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}
