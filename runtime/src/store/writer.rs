//! The thread that writes the store: takes everything staged, commits it, makes it visible.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use edge_model::{Key, Object};
use tokio::sync::watch;

use super::open::Settings;
use super::snapshot::Snapshot;
use super::tombstones::{Tombstone, Tombstones};
use super::{Change, Staged, State, Store, lock, record, snapshot};
use crate::disk::{self, Ceiling, Database, DiskError, Purpose};

/// A file at least this large is worth a look whether it should be compacted.
const COMPACT_FROM: u64 = 16 << 20;
/// Compact when the file is this many times what is alive in it.
const COMPACT_RATIO: u64 = 8;
/// How many commits lie between two such looks.
const COMPACT_EVERY: u32 = 256;

/// Wakes the writer, and waits for its end.
#[derive(Default)]
pub(super) struct Signal {
    wake: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Signal {
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn has_ended(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    pub(super) fn start(&self, writer: Writer) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run())?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }
}

impl Store {
    /// Writes what is lazy and the snapshot, ends the writer and lets go of the database. Later writes fail; reads go on.
    /// May be called more than once.
    pub async fn close(&self) {
        let Some(signal) = self.writer.as_ref().map(|w| Arc::clone(&w.signal)) else { return };
        {
            self.lock().closing = true;
        }
        signal.wake();
        // The last commit and sled's lock take as long as they take: not on the reactor.
        let joined = tokio::task::spawn_blocking(move || {
            let thread = signal.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            thread.map(JoinHandle::join)
        });
        if matches!(joined.await, Ok(Some(Err(_))) | Err(_)) {
            tracing::error!("the store's writer has panicked");
        }
    }
}

/// What one turn of the loop has to do.
struct Turn {
    staged: Vec<Staged>,
    lazy: BTreeMap<Key, Arc<Object>>,
    snapshot: Option<Snapshot>,
    /// Whether something is to be written only to see if that works again.
    trial: bool,
    last: bool,
}

/// What the writer shares with the handles.
pub(super) struct Shared {
    pub state: Arc<Mutex<State>>,
    pub signal: Arc<Signal>,
    pub changed: watch::Sender<u64>,
}

pub(super) struct Writer {
    shared: Shared,
    database: Database,
    ceiling: Ceiling,
    snapshot_path: PathBuf,
    /// What was deleted since the snapshot.
    tombstones: Tombstones,
    settings: Settings,
    /// When the first change came that the snapshot lacks.
    unsnapped: Option<Instant>,
    /// When the last commit failed, while they do.
    failed: Option<Instant>,
    commits: u32,
}

impl Writer {
    pub(super) fn new(
        shared: Shared,
        database: Database,
        ceiling: Ceiling,
        snapshot_path: PathBuf,
        settings: Settings,
    ) -> Writer {
        let tombstones = Tombstones::at(snapshot_path.with_extension("deleted"));
        Writer {
            shared,
            database,
            ceiling,
            snapshot_path,
            tombstones,
            settings,
            unsnapped: None,
            failed: None,
            commits: 0,
        }
    }

    fn run(mut self) {
        loop {
            let turn = self.wait();
            let last = turn.last;
            if !turn.staged.is_empty() || !turn.lazy.is_empty() || turn.trial {
                self.write(turn.staged, turn.lazy, turn.trial);
            }
            if let Some(snapshot) = turn.snapshot {
                self.write_snapshot(&snapshot);
            }
            if last {
                break;
            }
        }
        let next = lock(&self.shared.state).assigned + 1;
        if let Err(error) = self.ceiling.set(next) {
            tracing::warn!(%error, "the store's version could not be written; it will skip some numbers");
        }
        self.database.close();
        let mut state = lock(&self.shared.state);
        // Nobody answers these any more; dropping them tells their callers.
        state.staged.clear();
    }

    /// Sleeps until there is something to do. With nothing staged, lazy or unsnapped it sleeps without end.
    fn wait(&self) -> Turn {
        let mut state = lock(&self.shared.state);
        loop {
            let lazy_ms = Duration::from_millis(self.settings.lazy_ms);
            let snapshot_ms = Duration::from_millis(self.settings.snapshot_ms);
            let now = Instant::now();
            let lazy_at = state.lazy_since.map(|t| t + lazy_ms);
            let snapshot_at = self.unsnapped.map(|t| t + snapshot_ms);
            let trial_at = self.failed.map(|t| t + disk::TRY_AGAIN);
            let closing = state.closing;
            let trial = trial_at.is_some_and(|t| t <= now) && !closing;
            let lazy_due = lazy_at.is_some_and(|t| t <= now) || (closing && !state.lazy.is_empty());
            let many = self.unsnapped.is_some() && self.tombstones.are_many();
            let snapshot_due = many || snapshot_at.is_some_and(|t| t <= now) || (closing && self.unsnapped.is_some());
            if closing && state.staged.is_empty() && !lazy_due {
                return Turn {
                    staged: Vec::new(),
                    lazy: BTreeMap::new(),
                    snapshot: Self::snap(&state, snapshot_due),
                    trial: false,
                    last: true,
                };
            }
            if !state.staged.is_empty() || lazy_due || snapshot_due || trial {
                let snapshot = Self::snap(&state, snapshot_due && !closing);
                return Turn { trial, ..Self::take(&mut state, snapshot) };
            }
            let wake = &self.shared.signal.wake;
            let next = [lazy_at, snapshot_at, trial_at.filter(|_| !closing)].into_iter().flatten().min();
            state = match next {
                None => wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => wait_until(wake, state, at),
            };
        }
    }

    fn snap(state: &State, due: bool) -> Option<Snapshot> {
        due.then(|| Snapshot { version: state.version, objects: state.objects.values().map(Arc::clone).collect() })
    }

    fn take(state: &mut State, snapshot: Option<Snapshot>) -> Turn {
        let staged = std::mem::take(&mut state.staged);
        let keys = std::mem::take(&mut state.lazy);
        state.lazy_since = None;
        state.writing = !staged.is_empty() || !keys.is_empty();
        let lazy = keys.into_iter().filter_map(|k| state.objects.get(&k).map(|o| (k, Arc::clone(o)))).collect();
        if state.writing {
            state.busy_since = Some(Instant::now());
        }
        Turn { staged, lazy, snapshot, trial: false, last: false }
    }

    fn write(&mut self, staged: Vec<Staged>, lazy: BTreeMap<Key, Arc<Object>>, trial: bool) {
        match self.commit(&staged, &lazy, trial) {
            Ok(purpose) => self.publish(staged, purpose),
            Err(error) => self.fail(staged, lazy.into_keys().collect(), &Arc::new(error.into())),
        }
        self.compact_sometimes();
    }

    fn commit(
        &mut self,
        staged: &[Staged],
        lazy: &BTreeMap<Key, Arc<Object>>,
        trial: bool,
    ) -> Result<Purpose, DiskError> {
        let newest = staged.iter().filter_map(|s| Some(s.event.as_ref()?.version)).max().unwrap_or(0);
        let covered = self.ceiling.cover(newest.saturating_add(1));
        covered.map_err(|source| DiskError::Io { what: "write", path: self.database.dir().join("version"), source })?;
        let put = |object: &Object| disk::Change::Put(record::key(&object.key()), record::encode(object));
        let mut changes: Vec<disk::Change> = lazy.values().map(|o| put(o)).collect();
        for event in staged.iter().filter_map(|s| s.event.as_ref()) {
            changes.push(match event.change {
                Change::Deleted => disk::Change::Delete(record::key(&event.object.key())),
                Change::Added | Change::Modified => put(&event.object),
            });
        }
        let newest_lazy = lazy.values().map(|o| o.metadata.version()).max().unwrap_or(0);
        let only_deletes = lazy.is_empty() && staged.iter().flat_map(|s| &s.event).all(|e| e.change == Change::Deleted);
        let purpose = if only_deletes && (!trial || !changes.is_empty()) { Purpose::Tidy } else { Purpose::Add };
        if trial || !changes.is_empty() {
            let visible = lock(&self.shared.state).version;
            changes.push(record::version(newest.max(newest_lazy).max(visible)));
            self.database.commit(purpose, &changes)?;
            self.note_deletions(staged);
        }
        Ok(purpose)
    }

    /// Sees to it that no snapshot brings back what has just been deleted.
    fn note_deletions(&mut self, staged: &[Staged]) {
        let events = staged.iter().flat_map(|s| &s.event);
        let gone = events.filter(|e| e.change == Change::Deleted && snapshot::keeps(e.object.kind));
        let gone: Vec<Tombstone> = gone.map(|e| (e.version, e.object.key().to_string())).collect();
        if gone.is_empty() {
            return;
        }
        if let Err(error) = self.tombstones.add(&gone) {
            // Deleting has to work on a full disk. Without a snapshot nothing comes back; there will be another.
            tracing::warn!(%error, "deletions cannot be noted: the snapshot of the objects goes instead");
            if let Err(error) = std::fs::remove_file(&self.snapshot_path) {
                tracing::warn!(%error, "the snapshot of the objects cannot be removed");
            }
        }
    }

    fn publish(&mut self, staged: Vec<Staged>, purpose: Purpose) {
        let mut state = lock(&self.shared.state);
        state.writing = false;
        state.busy_since = None;
        if purpose == Purpose::Add {
            state.failing = None;
            self.failed = None;
        } else if state.failing.is_some() {
            self.failed = Some(Instant::now());
        }
        state.covered = self.ceiling.get();
        let mut waiting = Vec::with_capacity(staged.len());
        for Staged { event, done } in staged {
            if let Some(event) = event {
                if snapshot::keeps(event.object.kind) {
                    self.unsnapped.get_or_insert_with(Instant::now);
                }
                let key = event.object.key();
                // A later change of the same object may be staged already; that one stays the newest.
                let mine = state.pending.get(&key).is_some_and(|(version, _)| *version == event.version);
                if mine {
                    state.pending.remove(&key);
                }
                state.publish(event);
            }
            waiting.push(done);
        }
        self.shared.changed.send_replace(state.version);
        drop(state);
        for done in waiting {
            // A caller that has gone away does not want to know.
            let _ = done.send(Ok(()));
        }
    }

    /// Undoes everything that is not on disk: also what was staged meanwhile, since it was checked against what has failed.
    fn fail(&mut self, staged: Vec<Staged>, lazy: BTreeSet<Key>, error: &Arc<io::Error>) {
        let mut state = lock(&self.shared.state);
        state.writing = false;
        state.covered = self.ceiling.get();
        state.pending.clear();
        if !lazy.is_empty() && !state.closing {
            state.lazy.extend(lazy);
            state.lazy_since = Some(Instant::now());
        }
        let later = std::mem::take(&mut state.staged);
        let first = state.failing.is_none();
        state.failing = Some(crate::supervisor::chain(&**error));
        state.busy_since = None;
        self.failed = Some(Instant::now());
        drop(state);
        if first {
            tracing::error!(%error, "the store cannot write");
        }
        for Staged { done, .. } in staged.into_iter().chain(later) {
            let _ = done.send(Err(Arc::clone(error)));
        }
    }

    fn write_snapshot(&mut self, snapshot: &Snapshot) {
        // After an error the next change tries again; there is no hurry.
        self.unsnapped = None;
        let written = snapshot::write(&self.snapshot_path, snapshot).and_then(|()| self.tombstones.clear());
        if let Err(error) = written {
            tracing::warn!(path = %self.snapshot_path.display(), %error, "cannot write the snapshot of the objects");
        }
    }

    fn compact_sometimes(&mut self) {
        self.commits += 1;
        if !self.commits.is_multiple_of(COMPACT_EVERY) || self.database.file_bytes() < COMPACT_FROM {
            return;
        }
        if let Err(error) = self.database.compact_if(COMPACT_RATIO) {
            tracing::warn!(%error, "the store could not be compacted");
        }
    }
}

fn wait_until<'a>(wake: &Condvar, state: MutexGuard<'a, State>, at: Instant) -> MutexGuard<'a, State> {
    let left = at.saturating_duration_since(Instant::now());
    wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
}
