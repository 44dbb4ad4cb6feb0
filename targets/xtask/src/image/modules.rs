//! A kernel's modules: those that are wanted and those they need, and the indices that `modprobe` reads. Debian's packages
//! leave making these to the installation (`depmod`), which does not take place here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, run as run_program};

/// What the file of a module tells of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Info {
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    /// `…/lib/modules/<release>`.
    folder: PathBuf,
    /// Where each is, below `folder`, by its name with underscores.
    places: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// The modules of an unpacked kernel package.
    pub fn of(package: &Path) -> Result<Modules, Error> {
        let lib = ["lib/modules", "usr/lib/modules"].map(|part| package.join(part));
        let lib = lib.into_iter().find(|path| path.is_dir()).unwrap_or_else(|| package.to_owned());
        let entries = fs::read_dir(&lib).map_err(|error| Error::File(lib.clone(), error))?;
        let folder = entries.flatten().map(|entry| entry.path()).find(|path| path.join("kernel").is_dir());
        let folder = folder.ok_or_else(|| Error::Content(lib, "no modules of a kernel".to_owned()))?;
        let mut places = BTreeMap::new();
        walk(&folder.join("kernel"), &mut |path| {
            if let (Some(name), Ok(below)) = (name_of(path), path.strip_prefix(&folder)) {
                places.insert(name, below.to_owned());
            }
        })?;
        Ok(Modules { folder, places })
    }

    /// The kernel's release, which is the name of its folder.
    pub fn release(&self) -> String {
        self.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The names below a pattern: a folder below `kernel/` with a slash at its end, or a module. A module that is part of
    /// the kernel itself, or that this kernel does not have, is none.
    fn named(&self, pattern: &str) -> Vec<String> {
        if pattern.ends_with('/') {
            let folder = Path::new("kernel").join(pattern);
            return self
                .places
                .iter()
                .filter(|(_, place)| place.starts_with(&folder))
                .map(|(n, _)| n.clone())
                .collect();
        }
        let name = pattern.replace('-', "_");
        self.places.contains_key(&name).then_some(name).into_iter().collect()
    }

    /// Copies the modules that the patterns name, and all they need, into the root file system at `tree`, with the
    /// indices. The names of those asked for by name, in order.
    pub fn install(&self, patterns: &[String], tree: &Path) -> Result<Vec<String>, Error> {
        let target = tree.join("lib/modules").join(self.release());
        let mut infos: BTreeMap<String, Info> = BTreeMap::new();
        let wanted: Vec<String> = patterns.iter().flat_map(|pattern| self.named(pattern)).collect();
        let mut todo = wanted.clone();
        while let Some(name) = todo.pop() {
            if infos.contains_key(&name) {
                continue;
            }
            let Some(place) = self.places.get(&name) else { continue };
            let file = copy(&self.folder.join(place), &target.join(uncompressed(place)))?;
            let info = info(&file);
            todo.extend(info.depends.iter().cloned());
            infos.insert(name, info);
        }
        self.index(&infos, &target)?;
        Ok(wanted)
    }

    /// Writes what `modprobe` reads.
    fn index(&self, infos: &BTreeMap<String, Info>, target: &Path) -> Result<(), Error> {
        let (mut dep, mut alias) = (String::new(), String::from("# Aliases extracted from modules themselves.\n"));
        let place = |name: &String| self.places.get(name).map(|place| uncompressed(place).display().to_string());
        for (name, info) in infos {
            let needed = needed(name, infos);
            let needed: Vec<String> = needed.iter().filter_map(place).collect();
            let _ = writeln!(dep, "{}: {}", place(name).unwrap_or_default(), needed.join(" "));
            for pattern in &info.aliases {
                let _ = writeln!(alias, "alias {pattern} {name}");
            }
        }
        fs::create_dir_all(target).map_err(|error| Error::File(target.to_owned(), error))?;
        let builtin = fs::read_to_string(self.folder.join("modules.builtin")).unwrap_or_default();
        for (file, text) in [("modules.dep", dep), ("modules.alias", alias), ("modules.builtin", builtin)] {
            fs::write(target.join(file), text).map_err(|error| Error::File(target.join(file), error))?;
        }
        Ok(())
    }
}

/// Everything a module needs, the nearest first, as `modules.dep` has it.
fn needed(name: &str, infos: &BTreeMap<String, Info>) -> Vec<String> {
    let (mut order, mut seen): (Vec<String>, BTreeSet<&str>) = (Vec::new(), BTreeSet::from([name]));
    fn visit<'a>(name: &str, infos: &'a BTreeMap<String, Info>, seen: &mut BTreeSet<&'a str>, order: &mut Vec<String>) {
        for needed in infos.get(name).into_iter().flat_map(|info| &info.depends) {
            if seen.insert(needed) {
                visit(needed, infos, seen, order);
                order.push(needed.clone());
            }
        }
    }
    visit(name, infos, &mut seen, &mut order);
    order.reverse();
    order
}

/// `nf_tables` of `…/nf-tables.ko.xz`.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let (name, rest) = name.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

/// A module's path without the ending that says how it is packed.
fn uncompressed(place: &Path) -> PathBuf {
    if place.extension().is_some_and(|end| end == "ko") { place.to_owned() } else { place.with_extension("") }
}

/// Copies a module, unpacked: the file system it goes to is compressed as a whole. Its bytes.
fn copy(from: &Path, to: &Path) -> Result<Vec<u8>, Error> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(|error| Error::File(parent.to_owned(), error))?;
    let program = match from.extension().and_then(|end| end.to_str()) {
        Some("xz") => Some("xz"),
        Some("zst") => Some("zstd"),
        Some("gz") => Some("gzip"),
        _ => None,
    };
    match program {
        None => fs::copy(from, to).map(drop).map_err(|error| Error::File(from.to_owned(), error))?,
        Some(program) => {
            let file = fs::File::create(to).map_err(|error| Error::File(to.to_owned(), error))?;
            run_program(Command::new(program).arg("-dc").arg(from).stdout(file))?;
        }
    }
    fs::read(to).map_err(|error| Error::File(to.to_owned(), error))
}

/// What stands in a module's section `.modinfo`: `key=value` texts, each with a zero at its end.
fn info(file: &[u8]) -> Info {
    let mut info = Info::default();
    for text in file.split(|byte| *byte == 0).filter_map(|bytes| std::str::from_utf8(bytes).ok()) {
        if let Some(names) = text.strip_prefix("depends=") {
            info.depends =
                names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect();
        } else if let Some(pattern) = text.strip_prefix("alias=") {
            info.aliases.push(pattern.to_owned());
        }
    }
    info
}

fn walk(folder: &Path, found: &mut impl FnMut(&Path)) -> Result<(), Error> {
    let file = |error| Error::File(folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(file)? {
        let entry = entry.map_err(file)?;
        if entry.file_type().map_err(file)?.is_dir() {
            walk(&entry.path(), found)?;
        } else {
            found(&entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_what_it_needs() {
        let file = b"\x7fELF\0license=GPL\0alias=fs-ext4\0depends=jbd2,mbcache,crc-16\0alias=ext3\0\xff\xff\0";
        let wanted = Info {
            depends: ["jbd2", "mbcache", "crc_16"].map(str::to_owned).to_vec(),
            aliases: ["fs-ext4", "ext3"].map(str::to_owned).to_vec(),
        };
        assert_eq!(info(file), wanted);
    }

    #[test]
    fn what_is_needed_is_listed_behind_what_needs_it() {
        let with =
            |names: &[&str]| Info { depends: names.iter().map(|n| (*n).to_owned()).collect(), aliases: Vec::new() };
        let infos = BTreeMap::from([
            ("a".to_owned(), with(&["b", "c"])),
            ("b".to_owned(), with(&["d"])),
            ("c".to_owned(), with(&["d"])),
            ("d".to_owned(), with(&[])),
        ]);
        // modprobe loads from the end.
        assert_eq!(needed("a", &infos), ["c", "b", "d"]);
    }

    #[test]
    fn names_are_told_from_files() {
        let name = |path: &str| name_of(Path::new(path));
        assert_eq!(name("kernel/fs/fat/nls-ascii.ko.xz").as_deref(), Some("nls_ascii"));
        assert_eq!(name("kernel/fs/ext4/ext4.ko").as_deref(), Some("ext4"));
        assert_eq!(name("kernel/modules.order"), None);
        assert_eq!(uncompressed(Path::new("a/b.ko.xz")), Path::new("a/b.ko"));
        assert_eq!(uncompressed(Path::new("a/b.ko")), Path::new("a/b.ko"));
    }
}
