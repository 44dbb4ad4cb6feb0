//! From merged keys to typed settings, one struct per part of the runtime.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::Problem;
use super::layer::{Origin, Value};
use super::{Merged, schema};
use crate::engine::{network, pods};
use crate::update::gate;
use crate::{api, bus, cloud, field, images, queue, store};

/// A serial port of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialPort {
    /// The name in the board file.
    pub name: String,
    /// The device.
    pub device: PathBuf,
    /// Who switches the direction of an RS-485 line: `none`, `kernel` or `rts`.
    pub rs485: String,
}

/// Facts about the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardFacts {
    /// The board's name.
    pub name: String,
    /// What people call it.
    pub description: String,
    /// The target triple of its binary.
    pub target: String,
    /// Its serial ports.
    pub serial: Vec<SerialPort>,
    /// The Bluetooth adapter, if it has one.
    pub bluetooth: Option<String>,
    /// The interface that leads to the cloud.
    pub interface: Option<String>,
    /// Bytes a day that may be written to flash before `status` complains.
    pub write_budget: u64,
}

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What must survive a power cut.
    pub state: PathBuf,
    /// What need not.
    pub run: PathBuf,
    /// Manifests that are applied while they are there.
    pub manifests: PathBuf,
}

impl Paths {
    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    /// What a daemon that runs holds.
    pub fn lock(&self) -> PathBuf {
        self.run.join("api.sock.lock")
    }
}

/// The hardware watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watchdog {
    /// The device to feed; none when it is not ours to feed.
    pub device: Option<PathBuf>,
    /// How long the hardware waits.
    pub timeout: Duration,
}

/// Updates of the executable itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Whose updates are taken, beside those of the folder.
    pub public_keys: Vec<String>,
    /// How a new version proves itself.
    pub gate: gate::Settings,
}

/// Everything, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The node's name.
    pub node: String,
    /// The board.
    pub board: BoardFacts,
    /// Where things are.
    pub paths: Paths,
    /// The log filter.
    pub log_level: String,
    /// The log format: `auto`, `text`, `json` or `journald`.
    pub log_format: String,
    /// The hardware watchdog.
    pub watchdog: Watchdog,
    /// Updates.
    pub update: Update,
    /// How long an orderly shutdown may take.
    pub shutdown_deadline: Duration,
    /// The object store.
    pub store: store::Settings,
    /// The local API.
    pub api: api::Settings,
    /// The event bus.
    pub bus: bus::Settings,
    /// The field.
    pub field: field::Settings,
    /// Where the node's Modbus server listens; nowhere when `None`.
    pub modbus_server: Option<SocketAddr>,
    /// The queue to the cloud.
    pub queue: queue::Settings,
    /// The images.
    pub images: images::Settings,
    /// The link to the cloud.
    pub cloud: cloud::Settings,
    /// Whether containers are run at all.
    pub engine_enabled: bool,
    /// Pods; where things are is filled in from the paths.
    pub pods: pods::Settings,
}

/// Reads keys that the schema has already checked for type and range; absent ones read as empty, zero or false.
struct Reader<'a> {
    merged: &'a Merged,
}

impl Reader<'_> {
    fn value(&self, path: &str) -> Option<&Value> {
        debug_assert!(schema::find(path).is_some(), "{path} is not in the schema");
        self.merged.get(path).map(|(value, _)| value)
    }

    fn maybe(&self, path: &str) -> Option<String> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn text(&self, path: &str) -> String {
        self.maybe(path).unwrap_or_default()
    }

    fn number(&self, path: &str) -> u64 {
        match self.value(path) {
            Some(Value::Integer(n)) => u64::try_from(*n).unwrap_or(0),
            _ => 0,
        }
    }

    fn flag(&self, path: &str) -> bool {
        matches!(self.value(path), Some(Value::Bool(true)))
    }

    fn origin(&self, path: &str) -> Origin {
        self.merged.get(path).map_or(Origin::BuiltIn, |(_, origin)| origin.clone())
    }

    fn serial(&self) -> Vec<SerialPort> {
        let devices = self.merged.iter().filter_map(|(path, value, _)| {
            let name = path.strip_prefix("serial.")?.strip_suffix(".device")?;
            let Value::Text(device) = value else { return None };
            let rs485 = self.maybe(&format!("serial.{name}.rs485")).unwrap_or_else(|| "none".to_owned());
            Some(SerialPort { name: name.to_owned(), device: device.into(), rs485 })
        });
        devices.collect()
    }
}

impl Reader<'_> {
    fn size(&self, path: &str) -> usize {
        usize::try_from(self.number(path)).unwrap_or(usize::MAX)
    }

    fn address(&self, path: &str) -> Option<SocketAddr> {
        self.maybe(path).and_then(|text| text.parse().ok())
    }

    fn api(&self) -> api::Settings {
        api::Settings {
            socket: PathBuf::from(self.text("paths.run-dir")).join("api.sock"),
            group: self.maybe("api.group"),
            metrics: self.address("metrics.listen").filter(|_| self.flag("metrics.enabled")),
            max_connections: self.size("api.max-connections"),
            ..api::Settings::default()
        }
    }

    fn field(&self) -> field::Settings {
        let defaults = field::Settings::default();
        field::Settings {
            status_interval_ms: self.number("field.status-interval-ms"),
            probe_max_ms: self.number("field.probe-max-ms"),
            connect_max_ms: self.number("field.connect-max-ms"),
            replay_dir: self.text("paths.replay-dir").into(),
            bus_listen: self.address("bus.listen").unwrap_or(defaults.bus_listen),
            ..defaults
        }
    }

    fn list(&self, path: &str) -> Vec<String> {
        match self.value(path) {
            Some(Value::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }

    fn queue(&self) -> queue::Settings {
        let mut settings = queue::Settings {
            linger_ms: self.number("queue.linger-ms"),
            disk_percent: u8::try_from(self.number("queue.disk-percent")).unwrap_or(25),
            ..queue::Settings::default()
        };
        for stream in queue::Stream::ALL {
            let name = stream.name();
            let limits = settings.streams.get_mut(stream);
            limits.max_bytes = self.number(&format!("queue.{name}.max-mib")) << 20;
            limits.max_age_ms = self.number(&format!("queue.{name}.max-age-hours")) * 3_600_000;
            limits.policy = match self.text(&format!("queue.{name}.when-full")).as_str() {
                "drop-newest" => queue::Policy::DropNewest,
                "refuse" => queue::Policy::Refuse,
                _ => queue::Policy::DropOldest,
            };
        }
        settings
    }

    fn seconds(&self, path: &str) -> Duration {
        Duration::from_secs(self.number(path))
    }

    fn cloud(&self, node: &str) -> cloud::Settings {
        let file = |path: &str| self.maybe(path).map(PathBuf::from);
        cloud::Settings {
            address: self.maybe("cloud.address"),
            node: node.to_owned(),
            prefix: self.text("cloud.prefix"),
            client_id: self.maybe("cloud.client-id"),
            user: self.maybe("cloud.user"),
            password_file: file("cloud.password-file"),
            ca_file: file("cloud.ca-file"),
            certificate_file: file("cloud.certificate-file"),
            key_file: file("cloud.key-file"),
            keep_alive: self.seconds("cloud.keep-alive-seconds"),
            connect_timeout: self.seconds("cloud.connect-timeout-seconds"),
            ack_timeout: self.seconds("cloud.ack-timeout-seconds"),
            window: u16::try_from(self.number("cloud.window")).unwrap_or(64),
            drain_rate: u32::try_from(self.number("cloud.drain-rate")).unwrap_or(0),
            message_max_bytes: self.size("cloud.message-max-kib") << 10,
            back_off_max: self.seconds("cloud.back-off-max-seconds"),
            ..cloud::Settings::default()
        }
    }

    fn update(&self) -> Update {
        Update {
            public_keys: self.list("update.public-keys"),
            gate: gate::Settings {
                health: self.seconds("update.health-seconds"),
                deadline: self.seconds("update.deadline-seconds"),
                tries: u32::try_from(self.number("update.tries")).unwrap_or(1),
            },
        }
    }

    fn pods(&self) -> pods::Settings {
        pods::Settings {
            log_max_bytes: self.number("engine.log-max-kib") << 10,
            pids_limit: u32::try_from(self.number("engine.pids-limit")).ok(),
            allow_privileged: self.flag("engine.allow-privileged"),
            network: network::Settings {
                bridge: self.text("engine.bridge"),
                subnet: self.text("engine.subnet").parse().unwrap_or(network::Subnet::DEFAULT),
                expose: self.address("bus.listen").map(|a| a.port()).filter(|p| *p != 0).into_iter().collect(),
            },
            ..pods::Settings::default()
        }
    }

    fn images(&self) -> images::Settings {
        images::Settings {
            max_image_bytes: self.number("images.max-image-mib") << 20,
            insecure_registries: self.list("images.insecure-registries"),
            ca_files: self.list("images.ca-files").into_iter().map(PathBuf::from).collect(),
            parallel_downloads: self.size("images.parallel-downloads"),
            gc_high_percent: u8::try_from(self.number("images.gc-high-percent")).unwrap_or(100),
            gc_low_percent: u8::try_from(self.number("images.gc-low-percent")).unwrap_or(100),
            mirrors: self.by_name("images.mirrors.", Reader::list_of),
            ..images::Settings::default()
        }
    }

    fn list_of(value: &Value) -> Option<Vec<String>> {
        match value {
            Value::List(items) => Some(items.clone()),
            _ => None,
        }
    }

    /// Keys below a table whose names are free, such as a registry's.
    fn by_name<T>(&self, table: &str, read: impl Fn(&Value) -> Option<T>) -> BTreeMap<String, T> {
        let below = self.merged.iter().filter_map(|(path, value, _)| Some((path.strip_prefix(table)?, value)));
        below.filter_map(|(name, value)| Some((name.to_owned(), read(value)?))).collect()
    }

    fn bus(&self) -> bus::Settings {
        let defaults = bus::Settings::default();
        bus::Settings {
            listen: self.address("bus.listen").unwrap_or(defaults.listen),
            max_connections: self.size("bus.max-connections"),
            max_packet_bytes: self.size("bus.max-packet-kib") << 10,
            queue_messages: self.size("bus.client-queue-messages"),
            retained_bytes: self.size("bus.retained-kib") << 10,
            ..defaults
        }
    }
}

/// Checks what needs more than one key or more than the schema's rules.
///
/// # Errors
/// All problems.
pub fn check(board: &str, merged: &Merged) -> Result<Config, Vec<Problem>> {
    let keys = Reader { merged };
    let mut problems = Vec::new();
    let mut problem = |path: &str, message: String| {
        problems.push(Problem { origin: keys.origin(path), path: path.to_owned(), message });
    };
    let node = keys.maybe("node.name").unwrap_or_else(host_name);
    if !edge_model::name::is_subdomain(&node) {
        let rule = "lower-case letters, digits, '-' and '.', at most 253 characters; set node.name";
        problem("node.name", format!("{node:?} is not a name: expected {rule}"));
    }
    if let Err(message) = crate::telemetry::log::Levels::parse(&keys.text("log.level")) {
        problem("log.level", message);
    }
    let bridge = keys.text("engine.bridge");
    if bridge.len() > 15 || bridge.contains(['/', ' ', ':']) {
        problem("engine.bridge", format!("{bridge:?} is not a name of an interface: at most 15 characters"));
    }
    if let Err(error) = keys.text("engine.subnet").parse::<network::Subnet>() {
        problem("engine.subnet", error.to_string());
    }
    let (high, low) = (keys.number("images.gc-high-percent"), keys.number("images.gc-low-percent"));
    if low >= high {
        problem("images.gc-low-percent", format!("{low} is not less than images.gc-high-percent, which is {high}"));
    }
    let config = Config {
        node: node.clone(),
        board: BoardFacts {
            name: board.to_owned(),
            description: keys.text("board.description"),
            target: keys.text("board.target"),
            serial: keys.serial(),
            bluetooth: keys.maybe("bluetooth.adapter"),
            interface: keys.maybe("network.interface"),
            write_budget: keys.number("flash.write-budget-mib-per-day") << 20,
        },
        paths: Paths {
            state: keys.text("paths.state-dir").into(),
            run: keys.text("paths.run-dir").into(),
            manifests: keys.text("paths.manifests-dir").into(),
        },
        log_level: keys.text("log.level"),
        log_format: keys.text("log.format"),
        watchdog: Watchdog {
            device: keys.maybe("watchdog.device").map(PathBuf::from).filter(|_| keys.flag("watchdog.enabled")),
            timeout: Duration::from_secs(keys.number("watchdog.timeout-seconds")),
        },
        update: keys.update(),
        shutdown_deadline: Duration::from_secs(keys.number("shutdown.deadline-seconds")),
        store: store::Settings::default(),
        api: keys.api(),
        bus: keys.bus(),
        field: field::Settings { node_name: node.clone(), ..keys.field() },
        modbus_server: keys.address("modbus-server.listen"),
        queue: keys.queue(),
        images: keys.images(),
        cloud: keys.cloud(&node),
        engine_enabled: keys.flag("engine.enabled"),
        pods: keys.pods(),
    };
    if config.update.gate.deadline <= config.update.gate.health {
        let (now, health) = (keys.number("update.deadline-seconds"), keys.number("update.health-seconds"));
        problem("update.deadline-seconds", format!("{now} is not more than update.health-seconds, which is {health}"));
    }
    if let Err(error) = config.cloud.check() {
        problem(&format!("cloud.{}", error.key), error.rule);
    }
    // An upload is acknowledged once it is queued: whatever the bus takes has to fit through the link.
    let needed = config.cloud.needed_for_uploads(config.bus.max_packet_bytes);
    if config.cloud.address.is_some() && config.cloud.message_max_bytes < needed {
        let (now, bus, least) =
            (keys.number("cloud.message-max-kib"), keys.number("bus.max-packet-kib"), needed.div_ceil(1024));
        let message = format!(
            "{now} is too small for what applications may upload: with bus.max-packet-kib = {bus} it takes {least} \
             (an envelope adds a third and a few KiB); raise it or lower bus.max-packet-kib"
        );
        problem("cloud.message-max-kib", message);
    }
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// The host's name in lower case, which is a valid node name on most machines.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()
}
