//! ConfigMaps and Secrets as files that change all at once, as Kubernetes' atomic writer does it.
//!
//! ```text
//! <volume>/..data ──► ..3            renamed over the old link: readers see all of the old or all of the new
//! <volume>/..3/<path>                the files
//! <volume>/<first part of path> ──► ..data/<first part of path>
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use super::{File, VolumeError, io_error, own};

const DATA: &str = "..data";

/// Writes the files unless they are already so.
pub(super) fn project(volume: &str, dir: &Path, files: &[File], group: Option<u32>) -> Result<(), VolumeError> {
    fs::create_dir_all(dir).map_err(io_error(volume, "create", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(io_error(volume, "set the mode of", dir))?;
    if !is_current(dir, files) {
        let old = fs::read_link(dir.join(DATA)).ok();
        let number = old.as_ref().and_then(|o| o.to_str()?.strip_prefix("..")?.parse::<u64>().ok()).unwrap_or(0);
        let new = format!("..{}", number.wrapping_add(1));
        write_all(volume, &dir.join(&new), files, group)?;
        let link = dir.join("..link");
        remove(&link).map_err(io_error(volume, "remove", &link))?;
        symlink(&new, &link).map_err(io_error(volume, "link", &link))?;
        fs::rename(&link, dir.join(DATA)).map_err(io_error(volume, "rename", &link))?;
    }
    links(volume, dir, files)
}

/// Whether `..data` holds exactly these files (a crash may have left anything).
fn is_current(dir: &Path, files: &[File]) -> bool {
    let data = dir.join(DATA);
    let same = |(path, mode, content): &File| {
        let path = data.join(path);
        let mode_of = |p: &Path| fs::metadata(p).map(|m| m.permissions().mode() & 0o777);
        mode_of(&path).is_ok_and(|m| m & *mode == *mode) && fs::read(&path).is_ok_and(|c| c == *content)
    };
    data.is_dir() && count(&data) == files.len() && files.iter().all(same)
}

fn count(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
}

fn write_all(volume: &str, dir: &Path, files: &[File], group: Option<u32>) -> Result<(), VolumeError> {
    remove(dir).map_err(io_error(volume, "remove", dir))?;
    fs::create_dir(dir).map_err(io_error(volume, "create", dir))?;
    for (path, mode, content) in files {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io_error(volume, "create", parent))?;
        }
        // The group of the pod must be able to read, whatever the mode says (as Kubernetes does with fsGroup).
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut f| f.write_all(content)).map_err(io_error(volume, "write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(io_error(
            volume,
            "set the mode of",
            &path,
        ))?;
        own(volume, &path, group)?;
    }
    Ok(())
}

/// Makes the visible names and removes those, and the old data, that are not needed any more.
fn links(volume: &str, dir: &Path, files: &[File]) -> Result<(), VolumeError> {
    let names: BTreeSet<&str> = files.iter().filter_map(|(path, ..)| path.split('/').next()).collect();
    let current = fs::read_link(dir.join(DATA)).map_err(io_error(volume, "read", dir))?;
    for entry in fs::read_dir(dir).map_err(io_error(volume, "read", dir))? {
        let entry = entry.map_err(io_error(volume, "read", dir))?;
        let name = entry.file_name();
        let keep = name == DATA || name == *current || name.to_str().is_some_and(|n| names.contains(n));
        if !keep {
            remove(&entry.path()).map_err(io_error(volume, "remove", &entry.path()))?;
        }
    }
    for name in names {
        let link = dir.join(name);
        match symlink(Path::new(DATA).join(name), &link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(volume, "link", &link)(e)),
            _ => {}
        }
    }
    Ok(())
}

/// Removes a link, file or directory; fine when there is none.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
