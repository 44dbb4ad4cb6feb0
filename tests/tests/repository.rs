//! What the repository ships beside code: documents that name what exists, boards and targets that load, scripts and units
//! that are as promised, and nothing of the machine it was made on.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use edge_tests::binary::root;
use edge_tests::source::{self, Text};

#[track_caller]
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// The folders a path in a document may start with.
const FOLDERS: [&str; 9] =
    ["runtime/", "mappers/", "tests/", "targets/", "yocto/", "board-configs/", "docs/", ".ci/", ".cargo/"];

#[test]
fn documents_name_what_exists() {
    let mut faults = Vec::new();
    for file in source::ending(".md") {
        for (index, line) in file.text.lines().enumerate() {
            for path in links(line).chain(mentions(line)) {
                let beside = root().join(&file.path).parent().unwrap_or(Path::new("/")).join(path);
                if !beside.exists() && !root().join(path).exists() {
                    faults.push(format!("{}:{}: there is no {path}", file.path, index + 1));
                }
            }
        }
    }
    none(faults);
}

/// Targets of relative links: `[text](path#part)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let paths = targets.filter_map(|target| target.split('#').next());
    paths.filter(|path| !path.is_empty() && !path.contains("://") && !path.starts_with("mailto:"))
}

/// Paths in code spans: `` `tests/run.sh --test tidy` ``. Patterns and placeholders are not paths.
fn mentions(line: &str) -> impl Iterator<Item = &str> {
    let spans = line.split('`').skip(1).step_by(2).filter_map(|span| span.split_whitespace().next());
    let spans = spans.map(|word| word.trim_start_matches("./"));
    spans
        .filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
        .filter(|word| !word.contains(['*', '<', '{', '…', '$', ':', '|']))
}

#[test]
fn nothing_tells_of_the_machine_it_was_made_on() {
    // Put together here, so that this file does not find itself.
    let join = |a: &str, b: &str| format!("{a}{b}");
    let mut needles = vec![
        join("/root/", ".cargo"),
        join("deb.", "debian.org"),
        join("security.", "debian.org"),
        join("index.", "crates.io"),
        join("static.", "crates.io"),
        join("files.", "pythonhosted.org"),
        join("py", "pi.org/"),
        join("registry.", "npmjs.org"),
    ];
    if let Some(home) = std::env::var("HOME").ok().filter(|home| home.len() > 6) {
        needles.push(home);
    }
    // A folder just below `/` may be called like something the documents speak of.
    if root().components().count() > 3 {
        needles.push(root().to_string_lossy().into_owned());
    }
    let mut faults = Vec::new();
    for file in source::all() {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(needle) = needles.iter().find(|needle| needle.len() > 6 && line.contains(needle.as_str())) {
                faults.push(format!("{}:{}: {needle}", file.path, index + 1));
            }
        }
    }
    none(faults);
}

#[test]
fn the_licence_is_apache() {
    let licence = std::fs::read_to_string(root().join("LICENSE")).unwrap();
    assert!(licence.contains("Apache License") && licence.contains("Version 2.0, January 2004"));
    assert!(licence.contains("END OF TERMS AND CONDITIONS"));
}

#[test]
fn scripts_can_be_run_and_stop_at_a_failure() {
    let mut faults = Vec::new();
    let scripts: Vec<Text> =
        source::all().into_iter().filter(|file| file.text.starts_with("#!") && !file.path.ends_with(".py")).collect();
    assert!(
        scripts.iter().any(|file| file.path == "tests/run.sh") && scripts.iter().any(|file| file.path == ".ci/run")
    );
    for file in scripts {
        let mode = std::fs::metadata(root().join(&file.path)).unwrap().permissions().mode();
        if mode & 0o111 == 0 {
            faults.push(format!("{}: not executable", file.path));
        }
        if file.text.contains("bin/env bash") && !file.text.contains("set -euo pipefail") {
            faults.push(format!("{}: does not stop at a failure", file.path));
        }
        if !file.text.lines().nth(1).is_some_and(|line| line.starts_with("# ")) {
            faults.push(format!("{}: does not open with its purpose", file.path));
        }
    }
    none(faults);
}

#[test]
fn boards_and_targets_are_toml_that_opens_with_a_word() {
    let ours = |file: &Text| {
        file.path.starts_with("board-configs/") || (file.path.starts_with("targets/") && !file.path.contains("xtask"))
    };
    let files: Vec<Text> = source::ending(".toml").into_iter().filter(ours).collect();
    assert!(files.iter().any(|file| file.path == "targets/aarch64-unknown-linux-gnu.toml"));
    let mut faults = Vec::new();
    for file in files {
        if let Err(error) = file.text.parse::<toml::Table>() {
            faults.push(format!("{}: {error}", file.path));
        }
        if !file.text.starts_with("# ") {
            faults.push(format!("{}: does not open with its purpose", file.path));
        }
    }
    none(faults);
}

#[test]
fn the_unit_leaves_containers_alone_and_waits_for_no_network() {
    let path = "yocto/meta-edge-runtime/recipes-core/edge-runtime/files/edge-runtime.service";
    let unit = std::fs::read_to_string(root().join(path)).unwrap();
    for line in ["Type=notify", "Delegate=yes", "KillMode=process", "Restart=always"] {
        assert!(unit.lines().any(|have| have == line), "{path} lacks {line}");
    }
    assert!(unit.lines().any(|line| line.starts_with("WatchdogSec=")));
    assert!(!unit.lines().any(|line| !line.starts_with('#') && line.contains("network")), "{path} waits for a network");
}
