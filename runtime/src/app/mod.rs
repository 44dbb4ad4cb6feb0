//! The wiring: every part of the node is made and joined here, read top to bottom in data-flow order.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::api::{self, Api, Backends};
use crate::backends::{FieldProperties, StoredImages};
use crate::bus::{self, Bus};
use crate::config::Config;
use crate::disk::{DiskError, Opened};
use crate::exit::Exit;
use crate::images::ImageStore;
use crate::liveness::{self, Probe};
use crate::queue::{self, Queue};
use crate::store::{self, Store};
use crate::supervisor::{Supervisor, Unit, Units, chain};
use crate::telemetry::log::{self, Levels};
use crate::telemetry::notify::Notify;
use crate::{events, field, node, seen};

/// Reactor threads. The work is small and mostly waiting; each thread costs memory that never comes back.
const WORKERS: usize = 2;
/// Threads for calls that block (files, image layers).
const BLOCKING: usize = 8;
/// The stack of each, in bytes: address space, of which only what is touched costs memory.
const STACK: usize = 1 << 20;
/// How long the start may take before systemd is told that it is up, well or not: what does not work is seen in `status`.
const SETTLE: Duration = Duration::from_secs(20);

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
    /// The objectss.
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
    fn exit(&self) -> Exit {
        match self {
            StartError::Api(api::Error::Running(_)) => Exit::Busy,
            StartError::Store(store::OpenError::Disk(DiskError::InUse { .. }))
            | StartError::Queue(queue::OpenError::Disk(DiskError::InUse { .. })) => Exit::Busy,
            _ => Exit::Fatal,
        }
    }
}

/// A node that runs.
pub struct Node {
    /// Its objects.
    pub store: Store,
    /// Its event bus.
    pub bus: Bus,
    /// Its way to the cloud.
    pub queue: Queue,
    /// What is seen of its units.
    pub units: Units,
    /// Reads and writes devices.
    pub commands: field::Commands,
    /// Records events.
    pub recorder: events::Recorder,
    /// Its images, when it can keep some.
    pub images: Option<ImageStore>,
    supervisor: Supervisor,
    deadline: Duration,
}

impl Node {
    /// Opens everything and starts every unit. Returns when all units have been started, not when all are well.
    ///
    /// # Errors
    /// [`StartError`], for what no later attempt of a unit could heal.
    pub async fn start(config: Config) -> Result<Node, StartError> {
        let config = Arc::new(config);
        for path in [&config.paths.state, &config.paths.run] {
            std::fs::create_dir_all(path).map_err(|source| StartError::Folder { path: path.clone(), source })?;
        }
        let socket = Arc::new(api::Socket::bind(&config.api)?);

        // What is wanted, and the way of what happens.
        let (store_dir, store_settings) = (config.paths.state.join("store"), config.store.clone());
        let (store, report) = tokio::task::spawn_blocking(move || Store::open(&store_dir, store_settings)).await??;
        say(&report);
        let bus = Bus::new(&config.bus);
        let (queue_dir, queue_settings) = (config.paths.state.join("queue"), config.queue.clone());
        let (queue, found) = tokio::task::spawn_blocking(move || Queue::open(&queue_dir, queue_settings)).await??;
        say_queue(&found);
        let images = match ImageStore::open(config.paths.state.join("images"), config.images.clone()).await {
            Ok(images) => Some(images),
            Err(error) => {
                tracing::error!("no images and so no pods: {}", chain(&error));
                None
            }
        };

        let mut supervisor = Supervisor::new();
        let units = supervisor.units();

        // The event bus.
        supervisor.start(Unit::new("bus", {
            let (bus, queue) = (bus.clone(), queue.clone());
            move |context| {
                let (bus, queue) = (bus.clone(), queue.clone());
                async move { Ok(bus::listener::run(&bus, Some(queue), |_| context.ready(), context.stop.clone()).await?) }
            }
        }));

        // Events: recorded by everybody, kept here.
        let (recorder, inbox) = events::channel("edge-runtime");
        supervisor.start(Unit::new("events", {
            let (config, store, bus) = (Arc::clone(&config), store.clone(), bus.clone());
            let inbox = Arc::new(tokio::sync::Mutex::new(inbox));
            move |context| {
                let (config, store, bus, inbox) = (Arc::clone(&config), store.clone(), bus.clone(), Arc::clone(&inbox));
                async move {
                    context.ready();
                    let (mut inbox, settings) = (inbox.lock().await, events::Settings::default());
                    events::run(&mut inbox, &store, &bus, &config.node, &settings, context.stop).await;
                    Ok(())
                }
            }
        }));

        // The field: devices to readings, on the bus, in the twins and in the queue.
        let (commands, inbox) = field::commands();
        supervisor.start(Unit::new("field", {
            let settings = config.field.clone();
            let field =
                field::Context { store: store.clone(), bus: bus.clone(), queue: queue.clone(), inbox, settings };
            move |context| {
                let field = field.clone();
                async move {
                    context.ready();
                    Ok(field::run(field, context.stop).await?)
                }
            }
        }));

        // The node as an object.
        supervisor.start(Unit::new("node", {
            let (config, store, units) = (Arc::clone(&config), store.clone(), units.clone());
            move |context| {
                let (config, store, units) = (Arc::clone(&config), store.clone(), units.clone());
                async move {
                    let (board, state) = (&config.board, &config.paths.state);
                    node::run(&config.node, board, state, &[], &units, &store, context).await
                }
            }
        }));

        // Doors: the socket, and figures on loopback.
        let properties = FieldProperties(commands.clone());
        let behind = Backends {
            properties: Some(Arc::new(properties)),
            images: images.clone().map(|i| Arc::new(StoredImages(i)) as Arc<dyn api::backend::Images>),
            ..seen::backends(&units, &bus, &queue)
        };
        let api = Api::new(store.clone(), behind);
        supervisor.start(Unit::new("api", {
            let (api, socket) = (api.clone(), Arc::clone(&socket));
            move |context| {
                let (api, socket) = (api.clone(), Arc::clone(&socket));
                async move {
                    context.ready();
                    socket.serve(&api, context.stop.clone()).await;
                    Ok(())
                }
            }
        }));
        supervisor.start(Unit::new("metrics", {
            let (api, settings) = (api.clone(), config.api.clone());
            move |context| {
                let (api, settings) = (api.clone(), settings.clone());
                async move {
                    match api::MetricsListener::bind(&settings).await? {
                        Some(listener) => {
                            context.ready();
                            listener.serve(&api, context.stop.clone()).await;
                        }
                        None => {
                            context.ready();
                            context.stop.cancelled().await;
                        }
                    }
                    Ok(())
                }
            }
        }));

        // Signs of life, for whoever resets us when there are none.
        let probes: Arc<Vec<Probe>> = Arc::new(seen::probes(&store, &bus, &config.paths.socket()));
        let silent: liveness::Silent = watch::Sender::new(Vec::new());
        let hardware = config.watchdog.device.clone();
        let hardware = hardware.map(|device| liveness::Hardware { device, timeout: config.watchdog.timeout });
        supervisor.start(Unit::new("liveness", move |context| {
            let (probes, silent, hardware) = (Arc::clone(&probes), silent.clone(), hardware.clone());
            async move {
                let notify = Notify::from_environment();
                liveness::run(&probes, &silent, &notify, hardware.as_ref(), context).await
            }
        }));
        Ok(Node {
            store,
            bus,
            queue,
            units,
            commands,
            recorder,
            images,
            supervisor,
            deadline: config.shutdown_deadline,
        })
    }

    /// Stops every unit, last first, and closes the disk. Returns the names of units that did not end in time.
    pub async fn stop(self) -> Vec<&'static str> {
        let late = self.supervisor.stop(self.deadline).await;
        self.queue.close().await;
        self.store.close().await;
        late
    }
}

/// Says what the disk had for us.
fn say(report: &store::Report) {
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

/// Runs the daemon until it is told to stop.
pub fn main(config: Config) -> Exit {
    match Levels::parse(&config.log_level) {
        Ok(levels) => log::start(levels, &config.log_format),
        Err(message) => {
            crate::command::complain(&message);
            return Exit::Config;
        }
    }
    match runtime() {
        Ok(runtime) => {
            let exit = runtime.block_on(daemon(config));
            // A thread in a call that blocks must not hold up the end.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            crate::command::complain(&format!("cannot start its threads: {error}"));
            Exit::Fatal
        }
    }
}

/// The reactor of the daemon.
///
/// # Errors
/// No threads can be had.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_stack_size(STACK)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
}

async fn daemon(config: Config) -> Exit {
    let notify = Notify::from_environment();
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        crate::command::complain("cannot listen to signals");
        return Exit::Fatal;
    };
    let (name, board) = (config.node.clone(), config.board.name.clone());
    let node = match Node::start(config).await {
        Ok(node) => node,
        Err(error) => {
            tracing::error!("cannot start: {}", chain(&error));
            notify.status(&format!("cannot start: {}", chain(&error)));
            return error.exit();
        }
    };
    let settled = tokio::select! {
        () = settle(&node.units) => true,
        () = tokio::time::sleep(SETTLE) => true,
        () = either(&mut terminate, &mut interrupt) => false,
    };
    if settled {
        // What was needed to start is not needed any more.
        crate::sys::trim_memory();
        notify.ready();
        tracing::info!(node = name, board, "ready");
        let mut changes = node.units.changes();
        loop {
            notify.status(&seen::line(&node.units));
            tokio::select! {
                () = either(&mut terminate, &mut interrupt) => break,
                Ok(()) = changes.changed() => {}
            }
        }
    }
    notify.stopping();
    tracing::info!("stopping; running containers are left alone");
    tokio::select! {
        late = node.stop() => {
            if !late.is_empty() {
                tracing::error!(?late, "did not stop in time");
            }
            tracing::info!("stopped");
            Exit::Clean
        }
        () = either(&mut terminate, &mut interrupt) => {
            tracing::warn!("a second signal: ending at once");
            Exit::Forced
        }
    }
}

async fn settle(units: &Units) {
    let mut changes = units.changes();
    while !units.settled() {
        let _ = changes.changed().await;
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
