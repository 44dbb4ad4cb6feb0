//! Updates of this executable: signed artefacts, two slots, and a gate that only a healthy version gets through.
//!
//! ```text
//!  artefact ── signature, target, version ──► free slot ──► state: trial ──► restart
//!                                                                             │ launch: counts the start, exec
//!             committed ◄── gate: well for a while ── daemon of the slot ◄────┘
//!                               └─ not ──► state: the version before ──► restart
//! ```
//!
//! Containers outlive all of it, as they do any restart. `docs/UPDATE.md` is for users.

pub mod artefact;
pub mod gate;
pub mod kept;
pub mod keys;
pub mod launch;
pub mod manifest;
pub mod slots;
pub mod stage;
pub mod version;

use std::path::PathBuf;
use std::sync::Arc;

use edge_model::event::Reference;
use edge_model::{Key, Kind};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use slots::{Folder, State};
pub use version::Version;

use crate::api::backend::{BackendError, Reply, Updates};
use crate::events::Recorder;
use crate::store::Store;
use crate::supervisor::{State as UnitState, Units};

/// Whether the node is ready, and why not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The running node as the update sees it; cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Parts>);

/// What a handle is made of.
pub struct Parts {
    /// The node's name.
    pub node: String,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Cancelled to start again in the same process.
    pub restart: CancellationToken,
    /// The units.
    pub units: Units,
    /// Whether the node is ready.
    pub ready: Option<Ready>,
    /// The parts that gave no sign of life at the last round.
    pub silent: watch::Receiver<Vec<&'static str>>,
    /// Records events.
    pub recorder: Recorder,
    /// The objects, for the node's own.
    pub store: Store,
}

impl Handle {
    /// A handle.
    pub fn new(parts: Parts) -> Handle {
        Handle(Arc::new(parts))
    }

    fn folder(&self) -> Folder {
        Folder::below(&self.0.state_dir)
    }

    fn sight(&self, excused: &[String]) -> gate::Sight {
        let ready = self.0.ready.as_ref().map_or(Ok(()), |ready| ready());
        gate::sight(&self.0.units.all(), excused, ready, &self.0.silent.borrow())
    }

    fn restart_now(&self) {
        self.0.restart.cancel();
    }

    fn event(&self, reason: &'static str, warning: bool, message: String) {
        let object = self.0.store.get(&Key::new(Kind::Node, "", &self.0.node));
        let about = object.map_or_else(
            || Reference {
                api_version: Kind::Node.api_version().to_owned(),
                kind: Kind::Node.name().to_owned(),
                name: self.0.node.clone(),
                ..Reference::default()
            },
            |object| Reference::to(&object),
        );
        let record = if warning { Recorder::warning } else { Recorder::normal };
        record(&self.0.recorder, about, reason, message);
    }
}

/// What `update status` shows of a state: `null` when nothing was ever installed.
pub fn document(state: Option<&State>) -> Value {
    state.and_then(|state| serde_json::to_value(state).ok()).unwrap_or(Value::Null)
}

impl Updates for Handle {
    fn status(&self) -> Reply<'_, Value> {
        Box::pin(async move {
            let folder = self.folder();
            let state = tokio::task::spawn_blocking(move || folder.read()).await;
            let state = state.map_err(|e| BackendError::Failed(e.to_string()))?;
            let (state, trouble) = match state {
                Ok(state) => (state, None),
                Err(error) => (None, Some(error.to_string())),
            };
            let slot = launch::own_slot();
            let version = state.as_ref().map_or_else(Version::own, |state| match slot {
                slots::Slot::Factory => Version::own(),
                slot => state.version(slot),
            });
            let unwell = match self.sight(&[]) {
                gate::Sight::Well => None,
                gate::Sight::Unwell(why) | gate::Sight::Lost(why) => Some(why),
            };
            Ok(json!({
                "stateDir": self.0.state_dir,
                "running": {"slot": slot, "version": version, "healthy": unwell.is_none(), "why": unwell},
                "trouble": trouble,
                "state": document(state.as_ref()),
            }))
        })
    }

    fn restart(&self) -> Reply<'_, ()> {
        Box::pin(async move {
            let unwell = |u: &crate::supervisor::UnitStatus| {
                !matches!(u.state, UnitState::Running | UnitState::Stopped | UnitState::Starting)
            };
            let excused: Vec<String> =
                self.0.units.all().iter().filter(|u| unwell(u)).map(|u| u.name.to_owned()).collect();
            let folder = self.folder();
            let noted = tokio::task::spawn_blocking(move || {
                folder.change(|state| {
                    (state.phase == slots::Phase::Trial && !excused.is_empty()).then(|| state.excused = excused)
                })
            });
            noted
                .await
                .map_err(|e| BackendError::Failed(e.to_string()))?
                .map_err(|e| BackendError::Failed(crate::supervisor::chain(&e)))?;
            self.restart_now();
            Ok(())
        })
    }
}
