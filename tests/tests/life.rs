//! The daemon's life as the system sees it: what systemd hears, how it ends, and that there is only one of it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use edge_tests::daemon::Node;
use edge_tests::filesystem::{Image, fill};
use edge_tests::{binary, http, run, wait};
use rustix::process::Signal;

/// What a service manager hears, each datagram a text.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(node: &Node) -> (Manager, std::path::PathBuf) {
        let path = node.folder().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        (Manager { socket, heard: Vec::new() }, path)
    }

    fn hears(&mut self, text: &str) {
        wait::until(&format!("systemd hears {text}"), || {
            let mut buffer = [0; 4096];
            if let Ok(length) = self.socket.recv(&mut buffer) {
                self.heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
            self.heard.iter().any(|heard| heard.starts_with(text)).then_some(())
        });
    }
}

#[test]
fn systemd_hears_of_readiness_of_life_and_of_the_end() {
    let node = Node::new();
    let (mut manager, path) = Manager::new(&node);
    let mut child =
        node.command().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000").spawn().expect("the daemon starts");
    manager.hears("READY=1");
    manager.hears("STATUS=");
    manager.heard.clear();
    manager.hears("WATCHDOG=1");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("a signal");
    manager.hears("STOPPING=1");
    let status = run::wait_for(&mut child, wait::DEADLINE).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_daemon_that_hangs_is_not_fed() {
    let node = Node::new();
    let (mut manager, path) = Manager::new(&node);
    let mut child =
        node.command().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").spawn().expect("the daemon starts");
    manager.hears("WATCHDOG=1");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::STOP).expect("a signal");
    // Whatever was sent before is drained; then a stopped process says nothing any more.
    wait::until("silence", || {
        let mut buffer = [0; 4096];
        manager.socket.recv(&mut buffer).is_err().then_some(())
    });
    let mut buffer = [0; 4096];
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
    assert!(manager.socket.recv(&mut buffer).is_err(), "a stopped process was said to live");
    rustix::process::kill_process(pid, Signal::KILL).expect("a signal");
    child.wait().expect("it ends");
}

/// Needs root and loop devices: the state directory is a small ext4 in a file.
#[test]
fn a_full_disk_is_told_but_no_reason_to_be_reset() {
    let node = Node::new();
    let disk = Image::new(node.folder(), "disk", 48 << 20);
    std::os::unix::fs::symlink(disk.path(), node.state()).expect("a link");
    let (mut manager, path) = Manager::new(&node);
    let mut child =
        node.command().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000").spawn().expect("the daemon starts");
    manager.hears("READY=1");
    let readyz = || http::unix(&node.socket(), "GET", "/readyz", "", "").ok();
    wait::until("ready", || (readyz()?.status == 200).then_some(()));

    let filler = disk.path().join("filler");
    fill(&filler);
    let map = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}"#;
    let maps = "/api/v1/namespaces/default/configmaps";
    let refused = http::unix(&node.socket(), "POST", maps, "application/json", map).expect("an answer");
    assert!(refused.status >= 500, "{refused:?}");
    let answer = readyz().expect("an answer");
    assert!(answer.status == 503 && answer.body.contains("store: writes fail"), "{answer:?}");
    let status = node.json(&["status"]);
    let store = status["disk"].as_array().and_then(|d| d.iter().find(|i| i["name"] == "store").cloned());
    let store = store.expect("the store is in the status");
    assert!(store["well"] == false && store["reason"].as_str().is_some_and(|r| r.contains("full")), "{store}");
    assert_eq!(node.metric("edge_disk_writes_succeed{database=\"store\"}"), Some(0.0));
    // Whoever resets machines that give no sign of life hears one.
    manager.heard.clear();
    manager.hears("WATCHDOG=1");

    std::fs::remove_file(&filler).expect("the filler goes");
    // Nobody writes anything: it finds out by itself.
    wait::until("ready again", || (readyz()?.status == 200).then_some(()));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("a signal");
    run::wait_for(&mut child, wait::DEADLINE).expect("it ends");
    drop(disk);
}

#[test]
fn a_second_runtime_is_sent_away_and_the_first_goes_on() {
    let mut node = Node::new();
    node.start();
    let second = run::finish(&mut node.command(), "", wait::DEADLINE);
    assert_eq!(second.code(), Some(75), "{second}");
    assert!(second.stderr.contains("another edge-runtime is running"), "{second}");
    assert!(node.cli(&["status"]).stdout.contains("bus"));
    assert!(node.stop().success());
}

#[test]
fn every_way_to_fail_has_its_exit_code_and_its_sentence() {
    let node = Node::new();
    let edge = |arguments: &[&str]| run::run(binary::edge_runtime(), arguments, "");
    let usage = edge(&["gett"]);
    assert_eq!(usage.code(), Some(64), "{usage}");
    let away = edge(&["get", "pods", "--socket", "/nowhere/api.sock"]);
    assert_eq!(away.code(), Some(69), "{away}");

    std::fs::write(node.config_file(), "[bus]\nlisten = \"everywhere\"\nlissten = 1\n[node]\nname = \"a_b\"\n")
        .expect("a file");
    let wrong = run::finish(&mut node.command(), "", wait::DEADLINE);
    assert_eq!(wrong.code(), Some(78), "{wrong}");
    let file = node.config_file().display().to_string();
    for part in [
        format!("{file}:2: bus.listen: \"everywhere\" is not right"),
        format!("{file}:3: bus.lissten: unknown key, did you mean \"bus.listen\"?"),
    ] {
        assert!(wrong.stderr.contains(&part), "{part:?} is not in {wrong}");
    }
    // Nothing was opened before all of it was right.
    assert!(!node.state().exists() && !node.run().exists());

    let board = edge(&["--board", "rpi44", "config", "check"]);
    assert_eq!(board.code(), Some(78), "{board}");
    assert!(board.stderr.contains("did you mean \"rpi4\"?"), "{board}");
}

#[test]
fn a_unit_that_cannot_work_is_seen_and_comes_back() {
    let mut node = Node::new();
    // Somebody else has the bus's port.
    node.start();
    let taken = node.bus();
    node.stop();
    let other = wait::until("the port is free", || std::net::TcpListener::bind(taken).ok());
    node.start();
    node.until("the bus is seen not to work", || {
        let status = node.json(&["status"]);
        let units = status["units"].as_array()?.clone();
        let bus = units.iter().find(|u| u["name"] == "bus")?.clone();
        (bus["well"] == false && bus["reason"].as_str()?.contains("cannot listen")).then_some(())
    });
    assert_eq!(node.metric("edge_unit_up{unit=\"bus\"}"), Some(0.0));
    drop(other);
    node.until("the bus works again", || (node.metric("edge_unit_up{unit=\"bus\"}")? == 1.0).then_some(()));
    assert!(node.stop().success());
}

#[test]
fn the_level_of_the_log_changes_while_it_runs() {
    let mut node = Node::new();
    node.start();
    assert!(!node.log().contains("DEBUG"));
    node.cli(&["loglevel", "debug"]).ok();
    node.cli(&["get", "nodes"]).ok();
    node.until("the log tells more", || node.log().contains("DEBUG").then_some(()));
    let wrong = node.cli(&["loglevel", "loud"]);
    assert_eq!(wrong.code(), Some(1), "{wrong}");
    assert!(node.stop().success());
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut node = Node::new();
    node.start();
    // A client that holds a watch open is what an orderly stop waits for a moment for; the second signal must not.
    node.signal(Signal::TERM);
    node.signal(Signal::INT);
    let status = node.wait_end();
    assert!(matches!(status.code(), Some(0 | 130)), "{status:?}");
    node.start();
    assert!(node.stop().success());
}
