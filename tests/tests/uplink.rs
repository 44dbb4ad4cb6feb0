//! The uplink's contract, with a real mosquitto as the cloud and a network that is cut: nothing lost, in order, repeats only
//! inside one window.

use std::time::Duration;

use edge_runtime::bus::Bus;
use edge_runtime::cloud::{Link, LinkState, Parts, Settings, run};
use edge_runtime::queue::{Message, Queue, Settings as QueueSettings, Stream};
use edge_runtime::store::Store;
use edge_tests::mosquitto::{Mosquitto, Setup};
use edge_tests::proxy::{Mode, Proxy};
use edge_tests::receiver::{Books, Receiver};
use edge_tests::wait::until_holds as until;
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BASE: &str = "edge/gw";
const WINDOW: u16 = 16;

struct Uplink {
    queue: Queue,
    link: Link,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

fn settings(port: u16) -> Settings {
    Settings {
        address: Some(format!("mqtt://127.0.0.1:{port}")),
        node: "gw".into(),
        window: WINDOW,
        drain_rate: 0,
        back_off_first: Duration::from_millis(10),
        back_off_max: Duration::from_millis(200),
        ..Settings::default()
    }
}

impl Uplink {
    fn start(queue: Queue, settings: Settings) -> Uplink {
        let folder = tempfile::tempdir().unwrap();
        let (link, stop) = (Link::default(), CancellationToken::new());
        let parts = Parts {
            queue: queue.clone(),
            bus: Bus::in_memory(),
            store: Store::in_memory(),
            properties: None,
            ledger: folder.path().join("cloud/commands.jsonl"),
        };
        let (running, stopping) = (link.clone(), stop.clone());
        let task = tokio::spawn(async move { run(settings, parts, &running, || {}, stopping).await.unwrap() });
        Uplink { queue, link, stop, task, _folder: folder }
    }

    async fn push(&self, n: usize) {
        for _ in 0..n {
            push(&self.queue, Stream::Data, edge_runtime::clock::now_ms()).await;
        }
    }

    fn online(&self) -> bool {
        matches!(self.link.state(), LinkState::Online { .. })
    }

    async fn acked(&self, seq: u64) {
        until("everything is acknowledged", || self.queue.acked(Stream::Data) == seq).await;
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(60), self.task).await.expect("stops").unwrap();
    }
}

fn message(time_ms: i64) -> Message {
    Message { time_ms, subject: "devices/default/pump/data".into(), payload: br#"{"t":21.5}"#.to_vec() }
}

async fn push(queue: &Queue, stream: Stream, time_ms: i64) -> u64 {
    queue.push(stream, message(time_ms)).await.unwrap()
}

/// A deterministic spread of numbers, so that each run is the same.
fn spread(n: u64) -> u64 {
    n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_in_order_in_its_envelope() {
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let uplink = Uplink::start(Queue::in_memory(), settings(broker.port()));
    uplink.push(2_000).await;
    uplink.acked(2_000).await;
    until("received", || receiver.last("data") == 2_000).await;
    assert_eq!(receiver.books("data"), Books { last: 2_000, ..Books::default() });
    let first = receiver.all().remove(0);
    assert_eq!(first.topic, "edge/gw/up/data/devices/default/pump/data");
    assert_eq!(first.envelope["payload"], serde_json::json!({ "t": 21.5 }));
    assert_eq!((&first.envelope["v"], &first.envelope["node"]), (&1.into(), &"gw".into()));
    let stats = uplink.link.stats();
    assert_eq!((stats.sent_total, stats.resent_total, stats.acked_total), (2_000, 0, 2_000));
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_cut_thirty_times_loses_nothing_and_repeats_at_most_a_window() {
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let proxy = Proxy::start(broker.port()).await;
    let uplink = Uplink::start(Queue::in_memory(), settings(proxy.port()));
    let mut total = 0;
    for cut in 0..30 {
        until("online", || uplink.online()).await;
        let n = 50 + spread(cut) % 200;
        uplink.push(usize::try_from(n).unwrap()).await;
        total += n;
        // Somewhere in the middle of it.
        let at = total - spread(cut + 100) % n;
        until("some have arrived", || receiver.last("data") >= at).await;
        proxy.cut();
        until("noticed", || !uplink.online() || uplink.link.stats().failures_total > cut).await;
    }
    uplink.acked(total).await;
    until("received", || receiver.last("data") == total).await;
    let books = receiver.books("data");
    assert_eq!((books.last, books.lost.len(), books.disorder), (total, 0, 0), "{books:?}");
    assert!(books.furthest <= u64::from(WINDOW), "{books:?}");
    assert!(books.repeats <= 31 * u64::from(WINDOW), "{books:?}");
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_but_not_acknowledged_comes_again_and_nothing_else() {
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let proxy = Proxy::start(broker.port()).await;
    let uplink = Uplink::start(Queue::in_memory(), settings(proxy.port()));
    uplink.push(5).await;
    uplink.acked(5).await;
    proxy.set(Mode::NoAnswers);
    uplink.push(10).await;
    until("the ten are there", || receiver.last("data") == 15).await;
    assert_eq!(uplink.queue.acked(Stream::Data), 5);
    proxy.set(Mode::Open);
    proxy.cut();
    until("noticed", || uplink.link.stats().failures_total == 1).await;
    uplink.push(10).await;
    uplink.acked(25).await;
    until("received", || receiver.last("data") == 25).await;
    let seqs: Vec<u64> = receiver.all().iter().map(edge_tests::receiver::Got::seq).collect();
    let expected: Vec<u64> = (1..=15).chain(6..=25).collect();
    assert_eq!(seqs, expected);
    assert_eq!(uplink.link.stats().resent_total, 10);
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_is_down_for_long_and_again_and_again_gets_everything() {
    let mut broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let uplink = Uplink::start(Queue::in_memory(), settings(broker.port()));
    let mut total = 0;
    for round in 0..5u64 {
        until("online", || uplink.online()).await;
        uplink.push(300).await;
        total += 300;
        let some = total - spread(round) % 300;
        until("some have arrived", || receiver.last("data") >= some).await;
        broker.stop();
        until("offline", || !uplink.online()).await;
        // The backlog grows while nobody is there.
        uplink.push(1_000).await;
        total += 1_000;
        let failures = uplink.link.stats().failures_total;
        until("tried in vain", || uplink.link.stats().failures_total > failures + 2).await;
        if let LinkState::Offline { reason, .. } | LinkState::Connecting { reason } = uplink.link.state() {
            assert!(reason.contains("refused"), "{reason}");
        }
        broker.restart();
    }
    uplink.acked(total).await;
    until("received", || receiver.last("data") == total).await;
    let books = receiver.books("data");
    assert_eq!((books.last, books.lost.len(), books.disorder), (total, 0, 0), "{books:?}");
    let stats = uplink.link.stats();
    assert!(stats.resent_total <= 5 * u64::from(WINDOW), "{stats:?}");
    assert_eq!(stats.connects_total, 6);
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_falls_silent_is_noticed_and_gets_everything_later() {
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let quick = Duration::from_secs(1);
    let settings =
        Settings { keep_alive: quick, ack_timeout: quick, connect_timeout: quick, ..settings(broker.port()) };
    let uplink = Uplink::start(Queue::in_memory(), settings);
    uplink.push(100).await;
    uplink.acked(100).await;
    // Once while something is on its way, once while nothing is.
    for (round, pushed) in [(0, 50), (1, 0)] {
        broker.signal(Signal::STOP);
        uplink.push(pushed).await;
        let failures = uplink.link.stats().failures_total;
        until("noticed", || uplink.link.stats().failures_total > failures && !uplink.online()).await;
        uplink.push(20).await;
        broker.signal(Signal::CONT);
        let total = if round == 0 { 170 } else { 190 };
        uplink.acked(total).await;
        until("received", || receiver.last("data") == total).await;
    }
    let books = receiver.books("data");
    assert_eq!((books.lost.len(), books.disorder), (0, 0), "{books:?}");
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_after_the_last_acknowledged_message() {
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let folder = tempfile::tempdir().unwrap();
    let open = || Queue::open(folder.path(), QueueSettings::default()).unwrap().0;
    for round in 0..5u64 {
        let uplink = Uplink::start(open(), settings(broker.port()));
        for _ in 1..200 {
            uplink.queue.try_push(Stream::Data, message(edge_runtime::clock::now_ms())).unwrap();
        }
        // What is behind them on the disk proves that they are there, too.
        uplink.push(1).await;
        until("some have arrived", || receiver.last("data") > round * 200 + 20).await;
        let queue = uplink.queue.clone();
        uplink.stop().await;
        queue.close().await;
    }
    let uplink = Uplink::start(open(), settings(broker.port()));
    uplink.acked(1_000).await;
    until("received", || receiver.last("data") == 1_000).await;
    let books = receiver.books("data");
    assert_eq!((books.lost.len(), books.disorder), (0, 0), "{books:?}");
    assert!(books.furthest <= u64::from(WINDOW), "{books:?}");
    let queue = uplink.queue.clone();
    uplink.stop().await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_events_do_not_wait_for_a_backlog() {
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let queue = Queue::in_memory();
    for _ in 0..3_000 {
        push(&queue, Stream::Data, 0).await;
    }
    // Thirty seconds of backlog.
    let uplink = Uplink::start(queue.clone(), Settings { drain_rate: 100, ..settings(broker.port()) });
    until("the drain has begun", || receiver.last("data") > 20).await;
    push(&queue, Stream::Events, 0).await;
    push(&queue, Stream::Replies, 0).await;
    until("both are there", || receiver.last("events") == 1 && receiver.last("replies") == 1).await;
    assert!(receiver.last("data") < 3_000);
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_is_told_to_the_cloud_and_to_the_bus() {
    let broker = Mosquitto::start(&Setup::default());
    let proxy = Proxy::start(broker.port()).await;
    let watcher = edge_tests::mosquitto::subscribe(broker.port(), &["-t", "edge/gw/link", "-C", "3", "-F", "%j"]);
    let bus = Bus::in_memory();
    let mut told = bus.subscribe("edge/node/link");
    let folder = tempfile::tempdir().unwrap();
    let (link, stop) = (Link::default(), CancellationToken::new());
    let parts = Parts {
        queue: Queue::in_memory(),
        bus: bus.clone(),
        store: Store::in_memory(),
        properties: None,
        ledger: folder.path().join("l"),
    };
    let (running, stopping, settings) = (link.clone(), stop.clone(), settings(proxy.port()));
    let task = tokio::spawn(async move { run(settings, parts, &running, || {}, stopping).await.unwrap() });
    let state = |message: Option<edge_runtime::bus::Message>| -> String {
        let value: serde_json::Value = serde_json::from_slice(&message.unwrap().payload).unwrap();
        value["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(told.next().await), "online");
    proxy.set(Mode::Closed);
    proxy.cut();
    assert_eq!(state(told.next().await), "offline");
    proxy.set(Mode::Open);
    while state(told.next().await) != "online" {}
    stop.cancel();
    task.await.unwrap();
    assert_eq!(state(told.next().await), "offline");
    let lines = tokio::task::spawn_blocking(move || edge_tests::mosquitto::lines(watcher)).await.unwrap();
    // The broker's will when the connection was cut is "offline", too.
    assert!(lines.iter().all(|l| l.contains("line")), "{lines:?}");
    assert_eq!(lines.len(), 3);
}
