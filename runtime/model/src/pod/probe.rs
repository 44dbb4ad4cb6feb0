//! Probe: how the node finds out whether a container works.
//!
//! Source: Kubernetes API reference, "Probe v1 core"; Kubernetes documentation, "Configure Liveness, Readiness and Startup
//! Probes".

use std::fmt;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// One probe. Exactly one of `exec`, `http_get` and `tcp_socket` is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Probe {
    /// A command in the container; 0 is success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecAction>,
    /// A request to the container; a status from 200 to 399 is success. Redirections are not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGetAction>,
    /// A connection to the container; that it is accepted is success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocketAction>,
    /// Seconds between the start of the container and the first probe, 0 to 86,400; 0 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_delay_seconds: Option<u32>,
    /// Seconds after which a probe has failed, 1 to 3600; 1 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// Seconds between probes, 1 to 86,400; 10 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<u32>,
    /// How many in a row make a success after a failure, 1 to 1000; 1 when not given, and for liveness and startup always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_threshold: Option<u32>,
    /// How many in a row make a failure after a success, 1 to 1000; 3 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<u32>,
    /// Instead of the pod's, when a failure ends the container; seconds, 1 to 3600. Not for readiness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<u32>,
}

impl Probe {
    /// The port it asks.
    pub fn port(&self) -> Option<&PortRef> {
        let http = self.http_get.as_ref().map(|h| &h.port);
        http.or_else(|| self.tcp_socket.as_ref().map(|t| &t.port))
    }

    /// Milliseconds between the start of the container and the first probe.
    pub fn initial_delay_ms(&self) -> i64 {
        i64::from(self.initial_delay_seconds.unwrap_or(0)) * 1000
    }

    /// Milliseconds after which a probe has failed.
    pub fn timeout_ms(&self) -> u64 {
        u64::from(self.timeout_seconds.unwrap_or(1)) * 1000
    }

    /// Milliseconds between probes.
    pub fn period_ms(&self) -> i64 {
        i64::from(self.period_seconds.unwrap_or(10)) * 1000
    }

    /// How many in a row make a success.
    pub fn successes(&self) -> u32 {
        self.success_threshold.unwrap_or(1)
    }

    /// How many in a row make a failure.
    pub fn failures(&self) -> u32 {
        self.failure_threshold.unwrap_or(3)
    }
}

/// A command in the container, not in a shell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecAction {
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGetAction {
    /// The path, `/` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The port.
    pub port: PortRef,
    /// Instead of the pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only `HTTP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Headers that are sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<HttpHeader>,
}

/// A header of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpSocketAction {
    /// The port.
    pub port: PortRef,
    /// Instead of the pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A port by its number, or by the name it has in the container's `ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PortRef {
    /// 1 to 65535.
    Number(u16),
    /// A name of the container's `ports`.
    Name(String),
}

impl<'de> Deserialize<'de> for PortRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PortRef, D::Error> {
        struct Port;
        impl Visitor<'_> for Port {
            type Value = PortRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, 1 to 65535, or a name of the container's ports")
            }

            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<PortRef, E> {
                let other = |_| E::invalid_value(Unexpected::Unsigned(n), &self);
                u16::try_from(n).map(PortRef::Number).map_err(other)
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<PortRef, E> {
                Ok(PortRef::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(Port)
    }
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortRef::Number(n) => n.fmt(f),
            PortRef::Name(name) => name.fmt(f),
        }
    }
}
