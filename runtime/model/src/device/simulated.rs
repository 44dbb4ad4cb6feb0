//! `configData` of virtual devices (`protocolName: virtual`): devices that are not there, for demonstrations and tests.

use serde::Deserialize;

/// `protocol.configData`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// Where its random numbers start; devices with the same seed say the same. 0 when absent.
    #[serde(default)]
    pub seed: u64,
}

/// `visitors.configData`: what the property's values are. A value written replaces it until the device is configured anew.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Visitor {
    /// Which values.
    #[serde(default)]
    pub generator: Generator,
    /// The smallest value of a sine, of random values and of a counter; 0 when absent.
    #[serde(default)]
    pub low: f64,
    /// The largest; 100 when absent.
    #[serde(default = "hundred")]
    pub high: f64,
    /// How long a sine takes for one turn, in milliseconds, 1 to 86400000; 60000 when absent.
    #[serde(default = "minute")]
    pub turn: u64,
    /// What a counter grows by with each reading; after `high` it starts again at `low`. 1 when absent.
    #[serde(default = "one")]
    pub step: f64,
    /// The value of a constant; the type's zero when absent.
    #[serde(default)]
    pub value: Option<serde_json::Value>,
    /// The values to replay, one with each reading, over and over.
    #[serde(default)]
    pub values: Vec<serde_json::Value>,
    /// A file to replay: comma-separated text in the node's replay folder (`/etc/edge-runtime/replay`), named without a path.
    #[serde(default)]
    pub file: Option<String>,
    /// The column of that file, by the name in its first line; without it the first column, and the first line is a value.
    #[serde(default)]
    pub column: Option<String>,
}

/// Where values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generator {
    /// Always the same, until something else is written.
    #[default]
    Constant,
    /// A sine between `low` and `high`.
    Sine,
    /// Evenly distributed between `low` and `high`.
    Random,
    /// From `low` to `high` by `step`.
    Counter,
    /// `values`, or those of `file`.
    Replay,
}

const fn hundred() -> f64 {
    100.0
}
const fn one() -> f64 {
    1.0
}
const fn minute() -> u64 {
    60_000
}
