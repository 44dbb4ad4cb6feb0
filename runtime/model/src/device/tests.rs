//! Tables of what is accepted and what is refused, and where the message points.

use serde_json::{Value, json};

use super::*;

fn model() -> Value {
    json!({
        "protocol": "modbus",
        "properties": [
            {"name": "temperature", "description": "d", "type": "INT", "accessMode": "ReadWrite", "maximum": 100, "minimum": "1", "unit": "°C"},
            {"name": "on", "type": "BOOLEAN", "accessMode": "ReadOnly"},
        ],
    })
}

/// KubeEdge's own example of a Modbus device, with our keys beside theirs.
fn device() -> Value {
    json!({
        "deviceModelRef": {"name": "modbus-model"},
        "nodeName": "worker-node1",
        "protocol": {"protocolName": "modbus", "configData": {"ip": "172.17.0.3", "port": 1502, "slaveID": 1, "communicateMode": "TCP"}},
        "properties": [{
            "name": "temperature",
            "collectCycle": 10000, "reportCycle": 10000, "reportToCloud": true,
            "desired": {"value": "30", "metadata": {"timestamp": "1550049403598", "type": "int"}},
            "visitors": {"protocolName": "modbus", "configData": {
                "register": "HoldingRegister", "offset": 2, "limit": 1, "scale": 1, "isSwap": true, "isRegisterSwap": true}},
        }],
        "methods": [{"name": "setTemperature", "propertyNames": ["temperature"]}],
    })
}

#[test]
fn kubeedge_yaml_is_taken_as_it_is() {
    let m = DeviceModel::parse(&model()).unwrap();
    assert_eq!(m.property("temperature").unwrap().maximum.as_deref(), Some("100"));
    let d = Device::parse(&device()).unwrap();
    assert_eq!(d.properties[0].desired.as_ref().unwrap().value.as_deref(), Some("30"));
    assert_eq!(d.properties[0].collect_ms(), 10_000);
}

/// Sets the value at a JSON pointer, making the last key.
fn with(mut spec: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match spec.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        other => other[key] = value,
    }
    spec
}

#[test]
fn models_are_refused_with_the_field() {
    let cases = [
        ("/protocol", json!(""), "spec.protocol", "modbus"),
        ("/colour", json!(1), "spec.colour", "unknown field"),
        ("/properties/0/type", json!("STREAM"), "spec.properties[0].type", "INT"),
        ("/properties/0/type", json!("int"), "spec.properties[0].type", "INT"),
        ("/properties/0/accessMode", json!("Write"), "spec.properties[0].accessMode", "ReadWrite"),
        ("/properties/0/minimum", json!("low"), "spec.properties[0].minimum", "not a number"),
        ("/properties/0/minimum", json!(101), "spec.properties[0].minimum", "above maximum"),
        ("/properties/1/minimum", json!(0), "spec.properties[1].minimum", "only INT"),
        ("/properties/1/name", json!("temperature"), "spec.properties[1].name", "twice"),
        ("/properties/1/name", json!("a b"), "spec.properties[1].name", "letters"),
        ("/protocolConfigData", json!(3), "spec.protocolConfigData", "mapping"),
    ];
    for (pointer, value, path, part) in cases {
        let e = DeviceModel::parse(&with(model(), pointer, value.clone())).unwrap_err();
        assert_eq!(e.path, path, "{pointer} {value}: {e}");
        assert!(e.message.contains(part), "{e}");
    }
    assert_eq!(check_model(&Value::Null).unwrap_err().path, "spec");
}

#[test]
fn devices_are_refused_with_the_field() {
    let cases = [
        ("/deviceModelRef", json!({}), "spec.deviceModelRef", "name"),
        ("/deviceModelRef/name", json!(""), "spec.deviceModelRef.name", "DeviceModel"),
        ("/protocol/configData/ip", json!(7), "spec.protocol.configData.ip", "string"),
        ("/protocol/configData/port", json!(70000), "spec.protocol.configData.port", "fits"),
        ("/protocol/configData/communicateMode", json!("BUS"), "spec.protocol.configData.communicateMode", "TCP"),
        ("/protocol/configData/serialProt", json!("/dev/ttyS0"), "spec.protocol.configData.serialProt", "unknown"),
        ("/properties/0/collectCycle", json!(10_000_000_000_u64), "spec.properties[0].collectCycle", "nanoseconds"),
        ("/properties/0/collectCycle", json!(1), "spec.properties[0].collectCycle", "between"),
        ("/properties/0/pushMethod", json!({"mqtt": {}}), "spec.properties[0].pushMethod", "not supported"),
        ("/properties/0/visitors/protocolName", json!("opcua"), "spec.properties[0].visitors.protocolName", "modbus"),
        (
            "/properties/0/visitors/configData/register",
            json!("Holding"),
            "spec.properties[0].visitors.configData.register",
            "HoldingRegister",
        ),
        (
            "/properties/0/visitors/configData/dataType",
            json!("int7"),
            "spec.properties[0].visitors.configData.dataType",
            "int16",
        ),
        ("/methods/0/propertyNames", json!(["x"]), "spec.methods[0].propertyNames", "not a property"),
        ("/stateReport", json!({"reportCycle": 1}), "spec.stateReport.reportCycle", "between"),
    ];
    for (pointer, value, path, part) in cases {
        let e = Device::parse(&with(device(), pointer, value.clone())).unwrap_err();
        assert_eq!(e.path, path, "{pointer} {value}: {e}");
        assert!(e.message.contains(part), "{e}");
    }
    assert_eq!(check_device(&json!([])).unwrap_err().path, "spec");
}

#[test]
fn devices_override_their_model_key_by_key() {
    let got = merged(Some(&json!({"a": 1, "b": 2})), Some(&json!({"b": 3})));
    assert_eq!(got, json!({"a": 1, "b": 3}));
    assert_eq!(merged(None, None), json!({}));
}
