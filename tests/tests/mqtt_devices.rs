//! Devices with MQTT topics of their own, in the way of Zigbee2MQTT: on mosquitto, with passwords and TLS, and on the
//! node's own bus.

use std::time::Duration;

use edge_model::Kind;
use edge_model::reading::Value;
use edge_runtime::field::CommandError;
use edge_tests::authority::Authority;
use edge_tests::daemon::Node;
use edge_tests::field::{Field, reported, twin};
use edge_tests::mosquitto::{self, Mosquitto, Setup};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;

/// A plug: a relay that is written, its power, and a counter on a topic of its own.
fn model() -> Json {
    let visit = |data: Json| json!({"protocolName": "mqtt", "configData": data});
    json!({"protocol": "mqtt", "properties": [
        {"name": "relay", "type": "BOOLEAN", "accessMode": "ReadWrite", "visitors": visit(json!({
            "topic": "~", "path": "state", "on": "ON", "off": "OFF",
            "commandTopic": "~/set", "commandTemplate": "{\"state\": {{json}}}"}))},
        {"name": "power", "type": "DOUBLE", "accessMode": "ReadOnly", "unit": "W", "maximum": 4000,
            "visitors": visit(json!({"topic": "~", "path": "measured[0].power"}))},
        {"name": "count", "type": "INT", "accessMode": "ReadOnly", "visitors": visit(json!({"topic": "~/count"}))},
    ]})
}

/// A plug's spec below `zigbee/plug`.
fn device(link: Json, properties: &[&str]) -> Json {
    let mut data = json!({"base": "zigbee/plug", "timeout": 60_000});
    for (key, value) in link.as_object().into_iter().flatten() {
        data[key] = value.clone();
    }
    json!({
        "deviceModelRef": {"name": "plug"},
        "protocol": {"protocolName": "mqtt", "configData": data},
        "properties": properties.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
    })
}

const ALL: [&str; 3] = ["relay", "power", "count"];

fn publish(port: u16, more: &[&str], topic: &str, payload: &str) {
    let output = mosquitto::publish(port, &[more, &["-q", "1", "-t", topic, "-m", payload]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The plug itself: says what it is told to be, when it is not stubborn.
async fn plug(port: u16, login: Option<(&str, &str)>) -> JoinHandle<()> {
    let mut options = MqttOptions::new("plug", "127.0.0.1", port);
    if let Some((user, password)) = login {
        options.set_credentials(user, password);
    }
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("zigbee/plug/set", QoS::AtLeastOnce).await.unwrap();
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let mut ready = Some(ready);
    let task = tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            match event {
                Event::Incoming(Packet::SubAck(_)) => {
                    ready.take().map(|r| r.send(()));
                }
                Event::Incoming(Packet::Publish(message)) => {
                    let _ = client.publish("zigbee/plug", QoS::AtLeastOnce, false, message.payload).await;
                }
                _ => {}
            }
        }
    });
    is_ready.await.unwrap();
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_properties_and_commands_are_confirmed_by_the_device() {
    let login = ("node", "secret");
    let broker = Mosquitto::start(&Setup { user: Some((login.0.into(), login.1.into())), ..Setup::default() });
    let port = broker.port();
    let said = |topic: &str, payload: &str| publish(port, &["-u", login.0, "-P", login.1], topic, payload);
    let field = Field::start();
    let mut states = field.listen("$hw/events/device/plug/state/update");
    field.apply(Kind::DeviceModel, "plug", model()).await;
    let link = json!({
        "port": port, "user": login.0, "password": login.1,
        "availabilityTopic": "~/availability", "availabilityPath": "state",
    });

    // Who may not is told so.
    field.apply(Kind::Device, "plug", device(json!({"port": port, "user": "node", "password": "x"}), &ALL)).await;
    field.status_when("plug", "refused", |s| s.extensions.reason.contains("the broker refused")).await;

    let retained = mosquitto::publish(
        port,
        &[
            "-u",
            login.0,
            "-P",
            login.1,
            "-r",
            "-q",
            "1",
            "-t",
            "zigbee/plug/availability",
            "-m",
            r#"{"state": "online"}"#,
        ],
    );
    assert!(retained.status.success());
    field.apply(Kind::Device, "plug", device(link, &ALL)).await;
    field.status_when("plug", "online", |s| s.state == "online").await;
    said("zigbee/plug", r#"{"state": "OFF", "measured": [{"power": 12.5}]}"#);
    said("zigbee/plug/count", "7");
    let status = field.status_when("plug", "read", |s| reported(s, "count") == "7").await;
    assert_eq!((reported(&status, "relay"), reported(&status, "power")), ("false", "12.5"));

    // A partial message changes only what it has; what the model does not allow is no value.
    said("zigbee/plug", r#"{"measured": [{"power": 9000}]}"#);
    let quality = |property: &str, s: &edge_model::device::status::DeviceStatus| {
        twin(s, property).map(|t| t.reported.metadata.quality.clone()).unwrap_or_default()
    };
    let status = field.status_when("plug", "out of limits", |s| quality("power", s) == "invalid").await;
    assert_eq!((reported(&status, "relay"), quality("relay", &status).as_str()), ("false", "good"));
    said("zigbee/plug/count", "many");
    field.status_when("plug", "no number", |s| quality("count", s) == "invalid").await;

    // Written, said, and only then done.
    let device_task = plug(port, Some(login)).await;
    let reading = field.commands.set("default", "plug", "relay", json!(true)).await.unwrap();
    assert_eq!(reading.value, Some(Value::Bool(true)));
    field.status_when("plug", "switched", |s| reported(s, "relay") == "true").await;
    assert_eq!(
        field.commands.set("default", "plug", "power", json!(1)).await,
        Err(CommandError::ReadOnly("power".into()))
    );
    device_task.abort();

    // It says that it goes, and comes back without having to wait for a probe.
    states.message("online", |m| m["state"] == "online").await;
    said("zigbee/plug/availability", r#"{"state": "offline"}"#);
    let away = field.status_when("plug", "away", |s| s.state == "offline").await;
    assert!(away.extensions.reason.contains("says that it is not there"), "{away:?}");
    let offline = field.commands.set("default", "plug", "relay", json!(false)).await;
    assert!(matches!(offline, Err(CommandError::Offline(_))), "{offline:?}");
    said("zigbee/plug/availability", r#"{"state": "online"}"#);
    field.status_when("plug", "back", |s| s.state == "online" && reported(s, "relay") == "true").await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_vanishes_takes_its_devices_along_and_brings_them_back() {
    let mut broker = Mosquitto::start(&Setup::default());
    let port = broker.port();
    let field = Field::start();
    field.apply(Kind::DeviceModel, "plug", model()).await;
    field.apply(Kind::Device, "plug", device(json!({"port": port}), &ALL)).await;
    field.status_when("plug", "online", |s| s.state == "online").await;
    publish(port, &[], "zigbee/plug/count", "1");
    field.status_when("plug", "read", |s| reported(s, "count") == "1").await;
    broker.stop();
    let status = field.status_when("plug", "offline", |s| s.state == "offline").await;
    let count = &twin(&status, "count").unwrap().reported;
    assert_eq!((count.value.as_str(), count.metadata.quality.as_str()), ("1", "disconnected"));
    broker.restart();
    field.status_when("plug", "back", |s| s.state == "online").await;
    publish(port, &[], "zigbee/plug/count", "2");
    field.status_when("plug", "read again", |s| reported(s, "count") == "2").await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_obey_is_named_and_old_values_are_not_believed() {
    let broker = Mosquitto::start(&Setup::default());
    let port = broker.port();
    let field = Field::start();
    let mut stale = model();
    stale["properties"][2]["visitors"]["configData"]["expire"] = json!(200);
    field.apply(Kind::DeviceModel, "plug", stale).await;
    field.apply(Kind::Device, "plug", device(json!({"port": port, "timeout": 1_000}), &ALL)).await;
    field.status_when("plug", "online", |s| s.state == "online").await;
    publish(port, &[], "zigbee/plug/count", "1");
    field
        .status_when("plug", "stale", |s| {
            twin(s, "count").is_some_and(|t| t.reported.value == "1" && t.reported.metadata.quality == "timeout")
        })
        .await;

    // Nothing is said at all.
    let silent = field.commands.set("default", "plug", "relay", json!(true)).await.unwrap_err();
    assert!(silent.to_string().contains("no answer within 1000 ms"), "{silent}");
    // Something else is said, again and again, because a loaded machine may be slow to write.
    field.status_when("plug", "online again", |s| s.state == "online").await;
    let stop = tokio_util::sync::CancellationToken::new();
    let stubborn = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || {
            while !stop.is_cancelled() {
                publish(port, &[], "zigbee/plug", r#"{"state": "OFF"}"#);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let stuck = edge_tests::field::eventually("a mismatch", async || {
        let answer = field.commands.set("default", "plug", "relay", json!(true)).await.unwrap_err().to_string();
        answer.contains("wrote true and read back false").then_some(())
    });
    stuck.await;
    stop.cancel();
    stubborn.await.unwrap();
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_authority_the_device_names_and_no_other() {
    let (authority, stranger) = (Authority::new("bench"), Authority::new("stranger"));
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.issue(&["localhost"]);
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (put("server.pem", &certificate), put("server.key", &key));
    let extra = format!("certfile {certificate}\nkeyfile {key}\n");
    let broker = Mosquitto::start(&Setup { extra, ..Setup::default() });
    let field = Field::start();
    field.apply(Kind::DeviceModel, "plug", model()).await;
    let link = |ca: &Authority| json!({"host": "localhost", "port": broker.port(), "tls": true, "ca": ca.pem()});
    field.apply(Kind::Device, "plug", device(link(&stranger), &["count"])).await;
    let status = field.status_when("plug", "refused", |s| s.state == "offline").await;
    assert!(status.extensions.reason.to_lowercase().contains("certificate"), "{status:?}");
    field.apply(Kind::Device, "plug", device(link(&authority), &["count"])).await;
    field.status_when("plug", "online", |s| s.state == "online").await;
    field.stop().await;
}

/// How many connections a server on this port has (`/proc/net/tcp`: addresses in hexadecimal digits; state 1 is established).
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|address| address.ends_with(&local)) && fields.nth(1) == Some("01")
    };
    table.lines().filter(is_one).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_plugs_are_one_connection() {
    let broker = Mosquitto::start(&Setup::default());
    let port = broker.port();
    let field = Field::start();
    let mut model = model();
    model["properties"][0]["visitors"]["configData"]["readBack"] = json!(false);
    field.apply(Kind::DeviceModel, "plug", model).await;
    let bridge = |state: &str| {
        let output = mosquitto::publish(port, &["-r", "-q", "1", "-t", "zigbee/bridge", "-m", state]);
        assert!(output.status.success());
    };
    bridge("online");
    let plug = |number: usize, more: Json| {
        let mut link = json!({"port": port, "base": format!("zigbee/{number}"), "availabilityTopic": "zigbee/bridge"});
        for (key, value) in more.as_object().into_iter().flatten() {
            link[key] = value.clone();
        }
        device(link, &ALL)
    };
    let name = |number: usize| format!("plug-{number}");
    for number in 0..50 {
        field.apply(Kind::Device, &name(number), plug(number, json!({}))).await;
    }
    for number in 0..50 {
        // Whoever came later has heard what the broker retains, too.
        field.status_when(&name(number), "online", |s| s.state == "online").await;
    }
    assert_eq!(connections(port), 1);
    for number in [0, 7, 49] {
        publish(port, &[], &format!("zigbee/{number}/count"), &number.to_string());
        field.status_when(&name(number), "read", |s| reported(s, "count") == number.to_string()).await;
    }
    assert_eq!(reported(&field.status(&name(8)), "count"), "", "what is said to others is not for it");
    // A write of each goes its own way over the same connection.
    let mut listener = mosquitto::subscribe(port, &["-t", "zigbee/+/set", "-v", "-C", "1"]);
    let written = edge_tests::field::eventually("it is heard", async || {
        field.commands.set("default", "plug-3", "relay", json!(true)).await.unwrap();
        matches!(listener.try_wait(), Ok(Some(_))).then_some(())
    });
    written.await;
    assert_eq!(mosquitto::lines(listener), [r#"zigbee/3/set {"state": "ON"}"#]);

    // Another name of the broker, or another login, is another connection; and each device has its own availability.
    field
        .apply(
            Kind::Device,
            "other",
            plug(50, json!({"host": "localhost", "availabilityTopic": "~/there", "timeout": 2_000})),
        )
        .await;
    field.status_when("other", "offline", |s| s.state == "offline").await;
    let output = mosquitto::publish(port, &["-r", "-q", "1", "-t", "zigbee/50/there", "-m", "online"]);
    assert!(output.status.success());
    field.status_when("other", "online", |s| s.state == "online").await;
    assert_eq!(connections(port), 2);

    // Who is removed takes nothing from the others, not even the topic all of them have.
    for number in 1..50 {
        let gone = field.store.delete(&edge_model::Key::new(Kind::Device, "", &name(number)), None).await;
        assert!(gone.is_ok(), "{gone:?}");
    }
    publish(port, &[], "zigbee/0/count", "100");
    field.status_when(&name(0), "still read", |s| reported(s, "count") == "100").await;
    bridge("offline");
    field.status_when(&name(0), "away", |s| s.state == "offline").await;
    assert_eq!(field.status("other").state, "online");
    assert_eq!(connections(port), 2);
    // The last one takes the connection along.
    field.store.delete(&edge_model::Key::new(Kind::Device, "", &name(0)), None).await.unwrap();
    edge_tests::field::eventually("closed", async || (connections(port) == 1).then_some(())).await;
    field.stop().await;
}

#[test]
fn devices_on_the_nodes_own_bus_share_a_connection() {
    let mut node = Node::new();
    node.start();
    let port = node.bus().port();
    let object = |kind: &str, name: &str, spec: &Json| {
        json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": spec})
            .to_string()
    };
    let before = connections(port);
    let output = mosquitto::publish(port, &["-r", "-q", "1", "-t", "zigbee/bridge", "-m", "online"]);
    assert!(output.status.success());
    node.apply(&object("DeviceModel", "plug", &model()));
    // One after the other: those that come later are told what the bus retains as well.
    for number in 0..5 {
        let link = json!({"base": format!("zigbee/{number}"), "availabilityTopic": "zigbee/bridge"});
        node.apply(&object("Device", &format!("plug-{number}"), &device(link, &ALL)));
        node.until("the device is online", || {
            let found = node.json(&["get", "device", &format!("plug-{number}")]);
            (found["status"]["state"] == "online").then_some(())
        });
    }
    node.until("one connection", || (connections(port) == before + 1).then_some(()));
    publish(port, &[], "zigbee/4/count", "4");
    node.until("it is read", || (node.cli(&["device", "get", "plug-4", "count"]).ok().stdout == "4\n").then_some(()));
    assert!(node.stop().success());
}

#[test]
fn the_nodes_own_bus_is_a_broker_too() {
    let mut node = Node::new();
    node.start();
    let port = node.bus().port();
    let object = |kind: &str, name: &str, spec: &Json| {
        json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": spec})
            .to_string()
    };
    let mut model = model();
    model["properties"][0]["visitors"]["configData"]["readBack"] = json!(false);
    node.apply(&object("DeviceModel", "plug", &model));
    // Neither host nor port: the bus, which is not at the usual place.
    assert_ne!(port, 1883);
    node.apply(&object("Device", "plug", &device(json!({}), &ALL)));
    node.until("the device is online", || {
        (node.json(&["get", "device", "plug"])["status"]["state"] == "online").then_some(())
    });
    publish(port, &[], "zigbee/plug", r#"{"state": "ON", "measured": [{"power": 3.5}]}"#);
    node.until("it is read", || (node.cli(&["device", "get", "plug", "power"]).ok().stdout == "3.5 W\n").then_some(()));

    // The command is on the bus for whoever stands for the device.
    let listener = mosquitto::subscribe(port, &["-t", "zigbee/plug/#", "-v", "-C", "2"]);
    node.until("somebody listens", || {
        publish(port, &[], "zigbee/plug/hello", "1");
        let heard = node.cli(&["device", "set", "plug", "relay", "false"]).ok().stdout;
        (heard == "false\n").then_some(())
    });
    let mut listener = Some(listener);
    node.until("it is heard", || {
        node.cli(&["device", "set", "plug", "relay", "false"]).ok();
        let ended = listener.as_mut().is_some_and(|l| matches!(l.try_wait(), Ok(Some(_))));
        ended.then(|| mosquitto::lines(listener.take().unwrap()))
    })
    .iter()
    .find(|line| line.as_str() == r#"zigbee/plug/set {"state": "OFF"}"#)
    .expect("the command");
    assert!(node.stop().success());
}
