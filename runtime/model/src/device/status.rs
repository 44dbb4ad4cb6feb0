//! `Device.status`, in the shape of KubeEdge's `DeviceStatusStatus`: twins, state, last time online, extensions.
//!
//! Ours inside KubeEdge's open places: `quality` in a reported value's metadata, and `extensions` with counters and reason.

use serde::{Deserialize, Serialize};

/// `Device.status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// One per property of the device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub twins: Vec<Twin>,
    /// `online`, `offline` or `unknown`.
    #[serde(default)]
    pub state: String,
    /// The last time it answered, RFC 3339; empty when it never did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_online_time: String,
    /// Counters, and why it is not well.
    #[serde(default)]
    pub extensions: Extensions,
}

/// A property's reported and observed desired value.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Twin {
    /// The property.
    pub property_name: String,
    /// What the device last said.
    #[serde(default)]
    pub reported: TwinValue,
    /// The desired value the field is working with.
    #[serde(default, skip_serializing_if = "TwinValue::is_empty")]
    pub observed_desired: TwinValue,
}

/// A value of a twin: text, as in KubeEdge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TwinValue {
    /// The value as text; empty when there is none.
    #[serde(default)]
    pub value: String,
    /// What is known of it.
    #[serde(default, skip_serializing_if = "TwinMetadata::is_empty")]
    pub metadata: TwinMetadata,
}

impl TwinValue {
    fn is_empty(&self) -> bool {
        *self == TwinValue::default()
    }
}

/// Metadata of a twin's value. In KubeEdge a map of texts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TwinMetadata {
    /// UTC milliseconds since 1970, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub timestamp: String,
    /// KubeEdge's word for the type, such as `int`.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub value_type: String,
    /// Ours: whether the value may be believed ([`Quality::as_str`](crate::reading::Quality::as_str)); absent on desired values.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub quality: String,
    /// Ours: how often the reported value has changed since the device was made; 0 on desired values.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version: u64,
    /// Ours: why a desired value is not (yet) in the device; empty when it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl TwinMetadata {
    fn is_empty(&self) -> bool {
        *self == TwinMetadata::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Ours, in KubeEdge's `extensions`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Extensions {
    /// Why the device is not well; empty when it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Requests sent since the device was configured.
    pub requests: u64,
    /// How many of them failed.
    pub errors: u64,
    /// How many of them were not answered in time.
    pub timeouts: u64,
    /// How many of them the device answered with an error of its own.
    pub exceptions: u64,
    /// Periods in which nothing was asked because the wire or the device was too slow.
    pub overruns: u64,
    /// How often its connection was opened again.
    pub reconnects: u64,
    /// The last round trip, in microseconds.
    pub round_trip_us: u64,
    /// Readings dropped because the queue did not take them in time.
    pub dropped: u64,
    /// The generation of the object this status is about.
    pub observed_generation: u64,
}
