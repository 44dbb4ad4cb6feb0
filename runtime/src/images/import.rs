//! Import: OCI image layouts (folders), OCI archives and `docker save` archives (old and new), from disk or a stream.
//!
//! An uncompressed archive on disk is only listed, and its layers unpacked straight out of it. What comes as a stream or
//! compressed is laid down in `tmp/` file by file first, since archives put their index anywhere.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::decode::Decoder;
use super::digest::Hashing;
use super::index::Origin;
use super::manifest::{
    ConfigFile, Descriptor, Document, MAX_DOCUMENT, MEDIA_CONFIG, MEDIA_LAYER, MEDIA_LAYER_GZIP, Manifest, Parsed,
    choose,
};
use super::tarball::{Kind, Reader};
use super::unpack::Blob;
use super::{Digest, Error, Image, ImageStore, Inner, Reference, disk, layers, verify};

/// Most files in an archive: 500 layers with three files each, and room.
const MAX_FILES: usize = 10_000;

/// Where an image comes from.
pub enum Source {
    /// A folder (OCI image layout) or a file (archive, compressed or not).
    Path(PathBuf),
    /// A stream with an archive, such as standard input.
    Reader(Box<dyn Read + Send>),
}

impl ImageStore {
    /// Brings images from a folder, file or stream into the store, verified. Several references may come out of one
    /// archive. `reference` names the image where the archive does not, and instead of what it says.
    ///
    /// # Errors
    /// Any [`Error`] but those of mounts; nothing is named then, and what was unpacked goes with the next collection.
    pub async fn import(&self, source: Source, reference: Option<&str>) -> Result<Vec<Image>, Error> {
        let reference = reference.map(str::parse::<Reference>).transpose()?;
        let cancel = CancellationToken::new();
        // The future may be dropped: then the thread that unpacks stops, too.
        let guard = cancel.clone().drop_guard();
        let images = self.blocking(move |inner| import(inner, source, reference, &cancel)).await;
        drop(guard.disarm());
        images
    }
}

fn import(
    inner: &Inner,
    source: Source,
    reference: Option<Reference>,
    cancel: &CancellationToken,
) -> Result<Vec<Image>, Error> {
    let (files, stem) = match source {
        Source::Reader(reader) => (Files::stage(inner, reader, cancel)?, None),
        Source::Path(path) => {
            let stem = path.file_name().map(|n| n.to_string_lossy().into_owned());
            (Files::at(inner, &path, cancel)?, stem)
        }
    };
    let found = if files.has("index.json") {
        from_layout(&files)?
    } else if files.has("manifest.json") {
        from_docker(&files)?
    } else {
        return Err(Error::invalid("archive", "has neither an OCI index.json nor a Docker manifest.json"));
    };
    if reference.is_some() && found.len() > 1 {
        return Err(Error::invalid("archive", "has several images: they cannot all get one reference"));
    }
    let mut images = Vec::new();
    for found in found {
        let references = match &reference {
            Some(reference) => vec![reference.clone()],
            None => names(&found.names, stem.as_deref())?,
        };
        images.push(install(inner, found, &references, cancel)?);
    }
    images.iter().map(|digest| inner.image(digest)).collect()
}

/// What an image in an archive is called. A bare tag, as `skopeo copy … oci-archive:file:tag` writes it, is a tag of what
/// the file is called.
fn names(said: &[String], stem: Option<&str>) -> Result<Vec<Reference>, Error> {
    let mut references = Vec::new();
    let stem = stem.map(|s| s.split('.').next().unwrap_or(s).to_ascii_lowercase());
    for name in said {
        if name.contains(['/', ':']) {
            references.push(name.parse()?);
        } else if let Some(stem) = &stem {
            references.push(format!("localhost/{stem}:{name}").parse()?);
        }
    }
    if references.is_empty() {
        let stem = stem.ok_or(Error::Unnamed)?;
        references.push(format!("localhost/{stem}:latest").parse().map_err(|_| Error::Unnamed)?);
    }
    Ok(references)
}

/// An image found in an archive.
pub(super) struct Found {
    pub(super) names: Vec<String>,
    pub(super) manifest: Vec<u8>,
    pub(super) parsed: Manifest,
    pub(super) config: Vec<u8>,
    /// The layers, bottom first, and their digests where the archive says them.
    pub(super) layers: Vec<(Blob, Option<Digest>)>,
}

/// Puts an image into the store: layers first, documents after them, its names last.
pub(super) fn install(
    inner: &Inner,
    found: Found,
    names: &[Reference],
    cancel: &CancellationToken,
) -> Result<Digest, Error> {
    let config = ConfigFile::parse(&found.config, "image configuration")?;
    layers::check(inner, &found.parsed, &config)?;
    let chains = layers::chains(config.diff_ids());
    let documents = [Digest::of(&found.manifest), Digest::of(&found.config)];
    let _pinned = inner.pins.pin([chains.as_slice(), &documents].concat());
    let mut used = 0;
    for (i, ((blob, digest), diff_id)) in found.layers.into_iter().zip(config.diff_ids()).enumerate() {
        let below = chains.get(..i).unwrap_or_default();
        used += inner.add_layer(|| Ok(blob), digest, *diff_id, below, used, cancel)?;
    }
    inner.put_document(&found.config)?;
    let digest = inner.put_document(&found.manifest)?;
    inner.name(&digest, names, Origin::Imported)?;
    Ok(digest)
}

fn from_layout(files: &Files) -> Result<Vec<Found>, Error> {
    let Parsed::Index(entries) = Document::parse(&files.small("index.json")?, "index.json")? else {
        return Err(Error::invalid("index.json", "is not an index"));
    };
    // Entries with the same name are the same image for several machines.
    let mut groups: Vec<(Option<String>, Vec<Descriptor>)> = Vec::new();
    for entry in entries {
        let full = entry.annotation("io.containerd.image.name");
        let name = full.or(entry.annotation("org.opencontainers.image.ref.name")).map(str::to_owned);
        match groups.iter_mut().find(|(n, _)| *n == name) {
            Some((_, group)) => group.push(entry),
            None => groups.push((name, vec![entry])),
        }
    }
    let mut found: Vec<Found> = Vec::new();
    for (name, group) in groups {
        let image = layout_image(files, choose(&group)?, 0)?;
        match found.iter_mut().find(|f| f.manifest == image.manifest) {
            Some(same) => same.names.extend(name),
            None => found.push(Found { names: name.into_iter().collect(), ..image }),
        }
    }
    if found.is_empty() { Err(Error::invalid("index.json", "lists no image")) } else { Ok(found) }
}

fn layout_image(files: &Files, descriptor: &Descriptor, depth: u32) -> Result<Found, Error> {
    let bytes = files.document(&descriptor.digest)?;
    match Document::parse(&bytes, &format!("manifest {}", descriptor.digest))? {
        // An index in an index in an index: somebody is playing.
        Parsed::Index(_) if depth > 2 => Err(Error::invalid("index.json", "is nested too deep")),
        Parsed::Index(entries) => layout_image(files, choose(&entries)?, depth + 1),
        Parsed::Manifest(parsed) => {
            let config = files.document(&parsed.config.digest)?;
            let layer = |l: &Descriptor| Ok((files.blob(&l.digest)?, Some(l.digest)));
            let layers = parsed.layers.iter().map(layer).collect::<Result<_, Error>>()?;
            Ok(Found { names: Vec::new(), manifest: bytes, parsed, config, layers })
        }
    }
}

/// An entry of Docker's manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

fn from_docker(files: &Files) -> Result<Vec<Found>, Error> {
    let json = |source| Error::Json { what: "manifest.json".to_owned(), source };
    let images: Vec<DockerImage> = serde_json::from_slice(&files.small("manifest.json")?).map_err(json)?;
    let mut found = Vec::new();
    for image in images {
        let config = files.small(&image.config)?;
        // The file is called by its digest: `<hex>.json`, or `blobs/sha256/<hex>`.
        let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if let Ok(expected) = format!("sha256:{stem}").parse::<Digest>() {
            verify(&config, &expected, "image configuration")?;
        }
        let diff_ids = ConfigFile::parse(&config, "image configuration")?.diff_ids().to_vec();
        let paths = image.layers.unwrap_or_default();
        // Docker's archives have no manifest: ours names the layers as they are inside.
        let mut layers = Vec::new();
        let mut descriptors = Vec::new();
        for (path, diff_id) in paths.iter().zip(&diff_ids) {
            let blob = files.find(path)?;
            let digest = layer_digest(&blob, diff_id)?;
            let media_type = if digest == *diff_id { MEDIA_LAYER } else { MEDIA_LAYER_GZIP };
            descriptors.push(Descriptor::new(media_type, digest, blob.length));
            layers.push((blob, Some(digest)));
        }
        let config_descriptor = Descriptor::new(MEDIA_CONFIG, Digest::of(&config), config.len() as u64);
        let parsed = Manifest { config: config_descriptor, layers: descriptors };
        if paths.len() != diff_ids.len() {
            return Err(Error::invalid("manifest.json", "lists more or fewer layers than the image's configuration"));
        }
        let manifest = Document::manifest(parsed.config.clone(), parsed.layers.clone()).to_bytes()?;
        found.push(Found { names: image.repo_tags.unwrap_or_default(), manifest, parsed, config, layers });
    }
    if found.is_empty() { Err(Error::invalid("manifest.json", "lists no image")) } else { Ok(found) }
}

/// The digest of a layer as it lies in the archive: the configuration has it, unless the layer is compressed (kaniko).
fn layer_digest(blob: &Blob, diff_id: &Digest) -> Result<Digest, Error> {
    let damaged = |source| Error::Damaged { what: format!("layer {diff_id}"), source };
    if Decoder::new(blob.open()?).map_err(damaged)?.is_plain() {
        return Ok(*diff_id);
    }
    Hashing::new(blob.open()?).finish().map(|(digest, _)| digest).map_err(damaged)
}

/// The files of an archive or folder, by name.
struct Files {
    folder: Option<PathBuf>,
    files: HashMap<String, Blob>,
    /// Old `docker save` replaces repeated layers by symbolic links.
    links: HashMap<String, String>,
    _staged: Option<disk::Temp>,
}

impl Files {
    fn at(inner: &Inner, path: &Path, cancel: &CancellationToken) -> Result<Files, Error> {
        let meta = fs::metadata(path).map_err(Error::disk("open", path))?;
        if meta.is_dir() {
            let folder = Some(path.to_owned());
            return Ok(Files { folder, files: HashMap::new(), links: HashMap::new(), _staged: None });
        }
        let file = File::open(path).map_err(Error::disk("open", path))?;
        let damaged = |source| Error::Damaged { what: path.display().to_string(), source };
        let decoder = Decoder::new(file).map_err(damaged)?;
        // Only a regular file can be read twice.
        if !decoder.is_plain() || !meta.is_file() {
            return Files::stage_decoded(inner, decoder, cancel);
        }
        let mut archive = Reader::new(decoder);
        let mut files = Files::empty();
        while let Some(entry) = archive.next().map_err(damaged)? {
            let blob = Blob { path: path.to_owned(), offset: archive.position(), length: entry.size };
            files.insert(&entry, blob)?;
        }
        Ok(files)
    }

    fn stage(inner: &Inner, reader: Box<dyn Read + Send>, cancel: &CancellationToken) -> Result<Files, Error> {
        let damaged = |source| Error::Damaged { what: "archive".to_owned(), source };
        Files::stage_decoded(inner, Decoder::new(reader).map_err(damaged)?, cancel)
    }

    fn stage_decoded(inner: &Inner, decoder: Decoder<impl Read>, cancel: &CancellationToken) -> Result<Files, Error> {
        let damaged = |source| Error::Damaged { what: "archive".to_owned(), source };
        let staged = disk::Temp(disk::temp_name(&inner.temp()));
        disk::private_dir(&staged.0)?;
        let mut archive = Reader::new(decoder);
        let (mut files, mut total) = (Files::empty(), 0u64);
        while let Some(entry) = archive.next().map_err(damaged)? {
            total = total.saturating_add(entry.size);
            if total > inner.settings.max_image_bytes {
                return Err(Error::TooBig {
                    what: "archive (bytes)".to_owned(),
                    limit: inner.settings.max_image_bytes,
                });
            }
            disk::check_space(&staged.0, entry.size, inner.settings.reserve_bytes)?;
            let path = staged.0.join(files.files.len().to_string());
            if entry.kind == Kind::File {
                let mut file = File::create(&path).map_err(|e| disk::full_or(e, "create", &path, entry.size))?;
                copy(&mut archive, &mut file, &path, cancel)?;
            }
            files.insert(&entry, Blob { path, offset: 0, length: entry.size })?;
        }
        Ok(Files { _staged: Some(staged), ..files })
    }

    fn empty() -> Files {
        Files { folder: None, files: HashMap::new(), links: HashMap::new(), _staged: None }
    }

    fn insert(&mut self, entry: &super::tarball::Entry, blob: Blob) -> Result<(), Error> {
        let name = clean(&String::from_utf8_lossy(&entry.path));
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        match entry.kind {
            Kind::File if entry.sparse.is_none() => drop(self.files.insert(name, blob)),
            Kind::HardLink => drop(self.links.insert(name, clean(&link))),
            Kind::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                self.links.insert(name.clone(), clean(&format!("{folder}/{link}")));
            }
            _ => {}
        }
        if self.files.len() + self.links.len() > MAX_FILES {
            return Err(Error::TooBig { what: "archive (files)".to_owned(), limit: MAX_FILES as u64 });
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        match &self.folder {
            Some(folder) => folder.join(name).is_file(),
            None => self.files.contains_key(name),
        }
    }

    fn find(&self, name: &str) -> Result<Blob, Error> {
        let mut name = clean(name);
        if let Some(folder) = &self.folder {
            return Blob::whole(folder.join(name));
        }
        for _ in 0..8 {
            if let Some(blob) = self.files.get(&name) {
                return Ok(blob.clone());
            }
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        Err(Error::invalid("archive", format!("has no {name:?}, which its index names")))
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, Error> {
        disk::read_limited(self.find(name)?.open()?, MAX_DOCUMENT, name)
    }

    fn blob(&self, digest: &Digest) -> Result<Blob, Error> {
        self.find(&format!("blobs/sha256/{}", digest.hex()))
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.small(&format!("blobs/sha256/{}", digest.hex()))?;
        verify(&bytes, digest, "blob")?;
        Ok(bytes)
    }
}

/// A path inside the archive without `.`, `..` and doubled slashes: a key, never given to the kernel.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn copy(from: &mut impl Read, to: &mut impl io::Write, path: &Path, cancel: &CancellationToken) -> Result<(), Error> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if cancel.is_cancelled() {
            return Err(Error::Broken("import"));
        }
        let n = from.read(&mut buffer).map_err(|source| Error::Damaged { what: "archive".to_owned(), source })?;
        if n == 0 {
            return Ok(());
        }
        let chunk = buffer.get(..n).unwrap_or_default();
        to.write_all(chunk).map_err(|e| disk::full_or(e, "write", path, n as u64))?;
    }
}
