//! The object store: one place for everything that is wanted and everything that is known, whoever brought it.
//!
//! Reads come from memory; writes are on disk before they are acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_model::{Key, Kind, Object};
use serde_json::Value;
use tokio::sync::watch;

/// How many changes a watcher may lag behind before it has to list again (as Kubernetes' "410 Gone").
const HISTORY: usize = 1024;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is another version.
    Modified,
    /// It is gone; the object is its last version.
    Deleted,
}

/// One change, as a watcher sees it.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// What happened.
    pub change: Change,
    /// The object after the change (or its last version).
    pub object: Arc<Object>,
    /// The store's version of this change.
    pub version: u64,
}

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
    /// The disk refused.
    #[error("store: cannot write")]
    Disk(#[source] std::io::Error),
    /// The watcher asked for a version the store no longer remembers.
    #[error("version {0} is too old: list again")]
    Expired(u64),
}

/// Which objects somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this name.
    pub name: Option<String>,
}

impl Filter {
    /// All objects of a kind.
    pub fn kind(kind: Kind) -> Filter {
        Filter { kind: Some(kind), ..Filter::default() }
    }

    fn matches(&self, object: &Object) -> bool {
        self.kind.is_none_or(|k| k == object.kind)
            && self.namespace.as_ref().is_none_or(|n| *n == object.metadata.namespace)
            && self.name.as_ref().is_none_or(|n| *n == object.metadata.name)
    }
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<WatchEvent>,
    version: u64,
}

/// A handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Store {
    /// A store in memory only.
    pub fn in_memory() -> Store {
        Store { state: Arc::default(), changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn commit(&self, state: &mut State, change: Change, mut object: Object) -> Arc<Object> {
        state.version += 1;
        object.metadata.resource_version = state.version.to_string();
        let object = Arc::new(object);
        match change {
            Change::Deleted => state.objects.remove(&object.key()),
            Change::Added | Change::Modified => state.objects.insert(object.key(), Arc::clone(&object)),
        };
        if state.history.len() == HISTORY {
            state.history.pop_front();
        }
        state.history.push_back(WatchEvent { change, object: Arc::clone(&object), version: state.version });
        self.changed.send_replace(state.version);
        object
    }

    /// A new object. Sets uid, generation 1 and the creation time.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Disk`].
    pub async fn create(&self, mut object: Object) -> Result<Arc<Object>, StoreError> {
        let mut state = self.lock();
        let key = object.key();
        if state.objects.contains_key(&key) {
            return Err(StoreError::Exists(key));
        }
        object.metadata.uid = new_uid();
        object.metadata.generation = 1;
        object.metadata.creation_timestamp = edge_model::time::rfc3339(crate::clock::now_ms());
        Ok(self.commit(&mut state, Change::Added, object))
    }

    /// Replaces metadata and spec of an existing object; its status stays. With a resource version in the metadata, only if
    /// that is still the current one. Writes nothing when nothing differs.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], [`StoreError::Disk`].
    pub async fn replace(&self, mut object: Object) -> Result<Arc<Object>, StoreError> {
        let mut state = self.lock();
        let key = object.key();
        let old = state.objects.get(&key).cloned().ok_or_else(|| StoreError::NotFound(key.clone()))?;
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
            return Ok(old);
        }
        Ok(self.commit(&mut state, Change::Modified, object))
    }

    /// Creates or replaces, unconditionally.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub async fn apply(&self, mut object: Object) -> Result<(Arc<Object>, Applied), StoreError> {
        object.metadata.resource_version.clear();
        match self.get(&object.key()) {
            None => Ok((self.create(object).await?, Applied::Created)),
            Some(old) => {
                let new = self.replace(object).await?;
                let same = new.metadata.resource_version == old.metadata.resource_version;
                Ok((new, if same { Applied::Unchanged } else { Applied::Configured }))
            }
        }
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
        let _ = durability;
        let mut state = self.lock();
        let old = state.objects.get(key).filter(|o| o.metadata.uid == uid).cloned();
        let old = old.ok_or_else(|| StoreError::NotFound(key.clone()))?;
        if *old.status() == status {
            return Ok(old);
        }
        let mut object = (*old).clone();
        object.set_status(status);
        Ok(self.commit(&mut state, Change::Modified, object))
    }

    /// Removes an object at once (there are no finalizers: reconcilers clean up after what is gone).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`] when `uid` is given and is not the object's, [`StoreError::Disk`].
    pub async fn delete(&self, key: &Key, uid: Option<&str>) -> Result<Arc<Object>, StoreError> {
        let mut state = self.lock();
        let old = state.objects.get(key).cloned().ok_or_else(|| StoreError::NotFound(key.clone()))?;
        if let Some(expected) = uid.filter(|u| *u != old.metadata.uid) {
            let (expected, found) = (expected.to_owned(), old.metadata.uid.clone());
            return Err(StoreError::Conflict { key: key.clone(), expected, found });
        }
        Ok(self.commit(&mut state, Change::Deleted, (*old).clone()))
    }

    /// Every change after version `from` (as a list gave it) that the filter lets through, none left out, in order.
    pub fn watch(&self, filter: Filter, from: u64) -> Watch {
        Watch { store: self.clone(), filter, position: from, changed: self.changed.subscribe() }
    }
}

/// A stream of changes.
pub struct Watch {
    store: Store,
    filter: Filter,
    position: u64,
    changed: watch::Receiver<u64>,
}

impl Watch {
    /// The next change. Cancel safe.
    ///
    /// # Errors
    /// [`StoreError::Expired`] when the watcher fell too far behind: list again and watch from there.
    pub async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            self.changed.mark_unchanged();
            if let Some(event) = self.step()? {
                return Ok(event);
            }
            // The sender lives in `self.store`, so it cannot be gone.
            let _ = self.changed.changed().await;
        }
    }

    fn step(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        let state = self.store.lock();
        let oldest = state.history.front().map_or(state.version + 1, |e| e.version);
        if self.position + 1 < oldest {
            return Err(StoreError::Expired(self.position));
        }
        let found = state.history.iter().find(|e| e.version > self.position && self.filter.matches(&e.object)).cloned();
        self.position = found.as_ref().map_or(state.version, |e| e.version);
        Ok(found)
    }
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
