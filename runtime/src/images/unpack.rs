//! Unpacks one layer: verifies both of its digests on the very bytes it unpacks, within limits.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::decode::Decoder;
use super::digest::Hashing;
use super::disk;
use super::tarball::Reader;
use super::tree::{Marks, Refused, Tree};
use super::{Digest, Error};

/// Most entries of one layer: bounds the inodes a layer can take and the memory for the modes of its folders.
const MAX_ENTRIES: u64 = 1_000_000;
/// How many bytes are written between two looks at the free space.
const SPACE_STEP: u64 = 8 << 20;

/// A stretch of a file: a whole blob, or one inside an archive that need not be copied out.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Blob {
    pub(super) fn whole(path: PathBuf) -> Result<Blob, Error> {
        let length = fs::metadata(&path).map_err(Error::disk("look at", &path))?.len();
        Ok(Blob { path, offset: 0, length })
    }

    pub(super) fn open(&self) -> Result<io::Take<File>, Error> {
        use std::io::Seek;
        let mut file = File::open(&self.path).map_err(Error::disk("open", &self.path))?;
        file.seek(io::SeekFrom::Start(self.offset)).map_err(Error::disk("read", &self.path))?;
        Ok(file.take(self.length))
    }
}

/// What to unpack, where, and within which limits.
pub(super) struct Job {
    pub(super) blob: Blob,
    /// What the layer's compressed bytes must be, when that was said.
    pub(super) digest: Option<Digest>,
    /// What its uncompressed bytes must be.
    pub(super) diff_id: Digest,
    /// The layers below, bottom first.
    pub(super) lowers: Vec<PathBuf>,
    pub(super) marks: Marks,
    /// Bytes it may take.
    pub(super) limit: u64,
    /// Bytes to leave free on the disk.
    pub(super) reserve: u64,
    /// Breaks the work off.
    pub(super) cancel: CancellationToken,
}

/// Unpacks into a folder that does not exist yet; returns the bytes it took. On an error the folder is to be removed.
pub(super) fn unpack(job: &Job, into: &Path) -> Result<u64, Error> {
    let what = || format!("layer {}", job.diff_id);
    let damaged = |source| Error::Damaged { what: what(), source };
    fs::DirBuilder::new().mode(0o755).create(into).map_err(|e| disk::full_or(e, "create", into, job.reserve))?;
    let open = |path: &PathBuf| File::open(path).map(Into::into).map_err(Error::disk("open", path));
    let lowers = job.lowers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let source = Stoppable { inner: Hashing::new(job.blob.open()?), cancel: &job.cancel };
    let content = Hashing::new(Decoder::new(source).map_err(damaged)?);
    // Padding is content too: a terabyte of zeros after the archive compresses to nothing, and would be read for hours.
    let most = job.limit.saturating_add(job.limit / 8).saturating_add(64 << 20);
    let mut archive = Reader::new(content.take(most));

    let mut tree = Tree::new(open(&into.to_owned())?, lowers, job.marks).map_err(|e| refused(job, "/", e, into))?;
    let (mut size, mut count, mut looked) = (0u64, 0u64, 0u64);
    disk::check_space(into, 0, job.reserve)?;
    while let Some(entry) = archive.next().map_err(damaged)? {
        count += 1;
        if count > MAX_ENTRIES {
            return Err(Error::TooBig { what: format!("{} (entries)", what()), limit: MAX_ENTRIES });
        }
        let stored = entry.sparse.as_ref().map_or(entry.size, |map| map.iter().map(|(_, length)| length).sum());
        if size.saturating_add(stored) > job.limit {
            return Err(Error::TooBig { what: format!("{} (bytes)", what()), limit: job.limit });
        }
        if stored > SPACE_STEP || size - looked > SPACE_STEP {
            disk::check_space(into, stored, job.reserve)?;
            looked = size;
        }
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        size += tree.add(&entry, &mut archive).map_err(|e| refused(job, &name, e, into))?;
    }
    tree.finish().map_err(|e| refused(job, "/", e, into))?;

    let mut content = archive.into_inner();
    io::copy(&mut content, &mut io::sink()).map_err(damaged)?;
    if content.limit() == 0 {
        return Err(Error::TooBig { what: format!("{} (bytes, with padding)", what()), limit: most });
    }
    let (found, source) = content.into_inner().finish_with().map_err(damaged)?;
    if found != job.diff_id {
        return Err(Error::Digest { what: "layer content".to_owned(), expected: job.diff_id, found });
    }
    if let Some(expected) = job.digest {
        let (found, _) = source.into_inner().inner.finish().map_err(damaged)?;
        if found != expected {
            return Err(Error::Digest { what: "layer".to_owned(), expected, found });
        }
    }
    Ok(size)
}

fn refused(job: &Job, entry: &str, refused: Refused, into: &Path) -> Error {
    match refused {
        Refused::Rule(rule) => Error::Entry { layer: job.diff_id, entry: entry.chars().take(300).collect(), rule },
        Refused::Disk(e) => {
            disk::full_or(e, "unpack a layer to", &into.join(entry.trim_start_matches('/')), job.reserve)
        }
        Refused::Source(source) => Error::Damaged { what: format!("layer {}", job.diff_id), source },
    }
}

/// Reads until it is told to stop.
struct Stoppable<'a, R> {
    inner: R,
    cancel: &'a CancellationToken,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("it was stopped"));
        }
        self.inner.read(buf)
    }
}
