//! From the start of the process to the first answers: the API's `/readyz`, and the broker's CONNACK.

use std::time::{Duration, Instant};

use edge_tests::daemon::Node;
use edge_tests::http;

use crate::peers::{Mosquitto, accepts};
use crate::table::{Table, millis};

/// How often a thing is tried while waiting for it.
const STEP: Duration = Duration::from_micros(200);

/// Measures `runs` starts, ours and mosquitto's in turn.
pub fn run(runs: usize) {
    let mut node = Node::new();
    // The first start makes the state directory; what counts is how a gateway boots every other time.
    let mut first = vec![api(&mut node)];
    node.stop();
    let (mut ready, mut broker, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        ready.push(api(&mut node));
        node.stop();
        let start = Instant::now();
        node.launch();
        broker.push(wait(start, || accepts(node.bus())));
        node.wait_ready();
        node.stop();
        let start = Instant::now();
        let mosquitto = Mosquitto::launch();
        peer.push(wait(start, || accepts(mosquitto.address())));
    }
    let mut table = Table::new("Start", &["what", "ms, median (95 %)"]);
    table.row(&["edge-runtime: API answers `/readyz`", &millis(&mut ready)]);
    table.row(&["edge-runtime: broker accepts a client", &millis(&mut broker)]);
    table.row(&["edge-runtime: the very first start, API", &millis(&mut first)]);
    table.row(&["mosquitto: accepts a client", &millis(&mut peer)]);
    table.print();
}

fn api(node: &mut Node) -> Duration {
    let socket = node.socket();
    // Else the socket of the last run would be mistaken for this one's.
    let _ = std::fs::remove_file(&socket);
    let start = Instant::now();
    node.launch();
    wait(start, || http::unix(&socket, "GET", "/readyz", "", "").is_ok_and(|answer| answer.status == 200))
}

fn wait(start: Instant, mut done: impl FnMut() -> bool) -> Duration {
    while !done() {
        assert!(start.elapsed() < edge_tests::wait::DEADLINE, "it never answered");
        std::thread::sleep(STEP);
    }
    start.elapsed()
}
