//! `import edgex` with the real binary: printed, applied, and what is left behind is named.

use std::process::Command;

use edge_tests::daemon::Node;
use edge_tests::{binary, run, wait};

const PROFILE: &str = "\
name: Random-Tank
deviceResources:
  - name: Level
    properties: {valueType: Float64, readWrite: R, minimum: '2', maximum: '4', units: m}
  - name: Shape
    properties: {valueType: Object, readWrite: R}
";

/// As version 2 wrote it.
const DEVICES: &str = "\
[[DeviceList]]
Name = 'Tank-1'
ProfileName = 'Random-Tank'
  [DeviceList.Protocols.other]
  Address = 'device-virtual-tank'
  Port = '300'
  [[DeviceList.AutoEvents]]
  Interval = '50ms'
  SourceName = 'Level'
";

#[test]
fn a_folder_of_edgex_is_printed_and_applied() {
    let mut node = Node::new();
    let res = node.folder().join("res");
    for (folder, name, text) in
        [("profiles", "tank.yaml", PROFILE), ("devices", "tank.toml", DEVICES), ("", "README", "x")]
    {
        std::fs::create_dir_all(res.join(folder)).unwrap();
        std::fs::write(res.join(folder).join(name), text).unwrap();
    }
    let res = res.display().to_string();

    // Printing needs no node, and what is printed can be applied.
    let mut command = Command::new(binary::edge_runtime());
    let printed = run::finish(command.args(["import", "edgex", &res]), "", wait::DEADLINE).ok();
    assert!(
        printed.stderr.contains("tank.yaml:6:") && printed.stderr.contains("\"Object\" is no type here"),
        "{printed}"
    );
    let mut command = Command::new(binary::edge_runtime());
    let json = run::finish(command.args(["import", "edgex", &res, "-o", "json"]), "", wait::DEADLINE).ok().json();
    assert_eq!(json["items"].as_array().map(Vec::len), Some(2), "{json}");

    node.start();
    let applied = node.cli(&["import", "edgex", &res, "--apply"]).ok();
    assert_eq!(applied.stdout, "devicemodel/random-tank created\ndevice/tank-1 created\n");
    assert_eq!(node.apply(&printed.stdout).stdout, "devicemodel/random-tank unchanged\ndevice/tank-1 unchanged\n");
    node.until("the device is read", || {
        let text = node.cli(&["device", "get", "tank-1", "Level"]).ok().stdout;
        let level: Option<f64> = text.strip_suffix(" m\n").and_then(|t| t.parse().ok());
        level.filter(|l| (2.0..=4.0).contains(l))
    });
    let nothing = node.cli(&["import", "edgex", &node.folder().join("res/devices").display().to_string()]);
    assert!(!nothing.status.success() && nothing.stderr.contains("is not among the files"), "{nothing}");
}
