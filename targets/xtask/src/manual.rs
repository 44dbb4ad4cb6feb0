//! The manual page, made from what the executable says of itself: `--help`, and the help of each verb.
//!
//! Source: man(7) for the macros.

use std::process::Command;

use crate::error::{Error, output};

/// The page. `run` starts the executable with arguments.
pub fn page(version: &str, run: &dyn Fn() -> Result<Command, Error>) -> Result<String, Error> {
    let top = output(run()?.arg("--help"))?;
    let mut out = format!(
        ".TH EDGE-RUNTIME 1 \"\" \"edge-runtime {version}\" \"User Commands\"\n.SH NAME\nedge-runtime \\- {}\n",
        escape(top.lines().next().unwrap_or("edge runtime"))
    );
    out.push_str(".SH DESCRIPTION\n.nf\n");
    out.push_str(&text(&top));
    out.push_str(".fi\n.SH COMMANDS\n");
    for verb in verbs(&top) {
        let help = output(run()?.args([verb, "--help"]))?;
        out.push_str(&format!(".SS edge-runtime {}\n.nf\n{}.fi\n", escape(verb), text(&help)));
        for inner in verbs(&help) {
            let help = output(run()?.args([verb, inner, "--help"]))?;
            out.push_str(&format!(".SS edge-runtime {} {}\n.nf\n{}.fi\n", escape(verb), escape(inner), text(&help)));
        }
    }
    out.push_str(
        ".SH FILES\n.TP\n/etc/edge-runtime/config.toml, /etc/edge-runtime/conf.d/*.toml\nConfiguration.\n\
         .TP\n/etc/edge-runtime/manifests/*.yaml\nObjects that exist while their file does.\n\
         .TP\n/var/lib/edge-runtime\nWhat must survive a power cut.\n",
    );
    Ok(out)
}

/// The names in the section "Commands:" of a help text, but `help` itself.
fn verbs(help: &str) -> Vec<&str> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = section.take_while(|line| line.starts_with("  "));
    // A description that goes on in the next line is indented deeper.
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

fn text(help: &str) -> String {
    help.lines().map(|line| escape(line) + "\n").collect()
}

/// Backslashes and hyphens as themselves, and no line that begins with a request.
fn escape(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_those_of_the_section() {
        let help = "Usage: x\n\nCommands:\n  apply  Applies\n           more words\n  get    Gets\n  help   Helps\n\nOptions:\n  -h  Help\n";
        assert_eq!(verbs(help), ["apply", "get"]);
        assert_eq!(verbs("Usage: x\n"), Vec::<&str>::new());
    }

    #[test]
    fn what_means_something_to_man_is_escaped() {
        assert_eq!(escape(".x -a \\n"), "\\&.x \\-a \\en");
    }
}
