//! Programs that are not static, with the loader and every library that they need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::packages::Archive;
use super::tree;
use crate::error::{Error, output};

/// Copies programs of Debian's packages to `bin` in the tree, given as name and place in their package. The packages that
/// were used.
pub fn install(
    archive: &Archive,
    packages: &[&str],
    programs: &[(&str, &str)],
    tree: &Path,
) -> Result<Vec<PathBuf>, Error> {
    let mut names = BTreeSet::new();
    for package in packages {
        let library =
            |name: &String| packages.contains(&name.as_str()) || name.starts_with("lib") || name.starts_with("zlib");
        names.extend(archive.closure(package, &[])?.into_iter().filter(library));
    }
    let folders = archive.unpack(&names.into_iter().collect::<Vec<_>>())?;
    let find = |places: &[String]| -> Option<PathBuf> {
        let mut all = folders.iter().flat_map(|folder| places.iter().map(move |place| folder.join(place)));
        all.find(|path| path.is_file())
    };
    let missing = |name: &str| Error::Usage(format!("Debian's packages have no {name}"));
    let (triple, loader) = match archive.architecture() {
        "arm64" => ("aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1"),
        _ => ("x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"),
    };
    let from = find(&[loader.to_owned(), format!("usr/{loader}")]).ok_or_else(|| missing(loader))?;
    tree::copy(&from, &tree.join(loader))?;
    let mut todo = Vec::new();
    for (name, place) in programs {
        let from = find(&[(*place).to_owned()]).ok_or_else(|| missing(place))?;
        tree::copy(&from, &tree.join("bin").join(name))?;
        todo.push(from);
    }
    let mut used: BTreeSet<PathBuf> = BTreeSet::new();
    while let Some(file) = todo.pop() {
        used.extend(folders.iter().find(|folder| file.starts_with(folder)).cloned());
        for name in needed(&output(Command::new("readelf").arg("--dynamic").arg(&file))?) {
            let to = tree.join("lib").join(triple).join(&name);
            if !to.exists() {
                let places = ["lib", "usr/lib"].map(|lib| format!("{lib}/{triple}/{name}"));
                let from = find(&places).ok_or_else(|| missing(&name))?;
                tree::copy(&from, &to)?;
                todo.push(from);
            }
        }
    }
    Ok(used.into_iter().collect())
}

/// The libraries that `readelf --dynamic` lists: `… (NEEDED)  Shared library: [libc.so.6]`.
fn needed(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains("(NEEDED)"));
    lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_list() {
        let text = " 0x01 (NEEDED)             Shared library: [libdbus-1.so.3]\n 0x0e (SONAME)  Library soname: [x]\n";
        assert_eq!(needed(text), ["libdbus-1.so.3"]);
    }
}
