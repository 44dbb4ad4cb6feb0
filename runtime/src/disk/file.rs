//! Small files that are whole or absent: written beside, synced, renamed, and the directory synced.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces `path` with `bytes`: after a power cut it holds either the old content or the new one.
///
/// # Errors
/// Whatever the file system says; the old content then stays.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, "new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
        // Half a file would only take space; the error that matters is the first one.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    sync_parent(path)
}

/// `path` with `.suffix` appended to its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes renames and new names inside a directory survive a power cut.
///
/// # Errors
/// Whatever the file system says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the name of `path` itself survive a power cut.
///
/// # Errors
/// Whatever the file system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// A number that never goes backwards, not even when the database beside it is lost: numbers are handed out only below a
/// ceiling that is already on disk, and the ceiling is raised in steps so that it is written rarely.
#[derive(Debug)]
pub struct Ceiling {
    path: PathBuf,
    ceiling: u64,
}

impl Ceiling {
    /// How far ahead the ceiling is set.
    pub const STEP: u64 = 65_536;

    /// Reads the ceiling; 0 when there is none or when it cannot be read as a number.
    pub fn open(path: PathBuf) -> Ceiling {
        let ceiling = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ceiling { path, ceiling }
    }

    /// The first number that is surely unused when nothing else is known.
    pub fn get(&self) -> u64 {
        self.ceiling
    }

    /// Makes sure that `number` is below the ceiling.
    ///
    /// # Errors
    /// When the raised ceiling cannot be written; `number` must then not be used.
    pub fn cover(&mut self, number: u64) -> io::Result<()> {
        if number < self.ceiling {
            return Ok(());
        }
        self.set(number.saturating_add(Self::STEP))
    }

    /// Sets the ceiling to exactly `next`: for an orderly close, so that no numbers are skipped.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set(&mut self, next: u64) -> io::Result<()> {
        if next != self.ceiling {
            write_atomically(&self.path, format!("{next}\n").as_bytes())?;
            self.ceiling = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_covered_before_they_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("version");
        let mut ceiling = Ceiling::open(path.clone());
        assert_eq!(ceiling.get(), 0);
        ceiling.cover(0).unwrap();
        assert_eq!(Ceiling::open(path.clone()).get(), Ceiling::STEP);
        ceiling.cover(Ceiling::STEP).unwrap();
        assert_eq!(Ceiling::open(path.clone()).get(), 2 * Ceiling::STEP);
        ceiling.set(70_000).unwrap();
        assert_eq!(Ceiling::open(path.clone()).get(), 70_000);
        fs::write(&path, "garbage").unwrap();
        assert_eq!(Ceiling::open(path).get(), 0);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomically(&path, b"old").unwrap();
        // A directory in the way of the temporary file makes the write fail.
        fs::create_dir(beside(&path, "new")).unwrap();
        write_atomically(&path, b"new").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
