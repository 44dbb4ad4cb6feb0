//! Bluetooth devices over a stand-in for bluetoothd on a D-Bus of its own: what a machine with the real one cannot be made to
//! do, or not as fast. `bluetooth_vm.rs` has the real one.

use std::time::Duration;

use edge_tests::bluetooth::{Double, device};
use edge_tests::daemon::Node;
use serde_json::{Value, json};

const SENSOR: &str = "A4:C1:38:8D:18:B2";
const SEALED: &str = "54:48:E6:8F:80:A5";
const LAMP: &str = "C0:FF:EE:00:00:01";
const METER: &str = "C0:FF:EE:00:00:02";

/// A thermometer that speaks BTHome.
fn sensor(link: Value) -> Value {
    let mut data = json!({"macAddress": SENSOR, "offlineAfter": 86_400_000});
    for (key, value) in link.as_object().unwrap() {
        data[key] = value.clone();
    }
    let read = |field: &str| json!({"field": field});
    device(
        "sensor",
        data,
        &[
            ("temperature", "FLOAT", "ReadOnly", json!({})),
            ("humidity", "INT", "ReadOnly", json!({})),
            ("signal", "INT", "ReadOnly", read("rssi")),
            ("seen", "INT", "ReadOnly", read("lastSeen")),
            ("raw", "INT", "ReadOnly", json!({"serviceDataUUID": "fcd2", "dataType": "uint8"})),
        ],
    )
}

/// 25.06 °C, 50.55 %: the example of bthome.io.
fn bthome() -> Value {
    json!({"address": SENSOR, "rssi": -61, "service": {"fcd2": "4002ca0903bf13"}})
}

/// A lamp with a switch that can be written, a dimmer that is notified, and a button only notified.
fn lamp(link: Value) -> Value {
    let mut data = json!({"macAddress": LAMP, "timeout": 30_000, "connectTimeout": 60_000});
    for (key, value) in link.as_object().unwrap() {
        data[key] = value.clone();
    }
    device(
        "lamp",
        data,
        &[
            (
                "colour",
                "STRING",
                "ReadWrite",
                json!({"characteristicUUID": "ff01", "dataWrite": {"Red": [1], "Off": [0]}}),
            ),
            (
                "level",
                "INT",
                "ReadWrite",
                json!({"characteristicUUID": "ff02", "dataType": "uint16", "mode": "notify"}),
            ),
            ("button", "INT", "ReadOnly", json!({"characteristicUUID": "ff03", "mode": "indicate"})),
            ("absent", "INT", "ReadOnly", json!({"characteristicUUID": "ff09"})),
            ("connected", "BOOLEAN", "ReadOnly", json!({})),
        ],
    )
}

fn lamp_services() -> Value {
    json!({"op": "gatt", "address": LAMP, "services": {"ff00": [
        {"uuid": "ff01", "flags": ["read", "write"], "value": "00"},
        {"uuid": "ff02", "flags": ["read", "write", "notify"], "value": "2c01"},
        {"uuid": "ff03", "flags": ["indicate"], "value": "00"},
    ]}})
}

fn full(short: &str) -> String {
    format!("0000{short}-0000-1000-8000-00805f9b34fb")
}

/// Sends a notification until the device is subscribed, which is when it is heard.
fn notify_until(double: &mut Double, command: &Value, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < edge_tests::bluetooth::PATIENCE, "notified in vain");
        double.tell(command.clone());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn advertisements_become_readings() {
    let mut double = Double::start();
    let before = double.tell(json!({"op": "clients"}));
    let mut program = double.program();
    program.set(&[]);
    assert_eq!(program.call(json!({"op": "read", "device": "none"})), Err("no such device".to_owned()));
    assert_eq!(double.tell(json!({"op": "clients"})), before, "nothing is opened without a device");
    program.set(&[sensor(json!({}))]);
    double.advertise_until(&bthome(), || program.device("sensor")["readings"]["temperature"] == 25.06);
    let known = program.device("sensor");
    assert_eq!((&known["online"], &known["readings"]["humidity"]), (&json!(true), &json!(51)), "{known}");
    assert_eq!((&known["readings"]["signal"], &known["readings"]["raw"]), (&json!(-61), &json!(0x40)), "{known}");
    assert!(known["readings"]["seen"].as_i64().is_some_and(|t| t > 1_600_000_000_000), "{known}");

    // Colder, and cut off behind that.
    let colder = json!({"address": SENSOR, "rssi": -70, "service": {"fcd2": "40025d0903bf"}});
    double.advertise_until(&colder, || program.device("sensor")["readings"]["temperature"] == 23.97);
    double.advertise_until(&colder, || program.device("sensor")["readings"]["signal"] == -70);
    let got = program.call(json!({"op": "read", "device": "sensor", "property": "temperature"})).unwrap();
    assert_eq!(got, json!({"temperature": 23.97}));
    let denied = program.call(json!({"op": "write", "device": "sensor", "property": "temperature", "value": 1}));
    assert!(denied.unwrap_err().contains("read-only"));
    program.end();
}

#[test]
fn sealed_advertisements_need_the_key_and_are_not_played_back() {
    let mut double = Double::start();
    let mut program = double.program();
    let with = |name: &str, key: &str| {
        let link = json!({"macAddress": SEALED, "encryptionKey": key, "offlineAfter": 86_400_000});
        device(
            name,
            link,
            &[("temperature", "FLOAT", "ReadOnly", json!({})), ("signal", "INT", "ReadOnly", json!({"field": "rssi"}))],
        )
    };
    program
        .set(&[with("right", "231d39c1d7cc1ab1aee224cd096db932"), with("wrong", "00000000000000000000000000000000")]);
    let sealed = |packet: &str| json!({"address": SEALED, "rssi": -50, "service": {"fcd2": packet}});
    let first = sealed("41e445f3c9962b332211006c7c4519");
    double.advertise_until(&first, || program.device("right")["readings"]["temperature"].is_number());
    double.advertise_until(&first, || program.device("wrong")["readings"]["signal"].is_number());
    assert!(!program.device("wrong")["readings"]["temperature"].is_number(), "the wrong key opens nothing");
    // An older packet, played back, then a newer one.
    let heard = program.history.len();
    for _ in 0..20 {
        double
            .tell(json!({"op": "advertise", "address": SEALED, "service": {"fcd2": "41723d3035fb88322211009e7414c0"}}));
    }
    let newer = sealed("413e932cc7175f34221100553876af");
    let news = |program: &mut edge_tests::bluetooth::Program| {
        program.device("right");
        program.history[heard..].iter().filter(|(d, p, _)| d == "right" && p == "temperature").count()
    };
    double.advertise_until(&newer, || news(&mut program) > 0);
    assert_eq!(news(&mut program), 1, "one new packet, however often it was heard: {:?}", &program.history[heard..]);
    program.end();
}

#[test]
fn a_silent_sensor_is_offline_and_comes_back_at_once() {
    let mut double = Double::start();
    let mut program = double.program();
    program.set(&[sensor(json!({"offlineAfter": 1000}))]);
    program.until("sensor", "was not heard yet", |d| {
        d["reason"].as_str().is_some_and(|r| r.contains("not heard yet") || r.contains("ready"))
    });
    double.advertise_until(&bthome(), || program.device("sensor")["online"] == true);
    let silent = program.until("sensor", "went silent", |d| d["online"] == false);
    assert!(silent["reason"].as_str().unwrap().contains("not heard for 1 s"), "{silent}");
    assert_eq!(silent["readings"]["temperature"], json!({"quality": "disconnected"}));
    double.advertise_until(&bthome(), || program.device("sensor")["readings"]["temperature"] == 25.06);
    program.end();
}

#[test]
fn a_device_is_connected_read_written_and_notified() {
    let mut double = Double::start();
    let mut program = double.program();
    double.tell(lamp_services());
    program.set(&[lamp(json!({}))]);
    program.until_value("lamp", "level", json!(300));
    let known = program.until_value("lamp", "connected", json!(true));
    assert_eq!(known["readings"]["colour"], "Off");
    assert_eq!(known["readings"]["absent"], json!({"quality": "refused"}), "one property's fault is not the device's");

    let written = program.call(json!({"op": "write", "device": "lamp", "property": "colour", "value": "Red"}));
    assert_eq!(written, Ok(json!({"colour": "Red"})));
    let written = program.call(json!({"op": "write", "device": "lamp", "property": "level", "value": 513}));
    assert_eq!(written, Ok(json!({"level": 513})));
    let refused = program.call(json!({"op": "write", "device": "lamp", "property": "level", "value": 65536}));
    assert!(refused.unwrap_err().contains("not between 0 and 65535"));
    let state = double.tell(json!({"op": "state"}));
    let writes = &state["devices"][LAMP]["writes"];
    assert_eq!(
        writes[full("ff02")],
        json!([["0102", "request"]]),
        "little-endian, acknowledged, and nothing else: {writes}"
    );

    double.tell(json!({"op": "notify", "address": LAMP, "uuid": "ff02", "value": "0700"}));
    program.until_value("lamp", "level", json!(7));
    double.tell(json!({"op": "notify", "address": LAMP, "uuid": "ff03", "value": "05"}));
    program.until_value("lamp", "button", json!(5));

    // What does not stick is told.
    double.tell(json!({"op": "stick", "address": LAMP, "uuid": "ff02"}));
    let stuck = program.call(json!({"op": "write", "device": "lamp", "property": "level", "value": 9}));
    assert_eq!(stuck, Err("wrote 9 and read back 7".to_owned()));
    program.end();
    assert_eq!(double.tell(json!({"op": "state"}))["devices"][LAMP]["connected"], false, "nothing stays connected");
}

#[test]
fn a_dropped_device_is_connected_and_subscribed_again() {
    let mut double = Double::start();
    let mut program = double.program();
    double.tell(lamp_services());
    program.set(&[lamp(json!({}))]);
    program.until_value("lamp", "level", json!(300));
    double.tell(json!({"op": "drop", "address": LAMP}));
    program.until("lamp", "was lost", |d| d["online"] == false);
    program.until("lamp", "was back", |d| d["online"] == true);
    let notification = json!({"op": "notify", "address": LAMP, "uuid": "ff02", "value": "4000"});
    notify_until(&mut double, &notification, || program.device("lamp")["readings"]["level"] == 64);
    // A device that refuses connections is tried ever more rarely, and has no effect on others.
    double.tell(json!({"op": "refuse", "address": LAMP, "on": true}));
    double.tell(json!({"op": "drop", "address": LAMP}));
    program.until("lamp", "was refused", |d| d["reason"].as_str().is_some_and(|r| r.contains("abort")));
    program.set(&[lamp(json!({})), sensor(json!({}))]);
    double.advertise_until(&bthome(), || program.device("sensor")["readings"]["temperature"] == 25.06);
    double.tell(json!({"op": "refuse", "address": LAMP, "on": false}));
    program.until("lamp", "was back", |d| d["online"] == true);
    program.end();
}

#[test]
fn devices_take_turns_on_few_connections() {
    let mut double = Double::start();
    let mut program = double.program();
    let meters: Vec<Value> = (1..=3)
        .map(|i| {
            let address = format!("C0:FF:EE:00:00:1{i}");
            let flags = json!(["read"]);
            double.tell(json!({"op": "gatt", "address": address,
                "services": {"ff00": [{"uuid": "ff01", "flags": flags, "value": format!("0{i}")}]}}));
            let link = json!({"macAddress": address, "maxConnections": 1, "timeout": 30_000, "connectTimeout": 60_000});
            device(&format!("meter{i}"), link, &[("count", "INT", "ReadOnly", json!({"characteristicUUID": "ff01"}))])
        })
        .collect();
    program.set(&meters);
    for round in 0..2 {
        for i in 1..=3 {
            program.until_value(&format!("meter{i}"), "count", json!(i));
        }
        let state = double.tell(json!({"op": "state"}));
        let connected = state["devices"].as_object().unwrap().values().filter(|d| d["connected"] == true).count();
        assert!(connected <= 1, "round {round}: {state}");
    }
    program.end();
}

#[test]
fn a_daemon_and_an_adapter_that_vanish_are_recovered_from() {
    let mut double = Double::start();
    let mut program = double.program();
    program.set(&[sensor(json!({}))]);
    double.advertise_until(&bthome(), || program.device("sensor")["online"] == true);
    let ways = [
        (json!({"op": "daemon", "on": false}), json!({"op": "daemon", "on": true}), "daemon"),
        (json!({"op": "adapter", "on": false}), json!({"op": "adapter", "on": true}), "adapter"),
    ];
    for (down, up, part) in ways {
        double.tell(down);
        let lost = program.until("sensor", &format!("lost its {part}"), |d| d["online"] == false);
        assert!(lost["reason"].as_str().unwrap().contains(part), "{lost}");
        double.tell(up);
        double.advertise_until(&bthome(), || program.device("sensor")["online"] == true);
    }
    // Somebody else ends the scan: it goes on.
    double.tell(json!({"op": "stop_scan"}));
    let warmer = json!({"address": SENSOR, "service": {"fcd2": "40020a0a"}});
    double.advertise_until(&warmer, || program.device("sensor")["readings"]["temperature"] == 25.7);

    // A device on another adapter, by the adapter's address, which is plugged in later.
    let other = device(
        "meter",
        json!({"macAddress": METER, "adapter": "00:11:22:33:44:66", "offlineAfter": 86_400_000}),
        &[("x", "INT", "ReadOnly", json!({"companyID": 4660, "offset": 1}))],
    );
    program.set(&[sensor(json!({})), other]);
    program.until("meter", "had no adapter", |d| d["reason"].as_str().is_some_and(|r| r.contains("no adapter")));
    double.tell(json!({"op": "adapter", "on": true, "name": "hci1", "is": "00:11:22:33:44:66"}));
    let packet = json!({"address": METER, "adapter": "hci1", "manufacturer": {"4660": "0007"}});
    double.advertise_until(&packet, || program.device("meter")["readings"]["x"] == 7);
    program.end();
}

#[test]
fn a_device_with_a_passkey_is_paired_once() {
    let mut double = Double::start();
    let mut program = double.program();
    let mut services = lamp_services();
    services["passkey"] = json!(123_456);
    double.tell(services);
    program.set(&[lamp(json!({"passkey": 654_321}))]);
    program.until("lamp", "was refused", |d| {
        d["online"] == false && d["reason"].as_str().is_some_and(|r| r.contains("pairing"))
    });
    program.set(&[lamp(json!({"passkey": 123_456}))]);
    program.until_value("lamp", "level", json!(300));
    double.tell(json!({"op": "drop", "address": LAMP}));
    program.until("lamp", "was lost", |d| d["online"] == false);
    program.until("lamp", "was back", |d| d["online"] == true);
    let state = double.tell(json!({"op": "state"}));
    let lamp = &state["devices"][LAMP];
    assert_eq!((&lamp["paired"], &lamp["trusted"]), (&json!(true), &json!(true)), "{state}");
    let asked = lamp["asked"].as_array().unwrap();
    assert_eq!(asked.iter().filter(|a| **a == 123_456).count(), 1, "{state}");
    program.end();
}

#[test]
fn a_node_has_bluetooth_devices_like_any_other() {
    let mut double = Double::start();
    double.tell(lamp_services());
    let mut node = Node::new().env("DBUS_SYSTEM_BUS_ADDRESS", &double.address);
    node.start();
    for made in [sensor(json!({})), lamp(json!({}))] {
        let (name, mut spec) = (made["name"].as_str().unwrap(), made["device"].clone());
        spec["deviceModelRef"]["name"] = json!(name);
        if name == "lamp" {
            spec["properties"][0]["desired"] = json!({"value": "Red"});
        }
        for (kind, spec) in [("DeviceModel", &made["model"]), ("Device", &spec)] {
            let object = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": kind,
                "metadata": {"name": name}, "spec": spec});
            node.apply(&object.to_string()).ok();
        }
    }
    let reported = |node: &Node, device: &str, property: &str| {
        let status = node.json(&["get", "device", device])["status"].clone();
        let twins = status["twins"].as_array().cloned().unwrap_or_default();
        let twin = twins.into_iter().find(|t| t["propertyName"] == property).unwrap_or_default();
        twin["reported"]["value"].as_str().unwrap_or_default().to_owned()
    };
    double.advertise_until(&bthome(), || reported(&node, "sensor", "temperature") == "25.06");
    node.until("the lamp is as desired", || (reported(&node, "lamp", "colour") == "Red").then_some(()));
    let state = double.tell(json!({"op": "state"}));
    assert_eq!(state["devices"][LAMP]["writes"][full("ff01")], json!([["01", "request"]]), "{state}");
    assert!(node.stop().success(), "{}", node.log());
    assert_eq!(double.tell(json!({"op": "state"}))["devices"][LAMP]["connected"], false, "nothing stays connected");
}

#[test]
fn the_end_of_the_system_bus_is_survived() {
    let mut double = Double::start();
    let mut program = double.program();
    program.set(&[sensor(json!({}))]);
    double.advertise_until(&bthome(), || program.device("sensor")["online"] == true);
    double.end_bus();
    let lost = program.until("sensor", "lost D-Bus", |d| d["online"] == false);
    assert!(lost["reason"].as_str().unwrap().contains("D-Bus"), "{lost}");
    assert_eq!(program.call(json!({"op": "read", "device": "none"})), Err("no such device".to_owned()));
    program.end();
}
