//! What the API asks of other parts of the node: small traits, so that it knows neither engine nor field nor images.

use std::sync::Arc;

use bytes::Bytes;
use edge_model::Key;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::{Map, Value};

/// Why a backend could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// There is no such pod, container, device, property or image.
    #[error("{0}")]
    NotFound(String),
    /// What was asked makes no sense (a value out of range, a property that is read only).
    #[error("{0}")]
    Invalid(String),
    /// Not now: trying again can help.
    #[error("{0}")]
    Unavailable(String),
    /// The far end did not answer in time.
    #[error("{0}")]
    Timeout(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
}

/// An answer that takes time.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// Which part of a container's log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// The namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container; the pod's only one when absent.
    pub container: Option<String>,
    /// Go on as more is written.
    pub follow: bool,
    /// The container's run before this one.
    pub previous: bool,
    /// Put the time (RFC 3339) before each line.
    pub timestamps: bool,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only what was written since then, UTC milliseconds.
    pub since_ms: Option<i64>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
}

/// Logs of containers.
pub trait Logs: Send + Sync {
    /// Opens a log; the stream ends with the log or, when following, with the container.
    fn open(&self, request: LogRequest) -> Reply<'_, BoxStream<'static, Result<Bytes, BackendError>>>;
}

/// Properties of devices, in the field and now.
pub trait Properties: Send + Sync {
    /// Reads a property from the device: a document with at least `value`.
    fn read<'a>(&'a self, device: &'a Key, property: &'a str) -> Reply<'a, Value>;
    /// Writes a property to the device and reads it back: a document with at least `value`.
    fn write<'a>(&'a self, device: &'a Key, property: &'a str, value: &'a Value) -> Reply<'a, Value>;
}

/// Steps of something that takes long, each a JSON document for one line.
///
/// Fields the command line knows: `status` (words), `id` (layer), `current` and `total` (bytes), `image` (the reference, at
/// the end), `digest`.
pub type Progress = BoxStream<'static, Result<Value, BackendError>>;

/// Images on this node.
pub trait Images: Send + Sync {
    /// Every image: documents with `name`, `digest`, `size` (bytes).
    fn list(&self) -> Reply<'_, Vec<Value>>;
    /// Pulls an image from its registry.
    fn pull(&self, reference: String) -> Reply<'_, Progress>;
    /// Imports an archive (OCI or `docker save`) as it is uploaded, under a name of its own or the given one.
    fn import(&self, name: Option<String>, archive: BoxStream<'static, std::io::Result<Bytes>>) -> Reply<'_, Progress>;
    /// Removes an image by name or digest.
    fn remove<'a>(&'a self, reference: &'a str) -> Reply<'a, ()>;
}

/// The level of the log, changed while running.
pub trait LogLevel: Send + Sync {
    /// The directives now in force, such as `info,edge_runtime::bus=debug`.
    fn get(&self) -> String;
    /// Puts others in force.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] with the directive that is not understood.
    fn set(&self, directives: &str) -> Result<(), BackendError>;
}

/// Updates of the executable itself.
pub trait Updates: Send + Sync {
    /// What runs, what is installed, and how the last update ended.
    fn status(&self) -> Reply<'_, Value>;
    /// Stops in order and starts the version in use, in the same process.
    fn restart(&self) -> Reply<'_, ()>;
}

/// One thing in the node's status: a unit, a device, a stream of the queue, …
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its state in a word: `Running`, `Offline`, `GaveUp`.
    pub state: String,
    /// Whether that is as it should be.
    pub well: bool,
    /// Why it is not well, or a remark.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Figures of its own.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Item {
    /// An item that is well and has nothing to remark.
    pub fn well(name: impl Into<String>, state: impl Into<String>) -> Item {
        Item { name: name.into(), state: state.into(), well: true, reason: String::new(), more: Map::new() }
    }

    /// An item that is not well, with the reason.
    pub fn unwell(name: impl Into<String>, state: impl Into<String>, reason: impl Into<String>) -> Item {
        Item { well: false, reason: reason.into(), ..Item::well(name, state) }
    }

    /// With a figure of its own.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Item {
        self.more.insert(field.to_owned(), value.into());
        self
    }
}

/// A section of the status document, looked at when somebody asks.
pub type Section = Arc<dyn Fn() -> Vec<Item> + Send + Sync>;

/// Everything behind the API but the store. What is absent answers 503 with a sentence.
#[derive(Clone, Default)]
pub struct Backends {
    /// Logs of containers.
    pub logs: Option<Arc<dyn Logs>>,
    /// Properties of devices.
    pub properties: Option<Arc<dyn Properties>>,
    /// Images.
    pub images: Option<Arc<dyn Images>>,
    /// The level of the log.
    pub log_level: Option<Arc<dyn LogLevel>>,
    /// Updates.
    pub updates: Option<Arc<dyn Updates>>,
    /// Sections of `/status` by name, beside `devices` and `pods`, which come from the store.
    pub status: Vec<(&'static str, Section)>,
    /// Whether the node is ready; the reason when it is not.
    pub ready: Option<Arc<dyn Fn() -> Result<(), String> + Send + Sync>>,
    /// The figures of `/metrics`.
    pub metrics: crate::telemetry::metrics::Registry,
}
