//! The way to a device: reads and writes somebody asked for, on their way to the task that owns the wire.

use edge_model::reading::Reading;
use tokio::sync::{mpsc, oneshot};

use crate::AccessError;

/// Commands that wait for one wire: a person's or a controller's, never a stream. More are refused as busy.
const COMMANDS: usize = 32;

/// Where commands for one device go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Port {
    inbox: mpsc::Sender<Command>,
    namespace: String,
    name: String,
}

/// One command on its way. Dropping it answers [`AccessError::Gone`].
#[derive(Debug)]
pub struct Command {
    /// Namespace of the device.
    pub namespace: String,
    /// Name of the device.
    pub name: String,
    /// What shall be done.
    pub what: What,
    /// Where the answer goes; whoever asked may have gone.
    pub reply: oneshot::Sender<Result<Vec<Reading>, AccessError>>,
}

/// What a command asks for.
#[derive(Debug)]
pub enum What {
    /// One property, or all of them.
    Read(Option<String>),
    /// A property and the value it shall have.
    Write(String, serde_json::Value),
}

/// The two ends of the way to one wire. The inbox is received from by the task that owns it.
pub fn inbox() -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(COMMANDS)
}

impl Port {
    /// The way to the device with this name on the wire behind `inbox`.
    pub fn new(inbox: mpsc::Sender<Command>, namespace: &str, name: &str) -> Port {
        Port { inbox, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Reads one property now, or all of them. What the device refuses comes as readings of bad quality.
    ///
    /// # Errors
    /// Any [`AccessError`]; when the device does not answer, why.
    pub async fn read(&self, property: Option<&str>) -> Result<Vec<Reading>, AccessError> {
        self.call(What::Read(property.map(str::to_owned))).await
    }

    /// Writes a property and reads it back. Nothing goes on the wire that the model or the device's description does not
    /// allow.
    ///
    /// # Errors
    /// Any [`AccessError`].
    pub async fn write(&self, property: &str, value: serde_json::Value) -> Result<Reading, AccessError> {
        let readings = self.call(What::Write(property.to_owned(), value)).await?;
        readings.into_iter().next().ok_or(AccessError::Gone)
    }

    async fn call(&self, what: What) -> Result<Vec<Reading>, AccessError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { namespace: self.namespace.clone(), name: self.name.clone(), what, reply };
        self.inbox.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => AccessError::Busy,
            mpsc::error::TrySendError::Closed(_) => AccessError::Gone,
        })?;
        answer.await.unwrap_or(Err(AccessError::Gone))
    }
}
