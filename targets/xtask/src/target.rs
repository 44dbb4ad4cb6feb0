//! The targets: a file in `targets/` is what makes a triple one of them.

use std::path::{Path, PathBuf};
use std::process::Command;

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
    /// Debian's name of the architecture.
    pub debian: String,
    /// The program that removes symbols.
    pub strip: String,
    /// The program that separates symbols.
    pub objcopy: String,
    /// Whether it is built only when it is named: where not every toolchain has its standard library.
    #[serde(default)]
    pub only_when_named: bool,
    /// Flags of the compiler for what is shipped, beside those of every build.
    #[serde(default)]
    pub rustflags: Vec<String>,
    /// What runs the executable where it is foreign.
    pub runner: Option<String>,
    /// What is expected of the machine code beside what holds for all (see [`crate::elf`]).
    pub hardening: Hardening,
    /// The limits.
    pub budget: Budget,
}

/// What C code is compiled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Hardening {
    /// Canaries on the stack.
    pub stack_protector: bool,
    /// Checked string functions.
    pub fortify: bool,
}

impl Target {
    /// A command that starts an executable of this target here, under its runner if it is foreign. Nothing of the user's own
    /// environment changes what it says.
    pub fn start(&self, binary: &Path) -> Result<Command, Error> {
        let native = self.triple.starts_with(std::env::consts::ARCH);
        let mut command = match (&self.facts.runner, native) {
            (_, true) => Command::new(binary),
            (Some(runner), false) => {
                let known = Command::new(runner).arg("--version").output();
                known.map_err(|error| Error::Program(runner.clone(), error.to_string()))?;
                let mut command = Command::new(runner);
                command.arg(binary);
                command
            }
            (None, false) => return Err(Error::Usage(format!("nothing here runs executables for {}", self.triple))),
        };
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.as_encoded_bytes().starts_with(b"EDGE_RUNTIME_")) {
            command.env_remove(name);
        }
        Ok(command)
    }
}

/// The limits of a target.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Budget {
    /// KiB of the stripped executable.
    pub binary_kib: u64,
    /// KiB of memory (PSS) of an idle node with everything on.
    pub idle_pss_kib: u64,
    /// Milliseconds from start to ready. Told beside what is measured; time on a busy machine is no verdict.
    pub start_ms: u64,
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
        let all: Result<Vec<Target>, Error> = all()?.into_iter().map(load).collect();
        return Ok(all?.into_iter().filter(|target| !target.facts.only_when_named).collect());
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
