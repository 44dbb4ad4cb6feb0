//! Opening and closing: locks that are let go late, panics at open, databases that are set aside.
//!
//! ```text
//!            lock held        ┌────────┐ panic, corruption   ┌──────────────────┐ again    ┌───────────┐
//!  ───────►  wait, retry ◄──► │ opening ├──────────────────► │ without snapshot ├────────► │ set aside │──► new, empty
//!            10 s: InUse      └───┬────┘                     └────────┬─────────┘          └───────────┘
//!                                 ▼ ok                                ▼ ok
//!                               open                                 open
//! ```
//! The directory holds `db-<n>`; the highest `n` counts. A compacted copy is built as `db-<n+1>.new` and becomes the database
//! by one rename.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::guard::guarded;
use super::space::Reserved;
use super::{Database, DiskError, Live, Opened, file, is_full};

/// How long a lock is left alone between two tries.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// How many crashes of the whole process while opening it takes before a database is set aside unopened.
const CRASHES: u8 = 3;

/// The key of the record every database begins with. Keys of values are longer, so it never shows.
const MARKER: &[u8] = &[0];

/// What sled made of it.
pub(super) enum Failure {
    /// The file system's own error: nothing is wrong with the database.
    Io(io::Error),
    /// Somebody holds the lock.
    Locked,
    /// sled's threads are dead.
    Broken,
    /// The content makes no sense to sled.
    Damaged(String),
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Failure {
        match error {
            // sled reports a lock that is taken as an I/O error with this text; it must never count as damage.
            sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => Failure::Locked,
            sled::Error::Io(e) => match e.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                    Failure::Damaged(e.to_string())
                }
                _ => Failure::Io(e),
            },
            sled::Error::ReportableBug(text) if text.contains("IO thread unexpectedly") => Failure::Broken,
            other => Failure::Damaged(other.to_string()),
        }
    }
}

impl Failure {
    pub(super) fn at(self, path: &Path) -> DiskError {
        let path = path.to_owned();
        match self {
            Failure::Io(source) => DiskError::Io { what: "use the database", path, source },
            Failure::Locked => DiskError::InUse { path },
            Failure::Broken => DiskError::Broken { path },
            Failure::Damaged(why) => DiskError::Damaged { path, why },
        }
    }
}

impl Database {
    pub(super) fn generation_dir(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("db-{generation}"))
    }

    /// Finds the newest generation and removes what a crash during compaction may have left.
    fn find_generation(&self) -> io::Result<Option<u64>> {
        fs::create_dir_all(&self.dir)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if let Some(n) = name.strip_prefix("db-") {
                match n.parse::<u64>() {
                    Ok(n) => found.push(n),
                    Err(_) => fs::remove_dir_all(self.dir.join(&*name))?,
                }
            }
        }
        found.sort_unstable();
        let newest = found.pop();
        for old in found {
            fs::remove_dir_all(self.generation_dir(old))?;
        }
        Ok(newest)
    }

    pub(super) fn open_or_set_aside(&mut self) -> Result<Opened, DiskError> {
        let newest = self.find_generation().map_err(|source| self.io("open", source))?;
        self.generation = newest.unwrap_or(1);
        let mut crashes = Crashes::read(self.dir.join("opening"));
        let why = if crashes.count >= CRASHES {
            format!("the process died {CRASHES} times while opening it")
        } else {
            crashes.begin();
            match self.open_live() {
                Ok(live) => {
                    crashes.end();
                    self.open = Some(live);
                    return Ok(if newest.is_some() { Opened::Existing } else { Opened::New });
                }
                Err(Failure::Damaged(why)) => why,
                Err(other) => {
                    crashes.end();
                    return Err(other.at(&self.dir));
                }
            }
        };
        crashes.end();
        let to = self.set_aside().map_err(|source| self.io("set aside", source))?;
        tracing::error!(database = %self.dir.display(), to = %to.display(), why, "database would not open: set aside");
        self.open = Some(self.open_live().map_err(|failure| failure.at(&self.dir))?);
        Ok(Opened::SetAside { to, why })
    }

    /// Opens again after an error. Sets nothing aside: a running owner still has its state in memory.
    pub(super) fn reopen(&mut self) -> Result<(), DiskError> {
        self.open = Some(self.open_live().map_err(|failure| failure.at(&self.dir))?);
        Ok(())
    }

    fn open_live(&self) -> Result<Live, Failure> {
        let path = self.generation_dir(self.generation);
        let first = self.open_with_room(&path);
        let Err(Failure::Damaged(why)) = first else { return first };
        // sled's snapshot is only a shortcut through its log, and one that a power cut can spoil: try the long way.
        match remove_snapshots(&path) {
            Ok(0) => Err(Failure::Damaged(why)),
            Ok(_) => self.open_with_room(&path).map_err(|again| match again {
                Failure::Damaged(_) => Failure::Damaged(why),
                other => other,
            }),
            Err(error) => Err(Failure::Io(error)),
        }
    }

    fn open_with_room(&self, path: &Path) -> Result<Live, Failure> {
        match self.open_unlocked(path) {
            Err(Failure::Io(error)) if is_full(&error) && self.ballast.drop_it() => self.open_unlocked(path),
            other => other,
        }
    }

    /// Waits for the lock: sled lets go of it in the background, some time after it was dropped.
    fn open_unlocked(&self, path: &Path) -> Result<Live, Failure> {
        let deadline = Instant::now() + Duration::from_millis(self.settings.lock_wait_ms);
        loop {
            match self.open_once(path) {
                Err(Failure::Locked) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
                other => return other,
            }
        }
    }

    pub(super) fn open_once(&self, path: &Path) -> Result<Live, Failure> {
        let ready = path.join("ready");
        if ready.exists() {
            let live = self.open_sled(path)?;
            return match live.has_marker() {
                true => Ok(live),
                false => Err(Failure::Damaged("its first record is gone".to_owned())),
            };
        }
        // The process ended while making it, so nothing in there was ever acknowledged.
        let live = match self.open_sled(path) {
            Err(Failure::Damaged(_)) => {
                fs::remove_dir_all(path).map_err(Failure::Io)?;
                self.open_sled(path)?
            }
            other => other?,
        };
        self.make_ready(&live, path, &ready)?;
        Ok(live)
    }

    fn open_sled(&self, path: &Path) -> Result<Live, Failure> {
        // An unfinished snapshot would be taken for the newest one.
        remove_matching(path, |name| name.starts_with("snap.") && name.ends_with(".generating"))
            .map_err(Failure::Io)?;
        let segment = segment_bytes_of(path).unwrap_or(self.settings.segment_bytes);
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(self.settings.cache_bytes.max(64 << 10))
            .segment_size(segment)
            .flush_every_ms(None);
        let sled = match guarded(|| config.open()) {
            Ok(opened) => opened?,
            Err(panic) => return Err(Failure::Damaged(panic)),
        };
        let file = File::options().read(true).write(true).open(path.join("db")).map_err(Failure::Io)?;
        Ok(Live { sled, file, part_bytes: part_bytes(segment), reserved: Reserved::default() })
    }

    /// The first record, and then the file that says that there must be one: where sled finds its log damaged it forgets
    /// everything from there on without a word, and an empty database would pass for a good one.
    fn make_ready(&self, live: &Live, path: &Path, ready: &Path) -> Result<(), Failure> {
        guarded(|| live.sled.insert(MARKER, "").and_then(|_| live.sync())).map_err(Failure::Damaged)??;
        let synced = File::open(path.join("conf")).and_then(|f| f.sync_all()).and_then(|()| {
            file::sync_dir(path)?;
            File::create(ready)?.sync_all()?;
            file::sync_dir(path)?;
            file::sync_dir(&self.dir)?;
            file::sync_parent(&self.dir)
        });
        synced.map_err(Failure::Io)
    }

    /// Moves the database out of the way, keeping only the newest few of those.
    fn set_aside(&self) -> io::Result<PathBuf> {
        let mut old: Vec<u64> = fs::read_dir(&self.dir)?
            .filter_map(|e| e.ok()?.file_name().to_str()?.strip_prefix("corrupt-")?.parse().ok())
            .collect();
        old.sort_unstable();
        let next = old.last().map_or(1, |n| n + 1);
        let keep = self.settings.keep_set_aside.max(1) - 1;
        for n in old.iter().rev().skip(keep) {
            fs::remove_dir_all(self.dir.join(format!("corrupt-{n}")))?;
        }
        let to = self.dir.join(format!("corrupt-{next}"));
        fs::rename(self.generation_dir(self.generation), &to)?;
        file::sync_dir(&self.dir)?;
        Ok(to)
    }

    /// Closes what is open and waits until the lock is really free. After an error there may be nothing to flush to.
    pub(super) fn shut(&mut self) {
        let Some(live) = self.open.take() else { return };
        let Live { sled, file, .. } = live;
        if let Err(panic) = guarded(move || drop(sled)) {
            tracing::debug!(database = %self.dir.display(), panic, "panic while closing");
        }
        let deadline = Instant::now() + Duration::from_millis(self.settings.lock_wait_ms);
        while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() >= deadline {
                tracing::warn!(database = %self.dir.display(), "the database's lock was not let go in time");
                break;
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }

    /// Closes the database; afterwards anybody can open it.
    pub fn close(mut self) {
        self.shut();
    }
}

impl Live {
    fn has_marker(&self) -> bool {
        matches!(guarded(|| self.sled.get(MARKER)), Ok(Ok(Some(_))))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.shut();
    }
}

/// No leaf holds more than 17 entries; together they must stay under a quarter of a segment, with their keys.
fn part_bytes(segment: usize) -> usize {
    segment / 4 / 17 - super::MAX_KEY - 64
}

/// What the existing database was made with; sled refuses any other.
fn segment_bytes_of(path: &Path) -> Option<usize> {
    let conf = fs::read(path.join("conf")).ok()?;
    let text = String::from_utf8_lossy(&conf);
    text.lines().find_map(|line| line.strip_prefix("segment_size: ")?.trim().parse().ok())
}

fn remove_snapshots(path: &Path) -> io::Result<usize> {
    remove_matching(path, |name| name.starts_with("snap."))
}

fn remove_matching(path: &Path, matches: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&matches) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Counts deaths of the process while opening: a panic inside a drop aborts, and no guard catches that.
struct Crashes {
    path: PathBuf,
    count: u8,
}

impl Crashes {
    fn read(path: PathBuf) -> Crashes {
        let count = fs::read_to_string(&path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        Crashes { path, count }
    }

    fn begin(&mut self) {
        let _ = fs::write(&self.path, (self.count + 1).to_string());
    }

    fn end(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
