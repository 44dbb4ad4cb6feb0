//! KubeEdge's Device Mapper Interface: the example mapper in Python, on grpcio, drives a device of the node.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use edge_tests::daemon::Node;
use edge_tests::pymodbus::{once, run, venv};
use rustix::process::Signal;
use serde_json::json;

/// The example of the mappers' folder with its generated code; and its Python.
fn example() -> (PathBuf, PathBuf) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mappers/examples/python");
    let python = venv("grpc", &["grpcio==1.76.0", "grpcio-tools==1.76.0"]);
    let made = once("grpc-example", |place| std::fs::create_dir_all(place).expect("a folder"));
    // Generated anew each time, into a place of its own: it is quick, and the source may have changed.
    let place = made.join(std::process::id().to_string());
    std::fs::create_dir_all(&place).expect("a folder");
    let mut protoc = Command::new(&python);
    protoc.args(["-m", "grpc_tools.protoc", "-I"]).arg(&source);
    protoc.arg(format!("--python_out={}", place.display())).arg(format!("--grpc_python_out={}", place.display()));
    run(protoc.arg(source.join("dmi.proto")), "grpcio-tools from PyPI, once");
    std::fs::copy(source.join("lamp.py"), place.join("lamp.py")).expect("the example");
    (python, place)
}

struct Mapper(Child);

impl Mapper {
    fn start(node: &Node, (python, place): &(PathBuf, PathBuf)) -> Mapper {
        let mut command = Command::new(python);
        command.arg("lamp.py").arg(node.run().join("dmi.sock")).arg(node.folder().join("lamp.sock")).current_dir(place);
        Mapper(command.spawn().expect("python starts"))
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lamp(name: &str, desired: u32) -> String {
    format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: {name}}}\nspec:\n  \
         deviceModelRef: {{name: lamp}}\n  protocol: {{protocolName: lamp, configData: {{bus: 1, channel: a}}}}\n  properties:\n    \
         - {{name: dimmer, desired: {{value: '{desired}'}}}}\n    - {{name: hours}}\n"
    )
}

const MODEL: &str = "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {name: lamp}\nspec:\n  protocol: lamp\n  \
     properties:\n    - {name: dimmer, type: INT, accessMode: ReadWrite, minimum: '0', maximum: '100'}\n    \
     - {name: hours, type: INT, accessMode: ReadOnly}\n---\n";

fn reported(node: &Node, device: &str, property: &str) -> Option<String> {
    let device = node.json(&["get", "device", device]);
    let twins = device["status"]["twins"].as_array()?.clone();
    let twin = twins.iter().find(|t| t["propertyName"] == property)?.clone();
    twin["reported"]["value"].as_str().map(str::to_owned)
}

#[test]
fn a_mapper_in_python_drives_a_device_through_every_restart() {
    let example = example();
    let mut node = Node::new();
    node.start();
    node.apply(&format!("{MODEL}{}", lamp("desk", 40)));
    let mut mapper = Mapper::start(&node, &example);
    node.until("what was there before it came", || (reported(&node, "desk", "dimmer")? == "40").then_some(()));
    node.until("it reports by itself", || reported(&node, "desk", "hours").filter(|h| !h.is_empty()));
    let state = || node.json(&["get", "device", "desk"])["status"]["state"].clone();
    node.until("it is online", || (state() == json!("online")).then_some(()));

    // What comes, changes and goes later.
    node.apply(&lamp("hall", 10));
    node.until("a new device", || (reported(&node, "hall", "dimmer")? == "10").then_some(()));
    node.apply(&lamp("desk", 70));
    node.until("another desired value", || (reported(&node, "desk", "dimmer")? == "70").then_some(()));
    node.cli(&["delete", "device", "hall"]).ok();

    // The runtime restarts: the mapper registers only once, and is known all the same.
    node.kill();
    node.start();
    node.apply(&lamp("desk", 15));
    node.until("it is told after a restart", || (reported(&node, "desk", "dimmer")? == "15").then_some(()));

    // The mapper restarts: it registers again and is told everything again.
    drop(mapper);
    node.apply(&lamp("desk", 25));
    mapper = Mapper::start(&node, &example);
    node.until("it catches up", || (reported(&node, "desk", "dimmer")? == "25").then_some(()));
    rustix::process::kill_process(rustix::process::Pid::from_child(&mapper.0), Signal::TERM).expect("it runs");
    let _ = mapper.0.wait();
    assert!(node.stop().success());
}
