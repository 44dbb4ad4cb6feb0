//! The download of one layer into `partial/`, resumed as often as it takes, verified as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::digest::Hasher;
use super::pull::{PullEvent, PullOptions, Tries};
use super::registry::Session;
use super::{Digest, Error, Inner, disk, run_blocking};

/// Pieces between the network and the disk, 8 to 64 KiB each: enough to keep both busy. When it is full, the network
/// waits.
const PIECES: usize = 8;
/// How many bytes are written between two looks at the free space.
const SPACE_STEP: u64 = 8 << 20;
/// Bytes that count as progress: with less than that between two failures, tries are counted.
const PROGRESS: u64 = 64 << 10;

/// A layer to download.
pub(super) struct Download {
    pub(super) inner: Arc<Inner>,
    pub(super) session: Arc<Session>,
    pub(super) options: PullOptions,
    pub(super) digest: Digest,
    /// What it is called once it is unpacked.
    pub(super) chain: Digest,
    /// What its descriptor says, in bytes.
    pub(super) size: u64,
}

impl Inner {
    pub(super) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("partial").join(format!("{}.partial", digest.hex()))
    }

    pub(super) fn partial_size(&self, digest: &Digest) -> u64 {
        fs::metadata(self.partial_path(digest)).map_or(0, |m| m.len())
    }
}

/// Downloads; afterwards the file in `partial/` is the whole layer, unless that is unpacked already (by the pull of another
/// image). Whoever needs the file has pinned it; so it stays, and only those that download it need a lock.
pub(super) async fn download(job: Download) -> Result<(), Error> {
    let lock = job.inner.locks.get(&format!("blob {}", job.digest));
    let guard = lock.lock_owned().await;
    if job.inner.layer_size(&job.chain).is_some() {
        return Ok(());
    }
    let slot = Arc::clone(&job.inner.downloads).acquire_owned().await.map_err(|_| Error::Broken("download"))?;
    let mut tries = Tries::new(&job.inner.settings);
    let mut may_restart = true;
    let mut writer = Writer::open(&job, guard).await?;
    let mut resumed = writer.length > 0;
    loop {
        let before = writer.length;
        let broken = if writer.length < job.size { fetch(&job, &mut writer).await.err() } else { None };
        if writer.length == job.size && broken.is_none() {
            let found = writer.hasher.clone().finish();
            if found == job.digest {
                break;
            }
            // What was here from an earlier try may have been damaged. What all came at once is what the registry has.
            writer = writer.restart().await?;
            if !(resumed && may_restart) {
                return Err(Error::Digest { what: "layer".to_owned(), expected: job.digest, found });
            }
            tracing::warn!(layer = %job.digest, "a resumed download is damaged and starts anew");
            (may_restart, resumed) = (false, false);
            continue;
        }
        if writer.length.saturating_sub(before) >= PROGRESS {
            tries.reset();
        }
        let ended = || job.session.broken(io::Error::new(io::ErrorKind::UnexpectedEof, "the layer ended too early"));
        tries.pause(broken.unwrap_or_else(ended), &job.options).await?;
        resumed |= writer.length > 0;
    }
    drop((writer, slot));
    Ok(())
}

/// Asks for what is missing and writes what comes, until the end, an error, or the whole size.
async fn fetch(job: &Download, writer: &mut Writer) -> Result<(), Error> {
    let mut body = job.session.blob(&job.digest, writer.length).await?;
    if !body.resumed && writer.length > 0 {
        *writer = std::mem::take(writer).restart().await?;
    }
    let (feed, pieces) = mpsc::channel::<Bytes>(PIECES);
    let (taken, reserve) = (std::mem::take(writer), job.inner.settings.reserve_bytes);
    let mut done = taken.length;
    let writing = tokio::task::spawn_blocking(move || taken.write(pieces, reserve));
    let mut result = Ok(());
    while done < job.size {
        match body.stream.next().await {
            Some(Ok(piece)) => {
                done = done.saturating_add(piece.len() as u64);
                if done > job.size {
                    let rule = format!("is longer than the {} bytes its descriptor says", job.size);
                    result = Err(Error::invalid(format!("layer {}", job.digest), rule));
                    break;
                }
                // A writer that has gone will say why.
                if feed.send(piece).await.is_err() {
                    break;
                }
                job.options.tell(|| PullEvent::Layer { digest: job.digest, done, total: job.size });
            }
            Some(Err(e)) => {
                result = Err(job.session.broken(e));
                break;
            }
            None => break,
        }
    }
    drop(feed);
    let (back, written) = writing.await.map_err(|_| Error::Broken("download"))?;
    *writer = back;
    written.and(result)
}

/// The file with the digest of what is in it so far.
#[derive(Default)]
struct Writer {
    path: PathBuf,
    file: Option<File>,
    hasher: Hasher,
    length: u64,
    /// Held by whatever still writes, also when the download has been given up.
    _guard: Option<OwnedMutexGuard<()>>,
}

impl Writer {
    /// Opens what an earlier try has left, and digests it.
    async fn open(job: &Download, guard: OwnedMutexGuard<()>) -> Result<Writer, Error> {
        let (path, size) = (job.inner.partial_path(&job.digest), job.size);
        run_blocking(move || {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.open(&path).map_err(|e| disk::full_or(e, "create", &path, size))?;
            let there = file.metadata().map_err(Error::disk("look at", &path))?.len();
            let mut writer = Writer { path, file: None, hasher: Hasher::default(), length: 0, _guard: Some(guard) };
            if there > size {
                file.set_len(0).map_err(Error::disk("shorten", &writer.path))?;
            } else {
                writer.length = io::copy(&mut file, &mut writer.hasher).map_err(Error::disk("read", &writer.path))?;
            }
            writer.file = Some(file);
            Ok(writer)
        })
        .await
    }

    /// Throws away what is there.
    async fn restart(mut self) -> Result<Writer, Error> {
        run_blocking(move || {
            if let Some(file) = &mut self.file {
                file.set_len(0).and_then(|()| file.rewind()).map_err(Error::disk("shorten", &self.path))?;
            }
            (self.hasher, self.length) = (Hasher::default(), 0);
            Ok(self)
        })
        .await
    }

    fn write(mut self, mut pieces: mpsc::Receiver<Bytes>, reserve: u64) -> (Writer, Result<(), Error>) {
        let mut looked = 0u64;
        while let Some(piece) = pieces.blocking_recv() {
            let Some(file) = &mut self.file else { return (self, Err(Error::Broken("download"))) };
            if looked == 0 {
                if let Err(e) = disk::check_space(&self.path, SPACE_STEP.min(piece.len() as u64), reserve) {
                    return (self, Err(e));
                }
                looked = SPACE_STEP;
            }
            looked = looked.saturating_sub(piece.len() as u64);
            if let Err(e) = file.write_all(&piece) {
                // A short write may have left more in the file than was counted: go back to what is known.
                let _ = file.set_len(self.length).and_then(|()| file.seek(io::SeekFrom::Start(self.length)));
                let error = disk::full_or(e, "write", &self.path, piece.len() as u64);
                return (self, Err(error));
            }
            self.hasher.update(&piece);
            self.length += piece.len() as u64;
        }
        (self, Ok(()))
    }
}
