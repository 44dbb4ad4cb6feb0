//! Room on the disk: like kubelet, images that nobody uses go when the disk is fuller than one limit, those unused for longest
//! first, until it is below another. Source: Kubernetes, "Garbage collection", "Container image lifecycle". Unlike there, images
//! that were imported by hand stay: a node without a registry could not get them again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::index::Origin;
use super::{Digest, Error, Image, ImageStore, Inner, disk};

/// What making room has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Percent of the disk in use before.
    pub before: u8,
    /// And after.
    pub after: u8,
    /// The first reference of each image that was removed, or its digest.
    pub removed: Vec<String>,
    /// Bytes given back, about.
    pub bytes: u64,
    /// Whether the disk is still fuller than wanted, with nothing left that may go.
    pub short: bool,
}

/// When each image was last used, as far as this run of the process knows; one that is not here was last used when it came.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<Digest, i64>>);

impl Uses {
    /// The image is in use now.
    pub(super) fn note(&self, digest: Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, crate::clock::now_ms());
    }

    fn get(&self, digest: &Digest) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).copied()
    }

    fn keep_only(&self, digests: &HashSet<Digest>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|digest, _| digests.contains(digest));
    }
}

impl ImageStore {
    /// Removes unused images while the disk is fuller than the settings want. `is_used` is asked just before an image goes;
    /// images of prepared roots are never asked about. Cheap while there is room.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn make_room(&self, is_used: impl Fn(&Image) -> bool + Send + 'static) -> Result<Room, Error> {
        self.blocking(move |inner| inner.make_room(&is_used)).await
    }
}

impl Inner {
    fn make_room(&self, is_used: &dyn Fn(&Image) -> bool) -> Result<Room, Error> {
        let before = disk::used_percent(&self.dir)?;
        let mut room = Room { before, after: before, ..Room::default() };
        let images = self.all();
        let running: HashSet<Digest> = self.prepared()?.into_iter().filter_map(|root| root.image).collect();
        // Noted while there is room, so that it is known when there is none.
        for image in images.iter().filter(|i| running.contains(&i.digest) || is_used(i)) {
            self.uses.note(image.digest);
        }
        self.uses.keep_only(&images.iter().map(|i| i.digest).collect());
        if before < self.settings.gc_high_percent {
            return Ok(room);
        }
        let enough = |room: &mut Room| -> Result<bool, Error> {
            room.after = disk::used_percent(&self.dir)?;
            Ok(room.after < self.settings.gc_low_percent)
        };
        room.bytes = self.gc()?.bytes;
        let young = crate::clock::now_ms() - i64::try_from(self.settings.gc_min_age.as_millis()).unwrap_or(i64::MAX);
        let mut candidates: Vec<(i64, &Image)> = images
            .iter()
            .filter(|i| !running.contains(&i.digest) && !self.is_imported(&i.digest))
            .map(|i| (self.uses.get(&i.digest).or(self.since(&i.digest)).unwrap_or(0), i))
            .collect();
        candidates.sort_by_key(|(used, _)| *used);
        for (used, image) in candidates {
            if enough(&mut room)? {
                return Ok(room);
            }
            if used > young || is_used(image) {
                continue;
            }
            self.forget(&image.digest)?;
            room.removed.push(image.references.first().cloned().unwrap_or_else(|| image.digest.to_string()));
            room.bytes += self.gc()?.bytes;
        }
        room.short = !enough(&mut room)?;
        Ok(room)
    }

    /// When an image came, by its newest reference.
    fn since(&self, digest: &Digest) -> Option<i64> {
        self.index().images.values().filter(|n| n.digest == *digest).map(|n| n.since_ms).max()
    }

    /// Whether it was brought by hand under any of its references.
    pub(super) fn is_imported(&self, digest: &Digest) -> bool {
        self.index().images.values().any(|n| n.digest == *digest && n.origin == Origin::Imported)
    }

    /// Takes every reference of an image away.
    fn forget(&self, digest: &Digest) -> Result<(), Error> {
        let mut index = self.index();
        let mut changed = index.clone();
        changed.images.retain(|_, named| named.digest != *digest);
        changed.save(&self.temp(), &self.index_path())?;
        *index = changed;
        Ok(())
    }
}
