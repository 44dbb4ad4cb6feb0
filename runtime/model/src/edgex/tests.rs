//! Files in the shape of EdgeX' services, and the objects they become: which the product itself accepts.

use serde_json::{Value, json};

use super::*;

const PUMP: &str = r#"
name: "Pump-Station_3"
manufacturer: Acme
labels: [water]
deviceResources:
  - name: Running
    isHidden: true
    attributes: {primaryTable: COILS, startingAddress: 4}
    properties: {valueType: Bool, readWrite: RW, defaultValue: "0"}
  - name: Fault
    attributes: {primaryTable: HOLDING_REGISTERS, startingAddress: "10.3"}
    properties: {valueType: Bool, readWrite: R}
  - name: Pressure
    description: in front of the valve
    attributes: {primaryTable: INPUT_REGISTERS, startingAddress: "7", rawType: Int16, isByteSwap: true}
    properties: {valueType: Float32, readWrite: R, scale: 0.1, offset: -5, units: bar, minimum: "-5", maximum: "16"}
  - name: Speed
    attributes: {primaryTable: HOLDING_REGISTERS, startingAddress: 20, isWordSwap: "true"}
    properties: {valueType: Uint32, readWrite: W, maximum: 3000}
  - name: Serial
    attributes: {primaryTable: HOLDING_REGISTERS, startingAddress: 30, rawType: String, stringRegisterSize: 8}
    properties: {valueType: String, readWrite: R}
  - name: Curve
    attributes: {primaryTable: HOLDING_REGISTERS, startingAddress: 40}
    properties: {valueType: Float32Array, readWrite: R}
  - name: Warning
    attributes: {primaryTable: HOLDING_REGISTERS, startingAddress: 11.1}
    properties: {valueType: Bool, readWrite: R}
  - name: Level
    attributes: {primaryTable: HOLDING_REGISTERS, startingAddress: 50}
    properties: {valueType: Int16, readWrite: R, mask: 255}
deviceCommands:
  - name: Drive
    readWrite: RW
    resourceOperations:
      - {deviceResource: Running, mappings: {"true": "ON"}}
      - {deviceResource: Speed}
      - {deviceResource: Pressure}
"#;

const PUMPS: &str = r#"
deviceList:
  - name: Pump-3
    profileName: Pump-Station_3
    protocols:
      modbus-tcp: {Address: 10.0.0.3, Port: "1502", UnitID: 7, Timeout: 2, IdleTimeout: 5}
    autoEvents:
      - {interval: 5s, onChange: false, sourceName: Drive}
      - {interval: 1m30s, sourceName: Serial}
      - {interval: often, sourceName: Level}
  - name: Pump-4
    profileName: Pump-Station_3
    protocols:
      modbus-rtu: {Address: /dev/ttyS0, UnitID: 1}
  - name: Pump-5
    profileName: Elsewhere
    protocols: {modbus-tcp: {Address: 10.0.0.5}}
"#;

fn converted(files: &[(&str, &str)]) -> Outcome {
    let trees: Vec<Tree> = files.iter().map(|(name, text)| Tree::parse(name, text.as_bytes()).unwrap()).collect();
    let outcome = convert(&trees);
    for object in &outcome.objects {
        crate::check::wanted(object.clone()).unwrap_or_else(|e| panic!("{e:?}: {object:#}"));
    }
    outcome
}

fn property<'a>(object: &'a Value, name: &str) -> &'a Value {
    let all = object["spec"]["properties"].as_array().unwrap();
    all.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no {name}: {object:#}"))
}

#[test]
fn a_modbus_profile_and_its_devices() {
    let outcome = converted(&[("devices.yaml", PUMPS), ("pump.yaml", PUMP)]);
    let [model, device] = outcome.objects.as_slice() else { panic!("{:#?}", outcome.objects) };
    assert_eq!((&model["metadata"]["name"], &model["spec"]["protocol"]), (&json!("pump-station-3"), &json!("modbus")));
    let visitor = |name: &str| property(model, name)["visitors"]["configData"].clone();
    assert_eq!(visitor("Running"), json!({"register": "CoilRegister", "offset": 4}));
    assert_eq!(visitor("Fault"), json!({"register": "HoldingRegister", "offset": 10, "bit": 3}));
    assert_eq!(
        visitor("Pressure"),
        json!({"register": "InputRegister", "offset": 7, "dataType": "int16", "isSwap": true, "scale": 0.1, "bias": -5.0})
    );
    assert_eq!(
        visitor("Speed"),
        json!({"register": "HoldingRegister", "offset": 20, "dataType": "uint32", "isRegisterSwap": true, "readBack": false})
    );
    assert_eq!(
        visitor("Serial"),
        json!({"register": "HoldingRegister", "offset": 30, "dataType": "string", "limit": 8})
    );
    let pressure = property(model, "Pressure");
    let said =
        ["type", "accessMode", "unit", "minimum", "maximum", "description"].map(|k| pressure[k].as_str().unwrap());
    assert_eq!(said, ["FLOAT", "ReadOnly", "bar", "-5", "16", "in front of the valve"]);

    assert_eq!(device["metadata"]["name"], "pump-3");
    let link = json!({"ip": "10.0.0.3", "port": 1502, "slaveID": 7, "timeout": 2000});
    assert_eq!(device["spec"]["protocol"]["configData"], link);
    let cycles = ["Running", "Speed", "Serial", "Level"].map(|p| property(device, p)["collectCycle"].as_u64().unwrap());
    assert_eq!(cycles, [5_000, 5_000, 90_000, 60_000]);
    assert_eq!(
        (&property(device, "Serial")["reportToCloud"], &property(device, "Level")["reportToCloud"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(device["spec"]["methods"], json!([{"name": "Drive", "propertyNames": ["Running", "Speed"]}]));

    let left: Vec<String> = outcome.left.iter().map(ToString::to_string).collect();
    let wanted = [
        ("pump.yaml:25:", "deviceResources[5].properties.valueType", "Float32Array"),
        ("pump.yaml:27:", "deviceResources[6].attributes.startingAddress", "in quotes"),
        ("pump.yaml:31:", "deviceResources[7].properties.mask", "not known"),
        ("pump.yaml:36:", "mappings", "names for values"),
        ("devices.yaml:10:", "deviceList[0].autoEvents[2].interval", "duration"),
        ("devices.yaml:14:", "deviceList[1].protocols.modbus-rtu", "modbus-tcp"),
        ("devices.yaml:16:", "deviceList[2].profileName", "not among the files"),
    ];
    assert_eq!(left.len(), wanted.len(), "{left:#?}");
    for ((place, key, why), line) in wanted.iter().zip(&left) {
        assert!(line.starts_with(place) && line.contains(key) && line.contains(why), "{place} {key} {why}: {line}");
    }
}

#[test]
fn snmp_mqtt_and_virtual_devices() {
    let profile = |name: &str, attributes: &str| {
        format!(
            "name: {name}\ndeviceResources:\n  - name: Level\n    attributes: {attributes}\n    \
             properties: {{valueType: Int32, readWrite: RW, minimum: '1', maximum: '5'}}\n"
        )
    };
    let devices = "\
DeviceList:
  - Name: Tower
    ProfileName: tower
    Protocols: {TCP: {Address: 192.168.10.2, Port: '161'}}
    AutoEvents: [{Interval: 10s, OnChange: true, SourceName: Level}]
  - Name: Sensor
    ProfileName: sensor
    Protocols: {mqtt: {CommandTopic: CommandTopic}}
  - Name: Random
    ProfileName: random
    Protocols: {other: {Address: device-virtual-01, Port: '300'}}
";
    let files = [
        ("a", profile("tower", "{oid: 1.3.6.1.4.1.1.1.0, community: private}")),
        ("b", profile("sensor", "{}")),
        ("c", profile("random", "{}")),
        ("d", devices.to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    let outcome = converted(&files);
    let protocols: Vec<&str> = outcome.objects.iter().filter_map(|o| o["spec"]["protocol"].as_str()).collect();
    assert_eq!(protocols, ["snmp", "mqtt", "virtual"]);
    let data = |i: usize| outcome.objects[i]["spec"]["protocol"]["configData"].clone();
    assert_eq!(data(3), json!({"host": "192.168.10.2", "port": 161, "community": "private"}));
    assert_eq!(data(4), json!({"base": "incoming/data/Sensor"}));
    let visitor = |i: usize| property(&outcome.objects[i], "Level")["visitors"]["configData"].clone();
    assert_eq!(visitor(0), json!({"oid": "1.3.6.1.4.1.1.1.0"}));
    assert_eq!(visitor(1), json!({"topic": "~/Level"}));
    assert_eq!(visitor(2), json!({"generator": "random", "low": 1.0, "high": 5.0}));
    assert_eq!(outcome.left.len(), 1, "{:?}", outcome.left);
    assert!(outcome.left[0].message.contains("can only be read"));
}

#[test]
fn names_and_durations() {
    assert_eq!(name("Modbus_TCP  test!"), "modbus-tcp-test");
    let cases = [("20s", Some(20_000)), ("1m30s", Some(90_000)), ("500ms", Some(500)), ("1.5h", Some(5_400_000))];
    for (text, ms) in cases.into_iter().chain([("", None), ("5", None), ("s", None), ("1x", None), ("99h", None)]) {
        assert_eq!(duration(text), ms, "{text}");
    }
    let neither = converted(&[("configuration.yaml", "Writable: {LogLevel: INFO}\n")]);
    assert!(
        neither.objects.is_empty() && neither.left[0].to_string().starts_with("configuration.yaml:1:1: is neither")
    );
}
