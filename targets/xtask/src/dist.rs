//! `cargo xtask dist`: the static executable as it is shipped; [`crate::pack`] packs it with what belongs to it.
//!
//! The executable is built with its symbols and stripped here, so that the same build tells which crate weighs what
//! ([`crate::size`]) and leaves the symbols for a debugger beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, output, run as run_program};
use crate::target::{self, Target, root};
use crate::{elf, pack};

/// What one build leaves.
#[derive(Debug)]
pub struct Built {
    /// The stripped executable.
    pub binary: PathBuf,
    /// The same with symbols.
    pub symbols: PathBuf,
}

/// Builds, checks and packs for each chosen target.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    for target in target::chosen(arguments)? {
        let built = build(&target)?;
        for file in pack::pack(&target, &built, &target_folder().join("dist"))? {
            println!("  {}", file.display());
        }
    }
    Ok(())
}

/// `cargo xtask strip`: the executable as it is shipped, and nothing else.
pub fn strip(arguments: &[String]) -> Result<(), Error> {
    target::chosen(arguments)?.iter().try_for_each(|target| build(target).map(drop))
}

/// Where [`build`] leaves the executable of a target.
pub fn binary(target: &Target) -> PathBuf {
    folder(target).join("edge-runtime")
}

/// Builds the executable for a target, strips it and checks that it is what was promised.
pub fn build(target: &Target) -> Result<Built, Error> {
    let symbols = compile(target, "release")?;
    let binary = binary(target);
    run_program(
        Command::new(&target.facts.strip).args(["--strip-all", "-R", ".comment", "-o"]).arg(&binary).arg(&symbols),
    )?;
    elf::check(&binary, &target.facts.arch)?;
    elf::check_c(&symbols, &target.facts.hardening)?;
    check_paths(&binary)?;
    check_start(target, &binary)?;
    Ok(Built { binary, symbols })
}

/// `cargo xtask build`: the executable with its symbols, in the profile that is quickest to build. Prints its path.
pub fn quick(arguments: &[String]) -> Result<(), Error> {
    for target in target::chosen(arguments)? {
        println!("{}", compile(&target, "dev")?.display());
    }
    Ok(())
}

/// Where a target's builds are: a folder of its own for each, so that two targets can be built side by side and the other
/// compiler does not make cargo start over.
fn folder(target: &Target) -> PathBuf {
    target_folder().join("dist").join(&target.triple)
}

/// Compiles with a profile, keeps the symbols, and gives the executable's path.
fn compile(target: &Target, profile: &str) -> Result<PathBuf, Error> {
    let triple = &target.triple;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root())
        .args(["build", "--locked", "--package", "edge-runtime", "--bin", "edge-runtime"])
        .args(["--profile", profile, "--target", triple, "--config", "profile.release.strip=\"none\""])
        .args(["--config", &format!("target.{triple}.rustflags={:?}", flags(target))])
        .arg("--target-dir")
        .arg(folder(target));
    // The C parts (libdbus, ring, sled's and zstd's none) are hardened as Debian's packages are.
    cargo.env(format!("CFLAGS_{}", triple.replace('-', "_")), C_FLAGS);
    if let Some(compiler) = compiler(triple)? {
        cargo.env("RUSTC", compiler);
    }
    run_program(&mut cargo)?;
    let name = if profile == "dev" { "debug" } else { profile };
    Ok(folder(target).join(triple).join(name).join("edge-runtime"))
}

/// Cargo's target folder.
fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The compiler to use; `None` is the ordinary one, where it has the target's standard library.
fn compiler(triple: &str) -> Result<Option<PathBuf>, Error> {
    let mut rustc = Command::new("rustc");
    let library = output(rustc.current_dir(root()).args(["--print", "target-libdir", "--target", triple]))?;
    if Path::new(library.trim()).is_dir() {
        return Ok(None);
    }
    let script = root().join("targets").join(format!("{}-toolchain.sh", triple.split('-').next().unwrap_or(triple)));
    if !script.is_file() {
        return Err(Error::Usage(format!("this compiler has no standard library for {triple}")));
    }
    let cache = root().join(".cache").join(triple);
    let path = output(Command::new(script).arg(cache))?;
    Ok(Some(PathBuf::from(path.trim())))
}

/// What is added to the compiler's flags in `.cargo/config.toml`.
fn flags(target: &Target) -> Vec<String> {
    target.facts.rustflags.iter().cloned().chain(remaps()).collect()
}

/// The build machine's folders, which would else stand in panic messages and make builds differ between machines.
fn remaps() -> Vec<String> {
    folders().into_iter().map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display())).collect()
}

fn folders() -> Vec<(PathBuf, &'static str)> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| home.map(|home| home.join(".cargo")));
    let mut folders = vec![(root().to_owned(), "/edge-runtime")];
    folders.extend(cargo.map(|cargo| (cargo, "/cargo")));
    folders
}

/// Whoever flashes the executable need not know where it was built.
fn check_paths(binary: &Path) -> Result<(), Error> {
    let bytes = std::fs::read(binary).map_err(|error| Error::File(binary.to_owned(), error))?;
    for (folder, _) in folders() {
        let needle = folder.as_os_str().as_encoded_bytes();
        if bytes.windows(needle.len()).any(|window| window == needle) {
            return Err(Error::Promise(format!("{} contains the path {}", binary.display(), folder.display())));
        }
    }
    Ok(())
}

/// The executable must at least start; a foreign one under its runner, where that is installed.
fn check_start(target: &Target, binary: &Path) -> Result<(), Error> {
    let mut command = match target.start(binary) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("xtask: {} was not started: {error}", binary.display());
            return Ok(());
        }
    };
    let version = output(command.arg("--version"))?;
    let wanted = format!("edge-runtime {}", env!("CARGO_PKG_VERSION"));
    if version.trim().starts_with(&wanted) {
        return Ok(());
    }
    Err(Error::Promise(format!("{} --version says {:?}, not {wanted:?}", binary.display(), version.trim())))
}

/// How C is compiled: a canary in functions with arrays, and checked string functions where the size is known.
const C_FLAGS: &str = "-fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2";
