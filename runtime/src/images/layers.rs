//! Unpacked layers on disk, who is using them, and how an image is put together from them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::sync::CancellationToken;

use super::digest::Hashing;
use super::manifest::{ConfigFile, Manifest};
use super::unpack::{self, Blob, Job};
use super::{Digest, Error, Inner, disk, layer_files};

/// The names of an image's layers, bottom first.
pub(super) fn chains(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(Digest::chain(chains.last(), diff_id));
    }
    chains
}

/// What is in use by work in progress, and so must outlive a garbage collection though no reference leads to it yet.
#[derive(Default, Clone)]
pub(super) struct Pins(Arc<Mutex<HashMap<Digest, usize>>>);

/// Keeps some layers and blobs while it exists.
pub(super) struct Pinned {
    pins: Pins,
    digests: Vec<Digest>,
}

impl Pins {
    /// Pin first, look whether it is there afterwards: then nothing can be collected in between.
    pub(super) fn pin(&self, digests: Vec<Digest>) -> Pinned {
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &digests {
            *pins.entry(*digest).or_default() += 1;
        }
        drop(pins);
        Pinned { pins: self.clone(), digests }
    }

    /// Does something with a digest only if nobody has pinned it, and lets nobody pin it meanwhile.
    pub(super) fn unless_pinned<T>(&self, digest: &Digest, work: impl FnOnce() -> T) -> Option<T> {
        let pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pins.contains_key(digest) { None } else { Some(work()) }
    }

    /// Does something with a digest only if the caller alone has pinned it, and lets nobody pin it meanwhile.
    pub(super) fn if_pinned_once<T>(&self, digest: &Digest, work: impl FnOnce() -> T) -> Option<T> {
        let pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pins.get(digest) == Some(&1) { Some(work()) } else { None }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(count) = pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(digest);
                }
            }
        }
    }
}

/// One lock per name, so that the same thing is not done twice at once.
#[derive(Default)]
pub(super) struct Locks(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    pub(super) fn get(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

/// Checks that a manifest and its configuration belong together and are within the limits.
pub(super) fn check(inner: &Inner, manifest: &Manifest, config: &ConfigFile) -> Result<(), Error> {
    let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids().len());
    if layers != diff_ids {
        let rule = format!("has {layers} layers but its configuration lists {diff_ids}");
        return Err(Error::invalid("image", rule));
    }
    if layers > inner.settings.max_layers {
        return Err(Error::TooBig { what: "image (layers)".to_owned(), limit: inner.settings.max_layers as u64 });
    }
    let total = manifest.layers.iter().fold(0u64, |sum, l| sum.saturating_add(l.size));
    if total > inner.settings.max_image_bytes {
        return Err(Error::TooBig { what: "image (bytes)".to_owned(), limit: inner.settings.max_image_bytes });
    }
    Ok(())
}

impl Inner {
    /// Bytes a layer takes, if it is here.
    pub(super) fn layer_size(&self, chain: &Digest) -> Option<u64> {
        let text = fs::read_to_string(self.layer_path(chain).join("size")).ok()?;
        text.trim().parse().ok()
    }

    /// Unpacks one layer of an image, unless it is here already; `below` are the layers under it, bottom first.
    /// Returns the bytes it takes. The caller has pinned all of them.
    pub(super) fn add_layer(
        &self,
        blob: impl FnOnce() -> Result<Blob, Error>,
        digest: Option<Digest>,
        diff_id: Digest,
        below: &[Digest],
        used: u64,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        let chain = Digest::chain(below.last(), &diff_id);
        let lock = self.locks.get(&format!("layer {chain}"));
        let _only_one = lock.blocking_lock();
        let keep = digest.filter(|d| self.settings.keep_layer_blobs && !self.blob_path(d).exists());
        if let (Some(size), None) = (self.layer_size(&chain), keep) {
            return Ok(size);
        }
        let blob = blob()?;
        if let Some(digest) = keep {
            self.keep_blob(&blob, &digest)?;
        }
        if let Some(size) = self.layer_size(&chain) {
            return Ok(size);
        }
        let temp = disk::Temp(disk::temp_name(&self.temp()));
        disk::private_dir(&temp.0)?;
        let job = Job {
            blob,
            digest,
            diff_id,
            lowers: below.iter().map(|c| layer_files(&self.layer_path(c))).collect(),
            marks: self.marks,
            limit: self.settings.max_image_bytes.saturating_sub(used),
            reserve: self.settings.reserve_bytes,
            cancel: cancel.clone(),
        };
        let size = unpack::unpack(&job, &layer_files(&temp.0))?;
        let size_file = temp.0.join("size");
        fs::write(&size_file, size.to_string()).map_err(|e| disk::full_or(e, "write", &size_file, 0))?;
        // One sync of the file system instead of one for each of thousands of files.
        let folder = File::open(&temp.0).map_err(Error::disk("open", &temp.0))?;
        rustix::fs::syncfs(&folder).map_err(|e| disk::full_or(e.into(), "sync", &temp.0, 0))?;
        let path = self.layer_path(&chain);
        // A layer without its size would be one from another version of this store: not trusted.
        disk::remove(&path)?;
        fs::rename(&temp.0, &path).map_err(Error::disk("create", &path))?;
        disk::sync_dir(&self.dir.join("layers"))?;
        Ok(size)
    }

    /// Keeps a layer as it came, for export.
    fn keep_blob(&self, blob: &Blob, digest: &Digest) -> Result<(), Error> {
        let temp = disk::Temp(disk::temp_name(&self.temp()));
        disk::check_space(&self.dir, blob.length, self.settings.reserve_bytes)?;
        let mut file = File::create(&temp.0).map_err(|e| disk::full_or(e, "create", &temp.0, blob.length))?;
        let mut source = Hashing::new(blob.open()?);
        let written = std::io::copy(&mut source, &mut file).and_then(|_| file.sync_all());
        written.map_err(|e| disk::full_or(e, "write", &temp.0, blob.length))?;
        let (found, _) = source.finish().map_err(Error::disk("read", &blob.path))?;
        if found != *digest {
            return Err(Error::Digest { what: "layer".to_owned(), expected: *digest, found });
        }
        let path = self.blob_path(digest);
        fs::rename(&temp.0, &path).map_err(Error::disk("create", &path))?;
        disk::sync_dir(&self.dir.join("blobs/sha256"))
    }
}
