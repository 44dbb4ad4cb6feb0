//! Debian's packages of any architecture, unpacked below `.cache`. Nothing is installed: apt works on lists of its own, and
//! sees a system on which nothing is installed, so that its answer does not depend on this machine.
//!
//! The packages come from the Debian archive that the system's apt is set up with.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, output, run as run_program};
use crate::target::root;

/// The keys of Debian's archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How often what needs the network is tried.
const TRIES: u64 = 3;

/// A Debian archive seen from a machine of one architecture.
#[derive(Debug)]
pub struct Archive {
    folder: PathBuf,
    architecture: String,
    /// The release called for instead of the ordinary one, where it has the package.
    preferred: Option<String>,
    /// Held as long as the archive is used: one process at a time fills a folder.
    _lock: File,
}

impl Archive {
    /// The archive for `architecture`, as Debian names it. `newer` prefers the release's backports, where there are any.
    pub fn open(architecture: &str, newer: bool) -> Result<Archive, Error> {
        let kind = if newer { format!("{architecture}-newer") } else { architecture.to_owned() };
        let folder = root().join(".cache/image").join(kind);
        let file = |error| Error::File(folder.clone(), error);
        for part in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(folder.join(part)).map_err(file)?;
        }
        let lock = File::create(folder.join("lock")).map_err(file)?;
        lock.lock().map_err(file)?;
        fs::write(folder.join("status"), "").map_err(file)?;
        let (sources, release) = sources(newer)?;
        fs::write(folder.join("sources.list"), sources).map_err(file)?;
        let preferred = newer.then(|| format!("{release}-backports"));
        Ok(Archive { architecture: architecture.to_owned(), preferred, _lock: lock, folder })
    }

    /// The architecture, as Debian names it.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// An apt command on this archive.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut option = |text: String| {
            command.arg("-o").arg(text);
        };
        option(format!("Dir::State::lists={}", at("lists")));
        option(format!("Dir::State::status={}", at("status")));
        option(format!("Dir::Cache={}", at("cache")));
        option(format!("Dir::Etc::sourcelist={}", at("sources.list")));
        for fixed in [
            "Dir::Etc::sourceparts=-",
            "Dir::Etc::preferencesparts=-",
            "APT::Sandbox::User=",
            "Debug::NoLocking=1",
            "Acquire::Languages=none",
            "Acquire::Retries=3",
        ] {
            option(fixed.to_owned());
        }
        option(format!("APT::Architecture={}", self.architecture));
        option(format!("APT::Architectures::={}", self.architecture));
        if let Some(release) = self.preferred.as_ref().filter(|release| self.has_release(release)) {
            option(format!("APT::Default-Release={release}"));
        }
        command.arg("-qq");
        command
    }

    /// Whether there are lists of a release: not every archive has backports.
    fn has_release(&self, release: &str) -> bool {
        let needle = format!("_dists_{release}_");
        let names = fs::read_dir(self.folder.join("lists")).into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| name.contains(&needle))
    }

    /// Fetches the lists, unless they are there.
    fn update(&self) -> Result<(), Error> {
        let mark = self.folder.join("updated");
        if mark.exists() {
            return Ok(());
        }
        eprintln!("xtask: fetching Debian's lists of packages for {}", self.architecture);
        retry(|_| {
            let mut update = self.apt("apt-get");
            output(update.arg("update")).map(drop)
        })?;
        fs::write(&mark, "").map_err(|error| Error::File(mark, error))
    }

    /// A package and all that it needs, without those that `skip` names: they are for an installation.
    pub fn closure(&self, package: &str, skip: &[&str]) -> Result<Vec<String>, Error> {
        self.update()?;
        let mut simulate = self.apt("apt-get");
        simulate.args(["--simulate", "--no-install-recommends", "install", package]);
        let text = output(&mut simulate)?;
        let names = text.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
        let wanted = |name: &&str| !skip.iter().any(|skipped| name == skipped);
        Ok(names
            .filter(wanted)
            .map(|name| name.trim_end_matches(&format!(":{}", self.architecture)).to_owned())
            .collect())
    }

    /// Unpacks packages, each into a folder of its own; what was unpacked before is used again. Their folders, in order.
    pub fn unpack(&self, packages: &[String]) -> Result<Vec<PathBuf>, Error> {
        let place = |name: &String| self.folder.join("packages").join(name);
        let missing: BTreeSet<&String> = packages.iter().filter(|name| !place(name).exists()).collect();
        if !missing.is_empty() {
            self.update()?;
            let debs = self.folder.join("debs");
            let _ = fs::remove_dir_all(&debs);
            fs::create_dir_all(&debs).map_err(|error| Error::File(debs.clone(), error))?;
            eprintln!("xtask: downloading {} packages for {}", missing.len(), self.architecture);
            retry(|try_| {
                if try_ > 1 {
                    // Lists of long ago name versions that the archive has no more.
                    let _ = fs::remove_file(self.folder.join("updated"));
                    self.update()?;
                }
                output(self.apt("apt-get").current_dir(&debs).arg("download").args(&missing)).map(drop)
            })?;
            for name in missing {
                extract(&debs, name, &place(name))?;
            }
            let _ = fs::remove_dir_all(&debs);
        }
        Ok(packages.iter().map(place).collect())
    }

    /// One package.
    pub fn unpack_one(&self, package: &str) -> Result<PathBuf, Error> {
        let mut folders = self.unpack(&[package.to_owned()])?;
        folders.pop().ok_or_else(|| Error::Usage(format!("no package {package}")))
    }
}

/// Unpacks the file of a package; the folder appears when it is whole.
fn extract(debs: &Path, name: &str, place: &Path) -> Result<(), Error> {
    let file = |error| Error::File(debs.to_owned(), error);
    let prefix = format!("{name}_");
    let names = fs::read_dir(debs).map_err(file)?.flatten().map(|entry| entry.path());
    let mut found = names.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)));
    let deb = found.next().ok_or_else(|| Error::Usage(format!("apt downloaded no {name}")))?;
    let new = place.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    run_program(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&new))?;
    fs::rename(&new, place).map_err(|error| Error::File(place.to_owned(), error))
}

/// Tries again what a mirror may refuse once.
fn retry(task: impl Fn(u64) -> Result<(), Error>) -> Result<(), Error> {
    let mut result = task(1);
    for try_ in 2..=TRIES {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(try_ * 3));
        result = task(try_);
    }
    result
}

/// A list of sources: the system's Debian archive with firmware, and its backports if asked for; and the release's name.
fn sources(newer: bool) -> Result<(String, String), Error> {
    let format = "$(ORIGIN)|$(REPO_URI)|$(CODENAME)";
    let text = output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))
        .map_err(|error| Error::Usage(format!("an image is made of Debian's packages, by apt: {error}")))?;
    let key = if Path::new(KEYRING).exists() { KEYRING } else { "" };
    compose(&text, key, newer).ok_or_else(|| {
        Error::Usage("the system's apt knows no Debian archive; an image is made of Debian's packages".to_owned())
    })
}

/// The same of what apt says.
fn compose(targets: &str, key: &str, newer: bool) -> Option<(String, String)> {
    let option = if key.is_empty() { String::new() } else { format!("[signed-by={key}] ") };
    let mut lines = BTreeSet::new();
    let mut main = None;
    for target in targets.lines() {
        let fields: Vec<&str> = target.split('|').collect();
        let [origin, uri, codename] = fields.as_slice() else { continue };
        if *origin != "Debian" || codename.ends_with("-backports") {
            continue;
        }
        lines.insert(format!("deb {option}{uri} {codename} main non-free-firmware\n"));
        // The release proper has no suffix; `-updates` and `-security` go with it.
        if !codename.contains('-') {
            main = Some(((*codename).to_owned(), format!("deb {option}{uri} {codename}-backports main\n")));
        }
    }
    let (codename, backports) = main?;
    if newer {
        lines.insert(backports);
    }
    Some((lines.into_iter().collect(), codename))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_sources_are_taken_and_no_others() {
        let targets = "Debian|http://a/debian/|bookworm\n\
                       Debian|http://a/debian/|bookworm-updates\n\
                       Elsewhere|http://b/|bookworm\n";
        let (list, release) = compose(targets, "/k.gpg", true).unwrap();
        assert_eq!(release, "bookworm");
        assert_eq!(
            list,
            "deb [signed-by=/k.gpg] http://a/debian/ bookworm main non-free-firmware\n\
             deb [signed-by=/k.gpg] http://a/debian/ bookworm-backports main\n\
             deb [signed-by=/k.gpg] http://a/debian/ bookworm-updates main non-free-firmware\n"
        );
        assert_eq!(compose("Ubuntu|http://c/|noble\n", "", false), None);
    }
}
