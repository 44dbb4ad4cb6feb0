//! The overlayfs mount itself.
//!
//! Folders are handed to the kernel as `/proc/self/fd/<n>`: short, so that many layers fit into the one page mount(2)
//! takes; and free of commas and colons, which a state directory may have in its name. From Linux 6.8 on each layer is
//! given on its own (`lowerdir+`), and only the kernel's limit of 500 is left.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};

use super::tree::Marks;

/// What mount(2) takes as options: a page, with its final zero.
const PAGE: usize = 4095;
/// The name in the mount table.
const NAME: &str = "edge-runtime";

/// What goes into a mount.
pub(super) struct Layers<'a> {
    /// Read-only folders, topmost first.
    pub(super) lowers: Vec<&'a Path>,
    pub(super) upper: &'a Path,
    pub(super) work: &'a Path,
    pub(super) marks: Marks,
}

/// Whether we may use the marks of the system or only those of a user namespace: only in the first one does the map of
/// user ids cover all there are.
pub(super) fn marks() -> Marks {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    if whole && rustix::process::geteuid().is_root() { Marks::Trusted } else { Marks::User }
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn short(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Mounts on a folder. Device nodes in it do not work: no image needs its own, and one could bring `/dev/mem`.
pub(super) fn mount_overlay(layers: &Layers<'_>, target: &Path) -> Result<(), Errno> {
    match mount_new(layers, target) {
        // Kernels before 5.2 have no fsopen, before 6.8 no `lowerdir+`.
        Err(Errno::NOSYS | Errno::INVAL) => mount_old(layers, target),
        done => done,
    }
}

fn mount_new(layers: &Layers<'_>, target: &Path) -> Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, path: &Path| -> Result<(), Errno> {
        let fd = open(path)?;
        fsconfig_set_string(context.as_fd(), key, short(&fd))
    };
    fsconfig_set_string(context.as_fd(), "source", NAME)?;
    for lower in &layers.lowers {
        set("lowerdir+", lower)?;
    }
    set("upperdir", layers.upper)?;
    set("workdir", layers.work)?;
    if layers.marks == Marks::User {
        fsconfig_set_flag(context.as_fd(), "userxattr")?;
    }
    fsconfig_create(context.as_fd())?;
    let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    move_mount(mounted, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

pub(super) fn mount_old(layers: &Layers<'_>, target: &Path) -> Result<(), Errno> {
    let lowers = layers.lowers.iter().map(|p| open(p)).collect::<Result<Vec<_>, _>>()?;
    let (upper, work) = (open(layers.upper)?, open(layers.work)?);
    let lowerdir = lowers.iter().map(short).collect::<Vec<_>>().join(":");
    let mut options = format!("lowerdir={lowerdir},upperdir={},workdir={}", short(&upper), short(&work));
    if layers.marks == Marks::User {
        options.push_str(",userxattr");
    }
    if options.len() > PAGE {
        return Err(Errno::TOOBIG);
    }
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    mount(NAME, target, "overlay", MountFlags::NODEV, options.as_c_str())
}

/// Mounts a small file system in memory, for what a container with a read-only root needs written: mount points.
pub(super) fn mount_tmpfs(target: &Path, bytes: u64) -> Result<(), Errno> {
    let options = std::ffi::CString::new(format!("size={bytes},mode=0700")).map_err(|_| Errno::INVAL)?;
    mount(NAME, target, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str())
}

/// Unmounts everything mounted on a path; it is no error when nothing is.
pub(super) fn unmount_all(target: &Path) -> Result<(), Errno> {
    loop {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// The mount points under a folder, as the kernel lists them (proc(5), mountinfo).
pub(super) fn mounts_under(folder: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    use std::os::unix::ffi::OsStringExt;
    let table = fs::read("/proc/self/mountinfo")?;
    let points = table.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4));
    let paths = points.map(|p| std::path::PathBuf::from(std::ffi::OsString::from_vec(unescape(p))));
    Ok(paths.filter(|p| p.starts_with(folder)).collect())
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}
