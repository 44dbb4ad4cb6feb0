//! `cargo xtask size`: the executable against its budget, and what it is made of.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{Error, output, read};
use crate::target::{self, root};
use crate::{dist, idle};

/// How many crates are listed.
const LISTED: usize = 25;
/// The smallest crate whose size is kept with a release, in bytes.
const KEPT: u64 = 8 << 10;

/// Builds for each chosen target and compares with its budget and with the last release; `--record` makes what is built the
/// release that later ones are compared with.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let (record, rest): (Vec<_>, Vec<_>) = arguments.iter().cloned().partition(|a| a == "--record");
    let mut over = Vec::new();
    for target in target::chosen(&rest)? {
        let built = dist::build(&target)?;
        let bytes = std::fs::metadata(&built.binary).map_err(|error| Error::File(built.binary.clone(), error))?.len();
        let budget = &target.facts.budget;
        let (kib, triple) = (bytes.div_ceil(1024), &target.triple);
        println!(
            "{triple}: {bytes} bytes, {kib} KiB of {} ({} %)",
            budget.binary_kib,
            kib * 100 / budget.binary_kib.max(1)
        );
        if kib > budget.binary_kib {
            over.push(format!("{triple}: the executable has {kib} KiB, its budget is {}", budget.binary_kib));
        }
        let now = Sizes { version: env!("CARGO_PKG_VERSION").to_owned(), bytes, crates: by_crate(&built.symbols)? };
        let path = root().join("targets/released").join(format!("{triple}.toml"));
        let before = Sizes::read(&path)?;
        print!("{}", now.compared(before.as_ref()));
        if !record.is_empty() {
            now.write(&path)?;
        }
        if triple.starts_with(std::env::consts::ARCH) {
            let idle = idle::measure(&built.binary)?;
            println!(
                "  idle: {} KiB of {} (PSS); ready after {} ms, wanted {}",
                idle.pss_kib, budget.idle_pss_kib, idle.start_ms, budget.start_ms
            );
            if idle.pss_kib > budget.idle_pss_kib {
                over.push(format!(
                    "{triple}: idle it takes {} KiB, its budget is {}",
                    idle.pss_kib, budget.idle_pss_kib
                ));
            }
        }
    }
    if over.is_empty() { Ok(()) } else { Err(Error::Promise(over.join("\n"))) }
}

/// The sizes of one version.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sizes {
    version: String,
    /// Of the stripped executable.
    bytes: u64,
    /// Of code and data, by crate.
    crates: BTreeMap<String, u64>,
}

impl Sizes {
    fn read(path: &Path) -> Result<Option<Sizes>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        toml::from_str(&read(path)?).map(Some).map_err(|error| Error::Content(path.to_owned(), error.to_string()))
    }

    /// The larger crates only: the rest is noise in a file that is kept.
    fn write(&self, path: &Path) -> Result<(), Error> {
        let crates = self.crates.iter().filter(|(_, bytes)| **bytes >= KEPT).map(|(n, b)| (n.clone(), *b)).collect();
        let kept = Sizes { version: self.version.clone(), bytes: self.bytes, crates };
        let failed = |error| Error::File(path.to_owned(), error);
        std::fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
        let text = toml::to_string(&kept).map_err(|error| Error::Content(path.to_owned(), error.to_string()))?;
        std::fs::write(path, format!("# Written by `cargo xtask size --record` when a version is released.\n{text}"))
            .map_err(failed)
    }

    /// The largest crates, and by how much each has grown since.
    fn compared(&self, before: Option<&Sizes>) -> String {
        let mut out = String::new();
        if let Some(before) = before {
            out.push_str(&format!("  {:+} bytes since {}\n", change(self.bytes, before.bytes), before.version));
        }
        let mut all: Vec<(&String, u64)> = self.crates.iter().map(|(name, bytes)| (name, *bytes)).collect();
        all.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        for (name, bytes) in all.into_iter().take(LISTED) {
            let since = before.map(|b| format!("{:>+9}", change(bytes, b.crates.get(name).copied().unwrap_or(0))));
            out.push_str(&format!("  {bytes:>9}  {}  {name}\n", since.unwrap_or_default()));
        }
        out
    }
}

fn change(now: u64, before: u64) -> i64 {
    i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(i64::try_from(before).unwrap_or(i64::MAX))
}

/// Bytes of code and data per crate, by the symbols' names, by name. Generic code counts for the crate that
/// defines it, C code as one.
fn by_crate(symbols: &Path) -> Result<BTreeMap<String, u64>, Error> {
    let text = output(Command::new("nm").args(["--print-size", "--size-sort", "--demangle=rust"]).arg(symbols))?;
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, bytes)) = symbol(line) {
            *sums.entry(name).or_default() += bytes;
        }
    }
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

    #[test]
    fn growth_since_the_last_release_is_told() {
        let sizes = |bytes, sled| Sizes { version: "1".into(), bytes, crates: [("sled".to_owned(), sled)].into() };
        let text = sizes(100, 30).compared(Some(&sizes(90, 40)));
        assert!(text.contains("+10 bytes since 1") && text.contains("-10  sled"), "{text}");
        assert!(!sizes(100, 30).compared(None).contains("since"));
    }
}
