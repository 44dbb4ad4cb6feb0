//! The promise: however often the runtime is killed, what it has acknowledged reaches the cloud, in order, and containers
//! do not notice.
//!
//! Needs root (containers), mosquitto, umoci and busybox-static.

use std::collections::BTreeMap;
use std::time::Duration;

use edge_tests::daemon::Node;
use edge_tests::load::Uploader;
use edge_tests::mosquitto::{Mosquitto, Setup};
use edge_tests::receiver::Receiver;
use edge_tests::wait::until_holds;
use serde_json::Value;

/// How often it is killed.
const KILLS: u32 = 50;
/// How many clients upload at the same time.
const CLIENTS: usize = 4;
/// Messages that may be on the way to the cloud at the same time.
const WINDOW: u64 = 16;

/// Milliseconds for the runtime to live, spread over its start, its work and its writes: xorshift, the same in each run.
fn lives() -> impl Iterator<Item = u64> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % 400
    })
}

/// Container id, process id and start time of every container of a pod.
fn containers(node: &Node) -> Vec<Value> {
    let pods = node.json(&["get", "pods"]);
    let all = pods["items"].as_array().expect("items").iter().flat_map(|pod| {
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        statuses
            .into_iter()
            .map(|s| serde_json::json!([s["containerID"], s["state"]["running"]["startedAt"], s["restartCount"]]))
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_nothing_and_containers_do_not_notice() {
    let cloud = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(cloud.port(), "edge/gw").await;
    let mut node = Node::new().config(&format!(
        "[node]\nname = \"gw\"\n[cloud]\naddress = \"mqtt://127.0.0.1:{}\"\nwindow = {WINDOW}\n",
        cloud.port()
    ));
    node.start();
    let image = edge_tests::pods::busybox_archive(node.folder());
    node.cli(&["image", "import", &image, "--name", "localhost/busybox:1"]).ok();
    for name in ["one", "two"] {
        node.apply(&edge_tests::pods::sleeper(name));
    }
    node.until("both pods run", || (containers(&node).iter().filter(|c| c[1].is_string()).count() == 2).then_some(()));
    let before = containers(&node);
    let ticks = edge_tests::pods::start_ticks(node.folder());
    assert_eq!(ticks.len(), 2, "two containers run: {ticks:?}");

    let clients: Vec<Uploader> = (0..CLIENTS).map(|i| Uploader::start(node.bus().port(), &format!("c{i}"))).collect();
    for (kill, life) in (0..KILLS).zip(lives()) {
        // Some die while they start, some while they work.
        if life % 5 != 0 {
            node.wait_ready();
        }
        tokio::time::sleep(Duration::from_millis(life)).await;
        node.kill();
        node.launch();
        let acknowledged: u64 = clients.iter().map(Uploader::acknowledged).sum();
        eprintln!("kill {kill}: lived {life} ms, {acknowledged} acknowledged");
    }
    node.wait_ready();
    // Every client must get through at least once more: the last life is a long one.
    let reached: Vec<u64> = clients.iter().map(|c| c.acknowledged() + 1).collect();
    for (client, reached) in clients.iter().zip(reached) {
        until_holds("the client gets through again", || client.acknowledged() >= reached).await;
    }
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.push(client.stop().await);
    }
    node.until("the queue is empty", || (node.metric("edge_queue_messages{stream=\"data\"}")? == 0.0).then_some(()));
    let last = node.metric("edge_queue_pushed_total{stream=\"data\"}").expect("a figure");
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    until_holds("the cloud has all", || receiver.last("data") as f64 >= last).await;

    // Nothing is missing, nothing is out of order, and repeats are of the last window.
    let books = receiver.books("data");
    assert!(books.lost.is_empty() && books.disorder == 0, "{books:?}");
    assert!(books.furthest <= WINDOW, "{books:?}");
    let mut arrived: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut seen = 0;
    for got in receiver.all().iter().filter(|g| g.stream() == "data") {
        // A repeat of the uplink is told by its number, as the envelope says.
        if got.seq() <= seen {
            continue;
        }
        seen = got.seq();
        let subject = got.envelope["subject"].as_str().expect("a subject").to_owned();
        if let Some(n) = got.envelope["payload"]["n"].as_u64() {
            arrived.entry(subject).or_default().push(n);
        }
    }
    for (i, acknowledged) in acknowledged.iter().enumerate() {
        let numbers = &arrived[&format!("upload/c{i}")];
        // The client repeats what it got no PUBACK for, so a number may be there twice, but never after a higher one.
        assert!(numbers.is_sorted(), "client {i}: {numbers:?}");
        let mut distinct = numbers.clone();
        distinct.dedup();
        let whole = distinct.iter().copied().eq(1..=distinct.last().copied().unwrap_or(0));
        assert!(
            whole && distinct.len() as u64 >= *acknowledged,
            "client {i}: {acknowledged} acknowledged, {numbers:?}"
        );
    }
    assert_eq!(containers(&node), before, "the containers have been touched");
    assert_eq!(edge_tests::pods::start_ticks(node.folder()), ticks, "the containers are other processes now");
    assert!(node.stop().success());
}
