//! The promise: a new version is kept when it is healthy, whatever is wrong with it the one before comes back, and containers
//! do not notice.
//!
//! Needs root (containers), umoci, busybox-static, cc, strip (binutils), tar and openssl.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use edge_tests::daemon::Node;
use edge_tests::updates::{Maker, apply, apply_under_init, edge, executable, program, refused, status, stripped};
use edge_tests::{binary, pods, run, wait};

/// A configuration whose gate is quick.
fn quick(maker: &Maker, tries: u32) -> String {
    format!("[update]\n{}health-seconds = 1\ndeadline-seconds = 5\ntries = {tries}\n", maker.trusted())
}

fn node_and_maker() -> (Node, Maker) {
    let node = Node::new();
    let maker = Maker::new(node.folder(), "maker");
    node.reconfigure(&quick(&maker, 2));
    (node, maker)
}

/// The messages of the events with this reason.
fn events(node: &Node, reason: &str) -> Vec<String> {
    let all = node.json(&["get", "events"]);
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let of = items.iter().filter(|e| e["reason"] == reason);
    of.map(|e| e["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn runs(node: &Node, slot: &str) {
    let expected = match slot {
        "factory" => binary::edge_runtime().canonicalize().expect("a path"),
        slot => node.state().join("slots").join(slot).join("edge-runtime"),
    };
    assert_eq!(executable(node), expected);
    assert_eq!(status(node)["running"]["slot"], slot);
}

#[test]
fn a_healthy_version_is_kept_and_containers_do_not_notice() {
    let (node, maker) = node_and_maker();
    let dog = node.folder().join("watchdog");
    // In the place of the device: a pipe keeps what it gets in order.
    run::run("mkfifo", [&dog], "").ok();
    let mut fed = std::fs::File::options().read(true).write(true).open(&dog).expect("the pipe");
    let config = format!("{}[watchdog]\nenabled = true\ndevice = {dog:?}\n", quick(&maker, 2));
    node.reconfigure(&config);
    let socket = UnixDatagram::bind(node.folder().join("notify")).expect("a socket");
    socket.set_nonblocking(true).expect("a socket that does not wait");
    let notify = node.folder().join("notify");
    // The kit takes NOTIFY_SOCKET away from whoever runs the tests; here it is the test's own.
    let mut child = node.command().env("NOTIFY_SOCKET", &notify).spawn().expect("the daemon starts");
    wait::until("ready", || node.cli(&["update", "health", "--timeout", "0"]).status.success().then_some(()));

    let image = pods::busybox_archive(node.folder());
    node.cli(&["image", "import", &image, "--name", "localhost/busybox:1"]).ok();
    node.apply(&pods::sleeper("one"));
    let ticks =
        wait::until("the container runs", || Some(pods::start_ticks(node.folder())).filter(|ticks| ticks.len() == 1));

    let artefact = maker.pack(&stripped(node.folder()), "9.0.0", &[]);
    let said = run::finish(&mut apply(&node, &artefact, &[]), "", wait::DEADLINE * 2).ok();
    assert!(said.stdout.contains("9.0.0 is healthy and in use"), "{said}");
    let exe = std::fs::read_link(format!("/proc/{}/exe", child.id())).expect("the same process");
    assert_eq!(exe, node.state().join("slots/a/edge-runtime"));
    let state = status(&node);
    assert_eq!(state["state"]["phase"], "committed");
    assert_eq!(state["running"]["version"], "9.0.0");
    assert_eq!(pods::start_ticks(node.folder()), ticks, "the containers are other processes now");
    node.until("it is told", || (!events(&node, "UpdateCommitted").is_empty()).then_some(()));

    // For systemd it never ended, and was ready twice; the hardware was told to wait in between.
    let mut heard = String::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        heard.push_str(&format!("{}\n", String::from_utf8_lossy(&buffer[..length])));
    }
    let order: Vec<&str> = heard
        .lines()
        .filter(|l| l.starts_with("READY") || l.starts_with("RELOADING") || l.starts_with("STOP"))
        .collect();
    assert_eq!(order, ["READY=1", "RELOADING=1", "READY=1"], "{heard}");
    let mut bytes = [0; 4096];
    let length = std::io::Read::read(&mut fed, &mut bytes).expect("what the watchdog got");
    let fed = &bytes[..length];
    let close = fed.iter().position(|b| *b == b'V').expect("the watchdog was told of the stop");
    assert!(close > 0 && fed[close + 1..].contains(&0), "{fed:?}");

    // The next update goes into the other slot, and back by hand is one word.
    let artefact = maker.pack(&stripped(node.folder()), "9.1.0", &[]);
    run::finish(&mut apply(&node, &artefact, &[]), "", wait::DEADLINE * 2).ok();
    assert_eq!(status(&node)["running"]["slot"], "b");
    let config = node.config_file().display().to_string();
    node.cli(&["update", "rollback", "--config", &config]).ok();
    node.until("the version before is back", || {
        (node.cli(&["update", "status"]).stdout.contains("running: 9.0.0 from a, healthy")).then_some(())
    });
    assert_eq!(pods::start_ticks(node.folder()), ticks, "the containers are other processes now");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    assert_eq!(run::wait_for(&mut child, wait::DEADLINE).expect("it ends").code(), Some(0));
}

#[test]
fn a_version_that_crashes_is_left_and_the_objects_are_as_before() {
    let (mut node, maker) = node_and_maker();
    node.start();
    node.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: before}\n");
    // It says that it writes another schema, and leaves nothing that the version before could read.
    let ruin = format!("sleep(1); return system(\"rm -rf {}/*\") + 3;", node.state().join("store").display());
    let crashes = program(node.folder(), "crashes", &ruin);
    let artefact = maker.pack(&crashes, "9.0.0", &["--store-schema", "99"]);
    let (again, said) = apply_under_init(&mut node, &artefact, &[]);
    assert_eq!(said.code(), Some(1), "{said}");
    assert!(said.stderr.contains("9.0.0 was given up"), "{said}");
    assert_eq!(again, 2, "each of its two starts ended, and each time init started it again");
    node.wait_ready();
    runs(&node, "factory");
    assert!(node.state().join("store.rolled-back").exists() && !node.state().join("slots/store-before").exists());
    assert_eq!(node.json(&["get", "configmaps"])["items"][0]["metadata"]["name"], "before");
    let told = node.until("it is told", || events(&node, "UpdateRolledBack").pop());
    assert!(told.contains("went back from 9.0.0") && told.contains("as often as it may be"), "{told}");
    // Told once, also over a restart.
    node.stop();
    node.start();
    assert_eq!(events(&node, "UpdateRolledBack").len(), 1);
    assert!(node.stop().success());
}

#[test]
fn a_version_that_hangs_is_ended_by_the_kernel() {
    let (mut node, maker) = node_and_maker();
    node.reconfigure(&quick(&maker, 1));
    node.start();
    let artefact = maker.pack(&program(node.folder(), "hangs", "for (;;) pause();"), "9.0.0", &[]);
    let (again, said) = apply_under_init(&mut node, &artefact, &[]);
    assert_eq!((said.code(), again), (Some(1), 1), "{said}");
    node.wait_ready();
    runs(&node, "factory");
    assert!(node.stop().success());
}

#[test]
fn a_version_that_is_not_well_goes_back_by_itself() {
    let (mut node, maker) = node_and_maker();
    node.start();
    let (pid, address) = (node.pid(), node.bus());
    // Whoever gets the port while the node restarts keeps it: the new version's bus cannot work.
    let thief = std::thread::spawn(move || wait::until("the port is free", || TcpListener::bind(address).ok()));
    let artefact = maker.pack(&stripped(node.folder()), "9.0.0", &[]);
    let started = Instant::now();
    let (again, said) = apply_under_init(&mut node, &artefact, &[]);
    assert_eq!((said.code(), again), (Some(1), 0), "{said}");
    assert!(said.stderr.contains("not healthy within 5 s: bus is"), "{said}");
    let thief = thief.join().expect("the port");
    assert_eq!(node.pid(), pid, "it went back in the same process");
    node.wait_ready();
    runs(&node, "factory");
    // The alarm that was set for the version that gave way (5 s, a fifth, and 10) must not end the one before.
    wait::until_true("the alarm would have rung", || started.elapsed() > Duration::from_secs(17));
    assert!(node.is_running(), "the version before was ended\n{}", node.log());
    // What was not well before is not held against a new version.
    let (_, said) = apply_under_init(&mut node, &artefact, &[]);
    assert!(said.ok().stdout.contains("healthy and in use"));
    runs(&node, "a");
    drop(thief);
    assert!(node.stop().success());
}

#[test]
fn what_is_not_right_is_refused_and_changes_nothing() {
    let (mut node, maker) = node_and_maker();
    node.start();
    let fine = program(node.folder(), "fine", "return 0;");
    let good = maker.pack(&fine, "9.0.0", &[]);
    let bytes = std::fs::read(&good).expect("the artefact");
    let file = |name: &str, bytes: &[u8]| {
        let path = node.folder().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let check = |path: &Path, more: &[&str], words: &str| {
        let said = refused(&node, path, more);
        assert!(said.contains(words), "{words:?} is not in {said}");
    };
    let mut tampered = bytes.clone();
    let middle = bytes.len() / 2;
    tampered[middle] ^= 1;
    let said = refused(&node, &file("tampered", &tampered), &[]);
    assert!(said.contains("not the one that was signed") || said.contains("cannot be unpacked"), "{said}");
    let mut claims = bytes.clone();
    let at = bytes.windows(5).position(|w| w == b"9.0.0").expect("the version");
    claims[at] = b'8';
    check(&file("claims", &claims), &[], "not signed with a key this node trusts");
    check(&file("truncated", &bytes[..middle]), &[], "truncated");
    check(&file("nothing", b""), &[], "truncated");
    check(&file("other", &[b'x'; 4096]), &[], "this is no artefact");
    let stranger = Maker::new(node.folder(), "stranger");
    check(&stranger.pack(&fine, "9.0.1", &[]), &[], "not signed with a key this node trusts (1 known)");
    let mut arm = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    arm.extend([183, 0]);
    check(&maker.pack(&file("arm", &arm), "9.0.2", &[]), &[], "this node is x86_64-unknown-linux-gnu");
    check(&maker.pack(&fine, "0.0.1", &[]), &[], "--allow-downgrade");
    check(&maker.pack(&fine, env!("CARGO_PKG_VERSION"), &[]), &[], "in use already");
    check(&maker.pack(&fine, "9.0.3", &["--store-schema", "1"]), &["--allow-downgrade"], "without its objects");
    check(&maker.pack(&fine, "9.0.4", &["--minimum-version", "8.0.0"]), &[], "over 8.0.0 or later");
    node.reconfigure("");
    check(&good, &[], "no key is trusted");
    assert!(status(&node)["state"].is_null());
    // One at a time, and the one that is staged can be taken back.
    node.reconfigure(&quick(&maker, 2));
    run::finish(&mut apply(&node, &good, &["--no-restart"]), "", wait::DEADLINE).ok();
    check(&good, &[], "9.0.0 is on trial");
    let config = node.config_file().display().to_string();
    node.cli(&["update", "rollback", "--no-restart", "--config", &config]).ok();
    let nothing = node.cli(&["update", "rollback", "--config", &config]);
    assert!(nothing.stderr.contains("no other version"), "{nothing}");
    runs(&node, "factory");
    // A key is never written over.
    assert_eq!(edge(&["update", "keygen", &node.folder().join("maker.pem").display().to_string()]).code(), Some(1));
    assert!(node.stop().success());
}

/// Artefacts are checked, and keys made, without us: by tar and OpenSSL.
#[test]
fn others_read_our_artefacts_and_make_our_keys() {
    let node = Node::new();
    let openssl = |arguments: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        run::finish(command.args(arguments).current_dir(node.folder()), "", wait::DEADLINE)
    };
    let maker = Maker::new(node.folder(), "maker");
    let fine = program(node.folder(), "fine", "return 0;");
    let artefact = maker.pack(&fine, "9.0.0", &[]);
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    run::run("tar", ["-xf", &text(&artefact), "-C", &text(node.folder())], "").ok();
    let verify = ["pkeyutl", "-verify", "-pubin", "-inkey", "maker.pem.pub", "-rawin", "-in", "manifest.json"];
    openssl(&[verify.as_slice(), &["-sigfile", "manifest.json.sig"]].concat()).ok();
    run::run("gunzip", [text(&node.folder().join("edge-runtime.gz"))], "").ok();
    assert_eq!(std::fs::read(node.folder().join("edge-runtime")).unwrap(), std::fs::read(&fine).unwrap());
    // The public key that OpenSSL makes of our private one is the one we gave.
    let public = openssl(&["pkey", "-in", "maker.pem", "-pubout"]).ok().stdout;
    assert_eq!(public, std::fs::read_to_string(node.folder().join("maker.pem.pub")).unwrap());

    openssl(&["genpkey", "-algorithm", "ed25519", "-out", "theirs.pem"]).ok();
    openssl(&["pkey", "-in", "theirs.pem", "-pubout", "-out", "theirs.pub"]).ok();
    let output = text(&node.folder().join("theirs.edgeupdate"));
    let key = text(&node.folder().join("theirs.pem"));
    edge(&["update", "pack", &text(&fine), "--key", &key, "--as-version", "9.0.0", "-o", &output]).ok();
    let pem = std::fs::read_to_string(node.folder().join("theirs.pub")).expect("a public key");
    node.reconfigure(&format!("[update]\npublic-keys = [{pem:?}]\n"));
    run::finish(&mut apply(&node, Path::new(&output), &[]), "", wait::DEADLINE).ok();
}

/// The launcher counts on disk: a slot that was damaged since, a state that makes no sense, and a second daemon cost nothing.
#[test]
fn damage_falls_back_to_what_can_be_started() {
    let (mut node, maker) = node_and_maker();
    let artefact = maker.pack(&stripped(node.folder()), "9.0.0", &[]);
    // Nothing runs: it is tried at the next start.
    let said = run::finish(&mut apply(&node, &artefact, &[]), "", wait::DEADLINE).ok();
    assert!(said.stdout.contains("at the next start"), "{said}");
    node.start();
    let tries = status(&node)["state"]["triesLeft"].clone();
    assert_eq!(run::finish(&mut node.command(), "", wait::DEADLINE).code(), Some(75));
    assert!(tries == 1 || status(&node)["state"]["phase"] == "committed", "{tries}");
    node.until("committed", || (status(&node)["state"]["phase"] == "committed").then_some(()));
    runs(&node, "a");
    assert!(node.stop().success());
    node.start();
    runs(&node, "a");
    assert!(node.stop().success());

    let slot = node.state().join("slots/a/edge-runtime");
    let mut bytes = std::fs::read(&slot).expect("the executable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&slot, bytes).expect("damage");
    node.start();
    runs(&node, "factory");
    assert!(
        status(&node)["state"]["last"]["why"].as_str().is_some_and(|w| w.contains("not the one that was installed"))
    );
    assert!(node.stop().success());

    // Whole, and not to be executed.
    run::finish(&mut apply(&node, &artefact, &[]), "", wait::DEADLINE).ok();
    let rights = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&slot, rights).expect("other rights");
    node.start();
    runs(&node, "factory");
    assert!(
        status(&node)["state"]["last"]["why"].as_str().is_some_and(|w| w.contains("it cannot be started: Permission"))
    );
    assert!(node.stop().success());

    std::fs::write(node.state().join("slots/state.json"), "{").expect("damage");
    node.start();
    assert!(node.cli(&["update", "status"]).ok().stdout.contains("damaged"));
    assert!(node.stop().success());
}

/// A power cut of the process at any moment of an update leaves a node that starts.
#[test]
fn killed_anywhere_while_applying_the_node_starts() {
    let (mut node, maker) = node_and_maker();
    let artefact = maker.pack(&stripped(node.folder()), "9.0.0", &[]);
    let mut seen = [0, 0];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let whole = {
        let started = std::time::Instant::now();
        run::finish(&mut apply(&node, &artefact, &[]), "", wait::DEADLINE).ok();
        started.elapsed()
    };
    let config = node.config_file().display().to_string();
    let dir = node.state().display().to_string();
    for round in 0..12_u32 {
        node.cli(&["update", "rollback", "--config", &config, "--state-dir", &dir]);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let delay = whole.mul_f64(f64::from(u16::try_from(state % 1000).expect("small")) / 800.0);
        let mut child = apply(&node, &artefact, &[]).stderr(std::process::Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(delay.max(Duration::from_millis(1)));
        let _ = child.kill();
        child.wait().expect("it ends");
        node.start();
        let status = status(&node);
        let slot = status["running"]["slot"].as_str().expect("a slot").to_owned();
        seen[usize::from(slot != "factory")] += 1;
        let version = if slot == "factory" { env!("CARGO_PKG_VERSION") } else { "9.0.0" };
        assert_eq!(status["running"]["version"], version, "round {round}: {status}");
        assert!(node.stop().success());
    }
    eprintln!("started the old version {} times, the new one {} times", seen[0], seen[1]);
}
