//! The image store: container images by reference, on disk as their layers unpacked, ready to be mounted.
//!
//! ```text
//!  registry ──pull──┐                                      ┌── roots/<container>/root   overlay mount
//!  OCI layout,      ├─► blobs + partial ──verify──► layers/┤        upper, work        what the container writes
//!  archive, stdin ──┘                       unpack          └── shared by all images and containers
//! ```
//!
//! Everything is named by its content. A folder or file that has its final name is whole and verified: it was made under
//! `tmp/`, synced and renamed. So kill -9 or a power cut at any point leaves nothing half trusted, and `open` only has to
//! empty `tmp/`. The index of references is written last.
//!
//! The compressed layers are not kept once they are unpacked (unless asked for): flash is dear.

mod attributes;
mod build;
mod credentials;
mod decode;
mod digest;
mod disk;
mod download;
mod error;
mod folder;
mod gc;
mod import;
mod index;
mod layers;
mod manifest;
mod overlay;
mod pull;
mod reference;
mod registry;
mod room;
mod roots;
mod settings;
mod tarball;
mod tree;
mod unpack;
mod walk;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

pub use build::BuildFile;
pub use credentials::Credentials;
pub use digest::Digest;
pub use error::Error;
pub use folder::pack;
pub use gc::{Collected, Usage};
pub use import::Source;
pub use manifest::ImageConfig;
pub use pull::{Progress, PullEvent, PullOptions};
pub use reference::{Reference, Version};
pub use room::Room;
pub use roots::{Prepared, RootFs, RootOptions};
pub use settings::Settings;

use tokio::sync::Semaphore;

use index::{Index, Named, Origin};
use manifest::{ConfigFile, Document, MAX_DOCUMENT, Manifest, Parsed};
use tree::Marks;

/// More at once would only take turns on the same disk.
const UNPACKS: usize = 2;

/// An image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Every reference that means it, normalised, in order.
    pub references: Vec<String>,
    /// The digest of its manifest: its identity.
    pub digest: Digest,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// Bytes its layers take on disk, unpacked; layers shared with other images are counted in each.
    pub size: u64,
    /// Its layers, bottom first.
    pub layers: Vec<Digest>,
}

/// The store; cheap to clone.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    settings: Settings,
    marks: Marks,
    index: Mutex<Index>,
    pins: layers::Pins,
    uses: room::Uses,
    locks: layers::Locks,
    downloads: Arc<Semaphore>,
    /// Layers of pulls unpacked at the same time: each takes one of the process's few threads for work that blocks.
    unpacks: Semaphore,
    /// Taken alone by garbage collection, shared by what makes something reachable (naming an image, recording a root).
    collecting: RwLock<()>,
    /// Held while the store is open: two processes would empty each other's `tmp/`.
    _lock: File,
}

impl ImageStore {
    /// Opens the store in a folder, making it if need be, and clears what an interrupted run left half done.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it open, [`Error::Disk`].
    pub async fn open(dir: impl Into<PathBuf>, settings: Settings) -> Result<ImageStore, Error> {
        let dir = dir.into();
        let inner = run_blocking(move || Inner::open(dir, settings)).await?;
        Ok(ImageStore { inner: Arc::new(inner) })
    }

    /// The image a reference means, if it is here whole: its documents are verified, its layers present.
    ///
    /// `reference` is normalised first; `sha256:<hex>` finds an image by its digest.
    ///
    /// # Errors
    /// [`Error::Reference`] when it is not a reference.
    pub async fn resolve(&self, reference: &str) -> Result<Option<Image>, Error> {
        let reference = reference.to_owned();
        self.blocking(move |inner| inner.resolve(&reference)).await
    }

    /// All images, by their first reference.
    ///
    /// # Errors
    /// [`Error::Broken`]; images that are damaged are left out.
    pub async fn list(&self) -> Result<Vec<Image>, Error> {
        self.blocking(|inner| Ok(inner.all())).await
    }

    /// Gives an image one more reference.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Reference`], [`Error::Disk`].
    pub async fn tag(&self, existing: &str, new: &str) -> Result<Image, Error> {
        let (existing, new) = (existing.to_owned(), new.parse::<Reference>()?);
        self.blocking(move |inner| {
            let image = inner.resolve(&existing)?.ok_or(Error::NotFound(existing))?;
            let origin = if inner.is_imported(&image.digest) { Origin::Imported } else { Origin::Pulled };
            inner.name(&image.digest, &[new], origin)?;
            inner.image(&image.digest)
        })
        .await
    }

    /// Takes a reference away; `sha256:<hex>` takes all references of that image. What nothing uses any more goes with
    /// the next [`ImageStore::gc`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Reference`], [`Error::Disk`].
    pub async fn remove(&self, reference: &str) -> Result<(), Error> {
        let text = reference.to_owned();
        self.blocking(move |inner| {
            let mut index = inner.index();
            let mut changed = index.clone();
            match text.parse::<Digest>() {
                Ok(digest) => changed.images.retain(|_, named| named.digest != digest),
                Err(_) => {
                    changed.images.remove(&text.parse::<Reference>()?.to_string());
                }
            }
            if changed.images.len() == index.images.len() {
                return Err(Error::NotFound(text));
            }
            changed.save(&inner.temp(), &inner.index_path())?;
            *index = changed;
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        run_blocking(move || work(&inner)).await
    }
}

/// Runs work that waits for the disk where it may wait. A panic in it (a decoder on garbage) is an error, no more.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Broken("work on images")))
}

/// How long an owner that has just gone may take to let go: a process it was starting at that moment holds the lock until
/// it has become another program.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How often the lock is tried.
const LOCK_STEP: Duration = Duration::from_millis(20);

/// Takes the lock of a store.
fn take(lock: &File, dir: &Path, lock_path: &Path) -> Result<(), Error> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(LOCK_STEP),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Locked(dir.to_owned())),
            Err(e) => return Err(Error::disk("lock", lock_path)(e.into())),
        }
    }
}

impl Inner {
    fn open(dir: PathBuf, settings: Settings) -> Result<Inner, Error> {
        disk::private_dir(&dir)?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(Error::disk("create", &lock_path))?;
        take(&lock, &dir, &lock_path)?;
        disk::remove(&dir.join("tmp"))?;
        for name in ["blobs/sha256", "layers", "roots", "partial", "tmp"] {
            disk::private_dir(&dir.join(name))?;
        }
        let index = Index::load(&dir.join("index.json"))?;
        let marks = overlay::marks();
        let downloads = Arc::new(Semaphore::new(settings.parallel_downloads.max(1)));
        let (pins, uses, locks, collecting) = Default::default();
        let (index, unpacks) = (Mutex::new(index), Semaphore::new(UNPACKS));
        Ok(Inner { dir, settings, marks, index, pins, uses, locks, downloads, unpacks, collecting, _lock: lock })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this lives nothing is collected.
    fn not_collecting(&self) -> RwLockReadGuard<'_, ()> {
        self.collecting.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join("index.json")
    }

    fn temp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.dir.join("layers").join(chain.hex())
    }

    /// A document of the store, verified: flash does forget.
    fn document(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let bytes = disk::read_small(&self.blob_path(digest), MAX_DOCUMENT)?;
        verify(&bytes, digest, "blob")?;
        Ok(bytes)
    }

    fn put_document(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        let there = fs::metadata(&path).is_ok_and(|m| m.len() == bytes.len() as u64);
        if !there || self.document(&digest).is_err() {
            disk::write_atomic(&self.temp(), &path, bytes)?;
        }
        Ok(digest)
    }

    fn resolve(&self, text: &str) -> Result<Option<Image>, Error> {
        let digest = match text.parse::<Digest>() {
            Ok(digest) => self.index().images.values().any(|n| n.digest == digest).then_some(digest),
            Err(_) => {
                let reference = text.parse::<Reference>()?;
                let index = self.index();
                let named = index.images.get(&reference.to_string()).map(|n| n.digest);
                // `name@digest` is also satisfied by that image under any other reference.
                named.or(match reference.version {
                    Version::Digest(d) => index.images.values().any(|n| n.digest == d).then_some(d),
                    Version::Tag(_) => None,
                })
            }
        };
        let Some(digest) = digest else { return Ok(None) };
        match self.image(&digest) {
            Ok(image) => Ok(Some(image)),
            Err(error) => {
                tracing::warn!(image = text, error = %error, "image is damaged and must be pulled or imported again");
                Ok(None)
            }
        }
    }

    fn all(&self) -> Vec<Image> {
        let mut digests: Vec<Digest> = Vec::new();
        for named in self.index().images.values() {
            if !digests.contains(&named.digest) {
                digests.push(named.digest);
            }
        }
        digests.iter().filter_map(|d| self.image(d).ok()).collect()
    }

    fn manifest(&self, digest: &Digest) -> Result<(Manifest, ConfigFile), Error> {
        let what = format!("manifest {digest}");
        let Parsed::Manifest(manifest) = Document::parse(&self.document(digest)?, &what)? else {
            return Err(Error::invalid(what, "is not an image manifest"));
        };
        let config = self.document(&manifest.config.digest)?;
        let config = ConfigFile::parse(&config, &format!("configuration {}", manifest.config.digest))?;
        Ok((manifest, config))
    }

    fn image(&self, digest: &Digest) -> Result<Image, Error> {
        let (_, config) = self.manifest(digest)?;
        let layers = layers::chains(config.diff_ids());
        let mut size = 0u64;
        for layer in &layers {
            size =
                size.saturating_add(self.layer_size(layer).ok_or_else(|| Error::NotFound(format!("layer {layer}")))?);
        }
        let named = |(name, named): (&String, &Named)| (named.digest == *digest).then(|| name.clone());
        let references = self.index().images.iter().filter_map(named).collect();
        Ok(Image { references, digest: *digest, config: config.image_config(), size, layers })
    }

    /// Makes references mean an image. Everything the image needs is on disk before.
    fn name(&self, digest: &Digest, references: &[Reference], origin: Origin) -> Result<(), Error> {
        let _kept = self.not_collecting();
        let mut index = self.index();
        let mut changed = index.clone();
        for reference in references {
            let named = Named { digest: *digest, since_ms: crate::clock::now_ms(), origin };
            let old = changed.images.insert(reference.to_string(), named);
            // A pull that finds nothing new writes nothing to the flash, and what was brought by hand stays that.
            if let Some(old) = old.filter(|o| o.digest == *digest) {
                let origin = if origin == Origin::Imported { origin } else { old.origin };
                changed.images.insert(reference.to_string(), Named { origin, ..old });
            }
        }
        if changed == *index {
            return Ok(());
        }
        changed.save(&self.temp(), &self.index_path())?;
        *index = changed;
        Ok(())
    }
}

/// An error with its causes, for where only a text can go.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn verify(bytes: &[u8], expected: &Digest, what: &str) -> Result<(), Error> {
    let found = Digest::of(bytes);
    if found == *expected { Ok(()) } else { Err(Error::Digest { what: what.to_owned(), expected: *expected, found }) }
}

/// The path of the files of an unpacked layer.
fn layer_files(layer: &Path) -> PathBuf {
    layer.join("fs")
}
