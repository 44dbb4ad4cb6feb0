//! A copy of the object store, made before a version that writes another schema is started for the first time, and put back
//! when it is rolled back: a version must never meet a store that it cannot read.
//!
//! The queue to the cloud is not part of it: what was queued meanwhile must not be forgotten.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::slots::Folder;
use crate::disk::{beside, sync_dir, sync_parent};

/// Copies the store; a copy that is there already is replaced as a whole.
///
/// # Errors
/// Whatever the file system says; there is then no copy.
pub fn keep(folder: &Folder, state_dir: &Path) -> io::Result<()> {
    let (store, copy) = (state_dir.join("store"), folder.kept_store());
    let new = beside(&copy, "new");
    remove(&new)?;
    remove(&copy)?;
    if let Err(error) = copy_folder(&store, &new).and_then(|()| fs::rename(&new, &copy)) {
        // Half a copy would only take space; the error that matters is the first one.
        let _ = remove(&new);
        return Err(error);
    }
    sync_parent(&copy)
}

/// Puts the copy back in the store's place. Can be repeated: a power cut in its middle leaves something to go on from.
///
/// # Errors
/// Whatever the file system says.
pub fn restore(folder: &Folder, state_dir: &Path) -> io::Result<()> {
    let (store, copy) = (state_dir.join("store"), folder.kept_store());
    if !copy.exists() {
        return Ok(());
    }
    let left: PathBuf = beside(&store, "rolled-back");
    if store.exists() {
        remove(&left)?;
        fs::rename(&store, &left)?;
    }
    fs::rename(&copy, &store)?;
    sync_parent(&copy)?;
    sync_parent(&store)
}

/// Forgets the copy, if there is one.
///
/// # Errors
/// Whatever the file system says.
pub fn forget(folder: &Folder) -> io::Result<()> {
    remove(&folder.kept_store())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The store has files and folders only. A store that is not there yet is an empty one.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return sync_dir(to),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    sync_dir(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::below(dir.path());
        folder.create().unwrap();
        let store = dir.path().join("store");
        fs::create_dir_all(store.join("db")).unwrap();
        fs::write(store.join("db/data"), "old").unwrap();
        keep(&folder, dir.path()).unwrap();
        keep(&folder, dir.path()).unwrap();
        fs::write(store.join("db/data"), "new schema").unwrap();
        fs::write(store.join("more"), "new").unwrap();
        for _ in 0..2 {
            restore(&folder, dir.path()).unwrap();
            assert_eq!(fs::read_to_string(store.join("db/data")).unwrap(), "old");
            assert!(!store.join("more").exists());
        }
        // A power cut between the two renames.
        keep(&folder, dir.path()).unwrap();
        fs::remove_dir_all(&store).unwrap();
        restore(&folder, dir.path()).unwrap();
        assert_eq!(fs::read_to_string(store.join("db/data")).unwrap(), "old");
        forget(&folder).unwrap();
        assert!(!folder.kept_store().exists());
    }
}
