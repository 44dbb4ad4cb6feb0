//! The executable for 64-bit ARM, as a daemon under user emulation: its bus, its store and its Modbus mapper with the same
//! peers as everywhere. Containers are not tried: the emulator cannot do their `clone`.

use edge_tests::aarch64;
use edge_tests::daemon::Node;
use edge_tests::pymodbus::Server;
use edge_tests::run::run;
use serde_json::json;

fn node() -> Node {
    Node::new().board("generic-arm64").binary(aarch64::edge_runtime(), &aarch64::runner())
}

#[test]
fn it_tells_its_version() {
    let path = aarch64::edge_runtime().to_string_lossy().into_owned();
    let mut command = aarch64::runner();
    command.extend([path.as_str(), "--version"]);
    let output = run(command[0], &command[1..], "").ok();
    assert!(output.stdout.starts_with("edge-runtime "), "{output}");
}

#[test]
fn clients_of_the_bus_hear_each_other() {
    let mut node = node();
    node.start();
    let port = node.bus().port().to_string();
    let common = ["-h", "127.0.0.1", "-p", &port, "-V", "mqttv311", "-q", "1", "-t", "site/state"];
    let with = |more: &[&str]| common.iter().chain(more).map(|word| (*word).to_owned()).collect::<Vec<_>>();
    run("mosquitto_pub", with(&["-r", "-m", "kept"]), "").ok();
    let heard = run("mosquitto_sub", with(&["-C", "1", "-W", "60"]), "").ok();
    assert_eq!(heard.stdout.trim(), "kept");
    assert!(node.stop().success(), "{}", node.log());
}

#[test]
fn objects_outlive_a_stop_and_a_kill() {
    let mut node = node();
    node.start();
    node.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {answer: \"42\"}\n");
    let answer = |node: &Node| node.json(&["get", "configmap", "kept"])["data"]["answer"].clone();
    assert_eq!(answer(&node), "42");
    assert!(node.stop().success(), "{}", node.log());
    node.start();
    assert_eq!(answer(&node), "42");
    node.kill();
    node.start();
    assert_eq!(answer(&node), "42");
}

#[test]
fn a_device_is_polled_and_written() {
    // Holding register 0 is a temperature in tenths, register 1 a set point.
    let plant = Server::start(json!([{"unit": 1, "holding": [[0, [215, 180]]]}]));
    let mut node = node();
    node.start();
    let property = |name: &str, offset: u16| {
        let place = json!({"register": "HoldingRegister", "offset": offset, "dataType": "int16", "scale": 0.1});
        json!({"name": name, "collectCycle": 100, "visitors": {"protocolName": "modbus", "configData": place}})
    };
    let model = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "plant"},
        "spec": {"protocol": "modbus", "properties": [
            {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
            {"name": "setpoint", "type": "FLOAT", "accessMode": "ReadWrite"},
        ]},
    });
    let device = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "tank"},
        "spec": {
            "deviceModelRef": {"name": "plant"},
            "protocol": {"protocolName": "modbus", "configData": {"ip": "127.0.0.1", "port": plant.port, "slaveID": 1}},
            "properties": [property("temperature", 0), property("setpoint", 1)],
        },
    });
    // JSON is YAML.
    node.apply(&format!("{model}\n---\n{device}\n"));
    let reported = |name: &str| {
        let device = node.json(&["get", "device", "tank"]);
        let twins = device["status"]["twins"].as_array()?;
        let twin = twins.iter().find(|twin| twin["propertyName"] == name)?;
        Some(twin["reported"]["value"].as_str()?.to_owned())
    };
    node.until("the temperature is in the twin", || reported("temperature").filter(|value| value == "21.5"));
    node.cli(&["device", "set", "tank", "setpoint", "19.5"]).ok();
    node.until("the set point is in the twin", || reported("setpoint").filter(|value| value == "19.5"));
    assert!(node.stop().success(), "{}", node.log());
}
