//! Completion scripts, made from the command line's own definition.

use clap::{Command, Subcommand, ValueEnum};
use edge_model::Kind;

use super::verbs::Verb;

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// Z shell, through its bash completion.
    Zsh,
    /// fish.
    Fish,
}

/// What can follow a chain of words.
struct Level {
    words: String,
    flags: Vec<String>,
    verbs: Vec<(String, String)>,
}

/// The script.
pub fn script(shell: Shell) -> String {
    let command = Verb::augment_subcommands(Command::new("edge-runtime"));
    let mut levels = Vec::new();
    collect(&command, "", &mut levels);
    let kinds: Vec<&str> = Kind::ALL.iter().flat_map(|k| [k.plural(), k.singular()]).collect();
    match shell {
        Shell::Bash => bash(&levels, &kinds),
        Shell::Zsh => format!("autoload -U +X bashcompinit && bashcompinit\n{}", bash(&levels, &kinds)),
        Shell::Fish => fish(&levels, &kinds),
    }
}

fn collect(command: &Command, words: &str, levels: &mut Vec<Level>) {
    let mut flags = vec!["--help".to_owned()];
    for argument in command.get_arguments() {
        flags.extend(argument.get_long().map(|l| format!("--{l}")));
        flags.extend(argument.get_short().map(|s| format!("-{s}")));
    }
    let verbs = command
        .get_subcommands()
        .map(|c| (c.get_name().to_owned(), c.get_about().map(ToString::to_string).unwrap_or_default()))
        .collect();
    levels.push(Level { words: words.to_owned(), flags, verbs });
    for inner in command.get_subcommands() {
        collect(inner, format!("{words} {}", inner.get_name()).trim_start(), levels);
    }
}

/// Verbs whose first word is a kind.
const TAKES_KIND: [&str; 3] = ["get", "describe", "delete"];

fn bash(levels: &[Level], kinds: &[&str]) -> String {
    let mut cases = String::new();
    for level in levels {
        let mut words: Vec<&str> = level.flags.iter().map(String::as_str).collect();
        words.extend(level.verbs.iter().map(|(name, _)| name.as_str()));
        if TAKES_KIND.contains(&level.words.as_str()) {
            words.extend(kinds);
        }
        cases.push_str(&format!("    \"{}\") words=\"{}\" ;;\n", level.words, words.join(" ")));
    }
    let verbs: Vec<&str> = levels.iter().flat_map(|l| l.verbs.iter().map(|(name, _)| name.as_str())).collect();
    format!(
        "\
_edge_runtime() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} chain= word words=
  for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do
    case \"$word\" in
    {verbs}) [ \"$(wc -w <<<\"$chain\")\" -lt 2 ] && chain=\"${{chain:+$chain }}$word\" ;;
    esac
  done
  case \"$chain\" in
{cases}    *) words= ;;
  esac
  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))
}}
complete -o default -F _edge_runtime edge-runtime
",
        verbs = verbs.join("|"),
    )
}

fn fish(levels: &[Level], kinds: &[&str]) -> String {
    let mut lines = String::new();
    for level in levels {
        let outer: Vec<&str> = level.words.split(' ').filter(|w| !w.is_empty()).collect();
        let after = match outer.as_slice() {
            [] => "__fish_use_subcommand".to_owned(),
            words => {
                words.iter().map(|w| format!("__fish_seen_subcommand_from {w}")).collect::<Vec<_>>().join("; and ")
            }
        };
        for (name, about) in &level.verbs {
            let about = about.replace('\'', "");
            lines.push_str(&format!("complete -c edge-runtime -n '{after}' -a {name} -d '{about}'\n"));
        }
        for flag in level.flags.iter().filter_map(|f| f.strip_prefix("--")) {
            lines.push_str(&format!("complete -c edge-runtime -n '{after}' -l {flag}\n"));
        }
        if TAKES_KIND.contains(&level.words.as_str()) {
            lines.push_str(&format!("complete -c edge-runtime -f -n '{after}' -a '{}'\n", kinds.join(" ")));
        }
    }
    lines
}
