//! The README's first command: a whole gateway in one process, which ends with success only when the cloud has everything.
//! Needs root for its pod; without, it must say so and do everything else.

use std::process::Command;
use std::time::Duration;

use edge_tests::{binary, run};

/// The demo waits up to a minute for its queue to drain, on top of its own seconds.
const DEADLINE: Duration = Duration::from_secs(180);

#[test]
fn the_demo_plays_its_story_and_cleans_up() {
    let folder = tempfile::Builder::new().prefix("edge-").tempdir().expect("a folder");
    let mut demo = Command::new(binary::edge_runtime());
    demo.args(["demo", "--plain", "--seconds", "12"]).env("TMPDIR", folder.path());
    let output = run::finish(&mut demo, "", DEADLINE).ok();
    for part in [
        "the cloud's plug is pulled",
        "and put back",
        "link online",
        "link offline",
        "the cloud has everything",
        "lost 0",
    ] {
        assert!(output.stdout.contains(part), "{part:?} is not in {output}");
    }
    assert!(output.stdout.contains("pod Running"), "the pod did not run: {output}");
    assert!(output.stdout.contains("pump false"), "the pump was not switched: {output}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?} is left");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(folder.path().to_str().expect("a path")), "a mount is left:\n{mounts}");
    assert!(edge_tests::cleanup::processes(folder.path()).is_empty(), "a process is left");
}

#[test]
fn without_root_it_says_what_it_cannot_do_and_does_the_rest() {
    let folder = tempfile::Builder::new().prefix("edge-").tempdir().expect("a folder");
    // Nobody may look into the build's folder, so the binary comes along.
    let copy = folder.path().join("edge-runtime");
    std::fs::copy(binary::edge_runtime(), &copy).expect("a copy");
    run::run("chown", ["-R", "nobody", folder.path().to_str().expect("a path")], "").ok();
    let mut demo = Command::new("setpriv");
    demo.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(&copy).args([
        "demo",
        "--plain",
        "--seconds",
        "9",
    ]);
    demo.env("TMPDIR", folder.path()).current_dir("/");
    let output = run::finish(&mut demo, "", DEADLINE).ok();
    assert!(output.stdout.contains("no pod here:") && output.stdout.contains("root"), "{output}");
    assert!(output.stdout.contains("the cloud has everything"), "{output}");
}
