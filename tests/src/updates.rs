//! Artefacts for updates of a node, made with the product's own verbs, and an init that starts what ended again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::daemon::Node;
use crate::run::{self, Output};
use crate::{binary, wait};

/// A pair of keys and the artefacts signed with it.
#[derive(Debug)]
pub struct Maker {
    folder: PathBuf,
    key: PathBuf,
}

impl Maker {
    /// A new pair below a folder.
    pub fn new(folder: &Path, name: &str) -> Maker {
        let key = folder.join(format!("{name}.pem"));
        edge(&["update", "keygen", text(&key)]).ok();
        Maker { folder: folder.to_owned(), key }
    }

    /// The line of configuration with which a node trusts it.
    pub fn trusted(&self) -> String {
        let pem = std::fs::read_to_string(self.key.with_extension("pem.pub")).expect("a public key");
        format!("public-keys = [{pem:?}]\n")
    }

    /// Packs an executable under a version.
    #[track_caller]
    pub fn pack(&self, executable: &Path, version: &str, more: &[&str]) -> PathBuf {
        let output = self.folder.join(format!("{version}.edgeupdate"));
        let mut arguments = vec!["update", "pack", text(executable), "--key", text(&self.key)];
        arguments.extend(["--as-version", version, "-o", text(&output)]);
        arguments.extend(more);
        edge(&arguments).ok();
        output
    }
}

/// Runs the product's executable.
#[track_caller]
pub fn edge(arguments: &[&str]) -> Output {
    run::run(binary::edge_runtime(), arguments, "")
}

/// A static program of these lines of C in `main`.
#[track_caller]
pub fn program(folder: &Path, name: &str, body: &str) -> PathBuf {
    let (source, path) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&source, format!("#include <stdlib.h>\n#include <unistd.h>\nint main(void) {{ {body} }}\n"))
        .expect("a source");
    run::run("cc", ["-static", "-O1", "-o", text(&path), text(&source)], "").ok();
    path
}

/// The product's executable without what only a debugger needs: quicker to pack and to read.
#[track_caller]
pub fn stripped(folder: &Path) -> PathBuf {
    let path = folder.join("stripped");
    run::run("strip", ["-o", text(&path), text(binary::edge_runtime())], "").ok();
    path
}

/// The command line of `update apply` against a node.
pub fn apply(node: &Node, artefact: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binary::edge_runtime());
    command.args(["update", "apply", text(artefact), "--board", "generic-x86", "--config"]);
    command.arg(node.config_file()).arg("--state-dir").arg(node.state()).arg("--socket").arg(node.socket()).args(more);
    command
}

/// Applies and expects it to be refused before anything changes; what it said.
#[track_caller]
pub fn refused(node: &Node, artefact: &Path, more: &[&str]) -> String {
    let output = run::finish(&mut apply(node, artefact, more), "", wait::DEADLINE);
    assert_eq!(output.code(), Some(1), "{output}");
    output.stderr
}

/// Applies while an init stands by that starts the daemon again whenever it ends; how often it had to, and what was said.
#[track_caller]
pub fn apply_under_init(node: &mut Node, artefact: &Path, more: &[&str]) -> (u32, Output) {
    let mut command = apply(node, artefact, more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = command.spawn().expect("the verb starts");
    let (started, mut again) = (Instant::now(), 0);
    while child.try_wait().expect("a child can be waited for").is_none() {
        assert!(started.elapsed() < wait::DEADLINE * 3, "the update is not decided on\n{}", node.log());
        if !node.is_running() {
            node.wait_end();
            node.launch();
            again += 1;
        }
        std::thread::sleep(std::time::Duration::from_millis(15));
    }
    let output = child.wait_with_output().expect("its output");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let output = Output {
        command: format!("{command:?}"),
        status: output.status,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    (again, output)
}

/// What `update status` says.
#[track_caller]
pub fn status(node: &Node) -> Value {
    node.json(&["update", "status", "--config", text(&node.config_file()), "--state-dir", text(&node.state())])
}

/// The executable that the daemon is now.
pub fn executable(node: &Node) -> PathBuf {
    std::fs::read_link(format!("/proc/{}/exe", node.pid())).expect("the daemon runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}
