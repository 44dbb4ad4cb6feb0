//! Images to test with: by umoci and skopeo, or written by hand where no tool would make them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// Runs a tool and gives back what it says.
///
/// # Panics
/// When it is not installed or fails.
pub fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    let out = out.unwrap_or_else(|e| panic!("{program} must be installed: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A path as a tool takes it.
///
/// # Panics
/// When it is not UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// `sha256:<hex>` of some bytes, without the prefix.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A root file system with busybox and a few files.
///
/// # Panics
/// When busybox-static is not installed.
pub fn busybox(root: &Path) {
    fs::create_dir_all(root.join("bin")).expect("bin");
    fs::create_dir_all(root.join("etc/dir")).expect("etc");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static must be installed");
    symlink("busybox", root.join("bin/sh")).expect("a link");
    for (name, content) in [("first", "1"), ("second", "1"), ("dir/old", "1")] {
        fs::write(root.join("etc").join(name), content).expect("a file");
    }
}

/// An OCI layout by umoci, with one image `latest`: a layer for each step of filling it.
///
/// # Panics
/// When umoci is not installed, or not run by root.
pub fn umoci(dir: &Path, steps: &[&dyn Fn(&Path)]) -> PathBuf {
    let layout = dir.join("layout");
    let image = format!("{}:latest", text(&layout));
    tool("umoci", &["init", "--layout", text(&layout)]);
    tool("umoci", &["new", "--image", &image]);
    for (i, fill) in steps.iter().enumerate() {
        let bundle = dir.join(format!("bundle{i}"));
        tool("umoci", &["unpack", "--image", &image, text(&bundle)]);
        fill(&bundle.join("rootfs"));
        tool("umoci", &["repack", "--image", &image, text(&bundle)]);
    }
    let config = ["--config.entrypoint", "/bin/sh", "--config.env", "A=b", "--config.workingdir", "/srv"];
    tool("umoci", &[&["config", "--image", &image], &config[..]].concat());
    layout
}

/// An OCI layout written by hand.
pub struct Layout {
    /// Its folder.
    pub dir: PathBuf,
    entries: Vec<String>,
}

impl Layout {
    /// An empty one.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn new(dir: PathBuf) -> Layout {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("a layout");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
        Layout { dir, entries: Vec::new() }
    }

    /// Adds a blob; returns its digest without prefix.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn blob(&self, bytes: &[u8]) -> String {
        let hex = hex(bytes);
        fs::write(self.dir.join("blobs/sha256").join(&hex), bytes).expect("a blob");
        hex
    }

    /// Adds the blobs of an image of layers given as uncompressed archives; returns its entry for an index.
    pub fn image(&self, architecture: &str, layers: &[Vec<u8>]) -> String {
        let diff_ids: Vec<String> = layers.iter().map(|l| format!("\"sha256:{}\"", hex(l))).collect();
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Entrypoint":["/run"],"Cmd":null}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let descriptor = |media: &str, bytes: &[u8]| {
            let (hex, size) = (self.blob(bytes), bytes.len());
            format!(r#"{{"mediaType":"application/vnd.oci.image.{media}","digest":"sha256:{hex}","size":{size}}}"#)
        };
        let layers: Vec<String> = layers.iter().map(|l| descriptor("layer.v1.tar", l)).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
            descriptor("config.v1+json", config.as_bytes()),
            layers.join(",")
        );
        let entry = descriptor("manifest.v1+json", manifest.as_bytes());
        let entry = entry.strip_suffix('}').unwrap_or(&entry);
        format!(r#"{entry},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#)
    }

    /// Names what an entry of [`Layout::image`] describes.
    ///
    /// # Panics
    /// When the index cannot be written.
    pub fn name(&mut self, entry: &str, name: &str) {
        let entry = entry.strip_suffix('}').unwrap_or(entry);
        self.entries.push(format!(r#"{entry},"annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}"#));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, self.entries.join(","));
        fs::write(self.dir.join("index.json"), index).expect("index.json");
    }

    /// Puts several images for several machines under one name: an index in the index.
    pub fn name_all(&mut self, entries: &[String], name: &str) {
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            entries.join(",")
        );
        let (hex, size) = (self.blob(index.as_bytes()), index.len());
        let media = "application/vnd.oci.image.index.v1+json";
        self.name(&format!(r#"{{"mediaType":"{media}","digest":"sha256:{hex}","size":{size}}}"#), name);
    }
}

/// A layer of some files, uncompressed.
///
/// # Panics
/// Never: it is written to memory.
pub fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        archive.append_data(&mut header, path, *data).expect("a file");
    }
    let mut bytes = archive.into_inner().expect("an archive");
    bytes.flush().expect("memory");
    bytes
}
