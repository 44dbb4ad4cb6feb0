//! Whether an executable is as hardened as chosen, read with `readelf`.
//!
//! The choice is static and *not* position independent: a position-independent executable relocates its tables at start,
//! which makes those pages private to each process, and there is one helper process per container. What remains is checked
//! here: no interpreter, no writable and executable segment, no executable stack, relocation tables read-only.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, output};
use crate::target::Hardening;

/// Checks the executable at `path`, made for `arch`.
pub fn check(path: &Path, arch: &str) -> Result<(), Error> {
    let text = output(Command::new("readelf").args(["--wide", "--file-header", "--program-headers"]).arg(path))?;
    let faults = faults(&text, arch);
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::Promise(format!("{} is not as promised: {}", path.display(), faults.join(", "))))
}

/// Checks what C code in an executable with symbols was compiled with.
pub fn check_c(symbols: &Path, wanted: &Hardening) -> Result<(), Error> {
    let names = output(Command::new("nm").args(["--format=just-symbols"]).arg(symbols))?;
    let canary = names.lines().any(|name| name == "__stack_chk_fail");
    let checked = names.lines().any(|name| name.starts_with("__") && name.ends_with("_chk"));
    for (there, wanted, what) in
        [(canary, wanted.stack_protector, "stack-protector"), (checked, wanted.fortify, "fortify")]
    {
        if there != wanted {
            let text = format!("{}: hardening.{what} is {wanted} in targets/, and {there} in it", symbols.display());
            return Err(Error::Promise(text));
        }
    }
    Ok(())
}

/// What is wrong with an executable of which `readelf` says `text`.
fn faults(text: &str, arch: &str) -> Vec<String> {
    let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or("").trim();
    let with = |kind: &'static str| text.lines().map(str::trim).filter(move |line| line.starts_with(kind));
    // `LOAD 0x000000 0x0000000000400000 0x0000000000400000 0x1234 0x1234 R E 0x1000`: flags stand before the alignment.
    let flags = |line: &str| line.split_whitespace().skip(6).collect::<Vec<_>>().join("");
    let mut faults = Vec::new();
    if !field("Machine:").contains(arch) {
        faults.push(format!("it is for {}, not {arch}", field("Machine:")));
    }
    if !field("Type:").starts_with("EXEC") {
        faults.push(format!("its type is {}", field("Type:")));
    }
    if with("INTERP").next().is_some() {
        faults.push("it wants a dynamic loader".to_owned());
    }
    if with("GNU_RELRO").next().is_none() {
        faults.push("its relocation tables stay writable".to_owned());
    }
    if with("GNU_STACK").all(|line| flags(line).contains('E')) {
        faults.push("its stack is executable".to_owned());
    }
    if with("LOAD").any(|line| flags(line).contains('W') && flags(line).contains('E')) {
        faults.push("a segment is writable and executable".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
  Type:                              EXEC (Executable file)
  Machine:                           AArch64
  LOAD           0x000000 0x0000000000400000 0x0000000000400000 0x6a1b04 0x6a1b04 R E 0x10000
  LOAD           0x6a8e60 0x0000000000ab8e60 0x0000000000ab8e60 0x0471a8 0x04d6f8 RW  0x10000
  GNU_STACK      0x000000 0x0000000000000000 0x0000000000000000 0x000000 0x000000 RW  0x10
  GNU_RELRO      0x6a8e60 0x0000000000ab8e60 0x0000000000ab8e60 0x0471a0 0x0471a0 R   0x1
";

    #[test]
    fn what_was_chosen_passes() {
        assert_eq!(faults(GOOD, "AArch64"), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_named() {
        let table = [
            ("AArch64\n", "Intel 80386\n", "it is for Intel 80386, not AArch64"),
            ("EXEC (Executable file)", "DYN (PIE)", "its type is DYN (PIE)"),
            ("GNU_RELRO ", "GNU_OTHER ", "its relocation tables stay writable"),
            ("0x000000 RW  0x10\n", "0x000000 RWE 0x10\n", "its stack is executable"),
            ("0x6a1b04 R E 0x10000", "0x6a1b04 RWE 0x10000", "a segment is writable and executable"),
            ("GNU_STACK ", "INTERP 0x1\n  GNU_STACK ", "it wants a dynamic loader"),
        ];
        for (from, to, fault) in table {
            assert_eq!(faults(&GOOD.replacen(from, to, 1), "AArch64"), [fault], "{from} -> {to}");
        }
    }
}
