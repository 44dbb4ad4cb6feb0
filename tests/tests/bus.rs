//! The bus with real clients: `mosquitto_pub` and `mosquitto_sub`, rumqttc, and raw bytes no client would send.

use std::net::SocketAddr;
use std::process::Child;
use std::time::Duration;

use edge_model::topic::Topic;
use edge_runtime::bus::{Bus, BusError, Listener, Retain, Settings};
use edge_runtime::queue::{Queue, Stream};
use edge_tests::mosquitto::{lines, publish, subscribe};
use edge_tests::raw_mqtt::{connect_v4, raw, read, read_to_end};
use edge_tests::wait::until_holds as until;
use proptest::strategy::{Strategy as _, ValueTree as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

struct Node {
    bus: Bus,
    queue: Queue,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    async fn start(settings: Settings) -> Node {
        let bus = Bus::new(&Settings { listen: "127.0.0.1:0".parse().unwrap(), ..settings });
        let queue = Queue::in_memory();
        let listener = Listener::bind(&bus, Some(queue.clone())).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(listener.run(stop.clone()));
        Node { bus, queue, address, stop, task }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    /// Starts a subscriber and waits until it has subscribed; only for one that stays until something is published.
    async fn subscribe(&self, args: &[&str]) -> Child {
        let before = self.bus.stats().subscriptions;
        let filters = args.iter().filter(|a| **a == "-t").count();
        let child = subscribe(self.port(), args);
        until("subscribed", || self.bus.stats().subscriptions >= before + filters).await;
        child
    }

    /// The lines of a subscriber that ends by itself, once the bus has forgotten it.
    async fn lines(&self, child: Child) -> Vec<String> {
        let lines = spawn_blocking(move || lines(child)).await.unwrap();
        until("forgotten", || self.bus.stats().connections == 0).await;
        lines
    }

    async fn publish(&self, args: &[&str]) {
        let (port, args) = (self.port(), args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        let output = spawn_blocking(move || publish(port, &args.iter().map(String::as_str).collect::<Vec<_>>()));
        let output = output.await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A good client still works: what the promise "whatever a client sends" means.
    async fn works(&self) {
        let mut subscriber = subscribe(self.port(), &["-t", "alive/+", "-C", "1", "-q", "1"]);
        // Again and again: clients of the test may still be going, so subscriptions cannot be counted.
        while subscriber.try_wait().unwrap().is_none() {
            self.publish(&["-t", "alive/x", "-m", "yes", "-q", "1"]).await;
        }
        assert_eq!(lines(subscriber), ["yes"]);
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("stops").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_qos_and_both_versions_arrive_in_order() {
    let node = Node::start(Settings::default()).await;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let subscriber = node.subscribe(&["-V", version, "-t", "a/#", "-q", qos, "-C", "200"]).await;
            let port = node.port();
            spawn_blocking(move || {
                let mut child = std::process::Command::new("mosquitto_pub")
                    .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", version, "-t", "a/b", "-q", qos, "-l"])
                    .stdin(std::process::Stdio::piped())
                    .spawn()
                    .unwrap();
                let text: String = (0..200).map(|n| format!("{n}\n")).collect();
                std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
                assert!(child.wait().unwrap().success());
            })
            .await
            .unwrap();
            let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
            assert_eq!(node.lines(subscriber).await, expected, "{version} QoS {qos}");
        }
    }
    assert_eq!(node.bus.stats().dropped_client_total, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delivered_qos_is_the_lower_of_both() {
    let node = Node::start(Settings::default()).await;
    for (published, subscribed, delivered) in [("2", "1", "1"), ("1", "2", "1"), ("0", "2", "0"), ("2", "0", "0")] {
        let subscriber = node.subscribe(&["-t", "q", "-q", subscribed, "-C", "1", "-F", "%q"]).await;
        node.publish(&["-t", "q", "-m", "x", "-q", published]).await;
        assert_eq!(node.lines(subscriber).await, [delivered], "{published} {subscribed}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_the_runtime_and_clients_hear_each_other() {
    let node = Node::start(Settings::default()).await;
    let mut inside = node.bus.subscribe("$hw/events/device/+/twin/update");
    node.publish(&["-t", "$hw/events/device/é/twin/update", "-m", "{}"]).await;
    assert_eq!(inside.next().await.unwrap().topic, "$hw/events/device/é/twin/update");
    let subscriber = node.subscribe(&["-t", "$ke/#", "-C", "1", "-v"]).await;
    node.bus.publish(&Topic::DeviceData("pump".into()), "21.5", Retain::No);
    assert_eq!(node.lines(subscriber).await, ["$ke/events/device/pump/data/update 21.5"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_all_of_them_and_only_until_deleted() {
    let node = Node::start(Settings::default()).await;
    for n in 0..250 {
        node.bus.publish(&Topic::PodState("default".into(), format!("p{n:03}")), n.to_string(), Retain::Yes);
    }
    for qos in ["0", "1"] {
        let subscriber = subscribe(node.port(), &["-t", "edge/pods/+/+", "-C", "250", "-q", qos]);
        assert_eq!(node.lines(subscriber).await.len(), 250);
    }
    node.publish(&["-t", "edge/pods/default/p000", "-n", "-q", "1"]).await;
    assert_eq!(node.bus.stats().retained, 250, "an empty message that is not retained deletes nothing");
    node.publish(&["-t", "edge/pods/default/p000", "-n", "-r", "-q", "1"]).await;
    assert_eq!(node.bus.stats().retained, 249);
    node.publish(&["-t", "r", "-m", "kept", "-r", "-q", "1"]).await;
    let subscriber = subscribe(node.port(), &["-t", "r", "-C", "1", "-F", "%r %p"]);
    assert_eq!(node.lines(subscriber).await, ["1 kept"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_5_properties_and_subscription_options_are_kept() {
    let node = Node::start(Settings::default()).await;
    let five = ["-V", "mqttv5", "-t", "p", "-q", "1"];
    let format = ["-C", "1", "-F", "%p %P %C %R %r"];
    let properties = [
        ["user-property", "unit", "bar"].as_slice(),
        &["content-type", "text/plain"],
        &["response-topic", "answers"],
        &["message-expiry-interval", "600"],
    ];
    let mut publish = [&five[..], &["-m", "x", "-r"]].concat();
    for property in properties {
        publish.extend(["-D", "publish"]);
        publish.extend(property);
    }
    let plain = node.subscribe(&[&five[..], &format].concat()).await;
    node.publish(&publish).await;
    assert_eq!(node.lines(plain).await, ["x unit:bar text/plain answers 0"]);
    // Kept for a later one, with its properties, and the retain flag as it was published.
    let later = subscribe(node.port(), &[&five[..], &format, &["--retain-as-published"]].concat());
    assert_eq!(node.lines(later).await, ["x unit:bar text/plain answers 1"]);
    // An older client simply does not see them.
    let old = subscribe(node.port(), &["-t", "p", "-C", "1"]);
    assert_eq!(node.lines(old).await, ["x"]);
    // A client that asks for no retained messages (retain handling 2) gets none.
    let mut never = TcpStream::connect(node.address).await.unwrap();
    never.write_all(b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x015").await.unwrap();
    let head = read(&mut never, 2).await;
    read(&mut never, head[1].into()).await;
    never.write_all(b"\x82\x07\0\x01\0\0\x01p\x20\xc0\0").await.unwrap();
    assert_eq!(read(&mut never, 8).await, [0x90, 4, 0, 1, 0, 0, 0xd0, 0]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_of_a_lost_client_is_published_and_of_a_leaving_one_not() {
    let node = Node::start(Settings::default()).await;
    let mut wills = node.bus.subscribe("will/#");
    // Client identifier "w", will topic "will/a", message "gone".
    let connect = b"\x10\x1b\0\x04MQTT\x04\x06\0\0\0\x01w\0\x06will/a\0\x04gone";
    let mut leaves = raw(node.address, connect).await;
    leaves.write_all(&[0xe0, 0]).await.unwrap();
    assert!(read_to_end(&mut leaves).await.is_empty());
    drop(raw(node.address, connect).await);
    let will = wills.next().await.unwrap();
    assert_eq!((will.topic.as_str(), &will.payload[..]), ("will/a", &b"gone"[..]));
    node.publish(&["-t", "will/end", "-m", "x"]).await;
    assert_eq!(wills.next().await.unwrap().topic, "will/end", "there was only one will");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_for_a_client_that_comes_back() {
    let node = Node::start(Settings::default()).await;
    for version in ["mqttv311", "mqttv5"] {
        let id = format!("keep-{version}");
        let mut args = vec!["-V", version, "-i", &id, "-c", "-t", "s", "-q", "1"];
        if version == "mqttv5" {
            args.extend(["-x", "600"]);
        }
        let mut first = node.subscribe(&args).await;
        let sessions = node.bus.stats().sessions;
        first.kill().unwrap();
        first.wait().unwrap();
        until("away", || node.bus.stats().connections == 0).await;
        assert_eq!(node.bus.stats().sessions, sessions);
        for text in ["one", "two"] {
            node.publish(&["-t", "s", "-m", text, "-q", "1"]).await;
        }
        args.extend(["-C", "2"]);
        assert_eq!(node.lines(subscribe(node.port(), &args)).await, ["one", "two"]);
        // A clean start forgets it.
        let clean = ["-i", &id, "-t", "other", "-C", "1"];
        let child = subscribe(node.port(), &clean);
        until("connected", || node.bus.stats().connections == 1).await;
        until("subscribed", || node.bus.stats().subscriptions == 1).await;
        node.publish(&["-t", "other", "-m", "x"]).await;
        assert_eq!(node.lines(child).await, ["x"]);
        until("gone", || node.bus.stats().sessions == 0).await;
        assert_eq!(node.bus.stats().subscriptions, 0);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_acknowledged_once_they_are_queued() {
    let node = Node::start(Settings::default()).await;
    let mut copy = node.bus.subscribe("$hw/events/upload/#");
    node.publish(&["-t", "$hw/events/upload/line/1", "-m", "a", "-q", "1"]).await;
    node.publish(&["-t", "SYS/dis/upload_records", "-m", "b", "-q", "2"]).await;
    let queued = node.queue.read(Stream::Data, 0, 10).await.unwrap();
    let queued: Vec<_> = queued.iter().map(|e| (e.message.subject.as_str(), &e.message.payload[..])).collect();
    assert_eq!(queued, [("upload/line/1", &b"a"[..]), ("upload_records", b"b")]);
    assert_eq!(copy.next().await.unwrap().payload, "a");
    // QoS 0 asks for nothing, but is brought up all the same, even when the client leaves at once.
    node.publish(&["-t", "$hw/events/upload/line/1", "-m", "c", "-q", "0"]).await;
    until("the third is there", || node.bus.stats().uploads_total == 3).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_the_queue_refuses_is_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(folder.path(), edge_runtime::queue::Settings::default()).unwrap().0;
    let bus = Bus::new(&Settings { listen: "127.0.0.1:0".parse().unwrap(), ..Settings::default() });
    let listener = Listener::bind(&bus, Some(queue.clone())).await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(listener.run(stop.clone()));
    let upload = b"\x32\x1b\0\x15$hw/events/upload/abc\0\x07yz";
    let mut client = raw(address, &connect_v4(0)).await;
    client.write_all(upload).await.unwrap();
    assert_eq!(read(&mut client, 4).await, [0x40, 2, 0, 7]);
    assert_eq!(queue.stats().streams.get(Stream::Data).queued, 1, "it is on disk when it is acknowledged");
    queue.close().await;
    client.write_all(upload).await.unwrap();
    assert!(read_to_end(&mut client).await.is_empty(), "3.1.1 cannot say no but by closing");
    let mut five = TcpStream::connect(address).await.unwrap();
    five.write_all(b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x015").await.unwrap();
    let head = read(&mut five, 2).await;
    read(&mut five, head[1].into()).await;
    five.write_all(b"\x32\x1c\0\x15$hw/events/upload/abc\0\x07\0yz").await.unwrap();
    assert_eq!(read(&mut five, 5).await, [0x40, 3, 0, 7, 0x97]);
    // A topic that would not fit through the link to the cloud is not taken in the first place.
    let long = "x".repeat(edge_model::envelope::SUBJECT_MAX);
    let topic = format!("$hw/events/upload/{long}");
    let mut packet = vec![0x30];
    let length = 2 + topic.len();
    packet.extend([(length % 128) as u8 | 0x80, (length / 128) as u8]);
    packet.extend((topic.len() as u16).to_be_bytes());
    packet.extend(topic.as_bytes());
    let mut client = raw(address, &connect_v4(0)).await;
    client.write_all(&packet).await.unwrap();
    assert!(read_to_end(&mut client).await.is_empty());
    assert_eq!(bus.stats().uploads_refused_total, 3);
    stop.cancel();
    task.await.unwrap();
}

/// FACTS: in stock rumqttd two such CONNECTs refuse every later client for good.
#[tokio::test(flavor = "multi_thread")]
async fn client_identifiers_with_wildcards_lock_nobody_out() {
    let node = Node::start(Settings::default()).await;
    for id in ["+", "$", "#", "/", "a/b#", "+", "ü"] {
        node.publish(&["-i", id, "-t", "x", "-m", "x", "-q", "1"]).await;
    }
    let long = "x".repeat(300);
    let port = node.port();
    let refused = spawn_blocking(move || publish(port, &["-i", &long, "-t", "x", "-m", "x"])).await.unwrap();
    assert!(!refused.status.success());
    node.works().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_refused_and_places_come_back() {
    let node = Node::start(Settings { max_connections: 20, ..Settings::default() }).await;
    let mut clients = Vec::new();
    for n in 0..20u8 {
        let mut connect = connect_v4(0);
        connect[14] = b'A' + n;
        clients.push(raw(node.address, &connect).await);
    }
    for _ in 0..5 {
        let mut refused = TcpStream::connect(node.address).await.unwrap();
        assert!(read_to_end(&mut refused).await.is_empty());
    }
    assert_eq!(node.bus.stats().connections, 20);
    clients.clear();
    until("all gone", || node.bus.stats().connections == 0).await;
    node.works().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_its_connect_is_dropped() {
    let settings = Settings { connect_timeout: Duration::from_millis(300), max_connections: 2, ..Settings::default() };
    let node = Node::start(settings).await;
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    let mut slow = TcpStream::connect(node.address).await.unwrap();
    slow.write_all(&connect_v4(0)[..7]).await.unwrap();
    assert!(read_to_end(&mut silent).await.is_empty());
    assert!(read_to_end(&mut slow).await.is_empty());
    until("counted", || node.bus.stats().refused_total == 2).await;
    node.works().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_zero_is_accepted_and_a_silent_client_is_lost() {
    let node = Node::start(Settings::default()).await;
    let mut forever = raw(node.address, &connect_v4(0)).await;
    let mut connect = connect_v4(1);
    connect[14] = b'k';
    let mut silent = raw(node.address, &connect).await;
    assert!(read_to_end(&mut silent).await.is_empty());
    forever.write_all(&[0xc0, 0]).await.unwrap();
    assert_eq!(read(&mut forever, 2).await, [0xd0, 0]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_client_identifier_takes_over() {
    let node = Node::start(Settings::default()).await;
    let mut first = raw(node.address, &connect_v4(0)).await;
    for _ in 0..20 {
        let second = raw(node.address, &connect_v4(0)).await;
        assert!(read_to_end(&mut first).await.is_empty());
        first = second;
    }
    first.write_all(&[0xc0, 0]).await.unwrap();
    assert_eq!(read(&mut first, 2).await, [0xd0, 0]);
    until("one left", || node.bus.stats().connections == 1).await;
    assert_eq!(node.bus.stats().sessions, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_standard_forbids_ends_only_its_own_connection() {
    let node = Node::start(Settings::default()).await;
    let bad: [&[u8]; 14] = [
        b"\x30\x06\0\x03a/+xx",                   // a wildcard in PUBLISH
        b"\x30\x03\0\x01\xff",                    // a topic that is not UTF-8
        b"\x30\x02\0\0",                          // an empty topic
        b"\x32\x05\0\x01a\0\0",                   // packet identifier 0
        b"\x36\x05\0\x01a\0\x01",                 // QoS 3
        b"\x30\x03\0\x09a",                       // a topic longer than the packet
        b"\x30\xff\xff\xff\x7f",                  // 256 MB announced
        b"\x30\xff\xff\xff\xff\xff",              // a length that never ends
        b"\x80\x06\0\x01\0\x01a\0",               // SUBSCRIBE with wrong flags
        b"\x82\x02\0\x01",                        // SUBSCRIBE without a filter
        b"\x20\x02\0\0",                          // CONNACK from a client
        b"\xf0\0",                                // AUTH in 3.1.1
        b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01r", // a second CONNECT
        b"\xa2\x02\0\x01",                        // UNSUBSCRIBE without a filter
    ];
    for bytes in bad {
        let mut client = raw(node.address, &connect_v4(0)).await;
        client.write_all(bytes).await.unwrap();
        assert!(read_to_end(&mut client).await.is_empty(), "{bytes:?}");
    }
    // Refused in the CONNECT: old protocols with the answer they understand, others with none.
    for (bytes, answer) in [
        (&b"\x10\x0f\0\x06MQIsdp\x03\x02\0\0\0\x01r"[..], &[0x20, 2, 0, 1][..]),
        (b"\x10\x0d\0\x04MQTT\x09\x02\0\0\0\x01r", &[0x20, 2, 0, 1]),
        (b"\x10\x0c\0\x04MQTT\x04\0\0\0\0\0", &[0x20, 2, 0, 2]),
        (b"\x10\x0d\0\x04HTTP\x04\x02\0\0\0\x01r", &[]),
        (b"GET / HTTP/1.1\r\n\r\n", &[]),
        (b"\x30\x03\0\x01a", &[]),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", &[]),
    ] {
        let mut client = TcpStream::connect(node.address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut client).await, answer, "{bytes:?}");
    }
    node.works().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_allowed_packets_are_answered() {
    let node = Node::start(Settings::default()).await;
    let mut client = raw(node.address, &connect_v4(0)).await;
    // `$SYS`, an invalid filter and a valid one in one SUBSCRIBE: each its own answer.
    client.write_all(b"\x82\x16\0\x01\0\x06$SYS/#\x01\0\x03a#b\x01\0\x02x/\x00").await.unwrap();
    assert_eq!(read(&mut client, 7).await, [0x90, 5, 0, 1, 1, 0x80, 0]);
    // UNSUBSCRIBE of two filters, one unknown: exactly one answer.
    client.write_all(b"\xa2\x0a\0\x02\0\x02x/\0\x02zz").await.unwrap();
    assert_eq!(read(&mut client, 4).await, [0xb0, 2, 0, 2]);
    // Acknowledgements of nothing, in any order.
    client.write_all(b"\x40\x02\0\x09\x40\x02\0\x01\x50\x02\0\x05\x70\x02\0\x05\xc0\0").await.unwrap();
    assert_eq!(read(&mut client, 6).await, [0x62, 2, 0, 5, 0xd0, 0]);
    // The same in MQTT 5 has reason codes.
    let mut five = TcpStream::connect(node.address).await.unwrap();
    five.write_all(b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x015").await.unwrap();
    assert_eq!(read(&mut five, 2).await[0], 0x20);
    node.works().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_loses_its_own_messages_and_nobody_waits_for_it() {
    let node = Node::start(Settings { queue_messages: 100, ..Settings::default() }).await;
    let mut slow = raw(node.address, &connect_v4(0)).await;
    slow.write_all(b"\x82\x06\0\x01\0\x01#\x01").await.unwrap();
    assert_eq!(read(&mut slow, 5).await, [0x90, 3, 0, 1, 1]);
    let mut fast = node.bus.subscribe("edge/events");
    let payload = vec![b'x'; 10_000];
    for _ in 0..2_000 {
        node.bus.publish(&Topic::Events, payload.clone(), Retain::No);
        assert_eq!(fast.next().await.unwrap().payload.len(), payload.len());
    }
    let stats = node.bus.stats();
    assert_eq!(stats.dropped_inbox_total, 0);
    assert!(stats.dropped_client_total > 1_000, "{stats:?}");
    node.works().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_anybody_leaves_the_next_client_served() {
    let node = Node::start(Settings::default()).await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..200);
    let fields = proptest::collection::vec(bytes, 1..4);
    for round in 0..300 {
        let parts = fields.new_tree(&mut runner).unwrap().current();
        let mut client = TcpStream::connect(node.address).await.unwrap();
        match round % 3 {
            0 => {}
            1 => client.write_all(&connect_v4(0)).await.unwrap(),
            _ => client.write_all(b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01g").await.unwrap(),
        }
        for mut part in parts {
            // Half of them are well framed, so that what is inside is reached.
            if part.len() > 2 && part[0] & 1 == 0 {
                part[1] = u8::try_from(part.len() - 2).unwrap() & 0x7f;
            }
            // The server may have closed already.
            let _ = client.write_all(&part).await;
        }
        let _ = client.shutdown().await;
        read_to_end(&mut client).await;
    }
    node.works().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_a_clear_error_and_two_buses_live_side_by_side() {
    let node = Node::start(Settings::default()).await;
    let second = Bus::new(&Settings { listen: node.address, ..Settings::default() });
    let Err(error @ BusError::Bind { .. }) = Listener::bind(&second, None).await else { panic!("bound twice") };
    assert_eq!(error.to_string(), format!("mqtt: cannot listen on {}", node.address));
    let mut inside = second.subscribe("#");
    second.publish(&Topic::Events, "still", Retain::No);
    assert_eq!(inside.next().await.unwrap().payload, "still");
    let other = Node::start(Settings::default()).await;
    other.works().await;
    node.works().await;
    node.stop().await;
    other.stop().await;
}
