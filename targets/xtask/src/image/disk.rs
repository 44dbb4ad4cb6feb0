//! The disk: a partition table and three file systems in one sparse file, made as an ordinary user: nothing is mounted, and
//! there are no loop devices.
//!
//! ```text
//! 4 MiB                    boot, FAT: what the board boots from, and what the administrator may change
//! then                     root, squashfs: read-only
//! then, to the end         state, ext4 "edge-state": all that is ever written
//! ```

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::board::Boot;
use crate::error::{Error, output};

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;
/// Where the first partition begins, which is where the erase blocks of most cards do.
const START: u64 = 4;
/// The size of the boot partition.
const BOOT: u64 = 128;
/// The least size of the root partition: the next release's must fit.
const ROOT: u64 = 96;
/// The least room for state.
const STATE: u64 = 128;
/// What a GPT has behind the last partition.
const TAIL: u64 = 1;

/// Where the parts are, in MiB.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    root: u64,
    root_size: u64,
    state: u64,
    state_size: u64,
}

/// Divides a disk of `total` MiB for a root file system of so many bytes.
fn layout(total: u64, root_bytes: u64) -> Result<Layout, Error> {
    let root_size = (root_bytes.div_ceil(MIB) * 3 / 2).max(ROOT).next_multiple_of(START);
    let root = START + BOOT;
    let state = root + root_size;
    let least = state + STATE + TAIL;
    if total < least {
        return Err(Error::Usage(format!("--size {total} is too small: this image takes {least} MiB or more")));
    }
    Ok(Layout { root, root_size, state, state_size: total - state - TAIL })
}

/// What the disk is made of.
#[derive(Debug)]
pub struct Content<'a> {
    /// How the board boots.
    pub boot: Boot,
    /// A folder whose content goes to the boot partition.
    pub boot_tree: &'a Path,
    /// The file with the root file system.
    pub root: &'a Path,
    /// The size of the disk in MiB.
    pub size: u64,
}

/// Writes the disk to `path`.
pub fn write(path: &Path, content: &Content) -> Result<(), Error> {
    let root = fs::read(content.root).map_err(|error| Error::File(content.root.to_owned(), error))?;
    let layout = layout(content.size, root.len() as u64)?;
    let file = |error| Error::File(path.to_owned(), error);
    let mut disk = File::create(path).map_err(file)?;
    disk.set_len(content.size * MIB).map_err(file)?;
    partition(path, content.boot, &layout)?;
    disk.seek(SeekFrom::Start(layout.root * MIB)).and_then(|_| disk.write_all(&root)).map_err(file)?;
    fat(path, content.boot_tree)?;
    let mut ext4 = Command::new(super::tool("mke2fs"));
    ext4.args(["-q", "-F", "-t", "ext4", "-L", "edge-state", "-m", "1"]);
    ext4.args(["-E", &format!("root_owner=0:0,offset={}", layout.state * MIB)]);
    output(ext4.arg(path).arg(format!("{}k", layout.state_size * 1024))).map(drop)
}

/// The partition table.
fn partition(path: &Path, boot: Boot, layout: &Layout) -> Result<(), Error> {
    let sfdisk = |error: std::io::Error| Error::Program("sfdisk".to_owned(), error.to_string());
    let mut command = Command::new(super::tool("sfdisk"));
    command.args(["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never"]).arg(path);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(sfdisk)?;
    // The end of the input is the end of the table, so it must be closed before waiting.
    child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(table(boot, layout).as_bytes())).map_err(sfdisk)?;
    let status = child.wait().map_err(sfdisk)?;
    if status.success() { Ok(()) } else { Err(Error::Program("sfdisk".to_owned(), status.to_string())) }
}

/// What `sfdisk` is told.
fn table(boot: Boot, layout: &Layout) -> String {
    let Layout { root, root_size, state, state_size } = layout;
    let (label, kind) = match boot {
        Boot::Uefi => ("gpt", "type=U, name=boot"),
        Boot::RaspberryPi => ("dos", "type=c, bootable"),
    };
    let name = |name: &str| if boot == Boot::Uefi { format!(", name={name}") } else { String::new() };
    let (linux, root_name, state_name) = ("type=L", name("root"), name("state"));
    format!(
        "label: {label}\nunit: sectors\n\nstart={START}MiB, size={BOOT}MiB, {kind}\n\
         start={root}MiB, size={root_size}MiB, {linux}{root_name}\nstart={state}MiB, size={state_size}MiB, {linux}{state_name}\n"
    )
}

/// The boot partition and what is in it.
fn fat(path: &Path, tree: &Path) -> Result<(), Error> {
    let place = format!("{}@@{}", path.display(), START * MIB);
    let sectors = BOOT * MIB / 512;
    let mut format = Command::new("mformat");
    format.args(["-i", &place, "-F", "-c", "1", "-H", &(START * MIB / 512).to_string()]);
    output(format.args(["-T", &sectors.to_string(), "-v", "EDGE-BOOT", "::"]))?;
    let entries = fs::read_dir(tree).map_err(|error| Error::File(tree.to_owned(), error))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    output(Command::new("mcopy").args(["-i", &place, "-s", "-m"]).args(&paths).arg("::")).map(drop)
}

/// Packs a folder as a read-only file system, the same for the same content.
pub fn squash(tree: &Path, to: &Path) -> Result<(), Error> {
    let _ = fs::remove_file(to);
    let mut squash = Command::new("mksquashfs");
    squash.arg(tree).arg(to).args(["-quiet", "-no-progress", "-noappend", "-all-root", "-no-xattrs"]);
    output(squash.args(["-comp", "zstd", "-Xcompression-level", "9", "-mkfs-time", "0", "-all-time", "0"])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_follow_each_other_and_fill_the_disk() {
        let small = layout(512, 20 * MIB).unwrap();
        assert_eq!(small, Layout { root: 132, root_size: 96, state: 228, state_size: 283 });
        let large = layout(1024, 100 * MIB).unwrap();
        assert_eq!(large, Layout { root: 132, root_size: 152, state: 284, state_size: 739 });
        assert!(layout(256, MIB).unwrap_err().to_string().contains("357 MiB"));
    }

    #[test]
    fn each_loader_finds_its_partition() {
        let parts = layout(512, MIB).unwrap();
        assert!(table(Boot::Uefi, &parts).contains("label: gpt\n"));
        let pi = table(Boot::RaspberryPi, &parts);
        assert!(pi.contains("label: dos\n") && pi.contains("start=4MiB, size=128MiB, type=c, bootable\n"), "{pi}");
    }
}
