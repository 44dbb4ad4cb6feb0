//! Watching: every change after a version, in order, none left out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use edge_model::{Kind, Object};
use tokio::sync::watch;

use super::{Store, StoreError};

/// How many changes a watcher may lag behind before it has to list again (as Kubernetes' "410 Gone").
const HISTORY: usize = 1024;

/// How many changes are kept for watchers that are not there now but come back with a version. Old versions of objects are
/// memory, so they are few.
const KEPT: usize = 32;

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

/// The last changes, and how far each watcher has come.
#[derive(Default)]
pub(super) struct History {
    events: VecDeque<WatchEvent>,
    /// The version of the newest change that left the history.
    forgotten: u64,
    positions: BTreeMap<u64, u64>,
    next_watcher: u64,
}

impl History {
    /// A history that begins after `version`.
    pub(super) fn after(version: u64) -> History {
        History { forgotten: version, ..History::default() }
    }

    pub(super) fn push(&mut self, event: WatchEvent) {
        self.events.push_back(event);
        let slowest = self.positions.values().min().copied().unwrap_or(u64::MAX);
        while self.events.len() > KEPT {
            match self.events.front() {
                Some(oldest) if oldest.version <= slowest || self.events.len() > HISTORY => {
                    self.forgotten = oldest.version;
                    self.events.pop_front();
                }
                _ => break,
            }
        }
    }

    fn watcher(&mut self, position: u64) -> u64 {
        self.next_watcher += 1;
        self.positions.insert(self.next_watcher, position);
        self.next_watcher
    }
}

/// A stream of changes.
pub struct Watch {
    store: Store,
    id: u64,
    filter: Filter,
    position: u64,
    changed: watch::Receiver<u64>,
}

impl Watch {
    pub(super) fn new(store: &Store, filter: Filter, from: u64) -> Watch {
        let id = store.lock().history.watcher(from);
        Watch { id, filter, position: from, changed: store.changed.subscribe(), store: store.clone() }
    }

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
        let mut state = self.store.lock();
        if self.position < state.history.forgotten {
            return Err(StoreError::Expired(self.position));
        }
        // Events lie in the order of their versions, so what was seen is skipped without looking at it.
        let events = &state.history.events;
        let unseen = events.partition_point(|e| e.version <= self.position);
        let found = events.range(unseen..).find(|e| self.filter.matches(&e.object)).cloned();
        self.position = found.as_ref().map_or(state.version, |e| e.version).max(self.position);
        state.history.positions.insert(self.id, self.position);
        Ok(found)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.store.lock().history.positions.remove(&self.id);
    }
}
