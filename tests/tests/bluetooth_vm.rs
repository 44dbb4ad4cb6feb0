//! Bluetooth devices over the real bluetoothd and the kernel's stack, in a machine whose controller is played by bumble.
//!
//! The machine is emulated: it takes some seconds to come up, and the first time minutes to be made. What it cannot be made to
//! do, and all that need not be real, is in `bluetooth.rs`.

use edge_tests::bluetooth::{Machine, device};
use serde_json::json;

const SENSOR: &str = "C4:7C:8D:6A:3E:7A";
const RUUVI: &str = "CB:B8:33:4C:88:4F";
const LAMP: &str = "F0:FF:EE:00:00:01";
const LOCK: &str = "F0:FF:EE:00:00:02";

#[test]
fn scan_connect_read_notify_write_drop_reconnect_pair_and_recover() {
    let mut machine = Machine::start();
    // Vectors of bthome.io and docs.ruuvi.com, as in the decoders' own tests.
    machine.tell(json!({"op": "thing", "address": SENSOR, "service": {"fcd2": "4002ca0903bf13"}}));
    let ruuvi = "0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F";
    machine.tell(json!({"op": "thing", "address": RUUVI, "manufacturer": {"1177": ruuvi}}));
    machine.tell(json!({"op": "thing", "address": LAMP, "services": {"ff00": [
        {"uuid": "ff01", "flags": ["read", "write"], "value": "00"},
        {"uuid": "ff02", "flags": ["read", "notify"], "value": "2c01"},
        {"uuid": "ff03", "flags": ["read", "indicate"], "value": "00"},
    ]}}));
    machine.tell(json!({"op": "thing", "address": LOCK, "passkey": 123_456, "services": {"ff10": [
        {"uuid": "ff11", "flags": ["read"], "value": "2a", "sealed": true},
    ]}}));
    let mut program = machine.program.take().unwrap();

    let field = |name: &'static str, kind| (name, kind, "ReadOnly", json!({}));
    let gatt = |uuid: &str, more: &[(&str, &str)]| {
        let mut data = json!({"characteristicUUID": uuid});
        for (key, value) in more {
            data[*key] = json!(value);
        }
        data
    };
    let slow = |address: &str| json!({"macAddress": address, "connectTimeout": 60_000, "timeout": 60_000, "offlineAfter": 86_400_000});
    let mut with_passkey = slow(LOCK);
    with_passkey["passkey"] = json!(123_456);
    let sensor = device("sensor", slow(SENSOR), &[field("temperature", "FLOAT"), field("rssi", "INT")]);
    let ruuvi = device("ruuvi", slow(RUUVI), &[field("temperature", "FLOAT"), field("pressure", "INT")]);
    let lamp = device(
        "lamp",
        slow(LAMP),
        &[
            (
                "colour",
                "STRING",
                "ReadWrite",
                json!({"characteristicUUID": "ff01", "dataWrite": {"Red": [1], "Off": [0]}}),
            ),
            ("level", "INT", "ReadOnly", gatt("ff02", &[("dataType", "uint16"), ("mode", "notify")])),
            ("button", "INT", "ReadOnly", gatt("ff03", &[("mode", "indicate")])),
        ],
    );
    let lock = device("lock", with_passkey, &[("secret", "INT", "ReadOnly", gatt("ff11", &[]))]);

    // Scan.
    program.set(&[sensor.clone(), ruuvi.clone()]);
    program.until_value("sensor", "temperature", json!(25.06));
    program.until_value("ruuvi", "pressure", json!(100_044));
    machine.tell(json!({"op": "advertise", "address": SENSOR, "service": {"fcd2": "40020a0a"}}));
    program.until_value("sensor", "temperature", json!(25.7));

    // Connect, discover, read, write, notify, indicate.
    program.set(&[sensor.clone(), ruuvi.clone(), lamp.clone()]);
    program.until_value("lamp", "level", json!(300));
    let written = program.call(json!({"op": "write", "device": "lamp", "property": "colour", "value": "Red"}));
    assert_eq!(written, Ok(json!({"colour": "Red"})));
    assert_eq!(machine.tell(json!({"op": "state", "address": LAMP}))["writes"]["ff01"], json!(["01"]));
    machine.tell(json!({"op": "notify", "address": LAMP, "uuid": "ff02", "value": "0700"}));
    program.until_value("lamp", "level", json!(7));
    machine.tell(json!({"op": "indicate", "address": LAMP, "uuid": "ff03", "value": "05"}));
    program.until_value("lamp", "button", json!(5));

    // The device goes and comes back: connected and subscribed again.
    machine.tell(json!({"op": "drop", "address": LAMP}));
    program.until("lamp", "was lost", |d| d["online"] == false);
    program.until("lamp", "was back", |d| d["online"] == true);
    machine.tell(json!({"op": "notify", "address": LAMP, "uuid": "ff02", "value": "0900"}));
    program.until_value("lamp", "level", json!(9));

    // Pair with a passkey.
    program.set(&[sensor.clone(), lamp.clone(), lock]);
    program.until_value("lock", "secret", json!(42));

    // bluetoothd ends and is started again.
    program.set(&[sensor, lamp]);
    program.kill("bluetoothd");
    program.until("sensor", "lost bluetoothd", |d| d["online"] == false);
    machine.tell(json!({"op": "advertise", "address": SENSOR, "service": {"fcd2": "4002ca09"}}));
    program.until_value("sensor", "temperature", json!(25.06));
    program.until("lamp", "was back", |d| d["online"] == true);
    program.end();
}
