//! A reading: one value of one property of one device at one time, with its quality.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value with its own type. On JSON it is the plain JSON value; bytes are base64 text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A bit, a coil, a flag.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// A float; never NaN or infinite once it is a reading (those are bad quality).
    Float(f64),
    /// Text.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// As a JSON value.
    pub fn to_json(&self) -> serde_json::Value {
        use base64::Engine as _;
        match self {
            Value::Bool(b) => (*b).into(),
            Value::Int(i) => (*i).into(),
            Value::UInt(u) => (*u).into(),
            Value::Float(x) => (*x).into(),
            Value::Text(s) => s.as_str().into(),
            Value::Bytes(b) => base64::engine::general_purpose::STANDARD.encode(b).into(),
        }
    }

    /// As a number; text and bytes are none.
    #[expect(
        clippy::cast_precision_loss,
        reason = "integers beyond 2^53 are compared and scaled as floats, as in KubeEdge"
    )]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Int(i) => Some(*i as f64),
            Value::UInt(u) => Some(*u as f64),
            Value::Float(x) => Some(*x),
            Value::Text(_) | Value::Bytes(_) => None,
        }
    }

    /// Bytes from base64 text (RFC 4648, with padding); `None` when it is not that.
    pub fn from_base64(text: &str) -> Option<Value> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(text).ok().map(Value::Bytes)
    }
}

/// As KubeEdge's twin carries values: text.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(i) => write!(f, "{i}"),
            Value::UInt(u) => write!(f, "{u}"),
            Value::Float(x) => write!(f, "{x}"),
            Value::Text(s) => f.write_str(s),
            Value::Bytes(_) => f.write_str(self.to_json().as_str().unwrap_or_default()),
        }
    }
}

/// Whether a value may be believed, after OPC UA's good / uncertain / bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Quality {
    /// Read from the device just now.
    Good,
    /// The device did not answer within its time-out.
    Timeout,
    /// No connection to the device.
    Disconnected,
    /// The device answered with an error (for Modbus: an exception code).
    Refused,
    /// The answer could not be decoded or is outside what the model allows.
    Invalid,
    /// It was good once, and not read again for longer than its description allows.
    Stale,
}

impl Quality {
    /// The word on the wire: `good`, `timeout`, `disconnected`, `refused`, `invalid`, `stale`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Quality::Good => "good",
            Quality::Timeout => "timeout",
            Quality::Disconnected => "disconnected",
            Quality::Refused => "refused",
            Quality::Invalid => "invalid",
            Quality::Stale => "stale",
        }
    }
}

/// One reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Namespace of the device.
    pub namespace: String,
    /// Name of the device.
    pub device: String,
    /// Name of the property in its model.
    pub property: String,
    /// When it was read, UTC milliseconds since 1970.
    pub time_ms: i64,
    /// Whether the value may be believed.
    pub quality: Quality,
    /// The value; `None` unless the quality is good.
    pub value: Option<Value>,
    /// The unit of the model's property; empty when it has none.
    pub unit: String,
}
