//! Opening the store: migration, loading, and coming back from the snapshot when the database is gone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use edge_model::{Key, Object};
use tokio::sync::watch as tokio_watch;

use super::snapshot::Snapshot;
use super::tombstones::{self, Tombstone};
use super::watch::History;
use super::writer::{Shared, Signal, Writer};
use super::{Handle, State, Store, migrate, record, snapshot};
use crate::disk::{self, Ceiling, Change, Database, DiskError, Opened, Purpose};

/// How the store uses disk and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The database.
    pub disk: disk::Settings,
    /// Milliseconds after which a lazy status is written even if nothing else is.
    pub lazy_ms: u64,
    /// Milliseconds from a change of what is wanted to the next snapshot of the objects.
    pub snapshot_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { disk: disk::Settings::default(), lazy_ms: 10 * 60_000, snapshot_ms: 5 * 60_000 }
    }
}

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A later release has written it.
    #[error("the store has schema {found}, this release knows up to {known}: install the later release again")]
    Newer {
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The thread that writes did not start.
    #[error("store: cannot start its thread")]
    Thread(#[source] io::Error),
}

/// What was found at open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The database: new, there, or set aside.
    pub opened: Opened,
    /// Objects now in the store.
    pub objects: usize,
    /// How many of them came from the snapshot because the database was gone or older.
    pub restored: usize,
    /// How many records could not be read and were left alone.
    pub unreadable: usize,
    /// The schema version it was migrated from.
    pub migrated_from: Option<u32>,
}

impl Store {
    /// Opens the store in `dir`. Blocks for as long as the disk takes; not for the reactor.
    ///
    /// # Errors
    /// [`OpenError`]. A damaged database is no error: it is set aside and the report says so.
    pub fn open(dir: &Path, settings: Settings) -> Result<(Store, Report), OpenError> {
        let (mut database, opened) = Database::open(dir, settings.disk.clone())?;
        let migrated_from = migrate::migrate(&mut database)?;
        let (mut objects, unreadable) = load(&mut database)?;
        let ceiling = Ceiling::open(dir.join("version"));
        let snapshot_path = dir.join("objects.snapshot");
        let snapshot = snapshot::read(&snapshot_path).unwrap_or_else(|error| {
            tracing::error!(path = %snapshot_path.display(), %error, "snapshot of the objects cannot be read");
            Snapshot::default()
        });
        let committed = committed_version(&mut database)?;
        let mut restored = 0;
        // A database that is older than the snapshot was set aside, or sled has quietly lost the end of it.
        if committed < snapshot.version {
            restored = snapshot.objects.len();
            objects = restore(&objects, &snapshot, &mut database)?;
        }
        let deleted = tombstones::read(&snapshot_path.with_extension("deleted")).unwrap_or_else(|error| {
            tracing::error!(%error, "deletions since the snapshot cannot be read");
            Vec::new()
        });
        forget(&mut objects, &deleted, committed.max(snapshot.version), &mut database)?;
        let highest = objects.values().map(|o| o.metadata.version()).max().unwrap_or(0);
        let version =
            [highest, committed, snapshot.version, ceiling.get().saturating_sub(1)].into_iter().max().unwrap_or(0);
        let report = Report { opened, objects: objects.len(), restored, unreadable, migrated_from };
        let state = State {
            objects,
            history: History::after(version),
            version,
            assigned: version,
            covered: ceiling.get(),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let signal = Arc::new(Signal::default());
        let changed = tokio_watch::Sender::new(version);
        let shared = Shared { state: Arc::clone(&state), signal: Arc::clone(&signal), changed: changed.clone() };
        let writer = Writer::new(shared, database, ceiling, snapshot_path, settings);
        signal.start(writer).map_err(OpenError::Thread)?;
        let writer = Some(Arc::new(Handle { signal, state: Arc::clone(&state) }));
        let store = Store { state, changed, writer };
        Ok((store, report))
    }
}

fn load(database: &mut Database) -> Result<(BTreeMap<Key, Arc<Object>>, usize), DiskError> {
    let (mut objects, mut unreadable) = (BTreeMap::new(), 0);
    database.scan(record::OBJECTS, |key, value| {
        match record::decode(&value) {
            Ok(object) => {
                objects.insert(object.key(), Arc::new(object));
            }
            Err(error) => {
                unreadable += 1;
                let key = String::from_utf8_lossy(key);
                tracing::error!(%key, %error, "object cannot be read: left out");
            }
        }
        true
    })?;
    Ok((objects, unreadable))
}

/// The version of the newest change the database knows.
fn committed_version(database: &mut Database) -> Result<u64, DiskError> {
    let text = database.get(record::VERSION)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).parse().unwrap_or(0))
}

/// Takes away what was deleted after `known`, the version of what the objects were read from.
fn forget(
    objects: &mut BTreeMap<Key, Arc<Object>>,
    deleted: &[Tombstone],
    known: u64,
    database: &mut Database,
) -> Result<(), DiskError> {
    let is_gone = |key: &Key, object: &Object| {
        let text = key.to_string();
        deleted.iter().any(|(version, k)| *version > known && *version > object.metadata.version() && *k == text)
    };
    if deleted.iter().all(|(version, _)| *version <= known) {
        return Ok(());
    }
    let gone: Vec<Key> = objects.iter().filter(|(k, o)| is_gone(k, o)).map(|(k, _)| k.clone()).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let changes: Vec<Change> = gone.iter().map(|k| Change::Delete(record::key(k))).collect();
    database.commit(Purpose::Tidy, &changes)?;
    for key in gone {
        objects.remove(&key);
    }
    Ok(())
}

/// Makes the database what the snapshot is.
fn restore(
    found: &BTreeMap<Key, Arc<Object>>,
    snapshot: &Snapshot,
    database: &mut Database,
) -> Result<BTreeMap<Key, Arc<Object>>, DiskError> {
    let objects: BTreeMap<_, _> = snapshot.objects.iter().map(|o| (o.key(), Arc::clone(o))).collect();
    let mut changes: Vec<Change> =
        objects.values().map(|o| Change::Put(record::key(&o.key()), record::encode(o))).collect();
    changes.extend(found.keys().filter(|k| !objects.contains_key(k)).map(|k| Change::Delete(record::key(k))));
    changes.push(record::version(snapshot.version));
    database.commit(Purpose::Add, &changes)?;
    tracing::warn!(objects = objects.len(), "objects brought back from the snapshot");
    Ok(objects)
}
