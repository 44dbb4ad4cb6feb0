//! What was deleted since the last snapshot, one line each, on disk before a deletion is acknowledged: so that an object that
//! was deleted for good does not come back with the snapshot. Source of the idea: the tombstones of log-structured stores.
//!
//! ```text
//! 4711 configmaps/default/limits      the version of the deletion, and the key
//! ```

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::disk;

/// From this size on the snapshot is written anew rather than later, which empties the file.
const MANY: u64 = 64 << 10;

/// The file.
#[derive(Debug)]
pub(super) struct Tombstones {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

/// A deletion: its version and the key as text.
pub(super) type Tombstone = (u64, String);

impl Tombstones {
    /// The file at this path; made when something is first deleted.
    pub(super) fn at(path: PathBuf) -> Tombstones {
        let bytes = fs::metadata(&path).map_or(0, |m| m.len());
        Tombstones { path, file: None, bytes }
    }

    /// Notes deletions: after this they are on disk.
    pub(super) fn add(&mut self, deleted: &[Tombstone]) -> io::Result<()> {
        let fresh = self.file.is_none() && !self.path.exists();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::options().append(true).create(true).open(&self.path)?),
        };
        // The line break comes first: what a power cut has left of an earlier line must not run into this one.
        let text: String = deleted.iter().map(|(version, key)| format!("\n{version} {key}")).collect();
        let written = file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            self.file = None;
        }
        written?;
        self.bytes += text.len() as u64 + 1;
        if fresh { disk::sync_parent(&self.path) } else { Ok(()) }
    }

    /// Whether it is time for a snapshot.
    pub(super) fn are_many(&self) -> bool {
        self.bytes >= MANY
    }

    /// Forgets all: they are in a snapshot that is on disk.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        // What comes back of it after a power cut is older than the snapshot, and not looked at.
        File::options().write(true).open(&self.path)?.set_len(0)?;
        self.bytes = 0;
        Ok(())
    }
}

/// What is in the file; lines that make no sense were never acknowledged.
pub(super) fn read(path: &Path) -> io::Result<Vec<Tombstone>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let parse = |line: &str| line.split_once(' ').and_then(|(v, key)| Some((v.parse().ok()?, key.to_owned())));
    Ok(String::from_utf8_lossy(&text).lines().filter_map(parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_whatever_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("objects.deleted");
        assert_eq!(read(&path).unwrap(), []);
        let some = |n: u64| (n, format!("configmaps/default/c{n}"));
        let mut stones = Tombstones::at(path.clone());
        stones.add(&[some(1), some(2)]).unwrap();
        fs::write(&path, [fs::read(&path).unwrap(), b"7 configm".to_vec()].concat()).unwrap();
        let mut stones = Tombstones::at(path.clone());
        stones.add(&[some(3)]).unwrap();
        assert!(read(&path).unwrap().ends_with(&[some(3)]) && read(&path).unwrap().contains(&some(2)));
        stones.clear().unwrap();
        assert_eq!(read(&path).unwrap(), []);
        stones.add(&[some(4)]).unwrap();
        assert_eq!(read(&path).unwrap(), [some(4)]);
    }
}
