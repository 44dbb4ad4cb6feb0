//! Reading configuration files, in the order in which they are laid.

use std::path::{Path, PathBuf};

use super::Origin;
use super::error::Problem;

/// Defaults of whoever made the image.
pub const VENDOR: &str = "/usr/lib/edge-runtime/config.toml";
/// The administrator's file; the folder `conf.d` beside it follows, in order of name.
pub const ADMIN: &str = "/etc/edge-runtime/config.toml";

/// The files that are read: the named one alone, or those that are there of the vendor's, the administrator's and
/// `conf.d/*.toml`.
pub fn paths(named: Option<&Path>) -> Vec<PathBuf> {
    match named {
        Some(path) => vec![path.to_owned()],
        None => {
            let admin = Path::new(ADMIN);
            let mut paths = vec![PathBuf::from(VENDOR), admin.to_owned()];
            paths.extend(drop_ins(&admin.with_file_name("conf.d")));
            paths.retain(|p| p.exists());
            paths
        }
    }
}

/// The texts of all configuration files.
///
/// # Errors
/// A named file that cannot be read; any other that is there and cannot be read.
pub fn read(named: Option<&Path>) -> Result<Vec<(String, String)>, Problem> {
    paths(named).iter().map(|path| read_one(path)).collect()
}

fn read_one(path: &Path) -> Result<(String, String), Problem> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let message = format!("cannot be read: {error}");
            Err(Problem { origin: Origin::File { name, line: 1 }, path: String::new(), message })
        }
    }
}

fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    paths.sort();
    paths
}
