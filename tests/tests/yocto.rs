//! The Yocto layer and the boards agree: crates with Cargo.lock, boards with targets, kas files and their machines; and the
//! layer's linter finds no error. Parsing by bitbake is `yocto/check.sh`, which needs layers that no registry serves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use edge_tests::pymodbus::venv;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The names of a folder's files with an ending, without it.
fn names(folder: &str, ending: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(root().join(folder)).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    files.filter_map(|f| f.strip_suffix(ending).map(str::to_owned)).collect()
}

/// The files below a folder with an ending.
fn collect(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, ending, found);
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_recipe_fetches_the_crates_of_the_lock_file() {
    let output = Command::new("sh").arg(root().join("yocto/update-crates.sh")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_recipes_have_the_version_of_the_workspace() {
    let recipes = names("yocto/meta-edge-runtime/recipes-core/edge-runtime", ".bb");
    let version = env!("CARGO_PKG_VERSION");
    let wanted = [format!("edge-runtime-bin_{version}"), format!("edge-runtime_{version}")];
    assert_eq!(recipes, BTreeSet::from(wanted));
}

#[test]
fn every_kas_file_chooses_a_layout_that_is_there_and_has_a_state_partition() {
    let layouts = names("yocto/meta-edge-runtime/files/wic", ".wks.in");
    for layout in &layouts {
        let text = read(&format!("yocto/meta-edge-runtime/files/wic/{layout}.wks.in"));
        assert!(text.contains("--label edge-state"), "{layout}");
    }
    for board in names("board-configs", ".toml") {
        let kas = read(&format!("yocto/kas/{board}.yml"));
        let layout = kas.lines().find_map(|l| l.trim().strip_prefix("WKS_FILE = \"")?.strip_suffix(".wks.in\""));
        // Without a partition for the state, an image must not wait for one.
        let known = layout.map_or(kas.contains("EDGE_STATE_DIR = \"\""), |l| layouts.contains(l));
        assert!(known, "{board}: {layout:?} is none of {layouts:?}");
    }
}

#[test]
fn every_board_has_a_target_and_a_kas_file_with_its_machine() {
    let boards = names("board-configs", ".toml");
    let mut kas = names("yocto/kas", ".yml");
    assert!(kas.remove("common"));
    assert_eq!(boards, kas, "boards (left) and kas files (right)");
    let targets = names("targets", ".toml");
    for board in boards {
        let text = read(&format!("board-configs/{board}.toml"));
        assert!(text.lines().count() <= 60, "{board} has more than 60 lines");
        assert!(text.contains("\n# Source: "), "{board} names no source");
        let value = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(&format!("{key} = ")));
            line.unwrap_or_else(|| panic!("{board} lacks {key}")).trim_matches('"').to_owned()
        };
        assert!(targets.contains(&value("target")), "{board}: {} is no target", value("target"));
        let machine = read(&format!("yocto/kas/{board}.yml"));
        let machine = machine.lines().find_map(|l| l.strip_prefix("machine: "));
        assert_eq!(
            machine,
            Some(value("yocto-machine").as_str()),
            "{board}: machine of the kas file and yocto-machine"
        );
    }
}

#[test]
fn the_linter_finds_no_error_in_the_layer() {
    let python = venv("oelint", &["oelint-adv==9.11.2"]);
    let mut recipes = Vec::new();
    collect(&root().join("yocto/meta-edge-runtime"), "bb", &mut recipes);
    assert!(recipes.len() >= 8, "{recipes:?}");
    let mut linter = Command::new(python.with_file_name("oelint-adv"));
    // Left out: a page for the product (there is none yet), the strip check for a binary that comes stripped, and the form of
    // the crates' list, which is that of cargo-update-recipe-crates.
    for rule in ["oelint.var.mandatoryvar.HOMEPAGE", "oelint.vars.insaneskip", "oelint.vars.inconspaces"] {
        linter.args(["--suppress", rule]);
    }
    let output = linter.args(["--quiet", "--release", "wrynose", "--exit-zero"]).args(&recipes).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let errors: Vec<_> = text.lines().filter(|l| l.contains(":error:")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn kas_reads_the_file_of_every_board() {
    let kas = venv("kas", &["kas==5.5"]).with_file_name("kas");
    let work = tempfile::tempdir().unwrap();
    for board in names("board-configs", ".toml") {
        let mut dump = Command::new(&kas);
        dump.env("KAS_WORK_DIR", work.path()).arg("dump");
        // Steps that would fetch the other layers.
        for step in ["repo_setup_loop", "finish_setup_repos", "repos_checkout"] {
            dump.args(["--skip", step]);
        }
        let output = dump.arg(root().join(format!("yocto/kas/{board}.yml"))).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let problems = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !problems.contains("WARNING"), "{board}: {problems}");
        assert!(text.contains("target: edge-image") && text.contains("openembedded-core"), "{board}: {text}");
    }
}
