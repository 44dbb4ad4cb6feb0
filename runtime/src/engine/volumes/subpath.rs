//! Sub-paths of volumes, resolved so that no symbolic link a container has laid leads out of the volume.
//!
//! The kernel resolves the path below the volume (`openat2`, `RESOLVE_BENEATH`), and what it found is bound to a place that no
//! container can reach; only that place is mounted. A path checked and then mounted by name could be exchanged in between
//! (CVE-2017-1002101 and CVE-2021-25741 were that in the kubelet).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{VolumeError, io_error, mounts};

/// Binds `sub_path` below `root` to `place`, making directories that are missing. Gives `place`.
pub(super) fn bind(volume: &str, root: &Path, sub_path: &str, place: PathBuf) -> Result<PathBuf, VolumeError> {
    let found = open(root, sub_path).map_err(|e| match e {
        Errno::XDEV | Errno::LOOP => VolumeError::Escape { volume: volume.to_owned(), sub_path: sub_path.to_owned() },
        e => io_error(volume, "open the sub-path of", root)(e.into()),
    })?;
    let file = File::from(found);
    let is_dir = file.metadata().map_err(io_error(volume, "look at", root))?.is_dir();
    // What an earlier start left may be of the other kind, or lead elsewhere by now.
    mounts::unmount_below(&place).map_err(io_error(volume, "unmount", &place))?;
    prepare(&place, is_dir).map_err(io_error(volume, "create", &place))?;
    let opened = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    mounts::bind(&opened, &place).map_err(io_error(volume, "bind", &place))?;
    Ok(place)
}

fn prepare(place: &Path, is_dir: bool) -> io::Result<()> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::symlink_metadata(place) {
        Ok(meta) if meta.is_dir() => fs::remove_dir(place)?,
        Ok(_) => fs::remove_file(place)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    if is_dir { fs::create_dir(place) } else { OpenOptions::new().write(true).create_new(true).open(place).map(drop) }
}

/// Makes a folder of a container's root file system, with its parents, as runc does for a working directory that the image
/// does not have. Links are followed as the container would follow them, never out of its root.
///
/// # Errors
/// Something on the way is no folder, or cannot be made.
pub fn make_dir(root: &Path, path: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let (mut parent, mut so_far) = (None::<OwnedFd>, std::path::PathBuf::new());
    for part in path.components().filter(|c| matches!(c, std::path::Component::Normal(_))) {
        so_far.push(part);
        let inside = || {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            rustix::fs::openat2(&root, &so_far, flags, Mode::empty(), resolve)
        };
        let dir = match inside() {
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(parent.as_ref().unwrap_or(&root), part.as_os_str(), Mode::from_raw_mode(0o755))?;
                inside()?
            }
            other => other?,
        };
        parent = Some(dir);
    }
    Ok(())
}

fn open(root: &Path, sub_path: &str) -> Result<OwnedFd, Errno> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let beneath = |dir: &OwnedFd, path: &str| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    match beneath(&root, sub_path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut dir = root;
    for part in sub_path.split('/').filter(|p| !p.is_empty()) {
        match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        dir = beneath(&dir, part)?;
    }
    Ok(dir)
}
