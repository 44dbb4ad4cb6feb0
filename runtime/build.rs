//! Lists the board files, so that the mere existence of one makes a board.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest_dir = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let boards = Path::new(&manifest_dir).join("../board-configs").canonicalize()?;
    println!("cargo::rerun-if-changed={}", boards.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&boards)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|n| n.to_str()).map(str::to_owned);
        if let Some(name) = stem.filter(|_| path.extension().is_some_and(|e| e == "toml")) {
            names.push((name, path));
        }
    }
    names.sort();
    let mut code = String::from("/// Name and text of every board file.\npub const BOARDS: &[(&str, &str)] = &[\n");
    for (name, path) in names {
        writeln!(code, "    ({name:?}, include_str!({:?})),", path.display().to_string()).map_err(io::Error::other)?;
    }
    code.push_str("];\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("boards.rs"), code)
}
