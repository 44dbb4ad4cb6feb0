//! The promise: `doctor` finds what is wrong with a machine, says what to do, and ends with 1 when something will not work.
//!
//! Needs root (a small file system in memory, another user).

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use edge_tests::authority::Authority;
use edge_tests::daemon::Node;
use edge_tests::filesystem::fill;
use edge_tests::run::{self, Output};
use edge_tests::{binary, wait};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;

/// The command line of `doctor` for a node.
fn doctor(node: &Node, program: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["doctor", "--offline", "-o", "json", "--config"]).arg(node.config_file());
    command.arg("--state-dir").arg(node.state()).arg("--run-dir").arg(node.run());
    command.arg("--manifests-dir").arg(node.manifests()).arg("--socket").arg(node.socket()).args(more);
    command
}

#[track_caller]
fn look(node: &Node, more: &[&str]) -> (Output, Vec<Value>) {
    let output = run::finish(&mut doctor(node, binary::edge_runtime(), more), "", wait::DEADLINE);
    let checks = output.json()["checks"].as_array().cloned().expect("checks");
    for check in &checks {
        let word = check["verdict"].as_str().unwrap_or_default();
        assert!(["ok", "warn", "fail", "skip"].contains(&word), "{check}");
        assert!(
            ["name", "found", "advice"].iter().all(|f| check[f].as_str().is_some_and(|t| !t.is_empty())),
            "{check}"
        );
    }
    let failed = checks.iter().any(|c| c["verdict"] == "fail");
    assert_eq!(output.code(), Some(i32::from(failed)), "{output}");
    (output, checks)
}

/// Finds a check and holds it to a verdict and to words in what was found.
#[track_caller]
fn expect(checks: &[Value], name: &str, verdict: &str, words: &str) {
    let check = checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no check {name}"));
    let found = check["found"].as_str().unwrap_or_default();
    assert!(check["verdict"] == verdict && found.contains(words), "expected {verdict} with {words:?}: {check}");
}

fn put(node: &Node, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = node.folder().join(name);
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its rights");
    path
}

/// A certificate that is valid until a day, and its key.
fn until(year: i32) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["gw".to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(year, 6, 7);
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

#[test]
fn a_node_that_runs_is_well_and_its_ports_are_its_own() {
    let mut node = Node::new();
    let (_, before) = look(&node, &[]);
    expect(&before, "daemon", "warn", "nobody answers");
    expect(&before, "ports", "ok", &format!("{} free", node.bus()));
    assert!(!node.state().exists(), "looking changes nothing");
    node.start();
    let (output, checks) = look(&node, &["--board", "auto"]);
    assert!(checks.len() >= 20, "{output}");
    expect(&checks, "daemon", "ok", "ready");
    expect(&checks, "ports", "ok", &format!("{} ours", node.bus()));
    expect(&checks, "configuration", "ok", "right");
    expect(&checks, "permissions", "ok", "state");
    expect(&checks, "rights", "ok", "containers can be run");
    expect(&checks, "cloud name", "skip", "no cloud");
    assert!(node.stop().success());
}

#[test]
fn certificates_that_end_and_keys_that_everybody_can_read_are_found() {
    let node = Node::new();
    let ca = put(&node, "ca.pem", &Authority::new("test").pem(), 0o644);
    let (expired, key) = until(2024);
    let (good, other) = until(2099);
    let certificate = put(&node, "gw.pem", &expired, 0o644);
    let key = put(&node, "gw.key", &key, 0o644);
    node.reconfigure(&format!(
        "[cloud]\naddress = \"mqtts://cloud.example:8883\"\nca-file = {ca:?}\ncertificate-file = {certificate:?}\nkey-file = {key:?}\n"
    ));
    let (_, checks) = look(&node, &[]);
    expect(&checks, "certificates", "fail", "gw.pem expired on 2024-06-07");
    expect(&checks, "private keys", "fail", "can be read by everybody (mode 0644)");
    expect(&checks, "cloud name", "skip", "cloud.example: not asked");
    // A certificate of another key.
    put(&node, "gw.pem", &good, 0o644);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("its rights");
    let (_, checks) = look(&node, &[]);
    expect(&checks, "certificates", "fail", "cannot be used");
    expect(&checks, "private keys", "ok", "gw.key 0600");
    put(&node, "gw.key", &other, 0o600);
    let (_, checks) = look(&node, &[]);
    expect(&checks, "certificates", "ok", "gw.pem until 2099-06-07");
    put(&node, "gw.pem", "nothing", 0o644);
    let (_, checks) = look(&node, &[]);
    expect(&checks, "certificates", "fail", "gw.pem is no certificate");
    std::fs::remove_file(&key).expect("the key goes");
    let (_, checks) = look(&node, &[]);
    expect(&checks, "private keys", "fail", "gw.key is not there");
}

#[test]
fn a_port_that_somebody_else_has_is_told_with_who() {
    let node = Node::new();
    // The kit keeps the port reserved, not bound.
    let listener = wait::until("the port", || std::net::TcpListener::bind(node.bus()).ok());
    let (_, checks) = look(&node, &[]);
    expect(&checks, "ports", "fail", &format!("{} is taken by", node.bus()));
    expect(&checks, "ports", "fail", &format!("(process {})", std::process::id()));
    // A node that runs without its port is ready, and not well.
    let mut node = node;
    node.start();
    node.until("the bus is seen not to work", || {
        let output = run::finish(&mut doctor(&node, binary::edge_runtime(), &[]), "", wait::DEADLINE);
        let checks = output.json()["checks"].as_array().cloned()?;
        let daemon = checks.iter().find(|c| c["name"] == "daemon")?;
        (daemon["verdict"] == "warn" && daemon["found"].as_str()?.contains("bus is")).then_some(())
    });
    assert!(node.stop().success());
    drop(listener);
    node.reconfigure("[bus]\nlisten = \"192.0.2.1:1883\"\n");
    let (_, checks) = look(&node, &[]);
    expect(&checks, "ports", "fail", "192.0.2.1:1883");
}

/// A file system in memory, unmounted when dropped.
struct Memory(PathBuf);

impl Memory {
    fn new(path: PathBuf) -> Memory {
        std::fs::create_dir_all(&path).expect("a folder");
        run::run("mount", ["-t", "tmpfs", "-o", "size=20m,noexec", "tmpfs", path.to_str().expect("text")], "").ok();
        Memory(path)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_in_memory_is_found() {
    let node = Node::new();
    let memory = Memory::new(node.state());
    let (_, checks) = look(&node, &[]);
    expect(&checks, "storage", "warn", "is in memory (tmpfs)");
    expect(&checks, "storage", "warn", "is mounted noexec");
    fill(&memory.0.join("filler"));
    let (_, checks) = look(&node, &[]);
    expect(&checks, "storage", "fail", "0 B of 20.0 MiB free");
}

#[test]
fn a_wrong_board_and_rights_that_are_too_wide_are_found() {
    let node = Node::new();
    let wrong = if cfg!(target_arch = "aarch64") { "generic-x86" } else { "rpi4" };
    let (_, checks) = look(&node, &["--board", wrong]);
    expect(&checks, "board", "fail", wrong);
    std::fs::set_permissions(node.config_file(), std::fs::Permissions::from_mode(0o666)).expect("its rights");
    let (_, checks) = look(&node, &["--board", "auto"]);
    expect(&checks, "permissions", "fail", "config.toml can be changed by everybody");
    std::fs::write(node.config_file(), "[bus]\nlissten = 1\n").expect("a file");
    let (_, checks) = look(&node, &[]);
    expect(&checks, "configuration", "fail", "did you mean \"bus.listen\"?");
    expect(&checks, "ports", "skip", "the configuration is not right");
    let people = run::run(
        binary::edge_runtime(),
        ["doctor", "--offline", "--config", node.config_file().to_str().expect("text")],
        "",
    );
    assert_eq!(people.code(), Some(1), "{people}");
    assert!(people.stdout.contains("→ correct these keys") && !people.stdout.contains('\u{1b}'), "{people}");
}

#[test]
fn whoever_is_not_root_is_told_what_could_not_be_looked_at() {
    use std::os::unix::process::CommandExt as _;
    let mut node = Node::new();
    node.start();
    // The build's folder may be closed to others; the node's is open for this.
    let program = node.folder().join("edge-runtime");
    std::fs::copy(binary::edge_runtime(), &program).expect("a copy");
    std::fs::set_permissions(node.folder(), std::fs::Permissions::from_mode(0o755)).expect("its rights");
    let output = run::finish(doctor(&node, &program, &[]).uid(65_534).gid(65_534), "", wait::DEADLINE);
    let checks = output.json()["checks"].as_array().cloned().expect("checks");
    expect(&checks, "rights", "warn", "does not run as root");
    expect(&checks, "daemon", "skip", "Permission denied");
    assert!(node.stop().success());
}
