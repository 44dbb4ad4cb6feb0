//! The licences of everything in the executable, in one text: each crate with its licence, then each licence text once.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::graph::Crate;

/// Beginnings of the names of files that hold a licence.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT"];

/// What stands at the end, for what no crate brings.
const C_LIBRARY: &str = "\
glibc, the C library, is linked statically under the GNU Lesser General Public License, version 2.1 or later. Its sources are
those of the Debian package the SBOM names; the sources of edge-runtime and `cargo xtask dist` let anybody link it anew with
another version of it. libdbus, from the crate libdbus-sys, is used under the Academic Free License 2.1.
";

/// The text.
pub fn text(crates: &[Crate]) -> Result<String, Error> {
    let mut list = String::from("edge-runtime is made of these crates.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in crates {
        let licence = one.license.as_deref().unwrap_or("see its licence below");
        list.push_str(&format!("{} {}: {licence}\n", one.name, one.version));
        let folder = one.folder();
        let entries = std::fs::read_dir(&folder).map_err(|error| Error::File(folder.clone(), error))?;
        let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        for name in names.iter().filter(|n| NAMES.iter().any(|known| n.to_uppercase().starts_with(known))) {
            // A folder of licences, or text in another encoding, is not worth failing for: the expression above stands.
            let Ok(text) = std::fs::read_to_string(folder.join(name)) else { continue };
            let text = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned();
            texts.entry(text).or_default().push(format!("{} {}", one.name, one.version));
        }
    }
    let mut out = list + "\n" + C_LIBRARY;
    for (text, of) in &texts {
        out.push_str(&format!("\n{}\n{}\n\n{text}\n", "=".repeat(78), of.join(", ")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph, target};

    #[test]
    fn each_crate_is_named_and_each_text_is_there_once() {
        let target = target::chosen(&["--target=x86_64-unknown-linux-gnu".to_owned()]).unwrap().remove(0);
        let crates = graph::of(&target).unwrap();
        let text = text(&crates).unwrap();
        for one in &crates {
            assert!(text.contains(&format!("\n{} {}: ", one.name, one.version)), "{}", one.name);
        }
        // Many bring the same words of the Apache licence; its appendix differs in some.
        let apache = text.matches("TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION").count();
        assert!((1..crates.len() / 4).contains(&apache), "{apache}");
    }
}
