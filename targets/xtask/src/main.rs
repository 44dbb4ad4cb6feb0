//! Distribution, images that boot, size budgets, benchmarks: `cargo xtask help`.

mod bench;
mod dist;
mod elf;
mod error;
mod graph;
mod idle;
mod image;
mod licences;
mod manual;
mod pack;
mod reproduce;
mod sbom;
mod size;
mod target;

use std::process::ExitCode;

use error::Error;

const HELP: &str = "\
cargo xtask COMMAND [--target TRIPLE]...

  dist     builds, checks and packs the static executable, for every target in targets/*.toml or those named
  reproduce builds what dist or size has built once more in another folder, and compares the bytes
  build    the same executable in the quickest profile, for tests; prints its path
  image    makes a disk image that boots on a board: cargo xtask image --help
  size     builds as dist does and compares with the budgets and the last release, by crate; --record makes it the last
  bench    measures the node beside its peers, as docs/BENCHMARKS.md tells
  help     prints this
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first().map(|(command, rest)| (command.as_str(), rest)) {
        Some(("dist", rest)) => dist::run(rest),
        Some(("strip", rest)) => dist::strip(rest),
        Some(("reproduce", rest)) => reproduce::run(rest),
        Some(("build", rest)) => dist::quick(rest),
        Some(("image", rest)) => image::run(rest),
        Some(("size", rest)) => size::run(rest),
        Some(("bench", rest)) => bench::run(rest),
        None | Some(("help" | "--help" | "-h", _)) => {
            print!("{HELP}");
            Ok(())
        }
        Some((other, _)) => Err(Error::Usage(format!("no such command: {other}\n\n{HELP}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
