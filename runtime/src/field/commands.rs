//! The handle through which everybody else reads and writes devices: HTTP API, command line, cloud downlink.

use std::sync::Arc;

use edge_mappers::AccessError;
use edge_model::reading::Reading;
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot};

/// Commands that wait for the field. It takes them at once and answers from its own tasks, so a few are enough.
const CAPACITY: usize = 32;

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// There is no such device, property or method.
    #[error("{0} not found")]
    NotFound(String),
    /// The model says ReadOnly.
    #[error("property {0} is read-only")]
    ReadOnly(String),
    /// The value is outside the limits, or of another type.
    #[error("{0}")]
    OutOfRange(String),
    /// The device does not answer. A write may have been done all the same.
    #[error("the device is offline: {0}")]
    Offline(String),
    /// The device, or the field, said no.
    #[error("refused: {0}")]
    Refused(String),
    /// The device has another value after the write.
    #[error("wrote {wrote} and read back {found}")]
    Mismatch {
        /// What was written.
        wrote: String,
        /// What was read back.
        found: String,
    },
    /// The field is not running or has too much to do; try again.
    #[error("the field is busy or not running")]
    Busy,
}

impl From<AccessError> for CommandError {
    fn from(e: AccessError) -> CommandError {
        match e {
            AccessError::Unknown(p) => CommandError::NotFound(format!("property {p}")),
            AccessError::ReadOnly(p) => CommandError::ReadOnly(p),
            AccessError::Type { .. } | AccessError::Range { .. } => CommandError::OutOfRange(e.to_string()),
            AccessError::Timeout(_) | AccessError::Disconnected(_) | AccessError::Garbage(_) => {
                CommandError::Offline(e.to_string())
            }
            AccessError::Exception { .. } | AccessError::Refused(_) => CommandError::Refused(e.to_string()),
            AccessError::Mismatch { wrote, found } => CommandError::Mismatch { wrote, found },
            AccessError::Gone | AccessError::Busy => CommandError::Busy,
        }
    }
}

/// One command on its way.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) namespace: String,
    pub(super) device: String,
    pub(super) what: What,
    pub(super) reply: Reply,
}

/// Where the answer goes.
pub(super) type Reply = oneshot::Sender<Result<Vec<Reading>, CommandError>>;

#[derive(Debug)]
pub(super) enum What {
    Get(Option<String>),
    Set { property: String, value: serde_json::Value, method: Option<String> },
}

/// Reads and writes devices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Commands {
    sender: mpsc::Sender<Command>,
}

/// The field's end of [`Commands`]. It is kept over restarts of the field; only one field uses it at a time.
#[derive(Debug, Clone)]
pub struct Inbox {
    receiver: Arc<Mutex<mpsc::Receiver<Command>>>,
}

impl Inbox {
    pub(super) async fn lock(&self) -> MutexGuard<'_, mpsc::Receiver<Command>> {
        self.receiver.lock().await
    }
}

/// The two ends of a channel of commands.
pub fn commands() -> (Commands, Inbox) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (Commands { sender }, Inbox { receiver: Arc::new(Mutex::new(receiver)) })
}

impl Commands {
    /// Reads one property from the device now, or all of them. What the device refuses comes with bad quality. For a device
    /// of a mapper in a pod, what that mapper last reported.
    ///
    /// # Errors
    /// [`CommandError::NotFound`], [`CommandError::Offline`], [`CommandError::Busy`].
    pub async fn get(&self, ns: &str, device: &str, property: Option<&str>) -> Result<Vec<Reading>, CommandError> {
        self.call(ns, device, What::Get(property.map(str::to_owned))).await
    }

    /// Writes a property and reads it back. A desired value in the device's spec becomes the one written, so that the two do
    /// not fight.
    ///
    /// # Errors
    /// Any [`CommandError`].
    pub async fn set(
        &self,
        ns: &str,
        device: &str,
        property: &str,
        value: serde_json::Value,
    ) -> Result<Reading, CommandError> {
        let what = What::Set { property: property.to_owned(), value, method: None };
        self.call(ns, device, what).await?.into_iter().next().ok_or(CommandError::Busy)
    }

    /// Writes a property through one of the device's methods, which must name it.
    ///
    /// # Errors
    /// Any [`CommandError`].
    pub async fn call_method(
        &self,
        ns: &str,
        device: &str,
        method: &str,
        property: &str,
        value: serde_json::Value,
    ) -> Result<Reading, CommandError> {
        let what = What::Set { property: property.to_owned(), value, method: Some(method.to_owned()) };
        self.call(ns, device, what).await?.into_iter().next().ok_or(CommandError::Busy)
    }

    async fn call(&self, ns: &str, device: &str, what: What) -> Result<Vec<Reading>, CommandError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { namespace: ns.to_owned(), device: device.to_owned(), what, reply };
        self.sender.try_send(command).map_err(|_| CommandError::Busy)?;
        answer.await.unwrap_or(Err(CommandError::Busy))
    }
}
