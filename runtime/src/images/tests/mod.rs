//! What a layer, an archive or a document from a stranger can try, and what the formats demand.

mod hostile;
mod layers;
mod store;

use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::decode::Decoder;
use super::manifest::{Descriptor, Document, MEDIA_LAYER, Platform, choose};
use super::tarball::Reader;
use super::tree::Marks;
use super::unpack::{Blob, Job, unpack};
use super::*;

/// A tar archive made by hand, so that it can hold what no tool would write.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, path: &[u8], link: &[u8], data: &[u8], change: impl Fn(&mut Header)) -> Tar {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Tar {
        self.entry(EntryType::Regular, path.as_bytes(), b"", data.as_bytes(), |_| {})
    }

    fn dir(self, path: &str, mode: u32) -> Tar {
        self.entry(EntryType::Directory, path.as_bytes(), b"", b"", |h| h.set_mode(mode))
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Tar {
        self.entry(kind, path.as_bytes(), target.as_bytes(), b"", |_| {})
    }

    fn symlink(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Symlink, path, target)
    }

    fn hard_link(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Link, path, target)
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let digits = (1..8).find(|d| (rest + d).to_string().len() == *d).unwrap();
            data.extend_from_slice(format!("{} {key}=", rest + digits).as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, b"pax", b"", &data, |_| {})
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A place to unpack to, with a witness beside it that nothing may touch.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("witness"), "untouched").unwrap();
        Place { dir }
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.dir.path().join("layers").join(name)
    }

    fn job(&self, bytes: &[u8], stored: &[u8], lowers: &[&str]) -> Job {
        let path = self.dir.path().join("blob");
        fs::write(&path, stored).unwrap();
        fs::create_dir_all(self.dir.path().join("layers")).unwrap();
        Job {
            blob: Blob::whole(path).unwrap(),
            digest: Some(Digest::of(stored)),
            diff_id: Digest::of(bytes),
            lowers: lowers.iter().map(|l| self.layer(l)).collect(),
            marks: overlay::marks(),
            limit: 64 << 20,
            reserve: 0,
            cancel: CancellationToken::new(),
        }
    }

    fn unpack(&self, tar: Tar, name: &str, lowers: &[&str]) -> Result<PathBuf, Error> {
        let bytes = tar.end();
        let into = self.layer(name);
        unpack(&self.job(&bytes, &bytes, lowers), &into).map(|_| into)
    }

    fn check_outside(&self) {
        assert_eq!(fs::read_to_string(self.dir.path().join("witness")).unwrap(), "untouched");
        let mut names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["blob", "layers", "witness"], "something was made outside of the layer");
        for entry in fs::read_dir(self.dir.path().join("layers")).unwrap() {
            assert!(entry.unwrap().file_name().to_str().unwrap().starts_with("layer"));
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}
