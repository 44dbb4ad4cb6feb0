//! The local API, seen by the official Kubernetes client for Python.

use std::fs;
use std::path::Path;
use std::process::Command;

use edge_tests::daemon::Node;
use edge_tests::pymodbus::{once, run};
use edge_tests::run::finish;
use edge_tests::wait::{self, DEADLINE};

/// The version tested with; it is installed from PyPI once, below `.cache`.
const PACKAGE: &str = "kubernetes==37.0.2";

#[test]
fn the_python_client_works() {
    let venv = once("venv-kubernetes", |place| {
        let _ = fs::remove_dir_all(place);
        run(Command::new("python3").args(["-m", "venv"]).arg(place), "python3 with venv (python3-venv)");
        let mut pip = Command::new(place.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", PACKAGE]);
        run(&mut pip, "PyPI, once");
    });
    let mut node = Node::new();
    node.start();
    wait::until("the node is an object", || node.json(&["get", "nodes"])["items"].get(0).cloned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/kubernetes_client.py");
    let mut client = Command::new(venv.join("bin/python"));
    client.arg(script).arg(node.socket());
    let output = finish(&mut client, "", 4 * DEADLINE).ok();
    assert!(output.stdout.ends_with("ok\n"), "{output}");
}
