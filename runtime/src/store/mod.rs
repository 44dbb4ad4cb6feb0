//! The object store: one place for everything that is wanted and everything that is known, whoever brought it.
//!
//! Reads come from memory; writes are on disk before they are acknowledged. A write goes through three stages:
//!
//! ```text
//!  create, replace, … ──► staged ──────► being written ──────► visible: get, list, watch; the caller's future resolves
//!                          (checked       (one commit for all
//!                           against the    that were staged)
//!                           newest state)        └─ failed ──► as if never staged; all its callers get the error
//! ```
//! A lazy status becomes visible at once, unless something is staged (versions become visible in order); it is written with
//! the next commit.

mod migrate;
mod open;
mod record;
mod snapshot;
#[cfg(test)]
mod tests;
mod tombstones;
mod watch;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use edge_model::{Key, Kind, Object};
use serde_json::Value;
use tokio::sync::{oneshot, watch as tokio_watch};

pub use migrate::SCHEMA;
pub use open::{OpenError, Report, Settings};
pub use watch::{Change, Filter, Watch, WatchEvent};

use crate::disk::Health;
use watch::History;
use writer::Signal;

/// How soon a status has to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns.
    Now,
    /// Whenever something else is written, at shutdown, or after some minutes: for values that change all the time
    /// (readings in a twin), which would wear out the flash.
    Lazy,
}

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The object is new.
    Created,
    /// The object changed.
    Configured,
    /// The object was already so: nothing was written.
    Unchanged,
}

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{0} not found")]
    NotFound(Key),
    /// Create of what is there.
    #[error("{0} already exists")]
    Exists(Key),
    /// Somebody else changed it first.
    #[error("{key} has version {found}, not {expected}: it was changed in the meantime")]
    Conflict {
        /// The object.
        key: Key,
        /// The version or uid the caller had seen.
        expected: String,
        /// The one the store has.
        found: String,
    },
    /// The disk refused; the store is as it was before.
    #[error("store: cannot write")]
    Disk(#[source] io::Error),
    /// The watcher asked for a version the store no longer remembers.
    #[error("version {0} is too old: list again")]
    Expired(u64),
}

/// What became of a staged change.
type Outcome = Result<(), Arc<io::Error>>;

/// A change that waits for its commit; `None` for a caller that only waits for what was staged before.
struct Staged {
    event: Option<WatchEvent>,
    done: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct State {
    /// What readers see.
    objects: BTreeMap<Key, Arc<Object>>,
    /// What staged changes make of it, with the version of the newest one; `None` for deleted.
    pending: BTreeMap<Key, (u64, Option<Arc<Object>>)>,
    staged: Vec<Staged>,
    /// Whether a commit is under way.
    writing: bool,
    /// Visible but not yet on disk.
    lazy: BTreeSet<Key>,
    lazy_since: Option<Instant>,
    history: History,
    /// The version of the newest visible change.
    version: u64,
    /// The version of the newest change, staged ones included.
    assigned: u64,
    /// Versions below this one can be used without touching the disk.
    covered: u64,
    /// Why the last commit that added something failed.
    failing: Option<String>,
    /// Since when a commit is under way.
    busy_since: Option<Instant>,
    /// No more writes are taken.
    closing: bool,
}

impl State {
    /// The newest state of an object, visible or not.
    fn newest(&self, key: &Key) -> Option<Arc<Object>> {
        match self.pending.get(key) {
            Some((_, staged)) => staged.clone(),
            None => self.objects.get(key).cloned(),
        }
    }

    /// Makes an event visible.
    fn publish(&mut self, event: WatchEvent) {
        let key = event.object.key();
        match event.change {
            Change::Deleted => self.objects.remove(&key),
            Change::Added | Change::Modified => self.objects.insert(key, Arc::clone(&event.object)),
        };
        self.version = event.version;
        self.history.push(event);
    }
}

/// A handle to the store; cheap to clone. [`Store::close`] before the last one is dropped writes what is lazy.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    changed: tokio_watch::Sender<u64>,
    /// The writer; none for a store in memory.
    writer: Option<Arc<Handle>>,
}

/// Ends the writer when the last handle is gone and nobody has closed the store.
struct Handle {
    signal: Arc<Signal>,
    state: Arc<Mutex<State>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.state).closing = true;
        self.signal.wake();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the inner functions return: the object, and what to wait for before it may be shown.
type Step = (Arc<Object>, Option<oneshot::Receiver<Outcome>>);

impl Store {
    /// A store in memory only.
    pub fn in_memory() -> Store {
        Store { state: Arc::default(), changed: tokio_watch::Sender::new(0), writer: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The object with this key.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.lock().objects.get(key).cloned()
    }

    /// All objects of a kind (in one namespace), in key order, with the version to watch from.
    pub fn list(&self, kind: Kind, namespace: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        let state = self.lock();
        let first = Key { kind, namespace: String::new(), name: String::new() };
        let objects = state
            .objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|(k, _)| k.kind == kind)
            .filter(|(k, _)| namespace.is_none_or(|n| n == k.namespace))
            .map(|(_, o)| Arc::clone(o))
            .collect();
        (objects, state.version)
    }

    /// Gives the change its version and stages it; in a store without a disk it is visible at once.
    fn stage(&self, state: &mut State, change: Change, mut object: Object) -> Step {
        state.assigned += 1;
        object.metadata.resource_version = state.assigned.to_string();
        let object = Arc::new(object);
        let event = WatchEvent { change, object: Arc::clone(&object), version: state.assigned };
        let Some(Handle { signal, .. }) = self.writer.as_deref() else {
            state.publish(event);
            self.changed.send_replace(state.version);
            return (object, None);
        };
        let newest = (change != Change::Deleted).then(|| Arc::clone(&object));
        state.pending.insert(object.key(), (state.assigned, newest));
        let (done, wait) = oneshot::channel();
        state.staged.push(Staged { event: Some(event), done });
        signal.wake();
        (object, Some(wait))
    }

    /// For a change that changes nothing: waits for the staged change it agrees with, if there is one.
    fn agree(&self, state: &mut State, object: Arc<Object>) -> Step {
        if !state.pending.contains_key(&object.key()) {
            return (object, None);
        }
        let (done, wait) = oneshot::channel();
        state.staged.push(Staged { event: None, done });
        if let Some(writer) = &self.writer {
            writer.signal.wake();
        }
        (object, Some(wait))
    }

    async fn settle(&self, step: Step) -> Result<Arc<Object>, StoreError> {
        let (object, wait) = step;
        let Some(wait) = wait else { return Ok(object) };
        match wait.await {
            Ok(Ok(())) => Ok(object),
            Ok(Err(shared)) => Err(StoreError::Disk(io::Error::new(shared.kind(), shared))),
            Err(_) => Err(StoreError::Disk(io::Error::other("store is closed"))),
        }
    }

    /// A new object. Sets uid, generation 1 and the creation time.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Disk`].
    pub async fn create(&self, object: Object) -> Result<Arc<Object>, StoreError> {
        let step = self.create_step(&mut self.lock(), object)?;
        self.settle(step).await
    }

    fn create_step(&self, state: &mut State, mut object: Object) -> Result<Step, StoreError> {
        let key = object.key();
        self.check_open(state)?;
        if state.newest(&key).is_some() {
            return Err(StoreError::Exists(key));
        }
        be_born(&mut object);
        Ok(self.stage(state, Change::Added, object))
    }

    /// Replaces metadata and spec of an existing object; its status stays. With a resource version in the metadata, only if
    /// that is still the current one. Writes nothing when nothing differs.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], [`StoreError::Disk`].
    pub async fn replace(&self, object: Object) -> Result<Arc<Object>, StoreError> {
        let step = self.replace_step(&mut self.lock(), object)?;
        self.settle(step).await
    }

    fn replace_step(&self, state: &mut State, mut object: Object) -> Result<Step, StoreError> {
        let key = object.key();
        self.check_open(state)?;
        let old = state.newest(&key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        let (expected, found) = (&object.metadata.resource_version, &old.metadata.resource_version);
        if !expected.is_empty() && expected != found {
            return Err(StoreError::Conflict { key, expected: expected.clone(), found: found.clone() });
        }
        object.set_status(old.status().clone());
        let differs = object.spec_differs(&old);
        object.metadata.uid.clone_from(&old.metadata.uid);
        object.metadata.creation_timestamp.clone_from(&old.metadata.creation_timestamp);
        object.metadata.resource_version.clone_from(&old.metadata.resource_version);
        object.metadata.generation = old.metadata.generation + u64::from(differs);
        if object == *old {
            return Ok(self.agree(state, old));
        }
        Ok(self.stage(state, Change::Modified, object))
    }

    /// Creates or replaces, unconditionally.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub async fn apply(&self, mut object: Object) -> Result<(Arc<Object>, Applied), StoreError> {
        object.metadata.resource_version.clear();
        let (step, applied) = {
            let mut state = self.lock();
            match state.newest(&object.key()) {
                None => (self.create_step(&mut state, object)?, Applied::Created),
                Some(old) => {
                    let step = self.replace_step(&mut state, object)?;
                    let same = step.0.metadata.resource_version == old.metadata.resource_version;
                    (step, if same { Applied::Unchanged } else { Applied::Configured })
                }
            }
        };
        Ok((self.settle(step).await?, applied))
    }

    /// Replaces the status of an object, if it still is the object with this uid. Writes nothing when it is the same.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] (also when the uid is another), [`StoreError::Disk`].
    pub async fn set_status(
        &self,
        key: &Key,
        uid: &str,
        status: Value,
        durability: Durability,
    ) -> Result<Arc<Object>, StoreError> {
        let step = {
            let mut state = self.lock();
            self.check_open(&state)?;
            let old = state.newest(key).filter(|o| o.metadata.uid == uid);
            let old = old.ok_or_else(|| StoreError::NotFound(key.clone()))?;
            if *old.status() == status {
                self.agree(&mut state, old)
            } else {
                let mut object = (*old).clone();
                object.set_status(status);
                match durability {
                    Durability::Lazy => self.stage_lazily(&mut state, Change::Modified, object),
                    Durability::Now => self.stage(&mut state, Change::Modified, object),
                }
            }
        };
        self.settle(step).await
    }

    /// Creates or replaces an object whose last minutes may be lost with the power, such as an event: it reaches the disk
    /// with whatever is written next.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub async fn apply_lazily(&self, mut object: Object) -> Result<Arc<Object>, StoreError> {
        let step = {
            let mut state = self.lock();
            self.check_open(&state)?;
            let change = match state.newest(&object.key()) {
                None => {
                    be_born(&mut object);
                    Change::Added
                }
                Some(old) => {
                    object.metadata.uid.clone_from(&old.metadata.uid);
                    object.metadata.creation_timestamp.clone_from(&old.metadata.creation_timestamp);
                    object.metadata.generation = old.metadata.generation + u64::from(object.spec_differs(&old));
                    Change::Modified
                }
            };
            self.stage_lazily(&mut state, change, object)
        };
        self.settle(step).await
    }

    fn stage_lazily(&self, state: &mut State, change: Change, mut object: Object) -> Step {
        let Some(Handle { signal, .. }) = self.writer.as_deref() else {
            return self.stage(state, Change::Modified, object);
        };
        // What is staged has lower versions and must become visible first; and a version must be covered before it is shown.
        if state.writing || !state.staged.is_empty() || state.assigned + 1 >= state.covered {
            return self.stage(state, change, object);
        }
        state.assigned += 1;
        object.metadata.resource_version = state.assigned.to_string();
        let object = Arc::new(object);
        let event = WatchEvent { change, object: Arc::clone(&object), version: state.assigned };
        state.publish(event);
        self.changed.send_replace(state.version);
        state.lazy.insert(object.key());
        if state.lazy_since.is_none() {
            state.lazy_since = Some(Instant::now());
            signal.wake();
        }
        (object, None)
    }

    /// Removes an object at once (there are no finalizers: reconcilers clean up after what is gone).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`] when `uid` is given and is not the object's, [`StoreError::Disk`].
    pub async fn delete(&self, key: &Key, uid: Option<&str>) -> Result<Arc<Object>, StoreError> {
        let step = {
            let mut state = self.lock();
            self.check_open(&state)?;
            let old = state.newest(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
            if let Some(expected) = uid.filter(|u| *u != old.metadata.uid) {
                let (expected, found) = (expected.to_owned(), old.metadata.uid.clone());
                return Err(StoreError::Conflict { key: key.clone(), expected, found });
            }
            self.stage(&mut state, Change::Deleted, (*old).clone())
        };
        self.settle(step).await
    }

    fn check_open(&self, state: &State) -> Result<(), StoreError> {
        if state.closing { Err(StoreError::Disk(io::Error::other("store is closed"))) } else { Ok(()) }
    }

    /// Whether its commits succeed and come back.
    pub fn health(&self) -> Health {
        let ended = self.writer.as_ref().is_some_and(|w| w.signal.has_ended());
        let state = self.lock();
        Health::of(state.failing.as_ref(), state.busy_since, ended && !state.closing)
    }

    /// Every change after version `from` (as a list gave it) that the filter lets through, none left out, in order.
    pub fn watch(&self, filter: Filter, from: u64) -> Watch {
        Watch::new(self, filter, from)
    }
}

/// What a new object gets from the store.
fn be_born(object: &mut Object) {
    object.metadata.uid = new_uid();
    object.metadata.generation = 1;
    object.metadata.creation_timestamp = edge_model::time::rfc3339(crate::clock::now_ms());
}

/// A random UUID (RFC 9562, version 4).
fn new_uid() -> String {
    let mut b = [0u8; 16];
    // Without randomness from the kernel the machine cannot do TLS either; zeros would only make uids collide.
    let _ = getrandom::fill(&mut b);
    let n = (u128::from_be_bytes(b) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        n >> 80 & 0xffff,
        n >> 64 & 0xffff,
        n >> 48 & 0xffff,
        n & 0xffff_ffff_ffff
    )
}
