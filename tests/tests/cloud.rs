//! The cloud link's doors: who may connect to whom, and commands that come down, are done once and answered.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edge_model::{Key, Kind};
use edge_runtime::api::backend::{BackendError, Properties, Reply};
use edge_runtime::bus::Bus;
use edge_runtime::cloud::{Link, LinkState, Parts, Settings, run};
use edge_runtime::queue::{self, Message, Queue, Stream};
use edge_runtime::store::{self, Store};
use edge_tests::filesystem::{Image, fill};
use edge_tests::mosquitto::{Mosquitto, Setup, publish};
use edge_tests::proxy::{Mode, Proxy};
use edge_tests::receiver::Receiver;
use edge_tests::wait::until_holds as until;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BASE: &str = "edge/gw";
const DOWN: &str = "edge/gw/down/commands";

/// A field of one device: counts what is written, and lets a write through when it is told to.
struct Field {
    written: AtomicUsize,
    gate: Semaphore,
}

impl Properties for Field {
    fn read<'a>(&'a self, _: &'a Key, _: &'a str) -> Reply<'a, Value> {
        Box::pin(async { Err(BackendError::Unavailable("not for reading".into())) })
    }

    fn write<'a>(&'a self, device: &'a Key, property: &'a str, value: &'a Value) -> Reply<'a, Value> {
        Box::pin(async move {
            if device.name != "pump" {
                return Err(BackendError::NotFound(format!("{device} not found")));
            }
            self.written.fetch_add(1, Ordering::SeqCst);
            let _ = self.gate.acquire().await;
            if value.is_string() {
                return Err(BackendError::Invalid("must be a number".into()));
            }
            Ok(json!({ "property": property, "value": value }))
        })
    }
}

struct Node {
    link: Link,
    store: Store,
    queue: Queue,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn settings(port: u16) -> Settings {
    Settings {
        address: Some(format!("mqtt://127.0.0.1:{port}")),
        node: "gw".into(),
        back_off_first: Duration::from_millis(10),
        back_off_max: Duration::from_millis(200),
        ..Settings::default()
    }
}

impl Node {
    fn start(settings: Settings, store: Store, queue: Queue, field: Option<Arc<Field>>, ledger: PathBuf) -> Node {
        let (link, stop) = (Link::default(), CancellationToken::new());
        let properties = field.map(|f| f as Arc<dyn Properties>);
        let parts = Parts { queue: queue.clone(), bus: Bus::in_memory(), store: store.clone(), properties, ledger };
        let (running, stopping) = (link.clone(), stop.clone());
        let task = tokio::spawn(async move { run(settings, parts, &running, || {}, stopping).await.unwrap() });
        Node { link, store, queue, stop, task }
    }

    fn online(&self) -> bool {
        matches!(self.link.state(), LinkState::Online { .. })
    }

    /// Why the cloud cannot be reached.
    async fn refused(&self) -> String {
        let mut reason = String::new();
        until("refused", || {
            if let LinkState::Offline { reason: why, .. } = self.link.state() {
                reason = why;
            }
            !reason.is_empty()
        })
        .await;
        reason
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(60), self.task).await.expect("stops").unwrap();
    }
}

/// Tries to connect; returns the reason when it does not work.
async fn connects(settings: Settings) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(settings, Store::in_memory(), Queue::in_memory(), None, folder.path().join("l"));
    until("decided", || node.online() || matches!(node.link.state(), LinkState::Offline { .. })).await;
    let result = if node.online() { Ok(()) } else { Err(node.refused().await) };
    node.stop().await;
    result
}

async fn command(broker: &Mosquitto, command: Value) {
    let (port, text) = (broker.port(), command.to_string());
    let sent = tokio::task::spawn_blocking(move || publish(port, &["-t", DOWN, "-q", "1", "-m", &text]));
    assert!(sent.await.unwrap().status.success());
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Certificate and key, as PEM, good for these names or until yesterday.
    fn issue(&self, names: &[&str], expired: bool) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if expired {
            (params.not_before, params.not_after) =
                (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_certificates_on_both_sides_or_a_clear_reason() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (authority, stranger) = (Authority::new("test authority"), Authority::new("somebody else"));
    let (certificate, key) = authority.issue(&["localhost", "127.0.0.1"], false);
    let broker = Mosquitto::start(&Setup { tls: Some((authority.pem(), certificate, key)), ..Setup::default() });
    let (certificate, key) = authority.issue(&["gw"], false);
    let good = Settings {
        address: Some(format!("mqtts://localhost:{}", broker.port())),
        ca_file: Some(put("ca.pem", &authority.pem())),
        certificate_file: Some(put("gw.pem", &certificate)),
        key_file: Some(put("gw.key", &key)),
        ..settings(0)
    };
    assert_eq!(connects(good.clone()).await, Ok(()));
    let by_address = Settings { address: Some(format!("mqtts://127.0.0.1:{}", broker.port())), ..good.clone() };
    assert_eq!(connects(by_address).await, Ok(()));

    let other_ca = Settings { ca_file: Some(put("other.pem", &stranger.pem())), ..good.clone() };
    let reason = connects(other_ca).await.unwrap_err();
    assert!(reason.contains("UnknownIssuer"), "{reason}");

    let nobody = Settings { certificate_file: None, key_file: None, ..good.clone() };
    let reason = connects(nobody).await.unwrap_err();
    assert!(reason.contains("ertificateRequired") || reason.contains("closed") || reason.contains("reset"), "{reason}");

    let (certificate, key) = stranger.issue(&["gw"], false);
    let unknown = Settings {
        certificate_file: Some(put("unknown.pem", &certificate)),
        key_file: Some(put("unknown.key", &key)),
        ..good.clone()
    };
    assert!(connects(unknown).await.is_err());

    let mixed = Settings { key_file: Some(put("unknown.key", &key)), ..good.clone() };
    let reason = connects(mixed).await.unwrap_err();
    assert!(reason.contains("gw.pem cannot be used"), "{reason}");
    let missing = Settings { ca_file: Some(folder.path().join("nothing.pem")), ..good.clone() };
    let reason = connects(missing).await.unwrap_err();
    assert!(reason.contains("nothing.pem: No such file"), "{reason}");

    for (names, expired, word) in
        [(&["elsewhere.example"][..], false, "not valid for"), (&["localhost"], true, "xpired")]
    {
        let (certificate, key) = authority.issue(names, expired);
        let broker = Mosquitto::start(&Setup { tls: Some((authority.pem(), certificate, key)), ..Setup::default() });
        let wrong = Settings { address: Some(format!("mqtts://localhost:{}", broker.port())), ..good.clone() };
        let reason = connects(wrong).await.unwrap_err();
        assert!(reason.contains(word), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn user_and_password_or_a_clear_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "correct horse\n").unwrap();
    let user = Some(("gw".to_owned(), "correct horse".to_owned()));
    let broker = Mosquitto::start(&Setup { user, ..Setup::default() });
    let good = Settings { user: Some("gw".into()), password_file: Some(file.clone()), ..settings(broker.port()) };
    assert_eq!(connects(good.clone()).await, Ok(()));
    std::fs::write(&file, "wrong").unwrap();
    let reason = connects(good).await.unwrap_err();
    assert!(reason.contains("refused") || reason.contains("not authorised"), "{reason}");
    let reason = connects(settings(broker.port())).await.unwrap_err();
    assert!(reason.contains("refused") || reason.contains("not authorised"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_carried_out_answered_and_not_done_twice() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let field = Arc::new(Field { written: AtomicUsize::new(0), gate: Semaphore::new(100) });
    let node = Node::start(
        settings(broker.port()),
        Store::in_memory(),
        Queue::in_memory(),
        Some(Arc::clone(&field)),
        folder.path().join("cloud/commands.jsonl"),
    );
    until("online", || node.online()).await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}});
    let wrong = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A"}});
    let commands = [
        json!({"id": "1", "command": "apply", "object": object}),
        json!({"id": "2", "command": "apply", "object": wrong}),
        json!({"id": "3", "command": "deviceWrite", "device": "pump", "property": "setpoint", "value": 40}),
        json!({"id": "4", "command": "deviceWrite", "device": "pump", "property": "setpoint", "value": "x"}),
        json!({"id": "5", "command": "deviceWrite", "device": "fan", "property": "setpoint", "value": 1}),
        json!({"id": "3", "command": "deviceWrite", "device": "pump", "property": "setpoint", "value": 40}),
        json!({"id": "6", "command": "reboot"}),
        json!({"command": "apply"}),
        json!([1, 2]),
        json!({"id": "7", "command": "delete", "kind": "cm", "name": "a"}),
        json!({"id": "8", "command": "delete", "kind": "cm", "name": "a"}),
        json!({"id": "7", "command": "delete", "kind": "cm", "name": "a"}),
    ];
    let key = Key::new(Kind::ConfigMap, "", "a");
    for (n, one) in commands.iter().enumerate() {
        command(&broker, one.clone()).await;
        until("answered", || receiver.replies().len() > n).await;
        if n == 0 {
            assert!(node.store.get(&key).is_some());
        }
    }
    assert!(node.store.get(&key).is_none());
    let replies = receiver.replies();
    let outcome: Vec<(Value, Value, Value)> =
        replies.iter().map(|r| (r["id"].clone(), r["outcome"].clone(), r["error"]["reason"].clone())).collect();
    let ok = |id: &str| (json!(id), json!("ok"), Value::Null);
    let error = |id: Value, reason: &str| (id, json!("error"), json!(reason));
    let expected = [
        ok("1"),
        error(json!("2"), "Invalid"),
        ok("3"),
        error(json!("4"), "Invalid"),
        error(json!("5"), "NotFound"),
        ok("3"),
        error(json!("6"), "Malformed"),
        error(Value::Null, "Malformed"),
        error(Value::Null, "Malformed"),
        ok("7"),
        error(json!("8"), "NotFound"),
        ok("7"),
    ];
    assert_eq!(outcome, expected);
    assert_eq!(replies[0]["result"]["applied"], "created");
    assert_eq!(replies[1]["error"]["path"], "object.metadata.name");
    assert_eq!(replies[2]["result"], json!({"property": "setpoint", "value": 40}));
    assert_eq!(replies[2], replies[5], "the same answer again");
    assert_eq!(replies[9], replies[11]);
    assert_eq!(field.written.load(Ordering::SeqCst), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_wait_for_a_node_that_is_away_and_are_done_once_on_a_cut_network() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("commands.jsonl");
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let proxy = Proxy::start(broker.port()).await;
    let (store, queue) = (Store::in_memory(), Queue::in_memory());
    let field = Arc::new(Field { written: AtomicUsize::new(0), gate: Semaphore::new(0) });
    let start = || {
        let field = Some(Arc::clone(&field));
        Node::start(settings(proxy.port()), store.clone(), queue.clone(), field, ledger.clone())
    };
    let node = start();
    until("online", || node.online()).await;
    node.stop().await;
    let write = |id: &str| json!({"id": id, "command": "deviceWrite", "device": "pump", "property": "p", "value": 1});
    command(&broker, write("a")).await;
    let node = start();
    until("it is being written", || field.written.load(Ordering::SeqCst) == 1).await;
    // The network goes while the device works.
    proxy.set(Mode::Closed);
    proxy.cut();
    until("noticed", || !node.online()).await;
    field.gate.add_permits(100);
    until("done", || std::fs::read_to_string(&ledger).unwrap().contains("done")).await;
    assert_eq!(node.queue.acked(Stream::Replies), 0, "the answer waits for the network");
    proxy.set(Mode::Open);
    // The broker brings the command again: it is answered again, and not done again.
    until("answered", || !receiver.replies().is_empty()).await;
    command(&broker, write("b")).await;
    until("b is answered", || receiver.replies().iter().any(|r| r["id"] == "b")).await;
    assert!(receiver.replies().iter().all(|r| r["outcome"] == "ok"), "{:?}", receiver.replies());
    assert_eq!(field.written.load(Ordering::SeqCst), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_the_end_of_the_node_interrupted_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("commands.jsonl");
    // What a kill leaves behind between the beginning and the answer.
    std::fs::write(&ledger, "{\"state\":\"begun\",\"id\":\"w\"}\n{\"state\":\"begun\",\"id\":\"d\"}\n").unwrap();
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let field = Arc::new(Field { written: AtomicUsize::new(0), gate: Semaphore::new(100) });
    let node =
        Node::start(settings(broker.port()), Store::in_memory(), Queue::in_memory(), Some(Arc::clone(&field)), ledger);
    until("online", || node.online()).await;
    command(&broker, json!({"id": "w", "command": "deviceWrite", "device": "pump", "property": "p", "value": 1})).await;
    command(&broker, json!({"id": "d", "command": "delete", "kind": "cm", "name": "gone"})).await;
    until("answered", || receiver.replies().len() == 2).await;
    let replies = receiver.replies();
    assert_eq!(replies[0]["error"]["reason"], "Interrupted");
    assert_eq!((&replies[1]["outcome"], &replies[1]["result"]), (&json!("ok"), &json!({"already": "deleted"})));
    assert_eq!(field.written.load(Ordering::SeqCst), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_commands_at_once_are_all_answered_while_data_goes_up() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let node = Node::start(
        Settings { window: 4, ..settings(broker.port()) },
        Store::in_memory(),
        Queue::in_memory(),
        None,
        folder.path().join("l"),
    );
    until("online", || node.online()).await;
    let port = broker.port();
    let sender = tokio::task::spawn_blocking(move || {
        let mut child = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", DOWN, "-q", "1", "-l"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let object = |n| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{n}")}});
        let lines: String = (0..100)
            .map(|n| format!("{}\n", json!({"id": n.to_string(), "command": "apply", "object": object(n)})))
            .collect();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    });
    for _ in 0..500 {
        let message = Message { time_ms: edge_runtime::clock::now_ms(), subject: "s".into(), payload: b"1".to_vec() };
        node.queue.push(Stream::Data, message).await.unwrap();
    }
    sender.await.unwrap();
    until("all answered", || receiver.replies().len() == 100 && receiver.last("data") == 500).await;
    let ids: Vec<String> = receiver.replies().iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, (0..100).map(|n| n.to_string()).collect::<Vec<_>>(), "in the order they were sent");
    assert_eq!(receiver.books("data").lost.len(), 0);
    node.stop().await;
}

/// The broker would bring it again for ever, and nothing would go up any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_too_large_to_be_read_does_not_end_the_link() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let ledger = folder.path().join("l");
    let node = Node::start(settings(broker.port()), Store::in_memory(), Queue::in_memory(), None, ledger);
    until("online", || node.online()).await;
    let (port, file) = (broker.port(), folder.path().join("large"));
    std::fs::write(&file, vec![b'x'; 5 << 20]).unwrap();
    let sent =
        tokio::task::spawn_blocking(move || publish(port, &["-t", DOWN, "-q", "1", "-f", file.to_str().unwrap()]));
    assert!(sent.await.unwrap().status.success());
    until("told", || receiver.replies().iter().any(|r| r["error"]["reason"] == "TooLarge")).await;
    until("online again", || node.online() && node.link.stats().connects_total == 2).await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    command(&broker, json!({"id": "1", "command": "apply", "object": object})).await;
    until("answered", || receiver.replies().iter().any(|r| r["id"] == "1" && r["outcome"] == "ok")).await;
    node.stop().await;
}

/// Needs root and loop devices: the disk is a small ext4 in a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_a_full_disk_waits_and_is_then_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Image::new(folder.path(), "disk", 48 << 20);
    let broker = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(broker.port(), BASE).await;
    let field = Arc::new(Field { written: AtomicUsize::new(0), gate: Semaphore::new(100) });
    let open = || {
        let queue = Queue::open(&disk.path().join("queue"), queue::Settings::default()).unwrap().0;
        let store = Store::open(&disk.path().join("store"), store::Settings::default()).unwrap().0;
        (store, queue)
    };
    let ledger = disk.path().join("cloud/commands.jsonl");
    let start = |store: Store, queue: Queue| {
        Node::start(settings(broker.port()), store, queue, Some(Arc::clone(&field)), ledger.clone())
    };
    let (store, queue) = open();
    let node = start(store.clone(), queue.clone());
    until("online", || node.online()).await;
    let write = |id: &str| json!({"id": id, "command": "deviceWrite", "device": "pump", "property": "p", "value": 40});
    // Long, so that it does not fit into what is left of a block.
    let (first, second) = ("a".repeat(120), "b".repeat(128));
    command(&broker, write("0")).await;
    until("answered", || receiver.replies().len() == 1).await;

    let filler = disk.path().join("filler");
    fill(&filler);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
                        "data": {"x": "y".repeat(100_000)}});
    for id in 1..=8 {
        // Whatever is left of the ledger's block is used up.
        command(
            &broker,
            json!({"id": format!("{first}{id}"), "command": "apply",
                                "object": object}),
        )
        .await;
    }
    command(&broker, write(&second)).await;
    until("the commands are here", || node.link.stats().commands_total >= 2).await;
    // They were begun, perhaps; the disk has refused them, and nothing is said to be done.
    until("tried again", || node.link.stats().commands_total >= 4).await;
    assert_eq!(receiver.replies().len(), 1, "{:?}", receiver.replies());
    assert_eq!(node.store.get(&Key::new(Kind::ConfigMap, "", "a")), None);
    assert_eq!(field.written.load(Ordering::SeqCst), 1);

    // A restart on the full disk changes nothing of it.
    node.stop().await;
    queue.close().await;
    store.close().await;
    drop((store, queue));
    let (store, queue) = open();
    let node = start(store.clone(), queue.clone());
    until("online on a full disk", || node.online()).await;
    until("the broker has brought them again", || node.link.stats().commands_total >= 1).await;
    assert_eq!(receiver.replies().len(), 1, "{:?}", receiver.replies());

    std::fs::remove_file(&filler).unwrap();
    until("all are answered", || receiver.replies().len() >= 10).await;
    let replies = receiver.replies();
    assert!(replies.iter().all(|r| r["outcome"] == "ok"), "{replies:?}");
    assert!(node.store.get(&Key::new(Kind::ConfigMap, "", "a")).is_some());
    assert_eq!(field.written.load(Ordering::SeqCst), 2);
    // It is known for good that they were done.
    command(&broker, write(&second)).await;
    until("answered again", || receiver.replies().len() >= 11).await;
    assert_eq!(field.written.load(Ordering::SeqCst), 2);
    node.stop().await;
    queue.close().await;
    store.close().await;
}
