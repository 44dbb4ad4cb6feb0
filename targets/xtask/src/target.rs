//! The targets: a file in `targets/` is what makes a triple one of them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, read};

/// A target and what is promised for it.
#[derive(Debug)]
pub struct Target {
    /// The name Rust gives it.
    pub triple: String,
    /// The rest of its file.
    pub facts: Facts,
}

/// What `targets/<triple>.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Facts {
    /// A part of what `readelf` calls the machine.
    pub arch: String,
    /// The program that removes symbols.
    pub strip: String,
    /// Flags of the compiler for what is shipped, beside those of every build.
    #[serde(default)]
    pub rustflags: Vec<String>,
    /// What runs the executable where it is foreign.
    pub runner: Option<String>,
    /// The limits.
    pub budget: Budget,
}

/// The limits of a target.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Budget {
    /// Bytes of the stripped executable.
    pub binary_bytes: u64,
}

/// The workspace's root folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/"))
}

/// The targets named with `--target`, or all.
pub fn chosen(arguments: &[String]) -> Result<Vec<Target>, Error> {
    let mut named = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match (argument.as_str(), argument.strip_prefix("--target=")) {
            (_, Some(triple)) => named.push(triple.to_owned()),
            ("--target", _) => match rest.next() {
                Some(triple) => named.push(triple.clone()),
                None => return Err(Error::Usage("--target wants a triple".to_owned())),
            },
            _ => return Err(Error::Usage(format!("unknown argument: {argument}"))),
        }
    }
    if named.is_empty() {
        named = all()?;
    }
    named.into_iter().map(load).collect()
}

fn all() -> Result<Vec<String>, Error> {
    let folder = root().join("targets");
    let entries = std::fs::read_dir(&folder).map_err(|error| Error::File(folder, error))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut triples: Vec<String> = names.filter_map(|name| name.strip_suffix(".toml").map(str::to_owned)).collect();
    triples.sort();
    Ok(triples)
}

/// The target of that name.
pub fn load(triple: String) -> Result<Target, Error> {
    let path: PathBuf = root().join("targets").join(format!("{triple}.toml"));
    let facts = toml::from_str(&read(&path)?).map_err(|error| Error::Content(path, error.to_string()))?;
    Ok(Target { triple, facts })
}
