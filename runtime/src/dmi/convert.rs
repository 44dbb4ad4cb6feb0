//! Objects as DMI messages.

use edge_model::Object;
use serde_json::Value;

use super::messages::{
    Any, CustomizedValue, Device, DeviceMethod, DeviceModel, DeviceModelSpec, DeviceProperty, DeviceSpec,
    ModelProperty, ProtocolConfig, TwinProperty,
};

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The protocol of a Device or a DeviceModel.
pub(super) fn protocol(object: &Object) -> &str {
    let spec = object.spec();
    spec["protocol"]["protocolName"].as_str().or_else(|| spec["protocol"].as_str()).unwrap_or_default()
}

/// A DeviceModel.
pub(super) fn model(object: &Object) -> DeviceModel {
    let property = |p: &Value| ModelProperty {
        name: text(&p["name"]),
        description: text(&p["description"]),
        r#type: text(&p["type"]),
        access_mode: text(&p["accessMode"]),
        minimum: text(&p["minimum"]),
        maximum: text(&p["maximum"]),
        unit: text(&p["unit"]),
    };
    DeviceModel {
        name: object.metadata.name.clone(),
        namespace: object.metadata.namespace.clone(),
        spec: Some(DeviceModelSpec { properties: list(&object.spec()["properties"]).map(property).collect() }),
    }
}

/// A Device.
pub(super) fn device(object: &Object) -> Device {
    let spec = object.spec();
    let property = |p: &Value| DeviceProperty {
        name: text(&p["name"]),
        desired: p.get("desired").map(|d| TwinProperty {
            value: text(&d["value"]),
            metadata: d["metadata"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect(),
        }),
        visitors: p.get("visitors").map(config),
        report_cycle: p["reportCycle"].as_i64().unwrap_or_default(),
        collect_cycle: p["collectCycle"].as_i64().unwrap_or_default(),
        report_to_cloud: p["reportToCloud"] == true,
    };
    let method = |m: &Value| DeviceMethod {
        name: text(&m["name"]),
        description: text(&m["description"]),
        property_names: list(&m["propertyNames"]).map(text).collect(),
    };
    Device {
        name: object.metadata.name.clone(),
        namespace: object.metadata.namespace.clone(),
        spec: Some(DeviceSpec {
            device_model_reference: text(&spec["deviceModelRef"]["name"]),
            protocol: Some(config(&spec["protocol"])),
            properties: list(&spec["properties"]).map(property).collect(),
            methods: list(&spec["methods"]).map(method).collect(),
        }),
        status: None,
    }
}

fn config(value: &Value) -> ProtocolConfig {
    let data = value["configData"].as_object();
    ProtocolConfig {
        protocol_name: text(&value["protocolName"]),
        config_data: data.map(|map| CustomizedValue { data: map.iter().map(|(k, v)| (k.clone(), any(v))).collect() }),
    }
}

/// A setting as KubeEdge's mapper framework reads it: wrapped in the well-known types (`google/protobuf/wrappers.proto`, all
/// with one field of number 1). What has parts goes as JSON text.
fn any(value: &Value) -> Any {
    use prost::Message as _;
    let (name, value) = match value {
        Value::Bool(b) => ("BoolValue", b.encode_to_vec()),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => ("Int64Value", i.encode_to_vec()),
            (None, x) => ("DoubleValue", x.unwrap_or_default().encode_to_vec()),
        },
        other => ("StringValue", text(other).encode_to_vec()),
    };
    Any { type_url: format!("type.googleapis.com/google.protobuf.{name}"), value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::Kind;
    use serde_json::json;

    #[test]
    fn settings_are_wrapped_by_type() {
        assert_eq!(any(&json!("a")).value, [0x0a, 1, b'a']);
        assert_eq!(any(&json!(300)).value, [0x08, 0xac, 0x02]);
        assert_eq!(any(&json!(true)).type_url, "type.googleapis.com/google.protobuf.BoolValue");
        assert_eq!(any(&json!(1.5)).type_url, "type.googleapis.com/google.protobuf.DoubleValue");
        assert_eq!(any(&json!({"a": 1})).type_url, "type.googleapis.com/google.protobuf.StringValue");
    }

    #[test]
    fn a_device_keeps_what_it_says() {
        let spec = json!({
            "deviceModelRef": {"name": "m"}, "protocol": {"protocolName": "dali", "configData": {"bus": 1}},
            "properties": [{"name": "p", "desired": {"value": "5"}, "collectCycle": 100, "reportToCloud": true}],
            "methods": [{"name": "set", "propertyNames": ["p"]}],
        });
        let object = Object::new(Kind::Device, "site", "d", spec);
        let d = device(&object);
        assert_eq!((d.name.as_str(), d.namespace.as_str(), protocol(&object)), ("d", "site", "dali"));
        let spec = d.spec.unwrap();
        assert_eq!(spec.properties[0].desired.as_ref().unwrap().value, "5");
        assert_eq!(spec.properties[0].collect_cycle, 100);
        assert_eq!(spec.methods[0].property_names, ["p"]);
        assert!(spec.protocol.unwrap().config_data.unwrap().data.contains_key("bus"));
    }
}
