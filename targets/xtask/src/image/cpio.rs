//! An initramfs: a folder as an archive in the kernel's own format (`newc`, Linux Documentation/driver-api/early-userspace/
//! buffer-format.rst), everything owned by root, whoever packs it.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;

/// File type bits of a mode (inode(7)).
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// The archive of a folder, with the console: the first program is started with it.
pub fn pack(folder: &Path) -> Result<Vec<u8>, Error> {
    let mut archive = Archive { bytes: Vec::new(), inode: 0 };
    archive.folder(folder, Path::new(""))?;
    archive.entry(b"dev/console", CHARACTER | 0o600, (5, 1), b"");
    archive.entry(b"TRAILER!!!", 0, (0, 0), b"");
    Ok(archive.bytes)
}

/// Compresses with `gzip`, the same for the same input.
pub fn gzip(bytes: &[u8], level: &str) -> Result<Vec<u8>, Error> {
    let program = |error: std::io::Error| Error::Program("gzip".to_owned(), error.to_string());
    let mut gzip = Command::new("gzip");
    let mut child = gzip.args(["-n", level]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(program)?;
    let mut stdin = child.stdin.take();
    // Written beside the reading: pipes are short.
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(bytes)));
        child.wait_with_output()
    });
    let output = output.map_err(program)?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Error::Program("gzip".into(), output.status.to_string()))
    }
}

struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn folder(&mut self, root: &Path, below: &Path) -> Result<(), Error> {
        let here = root.join(below);
        let file = |error| Error::File(here.clone(), error);
        let mut names: Vec<_> = fs::read_dir(&here).map_err(file)?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let below = below.join(name);
            let path = root.join(&below);
            let file = |error| Error::File(path.clone(), error);
            let data = path.symlink_metadata().map_err(file)?;
            let mode = data.permissions().mode() & 0o7777;
            let name = below.as_os_str().as_bytes();
            if data.is_dir() {
                self.entry(name, FOLDER | mode, (0, 0), b"");
                self.folder(root, &below)?;
            } else if data.is_symlink() {
                let to = fs::read_link(&path).map_err(file)?;
                self.entry(name, LINK | 0o777, (0, 0), to.as_os_str().as_bytes());
            } else {
                self.entry(name, FILE | mode, (0, 0), &fs::read(&path).map_err(file)?);
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8], mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(b"070701");
        // Inode, mode, owner, group, links, time, size, device, device of a node, length of the name, checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_complete() {
        let mut archive = Archive { bytes: Vec::new(), inode: 0 };
        archive.entry(b"ab", FILE | 0o644, (0, 0), b"hello");
        let text = String::from_utf8(archive.bytes).unwrap();
        let fields = "00000001000081a4000000000000000000000001000000000000000500000000000000000000000000000000\
                      0000000300000000";
        assert_eq!(text, format!("070701{fields}ab\0\0\0\0hello\0\0\0"));
    }
}
