//! sled behind one door: a database that acknowledges only what is on disk, and opens whatever happened to it.
//!
//! Nothing else in the product names sled. What this door adds, with the reasons measured on 0.34.7:
//!
//! * **One way to acknowledge**, [`Database::commit`]: sled's flush and then `fdatasync` of the database file. The flush alone
//!   uses `sync_file_range`, which leaves the file's size and extents to the file system: power cuts on a growing file lost data
//!   every time, and some databases panicked at open.
//! * **One writer**: commit takes `&mut self`, so it belongs to one thread, and never to the reactor's.
//! * **No blob files**: sled puts a page that is larger than a quarter of a segment into a file of its own and never syncs it.
//!   Values are split into parts so small that no leaf (at most 17 entries) gets there.
//! * **Prefixes are consistent**: after a crash sled has a prefix of the changes of an unfinished commit, in their order.
//!   Callers order their changes accordingly.
//! * **Space comes back**: sled cleans its file only in the periodic flusher we do not run; [`Database::compact`] and
//!   [`Database::commit_only`] copy what is alive into a new file instead.

mod compact;
mod file;
mod guard;
mod health;
mod open;
mod space;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub use file::{Ceiling, beside, sync_dir, sync_parent, write_atomically};
pub use health::{Health, TRY_AGAIN};
pub use space::{Space, is_full, of as space_of};

use space::{Ballast, Reserved};

/// How a database uses memory and disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of pages kept in memory; at least 64 KiB. It bounds page contents, not the table of pages.
    pub cache_bytes: u64,
    /// Bytes of a log segment, a power of two from 64 KiB to 16 MiB. One or two are in memory while writing. Holds for new
    /// files; an existing one keeps its own until it is compacted.
    pub segment_bytes: usize,
    /// Bytes held back in a file that is deleted when the disk is full, so that tidying up can write. 0 for none.
    pub ballast_bytes: u64,
    /// Bytes of the file system that are left free: a commit that adds something is refused below that.
    pub reserve_bytes: u64,
    /// Milliseconds to wait at open for a previous owner to let go of the file's lock.
    pub lock_wait_ms: u64,
    /// How many databases that would not open are kept for whoever wants to look at them.
    pub keep_set_aside: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            cache_bytes: 512 << 10,
            segment_bytes: 512 << 10,
            ballast_bytes: 2 << 20,
            reserve_bytes: 4 << 20,
            lock_wait_ms: 10_000,
            keep_set_aside: 1,
        }
    }
}

/// What was found at open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// Nothing: the database is new and empty.
    New,
    /// A database, with what was committed to it.
    Existing,
    /// A database that would not open. It was moved to `to`, and an empty one is in its place.
    SetAside {
        /// Where it is now.
        to: PathBuf,
        /// What was wrong with it.
        why: String,
    },
}

/// Why the disk refused.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system said no.
    #[error("{path}: cannot {what}")]
    Io {
        /// What was to be done: `open`, `write`, `sync`, …
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// There is too little space left. Trying again helps once there is more.
    #[error("{path}: disk is full: {free} bytes free, {needed} needed")]
    Full {
        /// The database.
        path: PathBuf,
        /// Bytes that may still be written.
        free: u64,
        /// Bytes this takes, with the reserve.
        needed: u64,
    },
    /// Another process has the database open.
    #[error("{path}: in use by another process")]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// What is on disk makes no sense, and it is not the time to set it aside.
    #[error("{path}: damaged: {why}")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What sled said.
        why: String,
    },
    /// sled's threads have died, for every database of the process: only a new process helps.
    #[error("{path}: the database engine has failed; the process must be restarted")]
    Broken {
        /// The database.
        path: PathBuf,
    },
}

impl DiskError {
    /// Whether it is for want of space, so that waiting for space can help.
    pub fn is_full(&self) -> bool {
        match self {
            DiskError::Full { .. } => true,
            DiskError::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

/// As the `Disk` variants of the store and the queue carry it.
impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> io::Error {
        let kind = if error.is_full() { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        io::Error::new(kind, error)
    }
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets the value of a key.
    Put(Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Vec<u8>),
}

/// What a commit is for, which decides whether it may touch the space that is kept free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It adds something.
    Add,
    /// It removes, or notes a few bytes: this has to work when the disk is as good as full.
    Tidy,
}

/// A database in a directory of its own.
#[derive(Debug)]
pub struct Database {
    dir: PathBuf,
    settings: Settings,
    ballast: Ballast,
    generation: u64,
    /// Gone after an error, because sled repeats its first I/O error for ever: the next use opens it again.
    open: Option<Live>,
}

#[derive(Debug)]
struct Live {
    sled: sled::Db,
    /// Our own descriptor of sled's file, for the sync that sled leaves out.
    file: File,
    part_bytes: usize,
    reserved: Reserved,
}

/// Keys and values longer than this could make an index page large enough for a blob file.
pub const MAX_KEY: usize = 384;

impl Database {
    /// Opens the database in `dir`, makes a new one, or sets aside one that will not open. Blocks; not for the reactor.
    ///
    /// # Errors
    /// [`DiskError::InUse`], [`DiskError::Full`], [`DiskError::Io`], [`DiskError::Broken`]: in none of these cases is anything
    /// set aside.
    pub fn open(dir: &Path, settings: Settings) -> Result<(Database, Opened), DiskError> {
        let ballast = Ballast::new(dir.join("ballast"), settings.ballast_bytes);
        let mut database = Database { dir: dir.to_owned(), settings, ballast, generation: 1, open: None };
        let opened = database.open_or_set_aside()?;
        if let Ok(space) = space_of(dir) {
            database.ballast.load(space.free);
        }
        Ok((database, opened))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        self.with(|live| live.get(key))
    }

    /// Every key that begins with `prefix` and its value, in key order, until `each` says to stop with `false`.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn scan(&mut self, prefix: &[u8], mut each: impl FnMut(&[u8], Vec<u8>) -> bool) -> Result<(), DiskError> {
        self.with(|live| live.scan(prefix, &mut each))
    }

    /// Makes the changes, in their order, and returns once all of them are on disk: the only function that may acknowledge.
    /// After an error none, some or all of them may turn up again, always a prefix.
    ///
    /// # Errors
    /// [`DiskError`]; [`DiskError::Full`] before anything is written when there is too little space for [`Purpose::Add`].
    pub fn commit(&mut self, purpose: Purpose, changes: &[Change]) -> Result<(), DiskError> {
        if purpose == Purpose::Add {
            let adds: usize = changes.iter().map(Change::adds).sum();
            self.make_sure_of(2 * adds as u64 + self.settings.reserve_bytes)?;
        }
        let done = self.with(|live| {
            for change in changes {
                live.make(change)?;
            }
            live.sync()
        });
        if done.as_ref().is_err_and(DiskError::is_full) {
            // sled itself found no space. Whatever is tried next, it will have to write a little first.
            self.ballast.drop_it();
        }
        done
    }

    /// Bytes of the database's file.
    pub fn file_bytes(&self) -> u64 {
        self.open.as_ref().and_then(|live| live.file.metadata().ok()).map_or(0, |m| m.len())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn make_sure_of(&self, needed: u64) -> Result<(), DiskError> {
        let free = self.free()?;
        if free < needed {
            return Err(DiskError::Full { path: self.dir.clone(), free, needed });
        }
        self.ballast.load(free - needed);
        Ok(())
    }

    fn free(&self) -> Result<u64, DiskError> {
        Ok(space_of(&self.dir).map_err(|source| self.io("ask for free space", source))?.free)
    }

    fn io(&self, what: &'static str, source: io::Error) -> DiskError {
        DiskError::Io { what, path: self.dir.clone(), source }
    }

    /// Runs something on the open database, opening it again first if the last error closed it.
    fn with<T>(&mut self, run: impl FnOnce(&Live) -> Result<T, sled::Error>) -> Result<T, DiskError> {
        if self.open.is_none() {
            self.reopen()?;
        }
        let Some(live) = &self.open else { return Err(DiskError::Broken { path: self.dir.clone() }) };
        let failure = match guard::guarded(|| run(live)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => open::Failure::from(error),
            Err(panic) => open::Failure::Damaged(panic),
        };
        self.shut();
        Err(failure.at(&self.dir))
    }
}

impl Change {
    fn adds(&self) -> usize {
        match self {
            Change::Put(key, value) => key.len() + value.len(),
            Change::Delete(_) => 0,
        }
    }
}

/// A value is stored in parts under its key and a two-byte part number; part 0 begins with the number of the last part.
impl Live {
    fn part_key(key: &[u8], part: u16) -> Vec<u8> {
        [key, &part.to_be_bytes()].concat()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, sled::Error> {
        match self.sled.get(Self::part_key(key, 0))? {
            None => Ok(None),
            Some(first) => Ok(self.whole(key, &first)?),
        }
    }

    fn whole(&self, key: &[u8], first: &[u8]) -> Result<Option<Vec<u8>>, sled::Error> {
        let Some((last, data)) = first.split_first_chunk::<2>() else { return Ok(None) };
        let mut value = data.to_vec();
        for part in 1..=u16::from_be_bytes(*last) {
            // A part can only be missing after a crash in the middle of a commit that was never acknowledged.
            let Some(more) = self.sled.get(Self::part_key(key, part))? else { return Ok(None) };
            value.extend_from_slice(&more);
        }
        Ok(Some(value))
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], Vec<u8>) -> bool) -> Result<(), sled::Error> {
        for entry in self.sled.scan_prefix(prefix) {
            let (part_key, data) = entry?;
            if let Some((key, [0, 0])) = part_key.split_last_chunk::<2>()
                && let Some(value) = self.whole(key, &data)?
                && !each(key, value)
            {
                break;
            }
        }
        Ok(())
    }

    fn make(&self, change: &Change) -> Result<(), sled::Error> {
        match change {
            Change::Delete(key) => {
                let first = self.sled.remove(Self::part_key(key, 0))?;
                self.forget_parts(key, 1, first.as_deref())
            }
            Change::Put(key, value) => {
                if key.len() > MAX_KEY || value.len() / self.part_bytes >= usize::from(u16::MAX) {
                    return Err(sled::Error::Unsupported("key or value too long".to_owned()));
                }
                let mut parts = value.chunks(self.part_bytes);
                let mut first = vec![0, 0];
                first.extend_from_slice(parts.next().unwrap_or_default());
                // Part 0 comes last, so that a value is there as a whole or not at all.
                let mut last = 0u16;
                for part in parts {
                    last += 1;
                    self.sled.insert(Self::part_key(key, last), part)?;
                }
                if let Some(head) = first.first_chunk_mut::<2>() {
                    *head = last.to_be_bytes();
                }
                let old = self.sled.insert(Self::part_key(key, 0), first)?;
                self.forget_parts(key, last.saturating_add(1), old.as_deref())
            }
        }
    }

    fn forget_parts(&self, key: &[u8], from: u16, first: Option<&[u8]>) -> Result<(), sled::Error> {
        let last = first.and_then(<[u8]>::first_chunk::<2>).map_or(0, |n| u16::from_be_bytes(*n));
        for part in from..=last {
            self.sled.remove(Self::part_key(key, part))?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), sled::Error> {
        self.reserved.ahead_of(&self.file);
        if self.sled.flush()? > 0 {
            guard::threads_started();
        }
        self.file.sync_data()?;
        Ok(())
    }
}
