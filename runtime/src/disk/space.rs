//! Free space: how much there is, and a ballast file that is given up so that a full disk can still be tidied.
//!
//! sled can neither delete nor reopen on a full disk, because both write first. So the disk is not filled (every commit that
//! adds looks at the free space before it), and for the case that somebody else fills it there is ballast to drop.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes on the file system of `path`: its size and what an ordinary user may still write.
///
/// # Errors
/// Whatever the system says.
pub fn of(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Space { total: stat.f_blocks.saturating_mul(stat.f_frsize), free: stat.f_bavail.saturating_mul(stat.f_frsize) })
}

/// The size of a file system and what is free on it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The whole file system.
    pub total: u64,
    /// What may still be written.
    pub free: u64,
}

/// Whether an error says that the disk, or this user's share of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How far ahead of a growing file its blocks are reserved, in bytes.
const AHEAD: u64 = 1 << 20;

/// Blocks reserved beyond the end of a growing file. Every commit makes the file longer; with the blocks there already, the
/// file system's journal has less to say about it, which is a third of all that is written at small commits.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    end: AtomicU64,
}

impl Reserved {
    /// Reserves again when the file has come close to what is reserved, or has been cut. Its length stays what it is. Not
    /// where space is short, and silent when the file system cannot do it or is full: the writes say so if it matters.
    pub(super) fn ahead_of(&self, file: &File) {
        let Ok(length) = file.metadata().map(|m| m.len()) else { return };
        let end = self.end.load(Ordering::Relaxed);
        if (length + AHEAD / 4..=length + 2 * AHEAD).contains(&end) {
            return;
        }
        let roomy = rustix::fs::fstatvfs(file).is_ok_and(|s| s.f_bavail.saturating_mul(s.f_frsize) > 16 * AHEAD);
        if roomy {
            let _ = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, length, AHEAD);
        }
        self.end.store(length + AHEAD, Ordering::Relaxed);
    }
}

/// A file that holds space until it is needed.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// Ballast of `bytes` at `path`; nothing is written yet.
    pub fn new(path: PathBuf, bytes: u64) -> Ballast {
        Ballast { path, bytes }
    }

    /// Takes the ballast on board if there is room for it twice over. Blocks are reserved, not written, so this costs no
    /// flash. Silent when it fails: a file system without `fallocate` works, only without this reserve.
    pub fn load(&self, free: u64) {
        if self.bytes == 0 || free < 2 * self.bytes || fs::metadata(&self.path).is_ok_and(|m| m.len() == self.bytes) {
            return;
        }
        let loaded = File::create(&self.path).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes).map_err(io::Error::from)
        });
        if let Err(error) = loaded {
            tracing::debug!(path = %self.path.display(), %error, "no ballast");
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Throws it overboard; whether there was any.
    pub fn drop_it(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}
