//! The wiring: every part of the node is made and joined here, read top to bottom in data-flow order.

mod daemon;
mod open;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub use daemon::{main, runtime};
pub use open::StartError;

use crate::api::{self, Api, Backends};
use crate::backends::{FieldProperties, PodLogs, StoredImages};
use crate::bus::{self, Bus};
use crate::cloud::{self, Link};
use crate::config::Config;
use crate::engine::logs::Logs;
use crate::engine::pods;
use crate::images::ImageStore;
use crate::liveness::{self, Probe};
use crate::queue::Queue;
use crate::store::Store;
use crate::supervisor::{Supervisor, Unit, Units};
use crate::telemetry::notify::Notify;
use crate::{dmi, events, field, manifests, modbus_server, node, seen, update};

/// A node that runs.
pub struct Node {
    /// Its objects.
    pub store: Store,
    /// Its event bus.
    pub bus: Bus,
    /// Where the bus listens, once it does.
    pub bus_address: Arc<OnceLock<SocketAddr>>,
    /// Its way to the cloud.
    pub queue: Queue,
    /// The link to the cloud.
    pub link: Link,
    /// What is seen of its units.
    pub units: Units,
    /// Reads and writes devices.
    pub commands: field::Commands,
    /// Its images, when it can keep some.
    pub images: Option<ImageStore>,
    /// Why containers cannot be run here; nothing when they can.
    pub containers: Result<(), String>,
    /// The logs of its containers.
    pub logs: Logs,
    /// Records events. Kept to the end: the unit that keeps them ends when nobody can record any more.
    pub recorder: events::Recorder,
    /// Cancelled when the node shall stop and start again, as the version in use.
    pub restart: CancellationToken,
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
        open::folders(&config)?;
        let socket = Arc::new(api::Socket::bind(&config.api)?);
        let (store, queue) = open::disk(&config).await?;
        let bus = Bus::new(&config.bus);
        let open::Engine { containers, images, conditions } = open::engine(&config).await;

        let mut supervisor = Supervisor::new();
        let units = supervisor.units();

        // The event bus: other parts speak on it from the start, clients as soon as the port is ours.
        let bus_address = Arc::new(OnceLock::new());
        supervisor.start(Unit::new("bus", {
            let (bus, queue, address) = (bus.clone(), queue.clone(), Arc::clone(&bus_address));
            move |context| {
                let (bus, queue, address) = (bus.clone(), queue.clone(), Arc::clone(&address));
                async move {
                    let ready = |bound| {
                        let _ = address.set(bound);
                        context.ready();
                    };
                    Ok(bus::listener::run(&bus, Some(queue), ready, context.stop.clone()).await?)
                }
            }
        }));

        // Events: recorded by everybody, kept here.
        let (recorder, inbox) = events::channel("edge-runtime");
        supervisor.start(Unit::new("events", {
            let (config, store, bus) = (Arc::clone(&config), store.clone(), bus.clone());
            let inbox = Arc::new(Mutex::new(inbox));
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

        // Mappers in pods that speak gRPC.
        supervisor.start(Unit::new("dmi", {
            let run = &config.paths.run;
            let settings = dmi::Settings { socket: run.join("dmi.sock"), registrations: run.join("dmi-mappers.json") };
            let (store, bus) = (store.clone(), bus.clone());
            move |context| {
                let (settings, store, bus) = (settings.clone(), store.clone(), bus.clone());
                async move { Ok(dmi::run(&settings, &store, &bus, || context.ready(), context.stop.clone()).await?) }
            }
        }));

        // Twins as registers, for panels and controllers.
        supervisor.start(Unit::new("modbus-server", {
            let (listen, store, commands) = (config.modbus_server, store.clone(), commands.clone());
            move |context| {
                let (store, commands) = (store.clone(), commands.clone());
                async move {
                    let ready = || context.ready();
                    Ok(modbus_server::run(listen, &store, &commands, ready, context.stop.clone()).await?)
                }
            }
        }));

        // Pods: from objects to containers. What runs goes on when we stop, and is taken over when we start.
        let logs = Logs::new(open::pod_settings(&config).log_dir, store.clone());
        let possible = containers.as_ref().map(|_| ()).map_err(Clone::clone);
        match (containers, images.clone()) {
            (Ok(containers), Some(images)) => {
                let (settings, recorder) = (open::pod_settings(&config), recorder.clone());
                let pods = pods::Context::new(settings, store.clone(), bus.clone(), containers, images, recorder);
                let users = Arc::clone(&pods);
                supervisor.start(Unit::new("pods", move |context| {
                    let pods = Arc::clone(&pods);
                    async move {
                        context.ready();
                        Ok(pods::run(pods, context.stop).await?)
                    }
                }));
                // Images that no pod uses, when the disk gets full.
                supervisor.start(Unit::new("images", move |context| {
                    let users = Arc::clone(&users);
                    async move {
                        context.ready();
                        pods::collect(&users, context.stop).await;
                        Ok(())
                    }
                }));
            }
            (containers, _) => {
                let why = containers.err().unwrap_or_else(|| "there is no image store".to_owned());
                let (config, store) = (Arc::clone(&config), store.clone());
                supervisor.start(Unit::new("pods", move |context| {
                    let (config, store, why) = (Arc::clone(&config), store.clone(), why.clone());
                    async move {
                        context.ready();
                        pods::run_without(&store, &config.node, &why, context.stop).await;
                        Ok(())
                    }
                }));
            }
        }

        // The node as an object.
        supervisor.start(Unit::new("node", {
            let (config, store, units) = (Arc::clone(&config), store.clone(), units.clone());
            move |context| {
                let (config, store, units) = (Arc::clone(&config), store.clone(), units.clone());
                let conditions = conditions.clone();
                async move {
                    let (board, state) = (&config.board, &config.paths.state);
                    node::run(&config.node, board, state, &conditions, &units, &store, context).await
                }
            }
        }));

        // The cloud: what waits in the queue goes up, commands come down.
        let link = Link::default();
        let properties: Arc<dyn api::backend::Properties> = Arc::new(FieldProperties(commands.clone()));
        supervisor.start(Unit::new("cloud", {
            let (config, link, properties) = (Arc::clone(&config), link.clone(), Arc::clone(&properties));
            let (store, bus, queue) = (store.clone(), bus.clone(), queue.clone());
            move |context| {
                let (config, link) = (Arc::clone(&config), link.clone());
                let parts = cloud::Parts {
                    queue: queue.clone(),
                    bus: bus.clone(),
                    store: store.clone(),
                    properties: Some(Arc::clone(&properties)),
                    ledger: config.paths.state.join("cloud").join("commands.jsonl"),
                };
                async move {
                    let ready = || context.ready();
                    Ok(cloud::run(config.cloud.clone(), parts, &link, ready, context.stop.clone()).await?)
                }
            }
        }));

        // Doors: the folder of manifests, the socket, and figures on loopback.
        let files = manifests::Seen::default();
        supervisor.start(Unit::new("manifests", {
            let settings = manifests::Settings { folder: config.paths.manifests.clone() };
            let (store, recorder, files) = (store.clone(), recorder.component("manifests"), files.clone());
            move |context| {
                let (settings, store, recorder) = (settings.clone(), store.clone(), recorder.clone());
                let files = files.clone();
                async move {
                    let ready = || context.ready();
                    manifests::run(&settings, &store, &recorder, &files, ready, context.stop.clone()).await;
                    Ok(())
                }
            }
        }));
        let mut seen = seen::backends(&units, &store, &bus, &queue, &link);
        seen.status.push(("manifests", files.section()));

        // Updates of ourselves: a version on trial proves itself, or gives way.
        let (restart, silent) = (CancellationToken::new(), liveness::Silent::new(Vec::new()));
        let updates = update::Handle::new(update::Parts {
            node: config.node.clone(),
            state_dir: config.paths.state.clone(),
            restart: restart.clone(),
            units: units.clone(),
            ready: seen.ready.clone(),
            silent: silent.subscribe(),
            recorder: recorder.component("update"),
            store: store.clone(),
        });
        supervisor.start(Unit::new("update", {
            let (updates, settings) = (updates.clone(), config.update.gate);
            move |context| {
                let updates = updates.clone();
                async move { update::gate::run(&updates, settings, context).await }
            }
        }));
        let api = Api::new(
            store.clone(),
            Backends {
                properties: Some(properties),
                logs: possible.is_ok().then(|| Arc::new(PodLogs(logs.clone())) as Arc<dyn api::backend::Logs>),
                updates: Some(Arc::new(updates)),
                images: images.clone().map(|i| Arc::new(StoredImages(i)) as Arc<dyn api::backend::Images>),
                ..seen
            },
        );
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
            let settings = config.api.clone();
            move |context| {
                let (api, settings) = (api.clone(), settings.clone());
                async move {
                    let listener = api::MetricsListener::bind(&settings).await?;
                    context.ready();
                    match listener {
                        Some(listener) => listener.serve(&api, context.stop.clone()).await,
                        None => context.stop.cancelled().await,
                    }
                    Ok(())
                }
            }
        }));

        // Signs of life, for whoever resets us when there are none.
        let probes: Arc<Vec<Probe>> = Arc::new(seen::probes(&store, &queue, &bus, &config.paths.socket()));
        let hardware = config.watchdog.device.clone();
        let hardware = hardware.map(|device| liveness::Hardware { device, timeout: config.watchdog.timeout });
        supervisor.start(Unit::new("liveness", move |context| {
            let (probes, silent, hardware) = (Arc::clone(&probes), silent.clone(), hardware.clone());
            async move {
                let notify = Notify::from_environment();
                liveness::run(&probes, &silent, &notify, hardware.as_ref(), context).await
            }
        }));
        let (deadline, containers) = (config.shutdown_deadline, possible);
        Ok(Node {
            store,
            bus,
            bus_address,
            queue,
            link,
            units,
            commands,
            images,
            containers,
            logs,
            recorder,
            restart,
            supervisor,
            deadline,
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
