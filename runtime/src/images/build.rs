//! Images made here: one layer of given files; and export of images as OCI archives.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::digest::Hashing;
use super::manifest::{
    ConfigFile, Descriptor, Document, MEDIA_CONFIG, MEDIA_INDEX, MEDIA_LAYER, MEDIA_MANIFEST, Manifest,
};
use super::unpack::Blob;
use super::{Digest, Error, Image, ImageConfig, ImageStore, Inner, Reference, disk};

/// A file of an image to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildFile {
    /// Where it goes, such as `/edge-runtime`; the folders above are made, with mode 0755.
    pub path: String,
    /// Where it comes from.
    pub source: PathBuf,
    /// Its permissions, such as `0o755`; it belongs to root.
    pub mode: u32,
}

impl ImageStore {
    /// Builds an image of one layer and gives it a reference. The same files and configuration give the same digest, on
    /// every machine of the same architecture.
    ///
    /// # Errors
    /// [`Error::Reference`], [`Error::Disk`], [`Error::NoSpace`], [`Error::Invalid`] for a path that is none.
    pub async fn build(&self, reference: &str, files: Vec<BuildFile>, config: ImageConfig) -> Result<Image, Error> {
        let reference = reference.parse::<Reference>()?;
        self.blocking(move |inner| inner.build(&reference, &files, &config)).await
    }

    /// Writes an image as an OCI archive, for `import` here or elsewhere, skopeo or podman.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotKept`] unless the settings say `keep_layer_blobs`; [`Error::Damaged`] when `to`
    /// refuses.
    pub async fn export(&self, reference: &str, to: impl Write + Send + 'static) -> Result<(), Error> {
        let text = reference.to_owned();
        self.blocking(move |inner| {
            let image = inner.resolve(&text)?.ok_or_else(|| Error::NotFound(text.clone()))?;
            let name = text.parse::<Reference>().map(|r| r.to_string()).ok().or(image.references.first().cloned());
            inner.export(&image, &name.unwrap_or_default(), to)
        })
        .await
    }
}

/// Headers with nothing of this machine or moment in them.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

impl Inner {
    fn build(&self, reference: &Reference, files: &[BuildFile], config: &ImageConfig) -> Result<Image, Error> {
        let temp = disk::Temp(disk::temp_name(&self.temp()));
        let mut total = 0u64;
        for file in files {
            total += fs::metadata(&file.source).map_err(Error::disk("look at", &file.source))?.len();
        }
        disk::check_space(&self.dir, total.saturating_mul(2), self.settings.reserve_bytes)?;
        let layer = File::create(&temp.0).map_err(|e| disk::full_or(e, "create", &temp.0, total))?;
        write_layer(layer, &temp.0, files)?;

        let blob = Blob::whole(temp.0.clone())?;
        let (diff_id, size) = Hashing::new(blob.open()?).finish().map_err(Error::disk("read", &temp.0))?;
        let config_file = ConfigFile::native(config, vec![diff_id]);
        let json = |source| Error::Json { what: "image configuration".to_owned(), source };
        let config_bytes = serde_json::to_vec(&config_file).map_err(json)?;
        let config = Descriptor::new(MEDIA_CONFIG, Digest::of(&config_bytes), config_bytes.len() as u64);
        let layers = vec![Descriptor::new(MEDIA_LAYER, diff_id, size)];
        let bytes = Document::manifest(config.clone(), layers.clone()).to_bytes()?;
        let parsed = Manifest { config, layers };
        let found = super::import::Found {
            names: Vec::new(),
            manifest: bytes,
            parsed,
            config: config_bytes,
            layers: vec![(blob, Some(diff_id))],
        };
        let digest = super::import::install(self, found, std::slice::from_ref(reference), &CancellationToken::new())?;
        self.image(&digest)
    }

    fn export(&self, image: &Image, name: &str, to: impl Write) -> Result<(), Error> {
        let failed = |source| Error::Damaged { what: "the exported archive".to_owned(), source };
        let (manifest, _) = self.manifest(&image.digest)?;
        let manifest_size = self.document(&image.digest)?.len() as u64;
        let mut entry = Descriptor::new(MEDIA_MANIFEST, image.digest, manifest_size);
        let notes = [("org.opencontainers.image.ref.name", name), ("io.containerd.image.name", name)];
        entry.annotations = Some(notes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        let index = Document {
            schema_version: 2,
            media_type: Some(MEDIA_INDEX.to_owned()),
            config: None,
            layers: None,
            manifests: Some(vec![entry]),
        };
        let mut archive = tar::Builder::new(to);
        let mut add = |path: &str, size: u64, data: &mut dyn Read| {
            archive.append_data(&mut header(EntryType::Regular, 0o644, size), path, data).map_err(failed)
        };
        let (layout, index) = (br#"{"imageLayoutVersion":"1.0.0"}"#, index.to_bytes()?);
        add("oci-layout", layout.len() as u64, &mut layout.as_slice())?;
        add("index.json", index.len() as u64, &mut index.as_slice())?;
        let mut done = Vec::new();
        let digests = manifest.layers.iter().map(|l| l.digest);
        for digest in [image.digest, manifest.config.digest].into_iter().chain(digests) {
            if done.contains(&digest) {
                continue;
            }
            let blob = Blob::whole(self.blob_path(&digest)).map_err(|_| Error::NotKept(image.digest))?;
            add(&format!("blobs/sha256/{}", digest.hex()), blob.length, &mut blob.open()?)?;
            done.push(digest);
        }
        archive.into_inner().and_then(|mut to| to.flush()).map_err(failed)
    }
}

fn write_layer(layer: File, path: &Path, files: &[BuildFile]) -> Result<(), Error> {
    let failed = |e: io::Error| disk::full_or(e, "write", path, 0);
    let mut archive = tar::Builder::new(io::BufWriter::new(layer));
    let mut folders: Vec<String> = Vec::new();
    for file in files {
        let parts: Vec<&str> = file.path.split('/').filter(|p| !p.is_empty()).collect();
        if parts.is_empty() || parts.iter().any(|p| *p == "." || *p == ".." || p.starts_with(".wh.")) {
            return Err(Error::invalid(format!("path {:?}", file.path), "is not a path for a file in an image"));
        }
        for depth in 1..parts.len() {
            let folder = parts.get(..depth).unwrap_or_default().join("/") + "/";
            if !folders.contains(&folder) {
                archive
                    .append_data(&mut header(EntryType::Directory, 0o755, 0), &folder, io::empty())
                    .map_err(failed)?;
                folders.push(folder);
            }
        }
        let source = File::open(&file.source).map_err(Error::disk("open", &file.source))?;
        let size = source.metadata().map_err(Error::disk("look at", &file.source))?.len();
        // Never more than was announced, should the file grow; one that shrinks is padded, and its digest tells.
        let data = source.chain(io::repeat(0)).take(size);
        archive.append_data(&mut header(EntryType::Regular, file.mode, size), parts.join("/"), data).map_err(failed)?;
    }
    archive.into_inner().and_then(|mut to| to.flush()).map_err(failed)
}
