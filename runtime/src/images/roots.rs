//! Root file systems of containers: an overlay mount of an image's layers with a writable folder on top.
//!
//! ```text
//!  roots/<container>/root.json   which image and layers; written first, removed last: keeps them from collection
//!                   /root        where it is mounted
//!                   /rw          upper/ and work/ (a tmpfs for a read-only root; or in a folder of the caller's choice)
//! ```

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::overlay::{self, Layers};
use super::{Digest, Error, Image, ImageStore, Inner, disk, layer_files};

/// Size of the writable part of a read-only root, in bytes: mount points, `/etc/hosts` and the like.
const READ_ONLY_BYTES: u64 = 4 << 20;
/// Longest record of a root.
const MAX_RECORD: u64 = 1 << 20;

/// How a root is to be prepared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootOptions {
    /// Where what the container writes goes; in the store's own folder when absent. It must not be on overlayfs.
    pub writable_dir: Option<PathBuf>,
    /// Nothing goes to disk: the writable part is a small tmpfs, just for the mount points the container runtime makes.
    /// It is the caller who then makes `/` read-only (`root.readonly` of the OCI runtime specification).
    pub read_only: bool,
}

/// A mounted root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFs {
    /// Where it is mounted.
    pub path: PathBuf,
}

/// A root that is there, perhaps from before a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Whose root it is.
    pub container_id: String,
    /// Where it is mounted.
    pub path: PathBuf,
    /// The image it was made of, when its record can be read.
    pub image: Option<Digest>,
    /// Whether it is mounted now. It is not after a reboot.
    pub mounted: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    image: Digest,
    /// Bottom first.
    pub(super) layers: Vec<Digest>,
    writable_dir: Option<PathBuf>,
}

impl ImageStore {
    /// Mounts a fresh root for a container. What an earlier root of the same id had written is gone: a restarted
    /// container starts from its image, as in Kubernetes.
    ///
    /// # Errors
    /// [`Error::BadId`], [`Error::NotFound`] when a layer has been collected meanwhile, [`Error::Mount`], [`Error::Disk`].
    pub async fn prepare(&self, image: &Image, container_id: &str, options: RootOptions) -> Result<RootFs, Error> {
        let (digest, layers) = (image.digest, image.layers.clone());
        let id = check_id(container_id)?;
        self.blocking(move |inner| inner.prepare(digest, layers, &id, options)).await
    }

    /// Unmounts and removes a container's root with everything written to it. No error when there is none.
    ///
    /// # Errors
    /// [`Error::BadId`], [`Error::Disk`].
    pub async fn release(&self, container_id: &str) -> Result<(), Error> {
        let id = check_id(container_id)?;
        self.blocking(move |inner| inner.release(&id)).await
    }

    /// The roots that are there, mounted or not, in order of container id.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn prepared(&self) -> Result<Vec<Prepared>, Error> {
        self.blocking(|inner| inner.prepared()).await
    }
}

fn check_id(id: &str) -> Result<String, Error> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(fine) {
        return Err(Error::BadId(id.chars().take(200).collect()));
    }
    Ok(id.to_owned())
}

impl Inner {
    pub(super) fn roots(&self) -> PathBuf {
        self.dir.join("roots")
    }

    pub(super) fn record(&self, id: &str) -> Option<Record> {
        let bytes = disk::read_small(&self.roots().join(id).join("root.json"), MAX_RECORD).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn prepare(&self, image: Digest, layers: Vec<Digest>, id: &str, options: RootOptions) -> Result<RootFs, Error> {
        let lock = self.locks.get(&format!("root {id}"));
        let _only_one = lock.blocking_lock();
        self.release_locked(id)?;
        let collecting = self.not_collecting();
        let paths: Vec<PathBuf> = layers.iter().map(|l| layer_files(&self.layer_path(l))).collect();
        if let Some((layer, _)) = layers.iter().zip(&paths).find(|(_, p)| !p.is_dir()) {
            return Err(Error::NotFound(format!("layer {layer}")));
        }
        let home = self.roots().join(id);
        disk::private_dir(&home)?;
        let record = Record { image, layers, writable_dir: options.writable_dir.clone() };
        let json =
            serde_json::to_vec(&record).map_err(|source| Error::Json { what: "root.json".to_owned(), source })?;
        // Not synced: after a power cut the mount is gone as well.
        let file = home.join("root.json");
        fs::write(&file, json).map_err(|e| disk::full_or(e, "write", &file, 0))?;
        // From here on the record keeps the layers.
        drop(collecting);
        self.uses.note(image);
        match self.mount(id, &home, &paths, &options) {
            Ok(root) => Ok(root),
            Err(e) => {
                if let Err(error) = self.release_locked(id) {
                    tracing::warn!(container = id, %error, "cannot clean up after a failed mount");
                }
                Err(e)
            }
        }
    }

    fn mount(&self, id: &str, home: &Path, layers: &[PathBuf], options: &RootOptions) -> Result<RootFs, Error> {
        let failed = |e: rustix::io::Errno| {
            let hint = match e {
                rustix::io::Errno::PERM => ": it needs root, or a user namespace",
                rustix::io::Errno::NODEV => ": the kernel has no overlayfs",
                rustix::io::Errno::INVAL => ": the writable folder is on a file system that overlayfs cannot use",
                rustix::io::Errno::TOOBIG => ": too many layers for this kernel",
                _ => "",
            };
            Error::Mount { container: id.to_owned(), hint, source: e.into() }
        };
        let root = home.join("root");
        let writable = match &options.writable_dir {
            Some(dir) if !options.read_only => dir.join(id),
            _ => home.join("rw"),
        };
        disk::private_dir(&root)?;
        disk::private_dir(&writable)?;
        if options.read_only {
            overlay::mount_tmpfs(&writable, READ_ONLY_BYTES).map_err(failed)?;
        }
        let (upper, work) = (writable.join("upper"), writable.join("work"));
        for dir in [&upper, &work] {
            fs::DirBuilder::new().mode(0o755).create(dir).map_err(|e| disk::full_or(e, "create", dir, 0))?;
        }
        // The topmost folder decides what `/` looks like: as in the image.
        if let Some(top) = layers.last() {
            let meta = fs::metadata(top).map_err(Error::disk("look at", top))?;
            std::os::unix::fs::chown(&upper, Some(meta.uid()), Some(meta.gid())).map_err(Error::disk("own", &upper))?;
            let mode = fs::Permissions::from_mode(meta.mode() & 0o7777);
            fs::set_permissions(&upper, mode).map_err(Error::disk("set the mode of", &upper))?;
        }
        // An image may have no layers; a mount must.
        let empty = home.join("empty");
        let mut lowers: Vec<&Path> = layers.iter().rev().map(PathBuf::as_path).collect();
        if lowers.is_empty() {
            disk::private_dir(&empty)?;
            lowers.push(&empty);
        }
        let mounted = Layers { lowers, upper: &upper, work: &work, marks: self.marks };
        overlay::mount_overlay(&mounted, &root).map_err(failed)?;
        Ok(RootFs { path: root })
    }

    fn release(&self, id: &str) -> Result<(), Error> {
        let lock = self.locks.get(&format!("root {id}"));
        let _only_one = lock.blocking_lock();
        self.release_locked(id)
    }

    fn release_locked(&self, id: &str) -> Result<(), Error> {
        let home = self.roots().join(id);
        if fs::symlink_metadata(&home).is_err() {
            return Ok(());
        }
        let unmounted = |path: &Path| overlay::unmount_all(path).map_err(|e| Error::disk("unmount", path)(e.into()));
        unmounted(&home.join("root"))?;
        unmounted(&home.join("rw"))?;
        if let Some(dir) = self.record(id).and_then(|r| r.writable_dir) {
            disk::remove(&dir.join(id))?;
        }
        disk::remove(&home.join("rw"))?;
        // The record goes last: while anything is left it is known whose it is.
        disk::remove(&home)
    }

    pub(super) fn prepared(&self) -> Result<Vec<Prepared>, Error> {
        let roots = self.roots();
        let mounts =
            overlay::mounts_under(&real(&roots)).map_err(Error::disk("read", Path::new("/proc/self/mountinfo")))?;
        let mut prepared = Vec::new();
        for entry in fs::read_dir(&roots).map_err(Error::disk("list", &roots))? {
            let entry = entry.map_err(Error::disk("list", &roots))?;
            let Ok(container_id) = entry.file_name().into_string() else { continue };
            let path = entry.path().join("root");
            let mounted = mounts.contains(&real(&path));
            let image = self.record(&container_id).map(|r| r.image);
            prepared.push(Prepared { container_id, path, image, mounted });
        }
        prepared.sort_by(|a, b| a.container_id.cmp(&b.container_id));
        Ok(prepared)
    }
}

/// The mount table has paths without symbolic links.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
