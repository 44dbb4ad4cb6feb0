//! An OCI image layout, which is a folder, as the archive that can be sent.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Writes everything in a folder as a tar archive: files and folders by their names inside, as an OCI archive has them.
///
/// # Errors
/// What cannot be read or written; links and devices have no place in a layout and are left out.
pub fn pack(folder: &Path, into: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(into);
    archive.sparse(false);
    add(&mut archive, folder, Path::new(""))?;
    archive.finish()
}

fn add(archive: &mut tar::Builder<impl Write>, folder: &Path, name: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name, kind) = (entry.path(), name.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            archive.append_dir(&name, &path)?;
            add(archive, &path, &name)?;
        } else if kind.is_file() {
            archive.append_path_with_name(&path, &name)?;
        }
    }
    Ok(())
}
