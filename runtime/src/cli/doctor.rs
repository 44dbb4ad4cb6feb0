//! `doctor`: what the checks found, as a table for people, with what to do below each that is not well.

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::get::document_text;
use super::out::Out;
use super::verbs::Format;
use crate::doctor::{Check, Verdict};

/// `doctor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct DoctorArgs {
    /// Leave out what needs the network.
    #[arg(long)]
    pub offline: bool,
    /// How to print: table, wide (advice also where all is well), json or yaml.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Prints what was found.
///
/// # Errors
/// [`CliError::No`] when something failed.
pub fn report(out: &mut Out, checks: &[Check], format: Format) -> Result<(), CliError> {
    match format {
        Format::Json | Format::Yaml => out.text(&document_text(&json!({"checks": checks}), format))?,
        format => {
            let text = table(checks, format == Format::Wide, out.is_terminal());
            out.text(&text)?;
        }
    }
    let failed = checks.iter().filter(|c| c.verdict == Verdict::Fail).count();
    match failed {
        0 => Ok(()),
        1 => Err(CliError::No("1 check failed".to_owned())),
        n => Err(CliError::No(format!("{n} checks failed"))),
    }
}

fn table(checks: &[Check], wide: bool, colours: bool) -> String {
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    // Control characters of other people's text must not reach the terminal.
    let plain = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let mut text = String::new();
    for check in checks {
        // ECMA-48, SGR: green, yellow, red, faint.
        let colour = match check.verdict {
            Verdict::Ok => "32",
            Verdict::Warn => "33",
            Verdict::Fail => "31",
            Verdict::Skip => "2",
        };
        let word = format!("{:<4}", check.verdict.name());
        let word = if colours { format!("\u{1b}[{colour}m{word}\u{1b}[0m") } else { word };
        text.push_str(&format!("{word}  {:<width$}  {}\n", check.name, plain(&check.found)));
        if wide || matches!(check.verdict, Verdict::Warn | Verdict::Fail) {
            text.push_str(&format!("{:6}{:<width$}  → {}\n", "", "", plain(&check.advice)));
        }
    }
    let count = |verdict| checks.iter().filter(|c| c.verdict == verdict).count();
    let (ok, warn) = (count(Verdict::Ok), count(Verdict::Warn));
    let (fail, skip) = (count(Verdict::Fail), count(Verdict::Skip));
    text.push_str(&format!("{ok} ok, {warn} to look at, {fail} failed, {skip} skipped\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_below_what_is_not_well() {
        let checks = [
            Check::new("clock", Verdict::Ok, "right", "nothing to do"),
            Check::new("ports", Verdict::Fail, "taken\u{1b}[2J", "stop it"),
        ];
        let expected = "ok    clock  right\nfail  ports  taken [2J\n             → stop it\n\
                        1 ok, 0 to look at, 1 failed, 0 skipped\n";
        assert_eq!(table(&checks, false, false), expected);
        assert!(table(&checks, true, true).contains("\u{1b}[31mfail\u{1b}[0m"));
        assert!(table(&checks, true, false).contains("→ nothing to do"));
        let result = report(&mut Out::to(std::io::sink()), &checks, Format::Json);
        assert_eq!(result.unwrap_err().exit_code(), 1);
    }
}
