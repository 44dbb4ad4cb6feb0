//! The crates that are in the executable, as `cargo metadata` and `Cargo.lock` tell: what the SBOM and the licences list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

use crate::error::{Error, output, read};
use crate::target::{Target, root};

/// A crate in the executable.
#[derive(Debug, Clone, Deserialize)]
pub struct Crate {
    id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SPDX expression of its licence.
    pub license: Option<String>,
    /// The file that says it instead.
    pub license_file: Option<String>,
    /// Where its sources are.
    pub repository: Option<String>,
    /// `None` for a crate of this repository.
    pub source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Kinds>,
    /// The SHA-256 of its package, from `Cargo.lock`.
    #[serde(skip)]
    pub checksum: Option<String>,
    /// What it depends on, as indices into the list.
    #[serde(skip)]
    pub depends_on: Vec<usize>,
}

#[derive(Debug, Clone, Deserialize)]
struct Kinds {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Crate {
    /// The folder of its sources.
    pub fn folder(&self) -> PathBuf {
        self.manifest_path.parent().map(PathBuf::from).unwrap_or_default()
    }

    /// Its name in a package URL (`pkg:cargo/…`).
    pub fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn is_macro(&self) -> bool {
        self.targets.iter().any(|t| t.kind.iter().any(|k| k == "proc-macro"))
    }
}

/// The crates in a target's executable, ours first, then by name and version.
pub fn of(target: &Target) -> Result<Vec<Crate>, Error> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["metadata", "--format-version", "1", "--locked"]);
    let text = output(cargo.args(["--filter-platform", &target.triple]))?;
    let metadata: Metadata = serde_json::from_str(&text)
        .map_err(|error| Error::Content(PathBuf::from("cargo metadata"), error.to_string()))?;
    let lock_path = root().join("Cargo.lock");
    let lock: Lock =
        toml::from_str(&read(&lock_path)?).map_err(|error| Error::Content(lock_path, error.to_string()))?;
    select(metadata, &lock)
}

fn select(metadata: Metadata, lock: &Lock) -> Result<Vec<Crate>, Error> {
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let packages: BTreeMap<&str, &Crate> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
    let first = metadata.packages.iter().find(|p| p.name == "edge-runtime" && p.source.is_none());
    let first = first.ok_or_else(|| Error::Usage("cargo metadata names no edge-runtime".to_owned()))?;
    // What is linked: ordinary dependencies. Macros and build scripts leave nothing of themselves in the executable.
    let linked = |id: &str| -> Vec<&str> {
        let node = nodes.get(id).into_iter().flat_map(|n| &n.deps);
        let ordinary = node.filter(|d| d.dep_kinds.iter().any(|k| k.kind.is_none()));
        ordinary.map(|d| d.pkg.as_str()).filter(|id| packages.get(id).is_some_and(|p| !p.is_macro())).collect()
    };
    let (mut seen, mut open) = (BTreeSet::new(), vec![first.id.as_str()]);
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(linked(id));
        }
    }
    let mut all: Vec<Crate> = seen.iter().filter_map(|id| packages.get(id)).map(|p| (*p).clone()).collect();
    all.sort_by(|a, b| {
        (a.name != "edge-runtime", &a.name, &a.version).cmp(&(b.name != "edge-runtime", &b.name, &b.version))
    });
    let places: BTreeMap<String, usize> = all.iter().enumerate().map(|(i, c)| (c.id.clone(), i)).collect();
    for one in &mut all {
        one.depends_on = linked(&one.id).into_iter().filter_map(|id| places.get(id).copied()).collect();
        one.depends_on.sort_unstable();
        one.depends_on.dedup();
        let locked = lock.package.iter().find(|l| l.name == one.name && l.version == one.version);
        one.checksum = locked.and_then(|l| l.checksum.clone());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target;

    #[test]
    fn the_executables_crates_are_found() {
        let target =
            target::chosen(&["--target".to_owned(), "aarch64-unknown-linux-gnu".to_owned()]).unwrap().remove(0);
        let all = of(&target).unwrap();
        let find = |name: &str| all.iter().find(|c| c.name == name);
        assert_eq!(all[0].name, "edge-runtime");
        let sled = find("sled").expect("the store's crate");
        assert!(sled.checksum.as_ref().is_some_and(|sum| sum.len() == 64) && sled.license.is_some());
        assert!(find("libcontainer").is_some() && find("edge-mappers").is_some());
        for name in ["serde_derive", "cc", "proptest", "tempfile", "xtask", "edge-tests"] {
            assert!(find(name).is_none(), "{name} is not in the executable");
        }
        assert!(all[0].depends_on.iter().any(|i| all[*i].name == "sled"));
    }
}
