//! `cargo xtask size`: the executable against its budget, and what it is made of.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::dist;
use crate::error::{Error, output};
use crate::target;

/// How many crates are listed.
const LISTED: usize = 25;

/// Builds for each chosen target and compares with its budget.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let mut over = Vec::new();
    for target in target::chosen(arguments)? {
        let built = dist::build(&target)?;
        let size = std::fs::metadata(&built.binary).map_err(|error| Error::File(built.binary.clone(), error))?.len();
        let budget = target.facts.budget.binary_bytes;
        println!("{}: {size} bytes of {budget} ({} %)", target.triple, size * 100 / budget.max(1));
        for (name, bytes) in by_crate(&built.symbols)?.into_iter().take(LISTED) {
            println!("  {bytes:>9}  {name}");
        }
        if size > budget {
            over.push(format!("{} has {size} bytes, {} over its budget of {budget}", target.triple, size - budget));
        }
    }
    if over.is_empty() { Ok(()) } else { Err(Error::Promise(over.join("\n"))) }
}

/// Bytes of code and data per crate, by the symbols' names, the largest first. Generic code counts for the crate that
/// defines it, C code as one.
fn by_crate(symbols: &Path) -> Result<Vec<(String, u64)>, Error> {
    let text = output(Command::new("nm").args(["--print-size", "--size-sort", "--demangle=rust"]).arg(symbols))?;
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, bytes)) = symbol(line) {
            *sums.entry(name).or_default() += bytes;
        }
    }
    let mut sums: Vec<(String, u64)> = sums.into_iter().collect();
    sums.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Ok(sums)
}

/// `address size kind name` of a symbol that takes room in the file.
fn symbol(line: &str) -> Option<(String, u64)> {
    let mut fields = line.splitn(4, ' ').skip(1);
    let bytes = u64::from_str_radix(fields.next()?, 16).ok()?;
    if matches!(fields.next()?, "b" | "B") {
        return None;
    }
    Some((crate_of(fields.next()?), bytes))
}

/// `<alloc::vec::Vec<T> as core::ops::Drop>::drop` is `alloc`'s; a name without `::` is C's.
fn crate_of(name: &str) -> String {
    let Some((head, _)) = name.split_once("::") else { return "(C and data)".to_owned() };
    let head = head.trim_start_matches(['<', '&', '[', '(', '*']).trim_start_matches("mut ").trim_start_matches("dyn ");
    let word: String = head.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if word.is_empty() { "(other)".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_belong_to_the_crate_that_defines_them() {
        let table = [
            ("0000000000401000 0000000000000010 t alloc::vec::Vec<T>::push", Some(("alloc", 16))),
            ("0000000000401000 0000000000000020 T <sled::tree::Tree as core::ops::Drop>::drop", Some(("sled", 32))),
            ("0000000000401000 0000000000000001 r memcpy", Some(("(C and data)", 1))),
            ("0000000000401000 0000000000001000 b core::zeroes", None),
            ("0000000000401000 T _start", None),
        ];
        for (line, wanted) in table {
            assert_eq!(symbol(line), wanted.map(|(name, bytes)| (name.to_owned(), bytes)), "{line}");
        }
    }
}
