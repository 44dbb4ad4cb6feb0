//! Commands from the cloud: checked like what comes through any other door, carried out once, answered on the replies
//! stream.
//!
//! ```text
//!            ┌─ known, done ───────────────────────────────┐
//!  command ──┼─ known, begun: apply and delete again,      ▼
//!            │  a write is not repeated ──────────► answer queued ─► acknowledged to the broker
//!            └─ new ─► begun ─► carried out ─► done ───────┘
//!                       └ on disk ┘             └ on disk
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edge_model::Key;
use edge_model::envelope::{self, Action, Command, Failure, reply};
use serde_json::{Value, json};

use super::Counters;
use super::ledger::{Known, Ledger};
use crate::api::backend::{BackendError, Properties};
use crate::queue::{Message, Queue, QueueError, Stream};
use crate::store::{Applied, Store, StoreError};

/// The subject of answers.
const SUBJECT: &str = "commands";
/// How long a device may take; without a bound one dead device would hold up every command behind it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out commands.
pub struct Downlink {
    store: Store,
    queue: Queue,
    properties: Option<Arc<dyn Properties>>,
    ledger: Mutex<Ledger>,
    counters: Arc<Counters>,
}

/// Why a command could not be dealt with: it stays with the broker and comes again.
#[derive(Debug, thiserror::Error)]
pub enum DownlinkError {
    /// The memory of commands cannot be written.
    #[error("memory of commands: cannot write")]
    Ledger(#[source] io::Error),
    /// The object cannot be written, such as on a full disk.
    #[error("object of a command: cannot write")]
    Store(#[source] StoreError),
    /// The answer cannot be queued.
    #[error("answer to a command: cannot queue")]
    Queue(#[source] QueueError),
    /// A bug in carrying it out.
    #[error("command ended early")]
    Stopped(#[source] tokio::task::JoinError),
}

impl Downlink {
    /// Opens the memory of commands.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(
        store: Store,
        queue: Queue,
        properties: Option<Arc<dyn Properties>>,
        ledger: PathBuf,
        counters: Arc<Counters>,
    ) -> io::Result<Downlink> {
        Ok(Downlink { store, queue, properties, ledger: Mutex::new(Ledger::open(ledger)?), counters })
    }

    /// Deals with one command to its end: after this it may be acknowledged.
    ///
    /// # Errors
    /// Any [`DownlinkError`]; it must then not be acknowledged.
    pub async fn handle(self: Arc<Self>, bytes: Vec<u8>) -> Result<(), DownlinkError> {
        self.counters.command();
        let answer = match Command::decode(&bytes) {
            Ok(command) => self.once(command).await?,
            Err((id, failure)) => {
                tracing::warn!(id, error = %failure, "command refused");
                reply(id.as_deref(), None, Err(&failure))
            }
        };
        self.answer(&answer).await
    }

    /// Tells the cloud that commands were discarded unread.
    ///
    /// # Errors
    /// [`DownlinkError::Queue`].
    pub async fn discarded(&self, limit: usize) -> Result<(), DownlinkError> {
        let message =
            format!("a command of more than {limit} bytes was discarded unread, with all that waited with it");
        self.answer(&reply(None, None, Err(&Failure::new("TooLarge", "", message)))).await
    }

    async fn answer(&self, answer: &Value) -> Result<(), DownlinkError> {
        let (time_ms, payload) = (crate::clock::now_ms(), answer.to_string().into_bytes());
        let message = Message { time_ms, subject: SUBJECT.to_owned(), payload };
        self.queue.push(Stream::Replies, message).await.map(|_| ()).map_err(DownlinkError::Queue)
    }

    async fn once(self: &Arc<Self>, command: Command) -> Result<Value, DownlinkError> {
        let Command { id, action } = command;
        let word = action.word();
        let known = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).get(&id);
        let outcome = match known {
            Known::Done(answer) => {
                self.counters.repeated_command();
                return Ok(answer);
            }
            Known::Begun if !action.idempotent() => {
                let message = "the node stopped while it was writing: whether the device has the value is not known";
                Err(Failure::new("Interrupted", "", message))
            }
            Known::Begun => {
                let delete = matches!(action, Action::Delete { .. });
                match self.carry_out(action).await? {
                    // The first time it got so far.
                    Err(failure) if delete && failure.reason == "NotFound" => Ok(json!({ "already": "deleted" })),
                    outcome => outcome,
                }
            }
            Known::No => {
                self.record(move |ledger, id| ledger.begun(id), &id).await?;
                self.carry_out(action).await?
            }
        };
        if let Err(failure) = &outcome {
            tracing::warn!(id, command = word, error = %failure, "command failed");
        }
        let answer = reply(Some(&id), Some(word), outcome.as_ref());
        let done = answer.clone();
        self.record(move |ledger, id| ledger.done(id, &done), &id).await?;
        Ok(answer)
    }

    /// Writes to the ledger away from the reactor.
    async fn record(
        self: &Arc<Self>,
        write: impl FnOnce(&mut Ledger, &str) -> io::Result<()> + Send + 'static,
        id: &str,
    ) -> Result<(), DownlinkError> {
        let (this, id) = (Arc::clone(self), id.to_owned());
        let written = tokio::task::spawn_blocking(move || {
            write(&mut this.ledger.lock().unwrap_or_else(PoisonError::into_inner), &id)
        });
        written.await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(DownlinkError::Ledger)
    }

    /// What came of it; the outer error when it can only be tried again.
    async fn carry_out(&self, action: Action) -> Result<Result<Value, Failure>, DownlinkError> {
        match self.attempt(action).await {
            Ok(result) => Ok(Ok(result)),
            Err(Refused::Final(failure)) => Ok(Err(failure)),
            Err(Refused::Disk(error)) => Err(DownlinkError::Store(error)),
        }
    }

    async fn attempt(&self, action: Action) -> Result<Value, Refused> {
        match action {
            Action::Apply { object } => {
                let object = edge_model::check::wanted(object)
                    .map_err(|e| Failure::new("Invalid", &format!("object.{}", e.path), e.message))?;
                let (object, applied) = self.store.apply(object).await.map_err(store_failure)?;
                let applied = match applied {
                    Applied::Created => "created",
                    Applied::Configured => "configured",
                    Applied::Unchanged => "unchanged",
                };
                let metadata = &object.metadata;
                Ok(json!({
                    "kind": object.kind.name(),
                    "namespace": metadata.namespace,
                    "name": metadata.name,
                    "uid": metadata.uid,
                    "resourceVersion": metadata.resource_version,
                    "applied": applied,
                }))
            }
            Action::Delete { kind, namespace, name } => {
                let key = envelope::key(&kind, &namespace, &name)?;
                let object = self.store.delete(&key, None).await.map_err(store_failure)?;
                let Key { kind, namespace, name } = key;
                Ok(json!({
                    "kind": kind.name(),
                    "namespace": namespace,
                    "name": name,
                    "uid": object.metadata.uid,
                }))
            }
            Action::DeviceWrite { namespace, device, property, value } => {
                let key = envelope::key("device", &namespace, &device)?;
                let unavailable = || Failure::new("Unavailable", "", "this node has no field");
                let properties = self.properties.as_ref().ok_or_else(unavailable)?;
                match tokio::time::timeout(WRITE_TIMEOUT, properties.write(&key, &property, &value)).await {
                    Ok(written) => Ok(written.map_err(|e| backend_failure(&e))?),
                    Err(_) => Err(Failure::new("Timeout", "", format!("no answer within {WRITE_TIMEOUT:?}")).into()),
                }
            }
        }
    }
}

/// Why a command was not carried out.
enum Refused {
    /// And will not be.
    Final(Failure),
    /// The disk has refused; nothing has changed.
    Disk(StoreError),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused::Final(failure)
    }
}

fn store_failure(error: StoreError) -> Refused {
    let reason = match &error {
        StoreError::Disk(_) => return Refused::Disk(error),
        StoreError::NotFound(_) => "NotFound",
        StoreError::Conflict { .. } | StoreError::Exists(_) => "Conflict",
        _ => "Failed",
    };
    Refused::Final(Failure::new(reason, "", crate::supervisor::chain(&error)))
}

fn backend_failure(error: &BackendError) -> Failure {
    let (reason, path) = match error {
        BackendError::NotFound(_) => ("NotFound", ""),
        BackendError::Invalid(_) => ("Invalid", "value"),
        BackendError::Unavailable(_) => ("Unavailable", ""),
        BackendError::Timeout(_) => ("Timeout", ""),
        BackendError::Failed(_) => ("Failed", ""),
    };
    Failure::new(reason, path, error.to_string())
}
