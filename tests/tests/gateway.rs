//! The whole gateway: a real device, real clients of its bus, a real cloud, real containers, and what goes wrong with them.
//!
//! Needs root, mosquitto, pymodbus, umoci and busybox-static.

use edge_tests::daemon::Node;
use edge_tests::mosquitto::{self, Mosquitto, Setup};
use edge_tests::proxy::{Mode, Proxy};
use edge_tests::pymodbus::{self, Server};
use edge_tests::receiver::Receiver;
use edge_tests::wait::until_holds;
use serde_json::{Value, json};

/// A boiler: a measured temperature (input register 3, tenths), a setpoint (holding 0) and a burner (coil 7).
fn boiler(port: u16) -> String {
    let property = |name: &str, data: &str| {
        format!(
            "    - name: {name}\n      collectCycle: 100\n      reportCycle: 200\n      reportToCloud: true\n      \
             visitors: {{protocolName: modbus, configData: {{{data}}}}}\n"
        )
    };
    format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {{name: boiler}}\nspec:\n  protocol: modbus\n  \
         properties:\n    - {{name: temperature, type: FLOAT, accessMode: ReadOnly, unit: '°C'}}\n    \
         - {{name: setpoint, type: INT, accessMode: ReadWrite, minimum: '10', maximum: '90'}}\n    \
         - {{name: burner, type: BOOLEAN, accessMode: ReadWrite}}\n---\n\
         apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: boiler}}\nspec:\n  \
         deviceModelRef: {{name: boiler}}\n  protocol:\n    protocolName: modbus\n    \
         configData: {{communicateMode: TCP, ip: 127.0.0.1, port: {port}, slaveID: 1, timeout: 1000}}\n  properties:\n{}{}{}",
        property("temperature", "register: InputRegister, offset: 3, dataType: int16, scale: 0.1"),
        property("setpoint", "register: HoldingRegister, offset: 0, dataType: int16"),
        property("burner", "register: CoilRegister, offset: 7"),
    )
}

fn registers() -> Value {
    json!([{"unit": 1, "holding": [[0, [40]]], "input": [[3, [615]]], "coils": [[7, [0]]]}])
}

/// What the twin of the boiler reports of a property.
fn reported(node: &Node, property: &str) -> Option<String> {
    let device = node.json(&["get", "device", "boiler"]);
    let twins = device["status"]["twins"].as_array()?.clone();
    let twin = twins.iter().find(|t| t["propertyName"] == property)?.clone();
    Some(twin["reported"]["value"].as_str()?.to_owned())
}

fn state(node: &Node) -> String {
    node.json(&["get", "device", "boiler"])["status"]["state"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_board_to_the_cloud_and_back() {
    let cloud = Mosquitto::start(&Setup::default());
    let receiver = Receiver::start(cloud.port(), "edge/gw").await;
    let device = Server::start(registers());
    let mut node = Node::new()
        .config(&format!("[node]\nname = \"gw\"\n[cloud]\naddress = \"mqtt://127.0.0.1:{}\"\n", cloud.port()));
    // The device comes as a manifest that is there before the start; the pod over the command line.
    node.manifest("boiler.yaml", &boiler(device.port));
    node.start();
    let listener = mosquitto::subscribe(node.bus().port(), &["-t", "$ke/events/device/boiler/data/update", "-C", "6"]);
    node.until("the temperature is in the twin", || (reported(&node, "temperature")? == "61.5").then_some(()));
    let heard = mosquitto::lines(listener);
    assert!(heard.iter().any(|line| line.contains("61.5")), "{heard:?}");
    until_holds("readings reach the cloud", || {
        receiver.all().iter().any(|g| g.stream() == "data" && g.envelope["payload"].to_string().contains("61.5"))
    })
    .await;

    // Command line: read, write with read-back, and refusals before anything is on the wire.
    let read = node.json(&["device", "get", "boiler", "setpoint"]);
    assert!(read.to_string().contains("40"), "{read}");
    node.cli(&["device", "set", "boiler", "setpoint", "55"]).ok();
    node.until("the twin follows", || (reported(&node, "setpoint")? == "55").then_some(()));
    let refused = node.cli(&["device", "set", "boiler", "setpoint", "95"]);
    assert!(refused.code() == Some(1) && refused.stderr.contains("90"), "{refused}");
    let refused = node.cli(&["device", "set", "boiler", "temperature", "1"]);
    assert!(refused.code() == Some(1) && refused.stderr.contains("read-only"), "{refused}");

    // Cloud: a command turns the coil, once, and is answered.
    let command =
        json!({"id": "c1", "command": "deviceWrite", "device": "boiler", "property": "burner", "value": true});
    for _ in 0..2 {
        let sent =
            mosquitto::publish(cloud.port(), &["-q", "1", "-t", "edge/gw/down/commands", "-m", &command.to_string()]);
        assert!(sent.status.success(), "{sent:?}");
    }
    node.until("the burner burns", || (reported(&node, "burner")? == "true").then_some(()));
    until_holds("both are answered", || receiver.replies().len() >= 2).await;
    let replies = receiver.replies();
    assert!(replies.iter().all(|r| r["id"] == "c1" && r["outcome"] == "ok"), "{replies:?}");

    // Cloud: an object comes and goes.
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site"}, "data": {"a": "b"}});
    let command = json!({"id": "c2", "command": "apply", "object": object});
    mosquitto::publish(cloud.port(), &["-q", "1", "-t", "edge/gw/down/commands", "-m", &command.to_string()]);
    node.until("the config map is there", || (node.cli(&["get", "cm", "site"]).code() == Some(0)).then_some(()));
    let command = json!({"id": "c3", "command": "delete", "kind": "configmap", "name": "site"});
    mosquitto::publish(cloud.port(), &["-q", "1", "-t", "edge/gw/down/commands", "-m", &command.to_string()]);
    node.until("and gone", || (node.cli(&["get", "cm", "site"]).code() == Some(1)).then_some(()));

    // A pod, with its log.
    let image = edge_tests::pods::busybox_archive(node.folder());
    node.cli(&["image", "import", &image, "--name", "localhost/busybox:1"]).ok();
    node.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: hi}\nspec:\n  hostNetwork: true\n  restartPolicy: Never\n  containers:\n    \
         - {name: main, image: 'localhost/busybox:1', command: [/bin/busybox, echo, hello from inside]}\n",
    );
    node.until("the pod has ended well", || {
        (node.json(&["get", "pod", "hi"])["status"]["phase"] == "Succeeded").then_some(())
    });
    assert!(node.cli(&["logs", "hi"]).ok().stdout.contains("hello from inside"));
    assert!(
        node.cli(&["describe", "pod", "hi"]).ok().stdout.contains("Exit Code"),
        "{}",
        node.cli(&["describe", "pod", "hi"])
    );

    // Everything is well, and the figures say so.
    let status = node.json(&["status"]);
    assert_eq!(status["well"], true, "{status:#}");
    assert_eq!(node.metric("edge_cloud_online"), Some(1.0));
    assert_eq!(node.metric("edge_queue_dropped_total{stream=\"data\"}"), Some(0.0));

    // The file goes, and its objects with it.
    std::fs::remove_file(node.manifests().join("boiler.yaml")).expect("the manifest");
    node.until("the device is gone", || (node.cli(&["get", "device", "boiler"]).code() == Some(1)).then_some(()));
    assert!(node.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coil_set_in_the_cloud_turns_once_through_an_interrupted_link() {
    let cloud = Mosquitto::start(&Setup::default());
    let proxy = Proxy::start(cloud.port()).await;
    let receiver = Receiver::start(cloud.port(), "edge/gw").await;
    let mut device = Server::start(registers());
    let mut node = Node::new()
        .config(&format!("[node]\nname = \"gw\"\n[cloud]\naddress = \"mqtt://127.0.0.1:{}\"\n", proxy.port()));
    node.manifest("boiler.yaml", &boiler(device.port));
    node.start();
    node.until("it is online", || (state(&node) == "online").then_some(()));
    until_holds("readings reach the cloud", || receiver.last("data") > 0).await;
    device.requests();

    // The node hears the command, but the cloud hears nothing: neither that it came nor what became of it.
    proxy.set(Mode::NoAnswers);
    proxy.cut();
    proxy.set(Mode::Closed);
    let command =
        json!({"id": "turn", "command": "deviceWrite", "device": "boiler", "property": "burner", "value": true});
    let sent =
        mosquitto::publish(cloud.port(), &["-q", "1", "-t", "edge/gw/down/commands", "-m", &command.to_string()]);
    assert!(sent.status.success(), "{sent:?}");
    for _ in 0..3 {
        proxy.set(Mode::Open);
        node.until("it is tried again", || (node.metric("edge_cloud_online")? == 1.0).then_some(()));
        // Cut off again at whatever moment that is: on the way, at work, or answering.
        proxy.cut();
    }
    node.until("the burner burns", || (reported(&node, "burner")? == "true").then_some(()));
    until_holds("it is answered", || receiver.replies().iter().any(|r| r["id"] == "turn" && r["outcome"] == "ok"))
        .await;
    until_holds("the cloud sees it", || {
        receiver.all().iter().any(|g| {
            let readings = g.envelope["payload"]["readings"].as_array().cloned().unwrap_or_default();
            readings.iter().any(|r| r["p"] == "burner" && r["v"] == true)
        })
    })
    .await;
    let writes: Vec<_> = device.requests().into_iter().filter(|r| r.1 == 5).collect();
    assert_eq!(writes.len(), 1, "the coil is turned once: {writes:?}");
    assert!(node.stop().success());
}

#[test]
fn a_device_that_vanishes_comes_back() {
    let mut node = Node::new().config("[field]\nprobe-max-ms = 500\nconnect-max-ms = 500\n");
    let port = pymodbus::lasting_port();
    let device = Server::start_on(port, registers());
    node.start();
    node.apply(&boiler(port));
    node.until("it is online", || (state(&node) == "online").then_some(()));
    drop(device);
    node.until("it is offline", || (state(&node) == "offline").then_some(()));
    let status = node.json(&["status"]);
    let devices = status["devices"].as_array().expect("devices");
    assert!(
        devices.iter().any(|d| d["name"].as_str().is_some_and(|n| n.contains("boiler")) && d["well"] == false),
        "{status:#}"
    );
    assert_eq!(node.cli(&["device", "get", "boiler", "setpoint"]).code(), Some(1));
    let mut device = Server::start_on(port, registers());
    node.until("it is online again", || (state(&node) == "online").then_some(()));
    device.poke(1, 4, 3, 700);
    node.until("and read again", || (reported(&node, "temperature")? == "70").then_some(()));
    assert!(node.stop().success());
}

#[test]
fn what_is_wrong_is_refused_with_its_place_and_the_rest_goes_on() {
    let mut node = Node::new();
    node.start();
    let wrong =
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n    - name: a\n      imge: x\n";
    let refused = node.cli_with(&["apply", "-f", "-"], wrong, edge_tests::wait::DEADLINE);
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert!(refused.stderr.contains(":8:") && refused.stderr.contains("did you mean image?"), "{refused}");
    for text in ["\u{0}\u{1}", "{", "a: [", "- - -\n\t", "apiVersion: v1\nkind: Deployment\nmetadata: {name: x}\n"] {
        let refused = node.cli_with(&["apply", "-f", "-"], text, edge_tests::wait::DEADLINE);
        assert_eq!(refused.code(), Some(1), "{refused}");
    }
    node.manifest("bad.yaml", wrong);
    node.manifest("good.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n");
    node.until("the good file is applied", || (node.cli(&["get", "cm", "good"]).code() == Some(0)).then_some(()));
    node.until("the bad one is told of", || {
        let status = node.json(&["status"]);
        let files = status["manifests"].as_array()?.clone();
        let bad = files.iter().find(|f| f["name"].as_str().is_some_and(|n| n.contains("bad.yaml")))?.clone();
        (bad["well"] == false && bad["reason"].as_str()?.contains(":8:")).then_some(())
    });
    // An archive that is none.
    let garbage = node.folder().join("garbage.tar");
    std::fs::write(&garbage, vec![0xa5; 4096]).expect("a file");
    let refused = node.cli(&["image", "import", garbage.to_str().expect("a path")]);
    assert_eq!(refused.code(), Some(1), "{refused}");
    assert_eq!(node.json(&["status"])["units"].as_array().map(|u| u.iter().all(|u| u["well"] == true)), Some(true));
    assert!(node.stop().success());
}
