//! Files that survive a power cut: written aside, synced, renamed, and the folder synced.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;

/// Makes a folder (and those above it) that only this user can enter: layers hold set-uid programs of strangers.
pub(super) fn private_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::disk("create", path))
}

/// A name nobody else in this process uses, in a folder that is emptied at open.
pub(super) fn temp_name(dir: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Syncs a folder, so that the names in it survive a power cut.
pub(super) fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|d| d.sync_all()).map_err(Error::disk("sync", path))
}

/// Writes a file so that after a crash or a power cut either the old or the new content is there, whole.
pub(super) fn write_atomic(temp_dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temp = Temp(temp_name(temp_dir));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temp.0)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp.0, path)
    };
    write().map_err(|e| full_or(e, "write", path, bytes.len() as u64))?;
    sync_dir(path.parent().unwrap_or(path))
}

/// A file or folder that is removed when this goes out of scope, unless it has been renamed away.
pub(super) struct Temp(pub(super) PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next open.
        let _ = remove(&self.0);
    }
}

/// Removes a file, or a folder with all in it, if it is there. Symbolic links are not followed.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    let gone = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match gone {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::disk("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Bytes an ordinary user can still write to the file system of a path.
pub(super) fn free_bytes(path: &Path) -> Result<u64, Error> {
    let stat = rustix::fs::statvfs(path).map_err(|e| Error::disk("look at", path)(e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// How much of the file system of a path is in use, in percent, as df(1) counts it: rounded up, without what is kept for root.
pub(super) fn used_percent(path: &Path) -> Result<u8, Error> {
    let stat = rustix::fs::statvfs(path).map_err(|e| Error::disk("look at", path)(e.into()))?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let all = used.saturating_add(stat.f_bavail).max(1);
    Ok(u8::try_from(u128::from(used).saturating_mul(100).div_ceil(u128::from(all))).unwrap_or(100))
}

/// Refuses when writing `bytes` would leave less than the reserve.
pub(super) fn check_space(path: &Path, bytes: u64, reserve: u64) -> Result<(), Error> {
    let (needs, has) = (bytes.saturating_add(reserve), free_bytes(path)?);
    if needs > has { Err(Error::NoSpace { path: path.to_owned(), needs, has }) } else { Ok(()) }
}

/// The error for a refused write: a full disk is named as such.
pub(super) fn full_or(source: io::Error, action: &'static str, path: &Path, needs: u64) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let dir = path.parent().unwrap_or(path);
            Error::NoSpace { path: dir.to_owned(), needs, has: free_bytes(dir).unwrap_or(0) }
        }
        _ => Error::disk(action, path)(source),
    }
}

/// Reads a whole file that has no business being larger than `limit`.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::disk("open", path))?;
    read_limited(file, limit, &path.display().to_string())
}

/// Reads a whole stream that has no business being longer than `limit`.
pub(super) fn read_limited(reader: impl Read, limit: u64, what: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let damaged = |source| Error::Damaged { what: what.to_owned(), source };
    reader.take(limit + 1).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooBig { what: format!("{what} (bytes)"), limit });
    }
    Ok(bytes)
}
