//! Compaction: what is alive is copied into a new file, which takes the place of the old one by one rename.

use std::fs;
use std::path::Path;

use super::guard::guarded;
use super::open::Failure;
use super::{Change, Database, DiskError, Live, file};

impl Database {
    /// Copies everything alive into a new file and puts it in place of the old one, in one step as far as crashes are
    /// concerned. Needs room for both.
    ///
    /// # Errors
    /// [`DiskError`]; the old file then stays in use.
    pub fn compact(&mut self) -> Result<(), DiskError> {
        let bytes = self.live_bytes()?;
        self.rewrite(bytes, |database, put| {
            let mut failed = Ok(());
            database.scan(&[], |key, value| {
                failed = put(&Change::Put(key.to_vec(), value));
                failed.is_ok()
            })?;
            failed
        })
    }

    /// A commit and a compaction in one: afterwards there is nothing but the given keys as they were, about `bytes` of them,
    /// and what the changes make of that. Deleting nearly everything costs sled about as much space as it frees, and more
    /// writing than this.
    ///
    /// # Errors
    /// [`DiskError`]; the old file then stays in use, without the changes.
    pub fn commit_only(&mut self, keys: &[Vec<u8>], bytes: u64, changes: &[Change]) -> Result<(), DiskError> {
        let added: usize = changes.iter().map(Change::adds).sum();
        self.rewrite(bytes + added as u64, |database, put| {
            for key in keys {
                if let Some(value) = database.get(key)? {
                    put(&Change::Put(key.clone(), value))?;
                }
            }
            changes.iter().try_for_each(put)
        })
    }

    fn rewrite(
        &mut self,
        bytes: u64,
        fill: impl FnOnce(&mut Database, &mut dyn FnMut(&Change) -> Result<(), DiskError>) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let next = self.generation + 1;
        let target = self.dir.join(format!("db-{next}.new"));
        // What is kept free, and the ballast, may be used for this: afterwards there is more.
        let needed = bytes * 3 + 4 * self.settings.segment_bytes as u64;
        let mut free = self.free()?;
        if free < needed && self.ballast.drop_it() {
            free = self.free()?;
        }
        if free < needed {
            return Err(DiskError::Full { path: self.dir.clone(), free, needed });
        }
        if let Err(error) = self.fill(&target, fill) {
            // Half a copy would only take the space that is short.
            let _ = fs::remove_dir_all(&target);
            return Err(error);
        }
        self.shut();
        let swapped = fs::rename(&target, self.generation_dir(next)).and_then(|()| file::sync_dir(&self.dir));
        swapped.map_err(|source| self.io("put the compacted file in place", source))?;
        let old = std::mem::replace(&mut self.generation, next);
        self.reopen()?;
        // If this fails, the next open tries again.
        let _ = fs::remove_dir_all(self.generation_dir(old));
        if let Ok(free) = self.free() {
            self.ballast.load(free);
        }
        Ok(())
    }

    /// Compacts when the file is more than `ratio` times as large as what is alive in it; whether it did.
    ///
    /// # Errors
    /// As [`Database::compact`].
    pub fn compact_if(&mut self, ratio: u64) -> Result<bool, DiskError> {
        let worth_it = self.file_bytes() > ratio.saturating_mul(self.live_bytes()?);
        if worth_it {
            self.compact()?;
        }
        Ok(worth_it)
    }

    fn live_bytes(&mut self) -> Result<u64, DiskError> {
        let mut bytes = 0;
        self.scan(&[], |key, value| {
            bytes += (key.len() + value.len()) as u64;
            true
        })?;
        Ok(bytes)
    }

    fn fill(
        &mut self,
        target: &Path,
        fill: impl FnOnce(&mut Database, &mut dyn FnMut(&Change) -> Result<(), DiskError>) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        if target.exists() {
            fs::remove_dir_all(target).map_err(|source| self.io("compact", source))?;
        }
        // The segment size of the settings applies from here on.
        let new = self.open_once(target).map_err(|failure| failure.at(target))?;
        let try_to = |run: &dyn Fn() -> Result<(), sled::Error>| {
            let made = guarded(run).map_err(Failure::Damaged).and_then(|r| r.map_err(Failure::from));
            made.map_err(|failure| failure.at(target))
        };
        fill(self, &mut |change| try_to(&|| new.make(change)))?;
        try_to(&|| new.sync())?;
        let Live { sled, file, .. } = new;
        let dropped = guarded(move || drop(sled)).map_err(Failure::Damaged);
        // sled's drop flushes once more; nothing can be left, but what is moved into place has to be whole.
        dropped.and_then(|()| file.sync_all().map_err(Failure::Io)).map_err(|failure| failure.at(target))
    }
}
