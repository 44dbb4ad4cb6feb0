//! `cargo xtask reproduce`: the same sources, built once more in another folder, must give the same bytes.

use std::path::Path;
use std::process::Command;

use crate::dist;
use crate::error::{Error, output, run as run_program};
use crate::target::{self, root};

/// Builds the executables that `dist` or `size` has left a second time, from a copy of the sources, and compares.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    for target in target::chosen(arguments)? {
        let first = dist::binary(&target);
        let wanted = sum(&first)?;
        let copy = std::env::temp_dir().join(format!("edge-runtime-again-{}", std::process::id()));
        std::fs::create_dir_all(&copy).map_err(|error| Error::File(copy.clone(), error))?;
        let built = again(&target.triple, &copy);
        let found = built.and_then(|()| sum(&copy.join("target/dist").join(&target.triple).join("edge-runtime")));
        let _ = std::fs::remove_dir_all(&copy);
        let found = found?;
        if found != wanted {
            let text = format!("{}: built twice, two executables: {wanted} and {found}", target.triple);
            return Err(Error::Promise(text));
        }
        println!("{}: built twice, in two folders, the same bytes: sha256 {wanted}", target.triple);
    }
    Ok(())
}

/// Copies what is tracked, as it is now, and builds it there.
fn again(triple: &str, copy: &Path) -> Result<(), Error> {
    let list = output(Command::new("git").current_dir(root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    for name in list.lines() {
        let (from, to) = (root().join(name), copy.join(name));
        let Some(folder) = to.parent() else { continue };
        std::fs::create_dir_all(folder).map_err(|error| Error::File(folder.to_owned(), error))?;
        // A file that is tracked and deleted is not there to be built.
        if from.is_file() {
            std::fs::copy(&from, &to).map_err(|error| Error::File(from, error))?;
        }
    }
    // The foreign compiler need not be fetched again.
    let _ = std::os::unix::fs::symlink(root().join(".cache"), copy.join(".cache"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(copy).env_remove("CARGO_TARGET_DIR").env_remove("CARGO_MANIFEST_DIR");
    run_program(cargo.args(["run", "--quiet", "--package", "xtask", "--", "strip", "--target", triple]))
}

fn sum(path: &Path) -> Result<String, Error> {
    let text = output(Command::new("sha256sum").arg(path))?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
