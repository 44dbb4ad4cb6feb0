//! Printing configuration: `--defaultconfig`, `--minconfig`, `config show`. What is printed is valid input.

use std::fmt::Write as _;

use super::Merged;
use super::schema::{self, Key};

/// The table and the last segment of a path: `bus.listen` is `listen` in `[bus]`.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// Every key that is not a board's own, with its documentation and default.
pub fn default_config() -> String {
    let mut text = String::from(
        "# edge-runtime: every key with its default. Keys after `#` have none, or one that depends on the board.\n",
    );
    let mut table = "";
    for key in schema::KEYS.iter().filter(|k| !k.path.starts_with("board.") && !k.path.contains('*')) {
        let (in_table, name) = split(key.path);
        if in_table != table {
            table = in_table;
            let _ = write!(text, "\n[{table}]\n");
        }
        describe(&mut text, key);
        let _ = match key.default {
            Some(default) => writeln!(text, "{name} = {default}"),
            None => writeln!(text, "# {name} = {}", key.rule.example()),
        };
    }
    text
}

fn describe(text: &mut String, key: &Key) {
    let _ = writeln!(text, "# {} {}", key.doc, key.rule.words());
}

/// The least that is worth writing: who the node is and where its cloud is.
pub fn min_config() -> String {
    "# edge-runtime: all that most gateways need to say. Everything else has a default: see --defaultconfig.\n\
     [node]\n\
     # name = \"gateway-1\"\n\n\
     [cloud]\n\
     # address = \"mqtts://cloud.example.com:8883\"\n"
        .to_owned()
}

/// Every value in force, and which layer set it.
pub fn show(merged: &Merged) -> String {
    let mut text = String::new();
    let lines: Vec<(String, String)> =
        merged.iter().map(|(path, value, origin)| (format!("{path} = {value}"), origin.to_string())).collect();
    let width = lines.iter().map(|(l, _)| l.chars().count()).max().unwrap_or(0).min(72);
    for (line, origin) in lines {
        let _ = writeln!(text, "{line:width$}  # {origin}");
    }
    text
}
