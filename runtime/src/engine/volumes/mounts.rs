//! The mounts of one container, and the mounts of the node that stand behind volumes.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use edge_model::pod::container::VolumeMount;
use edge_model::pod::{Container, HostPathType, PodSpec};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, unmount};

use super::{PodDirs, VolumeError, io_error, subpath};
use crate::engine::spec::{Device, Mount};

/// What a container gets of its pod's volumes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attached {
    /// Bind mounts, in the order of the spec.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
}

/// The mounts and devices of a container whose volumes are set up. Blocks.
///
/// # Errors
/// [`VolumeError`], naming the volume.
pub fn attach(spec: &PodSpec, container: &Container, dirs: &PodDirs) -> Result<Attached, VolumeError> {
    let mut attached = Attached::default();
    for (index, wanted) in container.volume_mounts.iter().enumerate() {
        let Some(volume) = spec.volume(&wanted.name) else { continue };
        let root = dirs.volume(volume);
        if let Some(host) = &volume.host_path
            && matches!(host.kind, HostPathType::CharDevice | HostPathType::BlockDevice)
        {
            attached.devices.push(device(wanted, &root)?);
            continue;
        }
        let source = match &wanted.sub_path {
            None => root,
            Some(below) => {
                let place = dirs.run.join("subpaths").join(format!("{}.{index}", container.name));
                subpath::bind(&wanted.name, &root, below, place)?
            }
        };
        // Files that change all at once are changed by us alone.
        let ours = volume.config_map.is_some() || volume.secret.is_some();
        let readonly = wanted.read_only == Some(true) || ours;
        attached.mounts.push(Mount::bind(source, &wanted.mount_path, readonly));
    }
    Ok(attached)
}

fn device(wanted: &VolumeMount, path: &Path) -> Result<Device, VolumeError> {
    let inside = PathBuf::from(&wanted.mount_path);
    if !inside.starts_with("/dev") {
        let (volume, mount_path) = (wanted.name.clone(), wanted.mount_path.clone());
        return Err(VolumeError::Device { volume, mount_path });
    }
    let meta = fs::metadata(path).map_err(io_error(&wanted.name, "find", path))?;
    let access = if wanted.read_only == Some(true) { "r" } else { "rw" };
    Ok(Device {
        path: inside,
        block: meta.mode() & libc::S_IFMT == libc::S_IFBLK,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        access: access.to_owned(),
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// Every mount at or below a directory, in the order in which they were made.
pub(super) fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    // The kernel writes paths without symbolic links.
    let dir = match fs::canonicalize(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(mount_points(&table).filter(|p| p.starts_with(&dir)).collect())
}

/// The mount points of a mountinfo table (proc(5): the fifth field, blanks as `\040`).
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(|field| {
        let mut path = Vec::with_capacity(field.len());
        let mut rest = field;
        while let Some((first, after)) = rest.split_first() {
            let octal = after.get(..3).filter(|o| *first == b'\\' && o.iter().all(|d| (b'0'..=b'7').contains(d)));
            let value = octal.map(|o| o.iter().fold(0u32, |n, d| n * 8 + u32::from(d - b'0')));
            match value.and_then(|v| u8::try_from(v).ok()) {
                Some(byte) => {
                    path.push(byte);
                    rest = after.get(3..).unwrap_or(&[]);
                }
                None => {
                    path.push(*first);
                    rest = after;
                }
            }
        }
        PathBuf::from(std::ffi::OsString::from_vec(path))
    })
}

/// Unmounts everything at and below a directory, the last first. What is busy goes when its last user does.
pub(super) fn unmount_below(dir: &Path) -> io::Result<()> {
    for point in below(dir)?.iter().rev() {
        match unmount(point, UnmountFlags::DETACH) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) | Ok(()) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// A tmpfs that holds at most `bytes`.
pub(super) fn tmpfs(path: &Path, bytes: u64) -> io::Result<()> {
    let options = std::ffi::CString::new(format!("size={bytes},mode=0755")).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("tmpfs", path, "tmpfs", flags, options.as_c_str())?)
}

/// Makes a path appear at another place, with what is mounted below it.
pub(super) fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount_bind_recursive(from, to)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /a\\040b\\134c rw - tmpfs x rw\nbroken\n";
        assert_eq!(mount_points(table).collect::<Vec<_>>(), [PathBuf::from("/"), PathBuf::from("/a b\\c")]);
    }
}
