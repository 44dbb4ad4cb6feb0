//! `configData` of devices with an HTTP interface (`protocolName: http`): polled and written by requests. KubeEdge has no
//! word for them.
//!
//! ```yaml
//! # of the model
//! properties:
//!   - name: power
//!     type: DOUBLE
//!     accessMode: ReadOnly
//!     unit: W
//!     visitors: {protocolName: http, configData: {url: /status, path: "meters[0].power"}}
//!   - name: relay
//!     type: BOOLEAN
//!     accessMode: ReadWrite
//!     visitors:
//!       protocolName: http
//!       configData: {url: /status, path: "relays[0].ison", write: {url: /relay/0, method: POST, template: '{"on": {{json}}}'}}
//! # of the device
//! protocol:
//!   protocolName: http
//!   configData: {url: "http://192.168.1.20", user: admin, password: secret}
//! ```
//! Properties with the same request share it: however many they are, it is made once per reading.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `protocol.configData`: the device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// `http://` or `https://`, host, port, and what the URLs of properties begin with.
    pub url: String,
    /// Headers of every request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A token that is sent as `Authorization: Bearer` (RFC 6750).
    #[serde(default)]
    pub token: Option<String>,
    /// The user of the Basic scheme (RFC 7617).
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<String>,
    /// The authorities to trust, as PEM text; those of the system when absent.
    #[serde(default)]
    pub ca: Option<String>,
    /// How long one request may take, with connecting, in milliseconds, 100 to 60000; 5000 when absent.
    #[serde(default = "five_seconds")]
    pub timeout: u64,
}

/// `visitors.configData`: the request whose answer has the property.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Visitor {
    /// What comes after the device's URL, such as `/status`.
    #[serde(default)]
    pub url: String,
    /// The method; GET when absent.
    #[serde(default)]
    pub method: Method,
    /// The body of the request.
    #[serde(default)]
    pub body: Option<String>,
    /// Headers of this request beside the device's.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Where in the JSON answer the value is: keys and indices, such as `meters[0].power`. The answer itself is the value
    /// when absent.
    #[serde(default)]
    pub path: Option<String>,
    /// The text of true, for a BOOLEAN; `true` when absent.
    #[serde(default)]
    pub on: Option<String>,
    /// The text of false; `false` when absent.
    #[serde(default)]
    pub off: Option<String>,
    /// How it is written.
    #[serde(default)]
    pub write: Option<Write>,
}

/// The request that writes a property.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Write {
    /// What comes after the device's URL; that of reading when absent. `{{value}}` in it is the value.
    #[serde(default)]
    pub url: Option<String>,
    /// The method; PUT when absent.
    #[serde(default = "put")]
    pub method: Method,
    /// The body: `{{value}}` is the value as text, `{{json}}` as JSON. None with GET; `{{json}}` when absent.
    #[serde(default)]
    pub template: Option<String>,
    /// The media type of the body; `application/json` when absent.
    #[serde(default = "json")]
    pub content_type: String,
    /// Read the property afterwards, until it is what was written or the time-out is over; true when absent.
    #[serde(default = "yes")]
    pub read_back: bool,
}

/// A method of HTTP (RFC 9110, section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Ask.
    #[default]
    Get,
    /// Hand over.
    Post,
    /// Replace.
    Put,
    /// Change.
    Patch,
}

const fn five_seconds() -> u64 {
    5_000
}
const fn put() -> Method {
    Method::Put
}
fn json() -> String {
    "application/json".to_owned()
}
const fn yes() -> bool {
    true
}
