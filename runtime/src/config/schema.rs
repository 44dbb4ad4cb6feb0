//! Every configuration key: its path, its rule, its default and its documentation, once.

use super::layer::{Layer, Origin, Value};

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Any text that is not empty.
    Text,
    /// An absolute path.
    Path,
    /// `address:port`.
    Address,
    /// Yes or no.
    Bool,
    /// A whole number within bounds, in a unit.
    Integer {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
        /// The unit, for people.
        unit: &'static str,
    },
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A list of texts.
    List,
}

impl Rule {
    /// The value, if it follows the rule.
    ///
    /// # Errors
    /// A sentence with the value and what would be right.
    pub fn check(&self, value: Value) -> Result<Value, String> {
        let right = match (self, &value) {
            (Rule::Text, Value::Text(t)) => !t.is_empty(),
            (Rule::Path, Value::Text(t)) => t.starts_with('/'),
            (Rule::Address, Value::Text(t)) => t.parse::<std::net::SocketAddr>().is_ok(),
            (Rule::Bool, Value::Bool(_)) | (Rule::List, Value::List(_)) => true,
            (Rule::Integer { min, max, .. }, Value::Integer(n)) => (*min..=*max).contains(n),
            (Rule::Choice(words), Value::Text(t)) => words.contains(&t.as_str()),
            _ => false,
        };
        if right { Ok(value) } else { Err(format!("{value} is not right: expected {}", self.expected())) }
    }

    fn expected(&self) -> String {
        match self {
            Rule::Text => "text that is not empty".to_owned(),
            Rule::Path => "an absolute path".to_owned(),
            Rule::Address => "an address with a port, such as \"127.0.0.1:1883\"".to_owned(),
            Rule::Bool => "true or false".to_owned(),
            Rule::Integer { min, max, unit } => format!("a whole number from {min} to {max} ({unit})"),
            Rule::Choice(words) => {
                format!("one of {}", words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", "))
            }
            Rule::List => "a list of texts, such as [\"a\", \"b\"]".to_owned(),
        }
    }

    /// The rule in brackets, for the printed configuration.
    pub fn words(&self) -> String {
        match self {
            Rule::Text | Rule::Path | Rule::Address | Rule::Bool | Rule::List => String::new(),
            Rule::Integer { min, max, unit } => format!("({min} to {max} {unit})"),
            Rule::Choice(words) => format!("({})", words.join(", ")),
        }
    }

    /// A value that would be right, for keys without a default.
    pub fn example(&self) -> String {
        match self {
            Rule::Text => "\"…\"".to_owned(),
            Rule::Path => "\"/…\"".to_owned(),
            Rule::Address => "\"127.0.0.1:1883\"".to_owned(),
            Rule::Bool => "false".to_owned(),
            Rule::Integer { min, .. } => min.to_string(),
            Rule::Choice(words) => format!("{:?}", words.first().unwrap_or(&"")),
            Rule::List => "[]".to_owned(),
        }
    }
}

/// A key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its dotted path; `*` stands for any one name.
    pub path: &'static str,
    /// What its value must be.
    pub rule: Rule,
    /// Its default, as TOML; none when it has none or when it depends on the board.
    pub default: Option<&'static str>,
    /// A sentence for people.
    pub doc: &'static str,
}

const fn key(path: &'static str, rule: Rule, default: Option<&'static str>, doc: &'static str) -> Key {
    Key { path, rule, default, doc }
}

const fn int(min: i64, max: i64, unit: &'static str) -> Rule {
    Rule::Integer { min, max, unit }
}

/// What becomes of messages when a stream is full.
const WHEN_FULL: Rule = Rule::Choice(&["drop-oldest", "drop-newest", "refuse"]);

/// The keys, by table.
pub const KEYS: &[Key] = &[
    key("board.description", Rule::Text, None, "What people call the board."),
    key(
        "board.target",
        Rule::Choice(&["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"]),
        None,
        "The target triple of its binary.",
    ),
    key("board.yocto-machine", Rule::Text, None, "The MACHINE of its Yocto image."),
    key(
        "board.compatible",
        Rule::List,
        Some("[]"),
        "Device-tree `compatible` strings that `--board auto` knows it by.",
    ),
    key("board.dmi-products", Rule::List, Some("[]"), "DMI product names that `--board auto` knows it by."),
    key(
        "node.name",
        Rule::Text,
        None,
        "The node's name: lower-case letters, digits, '-' and '.'. Without it, the host's.",
    ),
    key(
        "paths.state-dir",
        Rule::Path,
        Some("\"/var/lib/edge-runtime\""),
        "What must survive a power cut: objects, queue, images.",
    ),
    key(
        "paths.run-dir",
        Rule::Path,
        Some("\"/run/edge-runtime\""),
        "What need not survive: sockets, running containers, their logs. On a tmpfs.",
    ),
    key(
        "paths.manifests-dir",
        Rule::Path,
        Some("\"/etc/edge-runtime/manifests\""),
        "Manifests that are applied while they are there.",
    ),
    key(
        "paths.replay-dir",
        Rule::Path,
        Some("\"/etc/edge-runtime/replay\""),
        "Files whose columns virtual devices may replay.",
    ),
    key(
        "memory.class",
        Rule::Choice(&["small", "medium", "large"]),
        Some("\"medium\""),
        "The limits that follow from the memory: up to 1 GB, up to 2 GB, more.",
    ),
    key("serial.*.device", Rule::Path, None, "The device of a serial port."),
    key(
        "serial.*.rs485",
        Rule::Choice(&["none", "kernel", "rts"]),
        None,
        "Who switches the direction of an RS-485 line: nobody (the transceiver does), the kernel's driver, or RTS.",
    ),
    key("bluetooth.adapter", Rule::Text, None, "The Bluetooth adapter, as BlueZ names it."),
    key("network.interface", Rule::Text, None, "The interface that leads to the cloud."),
    key("watchdog.device", Rule::Path, None, "The hardware watchdog. It is opened only when `watchdog.enabled`."),
    key(
        "watchdog.timeout-seconds",
        int(1, 3600, "seconds"),
        Some("30"),
        "How long the hardware waits before it resets the board.",
    ),
    key(
        "watchdog.enabled",
        Rule::Bool,
        Some("false"),
        "Whether the runtime feeds the hardware watchdog (systemd can do it, too: then leave it off).",
    ),
    key(
        "flash.write-budget-mib-per-day",
        int(1, 1_048_576, "MiB a day"),
        Some("1024"),
        "How much may be written to flash before `status` complains.",
    ),
    key(
        "log.level",
        Rule::Text,
        Some("\"info\""),
        "error, warn, info, debug or trace; or per part, such as \"info,queue=debug\".",
    ),
    key(
        "log.format",
        Rule::Choice(&["auto", "text", "json", "journald"]),
        Some("\"auto\""),
        "How logs are written to standard error; auto is journald's under systemd and text elsewhere.",
    ),
    key("api.group", Rule::Text, None, "The group whose members may use the socket, beside its owner."),
    key("api.max-connections", int(1, 1024, "connections"), Some("64"), "Clients of the socket at the same time."),
    key("metrics.enabled", Rule::Bool, Some("true"), "Whether /metrics, /healthz and /readyz are served over TCP."),
    key("metrics.listen", Rule::Address, Some("\"127.0.0.1:10255\""), "Where they are served."),
    key("bus.listen", Rule::Address, Some("\"127.0.0.1:1883\""), "Where MQTT clients connect."),
    key("bus.max-connections", int(1, 10_000, "clients"), None, "MQTT clients at the same time."),
    key("bus.max-packet-kib", int(1, 262_143, "KiB"), Some("256"), "The largest MQTT packet that is taken."),
    key(
        "bus.client-queue-messages",
        int(1, 100_000, "messages"),
        None,
        "Messages that may wait for one slow client; more are dropped and counted.",
    ),
    key("bus.retained-kib", int(1, 1_048_576, "KiB"), None, "Retained messages, all together."),
    key(
        "field.status-interval-ms",
        int(100, 60_000, "milliseconds"),
        Some("1000"),
        "How often the twin of a device is renewed at most.",
    ),
    key(
        "field.probe-max-ms",
        int(100, 3_600_000, "milliseconds"),
        Some("60000"),
        "The longest pause before a device that does not answer is asked again.",
    ),
    key(
        "field.connect-max-ms",
        int(100, 3_600_000, "milliseconds"),
        Some("10000"),
        "The longest pause between attempts to connect.",
    ),
    key(
        "modbus-server.listen",
        Rule::Address,
        None,
        "Where Modbus TCP clients find what devices expose; nowhere when absent. Modbus has no login: mind who can reach it.",
    ),
    key(
        "queue.linger-ms",
        int(0, 1000, "milliseconds"),
        Some("30"),
        "How long a message waits for others to share its write to disk with.",
    ),
    key(
        "queue.disk-percent",
        int(1, 90, "percent"),
        Some("25"),
        "How much of the file system the queue may take; its streams shrink to fit.",
    ),
    key(
        "queue.replies.max-mib",
        int(1, 1_048_576, "MiB"),
        Some("4"),
        "The most that answers to commands may take on disk.",
    ),
    key(
        "queue.replies.max-age-hours",
        int(0, 87_600, "hours, 0 for ever"),
        Some("24"),
        "How long answers to commands are kept for the cloud.",
    ),
    key(
        "queue.replies.when-full",
        WHEN_FULL,
        Some("\"drop-oldest\""),
        "What happens when they are full; what is dropped is counted.",
    ),
    key(
        "queue.events.max-mib",
        int(1, 1_048_576, "MiB"),
        Some("16"),
        "The most that state changes and events may take on disk.",
    ),
    key(
        "queue.events.max-age-hours",
        int(0, 87_600, "hours, 0 for ever"),
        Some("720"),
        "How long state changes and events are kept for the cloud.",
    ),
    key(
        "queue.events.when-full",
        WHEN_FULL,
        Some("\"drop-oldest\""),
        "What happens when they are full; what is dropped is counted.",
    ),
    key("queue.data.max-mib", int(1, 1_048_576, "MiB"), None, "The most that readings and uploads may take on disk."),
    key(
        "queue.data.max-age-hours",
        int(0, 87_600, "hours, 0 for ever"),
        Some("720"),
        "How long readings and uploads are kept for the cloud.",
    ),
    key(
        "queue.data.when-full",
        WHEN_FULL,
        Some("\"drop-oldest\""),
        "What happens when they are full; what is dropped is counted.",
    ),
    key("images.max-image-mib", int(1, 1_048_576, "MiB"), Some("4096"), "The most that one image may unpack to."),
    key("images.parallel-downloads", int(1, 8, "layers"), Some("2"), "Layers that are downloaded at the same time."),
    key("images.insecure-registries", Rule::List, Some("[]"), "Registries (host:port) spoken to without TLS."),
    key(
        "images.ca-files",
        Rule::List,
        Some("[]"),
        "PEM files with further authorities that registries' certificates may come from.",
    ),
    key(
        "images.gc-high-percent",
        int(1, 100, "percent"),
        Some("85"),
        "From this use of the state directory's disk on, pulled images that no pod uses are removed, unused for longest first.",
    ),
    key(
        "images.gc-low-percent",
        int(0, 99, "percent"),
        Some("80"),
        "Until it is below this; less than gc-high-percent.",
    ),
    key("images.mirrors.*", Rule::List, None, "Mirrors that are asked before a registry, in order."),
    key(
        "cloud.address",
        Rule::Text,
        None,
        "Where the cloud is: mqtt://host[:1883] or mqtts://host[:8883]. Without it the node keeps everything to itself.",
    ),
    key(
        "cloud.prefix",
        Rule::Text,
        Some("\"edge\""),
        "What the topics in the cloud start with: <prefix>/<node>/up and <prefix>/<node>/down.",
    ),
    key("cloud.client-id", Rule::Text, None, "The MQTT client identifier; without it, the node's name."),
    key("cloud.user", Rule::Text, None, "The user name for the cloud's broker."),
    key("cloud.password-file", Rule::Path, None, "A file with the password."),
    key(
        "cloud.ca-file",
        Rule::Path,
        None,
        "A PEM file with the authorities of the broker's certificate; without it, the system's.",
    ),
    key("cloud.certificate-file", Rule::Path, None, "A PEM file with the node's own certificate, for mutual TLS."),
    key("cloud.key-file", Rule::Path, None, "A PEM file with its private key."),
    key(
        "cloud.keep-alive-seconds",
        int(1, 3600, "seconds"),
        Some("30"),
        "A sign of life when nothing else is said; a silent broker is noticed within twice that.",
    ),
    key(
        "cloud.connect-timeout-seconds",
        int(1, 120, "seconds"),
        Some("10"),
        "How long a connection may take to be accepted.",
    ),
    key(
        "cloud.ack-timeout-seconds",
        int(1, 3600, "seconds"),
        Some("15"),
        "How long the broker may leave messages unacknowledged.",
    ),
    key(
        "cloud.window",
        int(2, 1000, "messages"),
        Some("64"),
        "Messages sent and not yet acknowledged: what may be repeated after an interruption.",
    ),
    key(
        "cloud.drain-rate",
        int(0, 1_000_000, "messages a second, 0 for no limit"),
        Some("2000"),
        "How fast old data is brought up beside the new.",
    ),
    key(
        "cloud.message-max-kib",
        int(1, 65_536, "KiB"),
        Some("512"),
        "The largest message; larger ones are left out and counted. A third more than bus.max-packet-kib, and 12.",
    ),
    key(
        "cloud.back-off-max-seconds",
        int(2, 3600, "seconds"),
        Some("15"),
        "The longest pause between attempts; 2 s in the first ten minutes of an interruption.",
    ),
    key("engine.enabled", Rule::Bool, Some("true"), "Whether containers are run."),
    key(
        "engine.bridge",
        Rule::Text,
        Some("\"edge0\""),
        "The bridge of pods with a network of their own; nothing else may use it.",
    ),
    key(
        "engine.subnet",
        Rule::Text,
        Some("\"10.244.77.0/24\""),
        "Their addresses, /16 to /29; nothing else on the node's networks may use them.",
    ),
    key(
        "engine.log-max-kib",
        int(4, 1_048_576, "KiB"),
        Some("512"),
        "The size of a container's log at which it is turned over.",
    ),
    key(
        "engine.pids-limit",
        int(16, 4_194_304, "processes"),
        Some("4096"),
        "The most processes and threads of one container.",
    ),
    key(
        "engine.allow-privileged",
        Rule::Bool,
        Some("false"),
        "Whether pods may be privileged, which is to be root on the node.",
    ),
    key(
        "update.public-keys",
        Rule::List,
        Some("[]"),
        "Ed25519 keys whose updates are taken, in base64 or PEM; further ones are files in /etc/edge-runtime/update-keys.d.",
    ),
    key(
        "update.health-seconds",
        int(1, 3600, "seconds"),
        Some("60"),
        "How long a new version must be well without a break before it is kept.",
    ),
    key(
        "update.deadline-seconds",
        int(5, 86_400, "seconds"),
        Some("300"),
        "How long after its start a new version must have been; else the one before is started again.",
    ),
    // systemd gives up on a unit that it has to start a sixth time within ten seconds: the way back must come before.
    key("update.tries", int(1, 4, "starts"), Some("3"), "How often a new version may be started until then."),
    key("shutdown.deadline-seconds", int(1, 600, "seconds"), Some("20"), "How long an orderly shutdown may take."),
];

/// The key with this path (a concrete one: `serial.uart0.device` is found under `serial.*.device`).
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| fits(k.path, path, false))
}

/// Whether a path is a table: some key lies below it.
pub fn is_table(path: &str) -> bool {
    KEYS.iter().any(|k| fits(k.path, path, true))
}

fn fits(pattern: &str, path: &str, prefix: bool) -> bool {
    let (mut patterns, mut segments) = (pattern.split('.'), path.split('.'));
    loop {
        match (patterns.next(), segments.next()) {
            (Some(p), Some(s)) if p == "*" || p == s => {}
            (None, None) => return !prefix,
            (Some(_), None) => return prefix,
            _ => return false,
        }
    }
}

/// The defaults as the lowest layer.
pub fn built_in() -> Layer {
    let mut text = String::new();
    for key in KEYS {
        if let Some(default) = key.default {
            text.push_str(&format!("{} = {default}\n", key.path));
        }
    }
    Layer::parse(&text, |_| Origin::BuiltIn).0
}

/// What follows from a memory class, in the order small, medium, large.
const BY_MEMORY: &[(&str, [i64; 3])] = &[
    ("bus.max-connections", [100, 200, 1000]),
    ("bus.client-queue-messages", [500, 1000, 4000]),
    ("queue.data.max-mib", [64, 256, 1024]),
    ("bus.retained-kib", [1024, 2048, 16_384]),
];

/// The limits of a memory class as a layer.
pub fn memory_class(class: &str) -> Layer {
    let column = match class {
        "small" => 0,
        "large" => 2,
        _ => 1,
    };
    let values = BY_MEMORY.iter().map(|(path, values)| ((*path).to_owned(), Value::Integer(values[column])));
    Layer::trusted(values, &Origin::MemoryClass(class.to_owned()))
}
