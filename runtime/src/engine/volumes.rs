//! Volumes: what a pod's containers may mount, made before they start and taken away with the pod.
//!
//! | volume | kept in | lives |
//! |---|---|---|
//! | emptyDir | `<state>/pods/<uid>/volumes/<name>` | as long as the pod, over reboots |
//! | emptyDir, medium Memory | a tmpfs at `<run>/pods/<uid>/volumes/<name>` | until the pod goes or the node reboots |
//! | configMap, secret | `<run>/pods/<uid>/volumes/<name>`, always in memory | the same; a change of the object is followed |
//! | hostPath | where it is | not ours |

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use edge_model::configmap::Data;
use edge_model::pod::{EmptyDir, HostPathType, KeyToPath, Medium, PodSpec, Volume};

mod mounts;
mod project;
mod subpath;

pub use subpath::make_dir;
#[cfg(test)]
mod tests;

pub use mounts::{Attached, attach};

/// The most a tmpfs of an emptyDir takes when the pod does not say, in bytes. Kubernetes leaves it at half of the memory,
/// which on a gateway is everything.
const MEMORY_DEFAULT: u64 = 64 << 20;
/// The most the files of a Secret take in memory, in bytes: the data's limit of 1 MiB twice (old and new during a change),
/// and room for the file system.
const SECRET_BYTES: u64 = 3 << 20;
/// The mode of a projected file when the pod does not say (Kubernetes' default).
const FILE_MODE: u32 = 0o644;

/// Where one pod keeps what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodDirs {
    /// In memory: `<run>/pods/<uid>`. Gone after a reboot.
    pub run: PathBuf,
    /// On disk: `<state>/pods/<uid>`.
    pub state: PathBuf,
}

impl PodDirs {
    /// Where a volume's own directory is; a path of the node for hostPath.
    pub fn volume(&self, volume: &Volume) -> PathBuf {
        match (&volume.host_path, &volume.empty_dir) {
            (Some(host), _) => PathBuf::from(&host.path),
            (None, Some(EmptyDir { medium: Medium::Disk, .. })) => self.state.join("volumes").join(&volume.name),
            _ => self.run.join("volumes").join(&volume.name),
        }
    }
}

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A file or directory could not be made, read or removed.
    #[error("volume {volume:?}: cannot {verb} {}", path.display())]
    Io {
        /// The volume.
        volume: String,
        /// What was tried.
        verb: &'static str,
        /// With which path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is at a host path is not what the pod says.
    #[error("volume {volume:?}: {} is not a {wanted}", path.display())]
    NotA {
        /// The volume.
        volume: String,
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// A ConfigMap or Secret is missing, unreadable, or lacks a key.
    #[error("volume {volume:?}: {message}")]
    Data {
        /// The volume.
        volume: String,
        /// What is wrong.
        message: String,
    },
    /// A device can only be mounted below `/dev`.
    #[error("volume {volume:?}: a device is mounted below /dev, not at {mount_path}")]
    Device {
        /// The volume.
        volume: String,
        /// Where the pod wants it.
        mount_path: String,
    },
    /// A sub-path leads out of its volume.
    #[error("volume {volume:?}: sub-path {sub_path:?} leads out of the volume")]
    Escape {
        /// The volume.
        volume: String,
        /// The path.
        sub_path: String,
    },
    /// Something is still mounted below a directory that should be removed.
    #[error("{} is still a mount: nothing is removed", .0.display())]
    StillMounted(PathBuf),
}

/// Adds volume, verb and path to an error of the system.
fn io_error<'a>(volume: &'a str, verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> VolumeError + 'a {
    move |source| VolumeError::Io { volume: volume.to_owned(), verb, path: path.to_owned(), source }
}

/// Where the data of ConfigMaps and Secrets comes from; see [`crate::engine::pods::env::Lookup`].
pub struct Objects<'a> {
    /// The data of a ConfigMap of the pod's namespace.
    pub config_map: &'a dyn Fn(&str) -> Result<Option<Data>, String>,
    /// The data of a Secret of the pod's namespace.
    pub secret: &'a dyn Fn(&str) -> Result<Option<Data>, String>,
}

/// Makes every volume of a pod, or brings it up to date. What is there already stays as it is. Blocks.
///
/// # Errors
/// [`VolumeError`], naming the volume.
pub fn set_up(spec: &PodSpec, dirs: &PodDirs, objects: &Objects<'_>) -> Result<(), VolumeError> {
    let group = spec.security_context.as_ref().and_then(|s| s.fs_group);
    for volume in &spec.volumes {
        let path = dirs.volume(volume);
        if let Some(host) = &volume.host_path {
            host_path(&volume.name, &path, host.kind)?;
        } else if let Some(empty) = &volume.empty_dir {
            empty_dir(&volume.name, &path, empty, group)?;
        } else if let Some(map) = &volume.config_map {
            let found = (objects.config_map)(&map.name);
            let data = data(&volume.name, "configmap", &map.name, found, map.optional, &map.items)?;
            let mode = map.default_mode.unwrap_or(FILE_MODE);
            project::project(&volume.name, &path, &files(data, &map.items, mode), group)?;
        } else if let Some(secret) = &volume.secret {
            in_memory(&volume.name, &path, SECRET_BYTES)?;
            let found = (objects.secret)(&secret.secret_name);
            let data = data(&volume.name, "secret", &secret.secret_name, found, secret.optional, &secret.items)?;
            let mode = secret.default_mode.unwrap_or(FILE_MODE);
            project::project(&volume.name, &path, &files(data, &secret.items, mode), group)?;
        }
    }
    Ok(())
}

/// Takes away everything a pod had: its mounts first, and nothing at all while a mount is left. Blocks.
///
/// # Errors
/// [`VolumeError::StillMounted`], [`VolumeError::Io`].
pub fn tear_down(dirs: &PodDirs) -> Result<(), VolumeError> {
    for dir in [&dirs.run, &dirs.state] {
        mounts::unmount_below(dir).map_err(io_error("", "unmount what is below", dir))?;
        // Removing would otherwise walk through a mount into files that are not the pod's.
        if let Some(left) = mounts::below(dir).map_err(io_error("", "see the mounts below", dir))?.pop() {
            return Err(VolumeError::StillMounted(left));
        }
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("", "remove", dir)(e)),
            _ => {}
        }
    }
    Ok(())
}

/// How many bytes the files below a directory take; what cannot be read counts as nothing. Blocks.
pub fn usage(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => usage(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn empty_dir(name: &str, path: &Path, empty: &EmptyDir, group: Option<u32>) -> Result<(), VolumeError> {
    if empty.medium == Medium::Memory {
        let limit = empty.size_limit.and_then(|q| u64::try_from(q.value()).ok()).unwrap_or(MEMORY_DEFAULT);
        in_memory(name, path, limit)?;
    }
    fs::create_dir_all(path).map_err(io_error(name, "create", path))?;
    // Kubernetes' mode: containers may run as any user.
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_error(name, "set the mode of", path))?;
    own(name, path, group)
}

/// Gives a file or directory to the pod's group, if it has one. Symbolic links are not followed.
fn own(name: &str, path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
    match group {
        Some(_) => std::os::unix::fs::lchown(path, None, group).map_err(io_error(name, "give to the group", path)),
        None => Ok(()),
    }
}

/// A directory whose files are in memory and bounded: a tmpfs of its own.
fn in_memory(name: &str, path: &Path, bytes: u64) -> Result<(), VolumeError> {
    fs::create_dir_all(path).map_err(io_error(name, "create", path))?;
    let mounted = mounts::below(path).map_err(io_error(name, "see the mounts below", path))?;
    if mounted.iter().any(|m| m == path) {
        return Ok(());
    }
    mounts::tmpfs(path, bytes).map_err(io_error(name, "mount a tmpfs at", path))
}

fn host_path(name: &str, path: &Path, kind: HostPathType) -> Result<(), VolumeError> {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        HostPathType::DirectoryOrCreate if !path.exists() => {
            fs::create_dir_all(path).map_err(io_error(name, "create", path))?;
        }
        HostPathType::FileOrCreate if !path.exists() => {
            fs::File::create_new(path).map_err(io_error(name, "create", path))?;
        }
        _ => {}
    }
    let found = fs::metadata(path).map_err(io_error(name, "find", path))?.file_type();
    let (right, wanted) = match kind {
        HostPathType::Any => (true, ""),
        HostPathType::Directory | HostPathType::DirectoryOrCreate => (found.is_dir(), "directory"),
        HostPathType::File | HostPathType::FileOrCreate => (found.is_file(), "file"),
        HostPathType::Socket => (found.is_socket(), "socket"),
        HostPathType::CharDevice => (found.is_char_device(), "character device"),
        HostPathType::BlockDevice => (found.is_block_device(), "block device"),
    };
    if right { Ok(()) } else { Err(VolumeError::NotA { volume: name.to_owned(), path: path.to_owned(), wanted }) }
}

/// The data of an object, checked against the items that are asked for; empty when it is optional and missing.
fn data(
    volume: &str,
    kind: &str,
    name: &str,
    found: Result<Option<Data>, String>,
    optional: Option<bool>,
    items: &[KeyToPath],
) -> Result<Data, VolumeError> {
    let fail = |message: String| VolumeError::Data { volume: volume.to_owned(), message };
    let optional = optional == Some(true);
    let data = match found {
        Ok(Some(data)) => data,
        Ok(None) if optional => return Ok(Data::new()),
        Ok(None) => return Err(fail(format!("{kind} {name:?} not found"))),
        Err(message) => return Err(fail(format!("{kind} {name:?}: {message}"))),
    };
    match items.iter().find(|item| !data.contains_key(&item.key)) {
        Some(item) if !optional => Err(fail(format!("{kind} {name:?} has no key {:?}", item.key))),
        _ => Ok(data),
    }
}

/// One file of a projected volume: path below the mount, mode, content.
type File = (String, u32, Vec<u8>);

fn files(data: Data, items: &[KeyToPath], mode: u32) -> Vec<File> {
    if items.is_empty() {
        return data.into_iter().map(|(key, content)| (key, mode, content)).collect();
    }
    let file = |item: &KeyToPath| {
        let content = data.get(&item.key).cloned()?;
        Some((item.path.clone(), item.mode.unwrap_or(mode), content))
    };
    items.iter().filter_map(file).collect()
}
