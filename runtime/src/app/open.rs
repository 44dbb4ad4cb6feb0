//! What is opened before any unit starts: folders, the socket that is the lock, and everything on disk.

use std::io;
use std::path::PathBuf;

use crate::api;
use crate::config::Config;
use crate::disk::{DiskError, Opened};
use crate::engine::containers::{self, Containers};
use crate::engine::pods;
use crate::exit::Exit;
use crate::images::ImageStore;
use crate::node::Condition;
use crate::queue::{self, Queue};
use crate::store::{self, Store};
use crate::supervisor::chain;

/// Why the node cannot start at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder of its own cannot be made.
    #[error("cannot use {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The API's socket, which is also the lock that keeps a second runtime away.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// The objects.
    #[error("the object store does not open")]
    Store(#[from] store::OpenError),
    /// The queue.
    #[error("the queue does not open")]
    Queue(#[from] queue::OpenError),
    /// A thread ended in a panic.
    #[error("a thread of the start failed")]
    Thread(#[from] tokio::task::JoinError),
}

impl StartError {
    /// The exit code that fits.
    pub const fn exit(&self) -> Exit {
        match self {
            StartError::Api(api::Error::Running(_))
            | StartError::Store(store::OpenError::Disk(DiskError::InUse { .. }))
            | StartError::Queue(queue::OpenError::Disk(DiskError::InUse { .. })) => Exit::Busy,
            _ => Exit::Fatal,
        }
    }
}

/// The folders that everything else lies in. Only their owner may look into them: there are secrets in them.
pub(super) fn folders(config: &Config) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    for (path, mode) in [(&config.paths.state, 0o700), (&config.paths.run, 0o711)] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        made.map_err(|source| StartError::Folder { path: path.clone(), source })?;
    }
    Ok(())
}

/// The objects and the queue, opened side by side.
pub(super) async fn disk(config: &Config) -> Result<(Store, Queue), StartError> {
    let (dir, settings) = (config.paths.state.join("store"), config.store.clone());
    let objects = tokio::task::spawn_blocking(move || Store::open(&dir, settings));
    let (dir, settings) = (config.paths.state.join("queue"), config.queue.clone());
    let messages = tokio::task::spawn_blocking(move || Queue::open(&dir, settings));
    let (objects, messages) = (objects.await, messages.await);
    let (store, report) = objects??;
    say_store(&report);
    let (queue, report) = messages??;
    say_queue(&report);
    Ok((store, queue))
}

fn say_store(report: &store::Report) {
    match &report.opened {
        Opened::New | Opened::Existing => {
            tracing::info!(objects = report.objects, restored = report.restored, "objects loaded");
        }
        Opened::SetAside { to, why, .. } => {
            tracing::error!(to = %to.display(), restored = report.restored, "the store was damaged and is set aside: {why}");
        }
    }
}

fn say_queue(report: &queue::Report) {
    if let Opened::SetAside { to, why, .. } = &report.opened {
        tracing::error!(to = %to.display(), "the queue was damaged and is set aside with all in it: {why}");
    }
    let waiting: u64 = report.queued.iter().map(|(_, n)| *n).sum();
    tracing::info!(waiting, "queue opened");
}

/// What containers need, when they can be run here.
pub(super) struct Engine {
    /// The engine itself, or why there is none.
    pub containers: Result<Containers, String>,
    /// The images, when the store opens.
    pub images: Option<ImageStore>,
    /// What of it the Node object tells.
    pub conditions: Vec<Condition>,
}

/// Looks at what containers need. That they cannot be run is no reason not to start: everything else does.
pub(super) async fn engine(config: &Config) -> Engine {
    let images = match ImageStore::open(config.paths.state.join("images"), config.images.clone()).await {
        Ok(images) => Some(images),
        Err(error) => {
            tracing::error!("there are no images: {}", chain(&error));
            None
        }
    };
    let settings =
        containers::Settings { run_dir: config.paths.run.join("containers"), ..containers::Settings::default() };
    let containers = match (config.engine_enabled, &images) {
        (false, _) => Err("engine.enabled is false".to_owned()),
        (true, None) => Err("the image store does not open".to_owned()),
        (true, Some(_)) => Containers::new(settings).map_err(|error| chain(&error)),
    };
    let conditions = match &containers {
        Ok(containers) => {
            let missing: Vec<String> = containers.conditions().iter().map(ToString::to_string).collect();
            vec![Condition {
                kind: "ContainersReady",
                holds: true,
                reason: if missing.is_empty() { "EngineReady" } else { "SomeLimitsMissing" }.to_owned(),
                message: missing.join("; "),
            }]
        }
        Err(why) => {
            tracing::warn!("no containers: {why}");
            let reason = "NotPossible".to_owned();
            vec![Condition { kind: "ContainersReady", holds: false, reason, message: why.clone() }]
        }
    };
    Engine { containers, images, conditions }
}

/// The settings of pods, from where things are.
pub(super) fn pod_settings(config: &Config) -> pods::Settings {
    pods::Settings {
        node_name: config.node.clone(),
        run_dir: config.paths.run.clone(),
        state_dir: config.paths.state.clone(),
        log_dir: config.paths.run.join("logs"),
        ..config.pods.clone()
    }
}
