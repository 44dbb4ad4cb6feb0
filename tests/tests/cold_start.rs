//! The promise: a cold start without any network brings everything up. The daemon and the device live in a network
//! namespace that has nothing but its own loopback, and what need not survive (the run directory) is gone.
//!
//! Needs root, pymodbus, umoci and busybox-static.

use edge_tests::daemon::Node;
use edge_tests::pymodbus::Server;
use edge_tests::{mosquitto, run};
use serde_json::json;

#[test]
fn everything_comes_up_without_a_network() {
    let mut node = Node::new().config(
        "[cloud]\naddress = \"mqtts://cloud.invalid:8883\"\n[engine]\nbridge = \"edge-cold\"\nsubnet = \"10.244.79.0/24\"\n",
    );
    node.start();
    let image = edge_tests::pods::busybox_archive(node.folder());
    node.cli(&["image", "import", &image, "--name", "localhost/busybox:1"]).ok();
    node.apply(&edge_tests::pods::sleeper("one"));
    node.apply(&edge_tests::pods::sleeper("two").replace("hostNetwork: true", "hostNetwork: false"));
    let running = |node: &Node| {
        let pods = node.json(&["get", "pods"]);
        let phases = pods["items"].as_array()?.iter().map(|p| p["status"]["phase"].clone()).collect::<Vec<_>>();
        (phases.len() == 2 && phases.iter().all(|p| p == "Running")).then_some(())
    };
    node.until("both pods run", || running(&node));
    // The power goes: every process dies, and with them what was in memory.
    node.kill();
    edge_tests::cleanup::sweep(node.folder());
    std::fs::remove_dir_all(node.run()).expect("the run directory");

    // This thread, and all it starts from here on, has a network with nothing in it.
    // SAFETY: the thread leaves a namespace that it shares; no memory is involved.
    assert_eq!(
        unsafe { libc::unshare(libc::CLONE_NEWNET) },
        0,
        "unshare: {} (needs root)",
        std::io::Error::last_os_error()
    );
    run::run("ip", ["link", "set", "lo", "up"], "").ok();
    let routes = run::run("ip", ["route"], "").ok();
    assert!(routes.stdout.trim().is_empty(), "there is a network: {routes}");

    let device = Server::start(json!([{"unit": 1, "holding": [[0, [42]]]}]));
    node.manifest(
        "meter.yaml",
        &format!(
            "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {{name: meter}}\nspec:\n  protocol: modbus\n  \
             properties:\n    - {{name: power, type: INT, accessMode: ReadOnly}}\n---\n\
             apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: meter}}\nspec:\n  \
             deviceModelRef: {{name: meter}}\n  protocol:\n    protocolName: modbus\n    \
             configData: {{communicateMode: TCP, ip: 127.0.0.1, port: {}, slaveID: 1}}\n  properties:\n    - name: power\n      \
             collectCycle: 200\n      reportToCloud: true\n      \
             visitors: {{protocolName: modbus, configData: {{register: HoldingRegister, offset: 0}}}}\n",
            device.port
        ),
    );
    node.start();
    node.until("both pods run again", || running(&node));
    node.until("the device is read", || {
        (node.json(&["get", "device", "meter"])["status"]["twins"][0]["reported"]["value"] == "42").then_some(())
    });
    node.until("readings wait for the cloud", || {
        (node.metric("edge_queue_messages{stream=\"data\"}")? > 0.0).then_some(())
    });
    let said = mosquitto::publish(node.bus().port(), &["-q", "1", "-t", "a/b", "-m", "c"]);
    assert!(said.status.success(), "the bus does not work: {said:?}");
    let link = node.json(&["status"])["link"][0].clone();
    assert!(link["well"] == false && !link["reason"].as_str().unwrap_or_default().is_empty(), "{link}");
    assert!(node.stop().success());
}
