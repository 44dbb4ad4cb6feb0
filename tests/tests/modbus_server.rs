//! The node's own Modbus server: a device's twin as registers for `mbpoll`, and back.

use std::process::Command;

use edge_tests::daemon::Node;
use edge_tests::pymodbus::lasting_port;

const OBJECTS: &str = "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {name: tank}\nspec:\n  \
     protocol: virtual\n  properties:\n    - {name: level, type: INT, accessMode: ReadOnly}\n    \
     - {name: setpoint, type: INT, accessMode: ReadWrite, minimum: '0', maximum: '100'}\n---\n\
     apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {name: tank}\nspec:\n  deviceModelRef: {name: tank}\n  \
     protocol: {protocolName: virtual}\n  properties:\n    - name: level\n      collectCycle: 100\n      visitors:\n        \
     protocolName: virtual\n        configData: {value: 1234, expose: {register: InputRegister, offset: 10}}\n    \
     - name: setpoint\n      collectCycle: 100\n      visitors:\n        protocolName: virtual\n        \
     configData: {value: 40, expose: {unit: 1, register: HoldingRegister, offset: 20}}\n";

/// One value over mbpoll: `table` is its `-t`, references count from 0.
fn mbpoll(port: u16, table: &str, reference: u16, write: Option<u16>) -> (bool, String) {
    let mut command = Command::new("mbpoll");
    command.args(["-m", "tcp", "-p", &port.to_string(), "-0", "-1", "-q", "-t", table, "-r", &reference.to_string()]);
    command.arg("127.0.0.1");
    if let Some(value) = write {
        command.arg(value.to_string());
    }
    let output = command.output().expect("this test needs mbpoll");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_twin_is_read_and_written_as_registers() {
    let port = lasting_port();
    let mut node = Node::new().config(&format!("[modbus-server]\nlisten = \"127.0.0.1:{port}\"\n"));
    node.start();
    node.apply(OBJECTS);
    let reads = |table: &str, reference: u16, value: &str| {
        let (ok, text) = mbpoll(port, table, reference, None);
        (ok && text.contains(value)).then_some(())
    };
    node.until("the level is in its register", || reads("3", 10, "1234"));
    node.until("the setpoint is in its register", || reads("4", 20, "40"));
    let (ok, text) = mbpoll(port, "4", 20, Some(55));
    assert!(ok, "{text}");
    let set = || node.json(&["device", "get", "tank", "setpoint"]).to_string().contains("55").then_some(());
    node.until("the device has it", set);
    let (ok, text) = mbpoll(port, "4", 20, Some(101));
    assert!(!ok && text.contains("Illegal data value"), "{text}");
    let (ok, text) = mbpoll(port, "4", 30, None);
    assert!(!ok && text.contains("Illegal data address"), "{text}");

    // Another place for the same value: the old one is empty.
    node.apply(&OBJECTS.replace("offset: 10}", "offset: 11}"));
    node.until("it has moved", || reads("3", 11, "1234"));
    assert!(!mbpoll(port, "3", 10, None).0);
    assert!(node.stop().success());
}
