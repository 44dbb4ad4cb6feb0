//! Garbage collection: what no reference, no prepared root and no work in progress needs is removed.
//!
//! Things are first renamed into `tmp/` while nothing can begin to use them, then removed at leisure: a crash in between
//! leaves no half layer under its name.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::{Digest, Error, ImageStore, Inner, disk, layers};

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers.
    pub layers: usize,
    /// Manifests, configurations and kept layer blobs.
    pub blobs: usize,
    /// Broken downloads that were too old.
    pub partials: usize,
    /// Bytes given back, about.
    pub bytes: u64,
}

/// What the store takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images with at least one reference.
    pub images: usize,
    /// Unpacked layers.
    pub layers: usize,
    /// Bytes of those.
    pub layer_bytes: u64,
    /// Bytes of manifests, configurations and kept layer blobs.
    pub blob_bytes: u64,
    /// Bytes of broken downloads.
    pub partial_bytes: u64,
    /// Bytes still free on that disk.
    pub free_bytes: u64,
}

impl ImageStore {
    /// Removes what nothing uses.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn gc(&self) -> Result<Collected, Error> {
        self.blocking(|inner| inner.gc()).await
    }

    /// What the store takes.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn usage(&self) -> Result<Usage, Error> {
        self.blocking(|inner| inner.usage()).await
    }
}

fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let list = fs::read_dir(dir).and_then(|d| d.collect::<Result<Vec<_>, _>>()).map_err(Error::disk("list", dir))?;
    Ok(list.into_iter().filter_map(|e| Some((e.file_name().into_string().ok()?, e.path()))).collect())
}

fn digest(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

fn length(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |m| m.len())
}

impl Inner {
    pub(super) fn gc(&self) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let mut trash: Vec<disk::Temp> = Vec::new();
        let alone = self.collecting.write().unwrap_or_else(PoisonError::into_inner);
        let needed = self.needed()?;
        let mut take = |digest: &Digest, path: &Path| -> Result<bool, Error> {
            if needed.contains(digest) {
                return Ok(false);
            }
            let moved = self.pins.unless_pinned(digest, || {
                let temp = disk::Temp(disk::temp_name(&self.temp()));
                fs::rename(path, &temp.0).map_err(Error::disk("remove", path)).map(|()| temp)
            });
            match moved {
                Some(temp) => trash.push(temp?),
                None => return Ok(false),
            }
            Ok(true)
        };
        for (name, path) in entries(&self.dir.join("layers"))? {
            let Some(chain) = digest(&name) else { continue };
            let size = self.layer_size(&chain).unwrap_or(0);
            if take(&chain, &path)? {
                collected.layers += 1;
                collected.bytes += size;
            }
        }
        for (name, path) in entries(&self.dir.join("blobs/sha256"))? {
            let (Some(blob), size) = (digest(&name), length(&path)) else { continue };
            if take(&blob, &path)? {
                collected.blobs += 1;
                collected.bytes += size;
            }
        }
        let age = Duration::from_secs(u64::from(self.settings.partial_days) * 24 * 3600);
        for (name, path) in entries(&self.dir.join("partial"))? {
            let (Some(blob), size) = (digest(name.trim_end_matches(".partial")), length(&path)) else { continue };
            let changed = fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            // A clock that was set back makes nothing old.
            let old = changed.elapsed().is_ok_and(|e| e >= age);
            if old && take(&blob, &path)? {
                collected.partials += 1;
                collected.bytes += size;
            }
        }
        drop(alone);
        drop(trash);
        Ok(collected)
    }

    /// Everything a reference or a prepared root leads to.
    fn needed(&self) -> Result<HashSet<Digest>, Error> {
        let mut needed = HashSet::new();
        let digests: Vec<Digest> = self.index().images.values().map(|n| n.digest).collect();
        for digest in digests {
            needed.insert(digest);
            // Of a damaged image nothing but its name is known; it must be pulled again in any case.
            if let Ok((manifest, config)) = self.manifest(&digest) {
                needed.insert(manifest.config.digest);
                needed.extend(manifest.layers.iter().map(|l| l.digest));
                needed.extend(layers::chains(config.diff_ids()));
            }
        }
        for (id, path) in entries(&self.roots())? {
            match self.record(&id) {
                Some(record) => needed.extend(record.layers),
                // Somebody runs in a root whose layers nobody knows: all layers stay.
                None if path.join("root").exists() => {
                    tracing::warn!(container = id, "root without a record: no layer is collected until it is released");
                    let all = entries(&self.dir.join("layers"))?;
                    needed.extend(all.iter().filter_map(|(name, _)| digest(name)));
                }
                None => {}
            }
        }
        Ok(needed)
    }

    fn usage(&self) -> Result<Usage, Error> {
        let layers = entries(&self.dir.join("layers"))?;
        let sum = |dir: &str| -> Result<u64, Error> {
            Ok(entries(&self.dir.join(dir))?.iter().map(|(_, path)| length(path)).sum())
        };
        let images: HashSet<Digest> = self.index().images.values().map(|n| n.digest).collect();
        Ok(Usage {
            images: images.len(),
            layers: layers.len(),
            layer_bytes: layers.iter().filter_map(|(name, _)| self.layer_size(&digest(name)?)).sum(),
            blob_bytes: sum("blobs/sha256")?,
            partial_bytes: sum("partial")?,
            free_bytes: disk::free_bytes(&self.dir)?,
        })
    }
}
