//! Pull: brings an image from a registry, layer by layer, and goes on where it was broken off.
//!
//! ```text
//!   manifest ─► (index ─► manifest for this machine) ─► configuration ─► limits, free space
//!                                                                              │
//!   layer 1  ▒▒▒▒▒▒▒▒▒▒▒▒► verified ─► unpacked ┐       two at a time,         │
//!   layer 2  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒► verified ────┴► unpacked   in order ◄───────┘
//!   …                                                   └─► documents ─► reference
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::download::{Download, download};
use super::index::Origin;
use super::manifest::{ConfigFile, Document, Manifest, Parsed, choose};
use super::registry::{Session, places};
use super::unpack::Blob;
use super::{Credentials, Digest, Error, Image, ImageStore, Reference, Version, disk, layers, run_blocking};

/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Told what happens during a pull; called often, must not block.
pub type Progress = Arc<dyn Fn(PullEvent) + Send + Sync>;

/// What happens during a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// The image is known: its layers, bottom first, with their compressed sizes in bytes.
    Found {
        /// The manifest.
        digest: Digest,
        /// Layer and size.
        layers: Vec<(Digest, u64)>,
    },
    /// A layer has come this far; `done == total` when it need not be downloaded at all.
    Layer {
        /// Which.
        digest: Digest,
        /// Bytes here, those of an earlier try included.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A layer is unpacked and verified.
    Unpacked {
        /// Which.
        digest: Digest,
    },
    /// Something failed and will be tried again.
    Retry {
        /// What went wrong.
        error: String,
        /// How long the pause is.
        pause: Duration,
    },
}

/// How to pull.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// For the image's own registry, instead of those in the settings; never shown to a mirror.
    pub credentials: Option<Credentials>,
    /// Who is told.
    pub progress: Option<Progress>,
}

impl PullOptions {
    pub(super) fn tell(&self, event: impl FnOnce() -> PullEvent) {
        if let Some(progress) = &self.progress {
            progress(event());
        }
    }
}

impl ImageStore {
    /// Pulls an image, whether or not something of that name is here: a tag may have moved. Layers that are here are not
    /// downloaded again, broken downloads are resumed. Dropping the future breaks it off; the next pull goes on from
    /// there. Two pulls of the same reference at the same time do the work once.
    ///
    /// # Errors
    /// Any [`Error`] but those of mounts; `can_retry` says whether it may work later.
    pub async fn pull(&self, reference: &str, options: PullOptions) -> Result<Image, Error> {
        let reference: Reference = reference.parse()?;
        let lock = self.inner.locks.get(&format!("pull {reference}"));
        let mut waited_from = None;
        let _only_one = match lock.try_lock() {
            Ok(guard) => guard,
            Err(_) => {
                waited_from = Some(crate::clock::now_ms());
                lock.lock().await
            }
        };
        if let Some(since) = waited_from {
            let name = reference.to_string();
            let named = self.inner.index().images.get(&name).cloned();
            if named.is_some_and(|n| n.since_ms >= since)
                && let Some(image) = self.resolve(&name).await?
            {
                return Ok(image);
            }
        }
        let mut result = Err(Error::NotFound(reference.to_string()));
        for place in places(&self.inner.settings, &reference) {
            result = self.pull_from(&reference, &place, &options).await;
            let Err(error) = &result else { return result };
            if !error.is_of_registry() {
                return result;
            }
            let error = super::chain(error);
            tracing::warn!(image = %reference, registry = place.registry, error, "cannot pull from this registry");
        }
        result
    }

    async fn pull_from(&self, reference: &Reference, place: &Reference, options: &PullOptions) -> Result<Image, Error> {
        let own = (place.registry == reference.registry).then(|| options.credentials.clone()).flatten();
        let (inner, at) = (Arc::clone(&self.inner), place.clone());
        let session = run_blocking(move || Session::new(&inner.settings, &at, own)).await?;
        let puller = Puller { store: self, session: Arc::new(session), options };
        puller.pull(reference).await
    }
}

/// One pull from one registry.
struct Puller<'a> {
    store: &'a ImageStore,
    session: Arc<Session>,
    options: &'a PullOptions,
}

impl Puller<'_> {
    async fn pull(&self, reference: &Reference) -> Result<Image, Error> {
        let inner = &self.store.inner;
        self.again(|| self.session.login(&reference.version)).await?;
        let (bytes, manifest) = self.manifest(&reference.version).await?;
        let digest = Digest::of(&bytes);
        let config_digest = manifest.config.digest;
        let config_bytes = self.again(|| self.session.document(&config_digest)).await?;
        let config = ConfigFile::parse(&config_bytes, "image configuration")?;
        layers::check(inner, &manifest, &config)?;

        let chains = layers::chains(config.diff_ids());
        let blobs: Vec<Digest> = manifest.layers.iter().map(|l| l.digest).collect();
        let pinned = inner.pins.pin([&chains[..], &[digest, config_digest], &blobs].concat());
        let sizes = manifest.layers.iter().map(|l| (l.digest, l.size)).collect();
        self.options.tell(|| PullEvent::Found { digest, layers: sizes });
        self.layers(&manifest, &config, &chains).await?;

        let reference = reference.clone();
        self.store
            .blocking(move |inner| {
                inner.put_document(&config_bytes)?;
                inner.put_document(&bytes)?;
                inner.name(&digest, &[reference], Origin::Pulled)?;
                drop(pinned);
                // Of two pulls with a layer in common neither may have removed it: the last one does.
                for layer in blobs {
                    inner.pins.unless_pinned(&layer, || disk::remove(&inner.partial_path(&layer))).transpose()?;
                }
                inner.image(&digest)
            })
            .await
    }

    /// The manifest for this machine.
    async fn manifest(&self, version: &Version) -> Result<(Vec<u8>, Manifest), Error> {
        let mut version = version.clone();
        // An index may point to an index; nobody needs more than that.
        for _ in 0..3 {
            let bytes = self.again(|| self.session.manifest(&version)).await?;
            match Document::parse(&bytes, "manifest")? {
                Parsed::Manifest(manifest) => return Ok((bytes.to_vec(), manifest)),
                Parsed::Index(entries) => version = Version::Digest(choose(&entries)?.digest),
            }
        }
        Err(Error::invalid("manifest", "is an index of indexes of indexes"))
    }

    /// Downloads what is missing, two at a time, and unpacks in order: what a layer is depends on those below.
    async fn layers(&self, manifest: &Manifest, config: &ConfigFile, chains: &[Digest]) -> Result<(), Error> {
        let inner = &self.store.inner;
        let mut jobs = Vec::new();
        let mut missing = 0u64;
        for (i, (layer, chain)) in manifest.layers.iter().zip(chains).enumerate() {
            let (digest, size) = (layer.digest, layer.size);
            if inner.layer_size(chain).is_some() {
                self.options.tell(|| PullEvent::Layer { digest, done: size, total: size });
                continue;
            }
            missing = missing.saturating_add(size.saturating_sub(inner.partial_size(&digest)));
            let (session, options) = (Arc::clone(&self.session), self.options.clone());
            jobs.push((i, Download { inner: Arc::clone(inner), session, options, digest, chain: *chain, size }));
        }
        disk::check_space(&inner.dir, missing, inner.settings.reserve_bytes)?;
        let mut downloads = JoinSet::new();
        for (i, job) in jobs {
            downloads.spawn(async move { (i, download(job).await) });
        }

        // Dropping this future stops the thread that unpacks, and the set its downloads.
        let cancel = CancellationToken::new();
        let _stop = cancel.clone().drop_guard();
        let mut ready = vec![false; manifest.layers.len()];
        let mut used = 0;
        for (i, (layer, diff_id)) in manifest.layers.iter().zip(config.diff_ids()).enumerate() {
            let below = chains.get(..i).unwrap_or_default().to_vec();
            if let Some(size) = chains.get(i).and_then(|c| inner.layer_size(c)) {
                used += size;
                continue;
            }
            while ready.get(i) == Some(&false) {
                match downloads.join_next().await {
                    Some(Ok((done, downloaded))) => {
                        downloaded?;
                        if let Some(slot) = ready.get_mut(done) {
                            *slot = true;
                        }
                    }
                    Some(Err(_)) | None => return Err(Error::Broken("download of a layer")),
                }
            }
            let (digest, diff_id, cancel) = (layer.digest, *diff_id, cancel.clone());
            let unpack = move |inner: &Arc<super::Inner>| {
                let path = inner.partial_path(&digest);
                let size = inner.add_layer(|| Blob::whole(path.clone()), Some(digest), diff_id, &below, used, &cancel);
                // A full disk may get room, and what was broken off goes on; anything else a download would not mend.
                if !matches!(size, Err(Error::NoSpace { .. } | Error::Disk { .. } | Error::Damaged { .. })) {
                    inner.pins.if_pinned_once(&digest, || disk::remove(&path)).transpose()?;
                }
                size
            };
            let _slot = inner.unpacks.acquire().await.map_err(|_| Error::Broken("unpacking"))?;
            used += self.store.blocking(unpack).await?;
            self.options.tell(|| PullEvent::Unpacked { digest });
        }
        Ok(())
    }

    /// Asks until there is an answer that trying again would not change, or the tries are used up.
    async fn again<T, F: Future<Output = Result<T, Error>>>(&self, ask: impl Fn() -> F) -> Result<T, Error> {
        let mut tries = Tries::new(&self.store.inner.settings);
        loop {
            match ask().await {
                Err(error) => tries.pause(error, self.options).await?,
                done => return done,
            }
        }
    }
}

/// Counts tries and makes the pauses between them.
pub(super) struct Tries {
    left: u32,
    most: u32,
    first: Duration,
}

impl Tries {
    pub(super) fn new(settings: &super::Settings) -> Tries {
        Tries { left: settings.retries, most: settings.retries, first: settings.retry_pause }
    }

    /// There has been progress: count anew.
    pub(super) fn reset(&mut self) {
        self.left = self.most;
    }

    /// Pauses before the next try, or gives the error back when there is to be none.
    pub(super) async fn pause(&mut self, error: Error, options: &PullOptions) -> Result<(), Error> {
        if self.left == 0 || !matches!(error, Error::Registry { retry: true, .. }) {
            return Err(error);
        }
        let doubled = self.first.saturating_mul(1 << (self.most - self.left).min(16)).min(MAX_PAUSE);
        self.left -= 1;
        // A quarter of chance, so that a whole fleet does not come back at the same moment.
        let mut random = [0u8];
        let _ = getrandom::fill(&mut random);
        let pause = doubled.mul_f64(0.75 + f64::from(random.iter().sum::<u8>()) / 1024.0);
        options.tell(|| PullEvent::Retry { error: super::chain(&error), pause });
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
