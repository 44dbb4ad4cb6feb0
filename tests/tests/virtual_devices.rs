//! Virtual devices through the daemon: applied, read, written, replayed from a file, and refused with the field that is wrong.

use edge_tests::daemon::Node;
use edge_tests::mosquitto;

/// A model with one property of each generator.
const MODEL: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: bench}
spec:
  protocol: virtual
  properties:
    - {name: level, type: DOUBLE, accessMode: ReadOnly, unit: m, visitors: {protocolName: virtual, configData: {generator: sine, low: 2, high: 4, turn: 1000}}}
    - {name: noise, type: INT, accessMode: ReadOnly, visitors: {protocolName: virtual, configData: {generator: random, low: 10, high: 20}}}
    - {name: parts, type: INT, accessMode: ReadOnly, visitors: {protocolName: virtual, configData: {generator: counter, low: 1, high: 3}}}
    - {name: valve, type: INT, accessMode: ReadWrite, minimum: 0, maximum: 100, visitors: {protocolName: virtual, configData: {value: 5}}}
    - {name: flow, type: FLOAT, accessMode: ReadOnly, visitors: {protocolName: virtual, configData: {generator: replay}}}
";

/// A device of it, whose flow comes from a file.
fn device(name: &str, flow: &str) -> String {
    format!(
        "\
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: {name}}}
spec:
  deviceModelRef: {{name: bench}}
  protocol: {{protocolName: virtual, configData: {{seed: 7}}}}
  properties:
    - {{name: level, collectCycle: 50}}
    - {{name: noise, collectCycle: 50}}
    - {{name: parts, collectCycle: 50}}
    - {{name: valve, collectCycle: 50}}
    - {{name: flow, collectCycle: 50, visitors: {{protocolName: virtual, configData: {flow}}}}}
"
    )
}

/// A node with a folder of files to replay.
fn node() -> Node {
    let node = Node::new();
    let folder = node.folder().join("replay");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("pump.csv"), "time,flow\n0,1.5\n1,2.5\n2,3.5\n").unwrap();
    node.reconfigure(&format!("[paths]\nreplay-dir = \"{}\"\n", folder.display()));
    node
}

#[test]
fn a_virtual_device_is_read_written_and_replayed_on_a_real_node() {
    let mut node = node();
    node.start();
    let listener = mosquitto::subscribe(node.bus().port(), &["-t", "$ke/events/device/tank/data/update", "-C", "40"]);
    node.apply(MODEL);
    node.apply(&device("tank", "{generator: replay, file: pump.csv, column: flow}"));

    let status = node.until("the device is read", || {
        let object = node.json(&["get", "device", "tank"]);
        (object["status"]["state"] == "online").then_some(object)
    });
    assert_eq!(status["status"]["twins"].as_array().map(Vec::len), Some(5), "{status}");
    let number = |property: &str| -> f64 {
        let text = node.cli(&["device", "get", "tank", property]).ok().stdout;
        text.split_whitespace().next().and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("{property}: {text}"))
    };
    assert!(node.cli(&["device", "get", "tank", "level"]).ok().stdout.ends_with(" m\n"));
    assert!((2.0..=4.0).contains(&number("level")));
    assert!((10.0..=20.0).contains(&number("noise")));
    assert!((1.0..=3.0).contains(&number("parts")));
    assert!((1.5..=3.5).contains(&number("flow")));

    assert_eq!(node.cli(&["device", "get", "tank", "valve"]).ok().stdout, "5\n");
    assert_eq!(node.cli(&["device", "set", "tank", "valve", "40"]).ok().stdout, "40\n");
    node.until("it keeps what was written", || {
        (node.cli(&["device", "get", "tank", "valve"]).ok().stdout == "40\n").then_some(())
    });
    for (property, value, part) in [("valve", "101", "between 0 and 100"), ("level", "3", "read-only")] {
        let refused = node.cli(&["device", "set", "tank", property, value]);
        assert!(!refused.status.success() && refused.stderr.contains(part), "{refused}");
    }

    // On the bus, in KubeEdge's shape: every value of the counter and of the file, again and again.
    let lines = mosquitto::lines(listener);
    let seen = |property: &str, value: &str| {
        lines.iter().any(|line| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            json["data"][property]["value"] == value
        })
    };
    for (property, values) in [("parts", ["1", "2", "3"]), ("flow", ["1.5", "2.5", "3.5"])] {
        assert!(values.iter().all(|value| seen(property, value)), "{property}: {lines:#?}");
    }
    assert!(node.stop().success());
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let mut node = node();
    node.start();
    // What the objects alone show is refused by the door, with the line.
    let refused = node.cli_with(
        &["apply", "-f", "-"],
        &MODEL.replace("generator: counter", "generator: dice"),
        edge_tests::wait::DEADLINE,
    );
    assert!(!refused.status.success(), "{refused}");
    assert!(refused.stderr.contains("standard input:9:"), "{refused}");
    assert!(refused.stderr.contains("spec.properties[2].visitors.configData.generator"), "{refused}");

    // What shows only when device and model come together is the device's status.
    node.apply(MODEL);
    node.apply(&device("tank", "{generator: replay, file: ../pump.csv}"));
    let reason = |what: &str| {
        node.until(what, || {
            let object = node.json(&["get", "device", "tank"]);
            let reason = object["status"]["extensions"]["reason"].as_str().unwrap_or_default().to_owned();
            reason.contains(what).then_some(reason)
        })
    };
    let path = reason("is not the name of a file");
    assert!(path.starts_with("spec.properties[4].visitors.configData.file: "), "{path}");
    node.apply(&device("tank", "{generator: replay, file: pump.csv, column: pressure}"));
    assert!(reason("there is no column").contains("pump.csv:1:"));
    node.apply(&device("tank", "{generator: replay, values: [1, 2]}"));
    node.until("it is well again", || {
        (node.json(&["get", "device", "tank"])["status"]["state"] == "online").then_some(())
    });
}
