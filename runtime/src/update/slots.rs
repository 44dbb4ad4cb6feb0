//! Which executable is in use: two slots beside the one of the image, and one small file that says which.
//!
//! ```text
//!              apply                 healthy for a while
//!  committed ─────────► trial ─────────────────────────────► committed
//!      ▲                  │ started too often, deadline passed, damaged, rolled back by hand
//!      └──────────────────┘ the version before is in use again
//! ```
//!
//! All of it is a value; [`Folder`] reads it and replaces it as a whole, so a power cut leaves the old one or the new one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::version::Version;
use crate::disk::write_atomically;

/// The longest state file read, in bytes.
const LONGEST: u64 = 64 << 10;
/// How long somebody else may take to replace the state. It is a matter of milliseconds; a start must not wait for ever.
const PATIENCE: Duration = Duration::from_secs(3);
/// The format of the state file.
const FORMAT: u32 = 1;

/// A place an executable can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The image's own, which is always there.
    Factory,
    /// The first slot.
    A,
    /// The second slot.
    B,
}

impl Slot {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Slot::Factory => "factory",
            Slot::A => "a",
            Slot::B => "b",
        }
    }

    /// The slot of this name.
    pub fn named(name: &str) -> Option<Slot> {
        [Slot::Factory, Slot::A, Slot::B].into_iter().find(|slot| slot.name() == name)
    }
}

/// Whether the version in use has proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not yet: it is given so many starts.
    Trial,
    /// It has, or it is the one that was in use before.
    Committed,
}

/// What lies in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// Its version.
    pub version: Version,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// The schema of the object store it writes.
    pub store_schema: u32,
    /// When it was installed, UTC milliseconds.
    pub installed_ms: i64,
}

/// How the last change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The new version proved itself.
    Committed,
    /// The version before is in use again.
    RolledBack,
    /// The image has brought a later version than the slots hold.
    Superseded,
}

/// What became of the last change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// The version that was in use.
    pub from: Version,
    /// The version that is.
    pub to: Version,
    /// Why.
    pub why: String,
    /// When, UTC milliseconds.
    pub at_ms: i64,
    /// Whether an event has told it.
    pub told: bool,
}

/// The state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    format: u32,
    /// What is started.
    pub current: Slot,
    /// What is started when that is not well.
    pub previous: Slot,
    /// Whether it has proved itself.
    pub phase: Phase,
    /// How often it may still be started before it has.
    pub tries_left: u32,
    /// Seconds after which a start that has not come to prove itself is ended from outside.
    pub deadline_seconds: u32,
    /// The image's own version when this was decided.
    pub factory: Version,
    /// What lies in the first slot.
    pub a: Option<Installed>,
    /// What lies in the second slot.
    pub b: Option<Installed>,
    /// Units that were not well before: the new version is not held responsible for them.
    #[serde(default)]
    pub excused: Vec<String>,
    /// Whether a copy of the object store is kept, because the new version writes another schema.
    #[serde(default)]
    pub store_kept: bool,
    /// Whether that copy has to be put back before anything starts.
    #[serde(default)]
    pub store_restore: bool,
    /// What became of the last change.
    #[serde(default)]
    pub last: Option<Outcome>,
}

impl State {
    /// Nothing but the image's own version.
    pub fn new(factory: Version) -> State {
        State {
            format: FORMAT,
            current: Slot::Factory,
            previous: Slot::Factory,
            phase: Phase::Committed,
            tries_left: 0,
            deadline_seconds: 0,
            factory,
            a: None,
            b: None,
            excused: Vec::new(),
            store_kept: false,
            store_restore: false,
            last: None,
        }
    }

    /// What lies in a slot; nothing is known of the image's own but its version.
    pub fn installed(&self, slot: Slot) -> Option<&Installed> {
        match slot {
            Slot::Factory => None,
            Slot::A => self.a.as_ref(),
            Slot::B => self.b.as_ref(),
        }
    }

    /// Notes what lies in a slot.
    pub fn put(&mut self, slot: Slot, installed: Option<Installed>) {
        match slot {
            Slot::Factory => {}
            Slot::A => self.a = installed,
            Slot::B => self.b = installed,
        }
    }

    /// The version in a slot.
    pub fn version(&self, slot: Slot) -> Version {
        self.installed(slot).map_or_else(|| self.factory.clone(), |installed| installed.version.clone())
    }

    /// The schema of the object store that a slot's version writes; `factory` is the image's own.
    pub fn schema(&self, slot: Slot, factory: u32) -> u32 {
        self.installed(slot).map_or(factory, |installed| installed.store_schema)
    }

    /// The slot that a new version may be written to: not the one in use.
    pub fn free(&self) -> Slot {
        if self.current == Slot::A { Slot::B } else { Slot::A }
    }

    /// Takes a new version into use, on trial. Not while another one is: there is only one way back.
    pub fn try_out(&mut self, slot: Slot, installed: Installed, tries: u32, deadline_seconds: u32) {
        self.put(slot, Some(installed));
        self.previous = self.current;
        self.current = slot;
        self.phase = Phase::Trial;
        self.tries_left = tries;
        self.deadline_seconds = deadline_seconds;
        self.last = None;
    }

    /// The version in use has proved itself.
    pub fn commit(&mut self, why: &str, now_ms: i64) {
        let (from, to) = (self.version(self.previous), self.version(self.current));
        self.phase = Phase::Committed;
        self.tries_left = 0;
        self.excused.clear();
        self.store_kept = false;
        self.last =
            Some(Outcome { ending: Ending::Committed, from, to, why: why.to_owned(), at_ms: now_ms, told: false });
    }

    /// The version before is in use again.
    pub fn roll_back(&mut self, why: &str, now_ms: i64) {
        let (from, to) = (self.version(self.current), self.version(self.previous));
        // What was left because it was not well is nothing to come back to; by hand, one may change one's mind.
        let trial = self.phase == Phase::Trial;
        let left = std::mem::replace(&mut self.current, self.previous);
        self.previous = if trial { Slot::Factory } else { left };
        self.phase = Phase::Committed;
        self.tries_left = 0;
        self.excused.clear();
        self.store_restore |= std::mem::take(&mut self.store_kept);
        self.last =
            Some(Outcome { ending: Ending::RolledBack, from, to, why: why.to_owned(), at_ms: now_ms, told: false });
    }
}

/// Why the state cannot be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is there makes no sense.
    #[error("{path} is damaged: {why}; the image's own version is started until an update is applied again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Somebody else does not let go.
    #[error("{0} is held by another process")]
    Busy(PathBuf),
}

/// `<state-dir>/slots`: the executables and the state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder below a state directory.
    pub fn below(state_dir: &Path) -> Folder {
        Folder { path: state_dir.join("slots") }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The executable of a slot; none for the image's own.
    pub fn executable(&self, slot: Slot) -> Option<PathBuf> {
        (slot != Slot::Factory).then(|| self.path.join(slot.name()).join("edge-runtime"))
    }

    /// Where the copy of the object store is kept.
    pub fn kept_store(&self) -> PathBuf {
        self.path.join("store-before")
    }

    /// The state; `None` when nothing was ever installed.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::Damaged`].
    pub fn read(&self) -> Result<Option<State>, StateError> {
        use std::io::Read as _;
        let path = self.path.join("state.json");
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { path, source }),
        }
        let state = decode(&bytes).map_err(|why| StateError::Damaged { path, why })?;
        Ok(Some(state))
    }

    /// Replaces the state, and makes sure that it is on disk.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write(&self, state: &State) -> Result<(), StateError> {
        let path = self.path.join("state.json");
        let failed = |source| StateError::Io { path: path.clone(), source };
        let bytes = serde_json::to_vec_pretty(state).map_err(|e| failed(io::Error::other(e)))?;
        write_atomically(&path, &bytes).map_err(failed)
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn create(&self) -> Result<(), StateError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(|source| StateError::Io { path: self.path.clone(), source })
    }

    /// Takes one of the folder's locks; it is let go when the file is dropped.
    ///
    /// # Errors
    /// [`StateError::Busy`] when somebody else holds it for too long.
    pub fn lock(&self, name: &str, patient: bool) -> Result<File, StateError> {
        let path = self.path.join(name);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|source| StateError::Io { path: path.clone(), source })?;
        let until = Instant::now() + if patient { PATIENCE } else { Duration::ZERO };
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => return Err(StateError::Busy(path)),
            }
        }
    }

    /// Changes the state while nobody else does. `change` says whether there is anything to write.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> Option<T>) -> Result<Option<T>, StateError> {
        let _lock = self.lock("state.lock", true)?;
        let Some(mut state) = self.read()? else { return Ok(None) };
        match change(&mut state) {
            Some(result) => self.write(&state).map(|()| Some(result)),
            None => Ok(None),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<State, String> {
    let state: State = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if state.format != FORMAT {
        return Err(format!("it has format {}, this release knows {FORMAT}", state.format));
    }
    let known = |slot| slot == Slot::Factory || state.installed(slot).is_some();
    if !known(state.current) || !known(state.previous) {
        return Err("it names a slot that is empty".to_owned());
    }
    Ok(state)
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
