//! `configData` of MQTT devices (`protocolName: mqtt`): devices that speak topics of their own, such as Zigbee2MQTT's,
//! Tasmota's or Shelly's. KubeEdge has no word for them.
//!
//! In topics a leading `~` stands for the device's `base`, so that one model serves many devices:
//!
//! ```yaml
//! # of the model
//! properties:
//!   - name: power
//!     type: BOOLEAN
//!     accessMode: ReadWrite
//!     visitors:
//!       protocolName: mqtt
//!       configData: {topic: "~", path: state, on: "ON", off: "OFF", commandTopic: "~/set", commandTemplate: '{"state": {{json}}}'}
//! # of the device
//! protocol:
//!   protocolName: mqtt
//!   configData: {base: zigbee2mqtt/kitchen, availabilityTopic: "~/availability", availabilityPath: state}
//! ```

use serde::Deserialize;

/// `protocol.configData`: the broker, and how the device says that it is there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// The broker's host; loopback when absent. Without host, port and `tls` it is this node's own bus, wherever that listens
    /// (`bus.listen`). Devices with the same broker and login share a connection.
    #[serde(default)]
    pub host: Option<String>,
    /// The broker's port; 1883 when absent, 8883 with `tls`.
    #[serde(default)]
    pub port: Option<u16>,
    /// The user, if the broker asks for one.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<String>,
    /// Whether the connection is TLS.
    #[serde(default)]
    pub tls: bool,
    /// The authorities to trust, as PEM text; those of the system when absent.
    #[serde(default)]
    pub ca: Option<String>,
    /// How long connecting and reading back may take, in milliseconds, 100 to 60000; 5000 when absent.
    #[serde(default = "five_seconds")]
    pub timeout: u64,
    /// What `~` stands for in topics.
    #[serde(default)]
    pub base: String,
    /// Where the device says whether it is there. When absent it is there as long as the broker is.
    #[serde(default)]
    pub availability_topic: Option<String>,
    /// Where in that JSON payload, as `path` of a property; the whole payload when absent.
    #[serde(default)]
    pub availability_path: Option<String>,
    /// What it says when it is there; `online` when absent. Anything else means that it is not.
    #[serde(default = "online")]
    pub online: String,
}

/// `visitors.configData`: where the values of a property are.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Visitor {
    /// The topic its values come on; a property without one can only be written.
    #[serde(default)]
    pub topic: Option<String>,
    /// Where in the JSON payload the value is: keys and indices, such as `sensors[0].temperature`. The payload itself is
    /// the value when absent.
    #[serde(default)]
    pub path: Option<String>,
    /// The text of true, for a BOOLEAN; `true` when absent.
    #[serde(default)]
    pub on: Option<String>,
    /// The text of false; `false` when absent.
    #[serde(default)]
    pub off: Option<String>,
    /// The topic values are written to; without one the property cannot be written.
    #[serde(default)]
    pub command_topic: Option<String>,
    /// The payload of a write: `{{value}}` is the value as text, `{{json}}` as JSON; `{{value}}` when absent.
    #[serde(default)]
    pub command_template: Option<String>,
    /// Whether the broker keeps what is written for those who come later.
    #[serde(default)]
    pub retain: bool,
    /// Wait until `topic` says what was written; true when absent. Without a `topic` there is nothing to wait for.
    #[serde(default = "yes")]
    pub read_back: bool,
    /// After how many milliseconds without news the value is no longer believed, up to 86400000; 0 or absent: never.
    #[serde(default)]
    pub expire: u64,
}

const fn five_seconds() -> u64 {
    5_000
}
fn online() -> String {
    "online".to_owned()
}
const fn yes() -> bool {
    true
}
