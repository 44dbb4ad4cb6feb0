//! `cargo xtask bench`: the shipped executable for this machine, and every benchmark on it.

use std::process::Command;

use crate::dist;
use crate::error::{Error, read, run as run_program};
use crate::target::{self, root};

/// Builds the executables, prints their sizes, and runs what `tests/Cargo.toml` names as benchmarks. Arguments choose
/// among the benchmarks by name.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let mut own = None;
    println!("## Executable\n\n| target | bytes | budget |\n| --- | --- | --- |");
    for target in target::chosen(&[])? {
        let built = dist::build(&target)?;
        let size = std::fs::metadata(&built.binary).map_err(|error| Error::File(built.binary.clone(), error))?.len();
        println!("| {} | {size} | {} |", target.triple, target.facts.budget.binary_kib * 1024);
        if target.triple.starts_with(std::env::consts::ARCH) {
            own = Some(built.binary);
        }
    }
    println!();
    let own = own.ok_or_else(|| Error::Usage("no target in targets/ is this machine's".to_owned()))?;
    for name in benchmarks()? {
        if arguments.is_empty() || arguments.contains(&name) {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.current_dir(root()).args(["bench", "--quiet", "--package", "edge-tests", "--bench", &name]);
            run_program(cargo.env("EDGE_RUNTIME_BIN", &own))?;
        }
    }
    Ok(())
}

fn benchmarks() -> Result<Vec<String>, Error> {
    let path = root().join("tests/Cargo.toml");
    let manifest: toml::Table =
        toml::from_str(&read(&path)?).map_err(|error| Error::Content(path, error.to_string()))?;
    let benches = manifest.get("bench").and_then(toml::Value::as_array).into_iter().flatten();
    Ok(benches.filter_map(|bench| Some(bench.get("name")?.as_str()?.to_owned())).collect())
}
