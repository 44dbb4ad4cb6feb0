//! KubeEdge's devices: typed views of the specs of `DeviceModel` and `Device` (`devices.kubeedge.io/v1beta1`).
//!
//! Source: KubeEdge, `staging/src/github.com/kubeedge/api/apis/devices/v1beta1/*_types.go`. The YAML is theirs, unchanged.
//! What a gateway needs and KubeEdge has no word for lives in `configData`, which KubeEdge leaves to the protocol
//! ([`modbus`], [`bluetooth`], [`mqtt`], [`http`], [`snmp`], [`onvif`] and [`simulated`] document each key).
//!
//! Decisions where KubeEdge leaves room:
//! * `collectCycle` and `reportCycle` are milliseconds, as in KubeEdge's mapper framework. Its older examples wrote
//!   nanoseconds; such a value is refused with that hint instead of polling once a month.
//! * `minimum`, `maximum` and `desired.value` are text in KubeEdge; a bare YAML number or boolean is taken as well.
//! * `methods` are accepted and checked: a method is a named group of properties that may be written.
//! * `pushMethod` and the model type `STREAM` are refused: readings leave over the bus and the queue.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::object::ObjectError;

pub mod behaviour;
pub mod bluetooth;
pub mod http;
pub mod modbus;
pub mod mqtt;
pub mod onvif;
pub mod simulated;
pub mod snmp;
pub mod status;
#[cfg(test)]
mod tests;

/// The protocol name of devices the runtime polls itself over Modbus. Devices with a name that is none of those here belong
/// to a mapper in a pod, which speaks KubeEdge's device topics.
pub const MODBUS: &str = "modbus";
/// The protocol name of devices the runtime hears and connects itself over Bluetooth Low Energy.
pub const BLUETOOTH: &str = "bluetooth";
/// The protocol name of devices with MQTT topics of their own.
pub const MQTT: &str = "mqtt";
/// The protocol name of devices with an HTTP interface.
pub const HTTP: &str = "http";
/// The protocol name of SNMP agents.
pub const SNMP: &str = "snmp";
/// The protocol name of cameras that speak ONVIF.
pub const ONVIF: &str = "onvif";
/// The protocol name of virtual devices.
pub const VIRTUAL: &str = "virtual";
/// The collect and report cycle of properties that name none, in milliseconds (KubeEdge's `DefaultCollectCycle`).
pub const DEFAULT_CYCLE_MS: u64 = 1_000;
/// The shortest cycle, in milliseconds.
pub const MIN_CYCLE_MS: u64 = 10;
/// The longest cycle, in milliseconds: one day.
pub const MAX_CYCLE_MS: u64 = 86_400_000;
/// The most properties of one model or device.
pub const MAX_PROPERTIES: usize = 4_096;

/// `DeviceModel.spec`: what a type of device looks like.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceModel {
    /// Its properties, names unique.
    #[serde(default)]
    pub properties: Vec<ModelProperty>,
    /// The protocol its devices speak, such as `modbus`.
    pub protocol: String,
    /// Defaults for the devices' `protocol.configData`, key by key.
    #[serde(default)]
    pub protocol_config_data: Option<Value>,
}

/// One property of a model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelProperty {
    /// Its name, unique in the model.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The type of its values.
    #[serde(rename = "type")]
    pub value_type: PropertyType,
    /// Whether it can be written.
    pub access_mode: AccessMode,
    /// The smallest value allowed, in the property's unit.
    #[serde(default, deserialize_with = "scalar")]
    pub minimum: Option<String>,
    /// The largest value allowed, in the property's unit.
    #[serde(default, deserialize_with = "scalar")]
    pub maximum: Option<String>,
    /// The unit of its values, such as `°C`.
    #[serde(default)]
    pub unit: String,
    /// Defaults for the devices' `visitors`, key by key.
    #[serde(default)]
    pub visitors: Option<ProtocolConfig>,
}

/// The type of a property's values. KubeEdge's `STREAM` (video) has no place in a twin and is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PropertyType {
    /// Integers.
    Int,
    /// Floats of single precision.
    Float,
    /// Floats of double precision.
    Double,
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// Bytes, base64 on JSON.
    Bytes,
}

impl PropertyType {
    /// KubeEdge's word for it in a twin's metadata, such as `int`.
    pub const fn word(self) -> &'static str {
        match self {
            PropertyType::Int => "int",
            PropertyType::Float => "float",
            PropertyType::Double => "double",
            PropertyType::String => "string",
            PropertyType::Boolean => "boolean",
            PropertyType::Bytes => "bytes",
        }
    }
}

/// Whether a property can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum AccessMode {
    /// Only read.
    ReadOnly,
    /// Read and written.
    ReadWrite,
}

/// `Device.spec`: one device in the field.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Its model, in the same namespace.
    pub device_model_ref: ModelRef,
    /// The node it is attached to; empty for whichever node has the object.
    #[serde(default)]
    pub node_name: String,
    /// The properties to collect, names unique, each one of the model's.
    #[serde(default)]
    pub properties: Vec<DeviceProperty>,
    /// How to reach it.
    pub protocol: ProtocolConfig,
    /// Named groups of writable properties.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// How its state is reported. States go to the cloud unless this says otherwise.
    #[serde(default)]
    pub state_report: Option<StateReport>,
}

/// A reference to a model by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRef {
    /// The model's name.
    pub name: String,
}

/// A protocol with its settings; `protocol` of a device and `visitors` of a property have the same shape.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProtocolConfig {
    /// The protocol's name, such as `modbus`.
    pub protocol_name: String,
    /// Its settings, which only the protocol knows.
    #[serde(default)]
    pub config_data: Option<Value>,
}

/// One property of a device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceProperty {
    /// The name of the model's property.
    pub name: String,
    /// The value it should have.
    #[serde(default)]
    pub desired: Option<Desired>,
    /// Where it is found in the device; the model's `visitors` give defaults.
    #[serde(default)]
    pub visitors: Option<ProtocolConfig>,
    /// How often to report it, in milliseconds; every reading when absent or 0.
    #[serde(default)]
    pub report_cycle: u64,
    /// How often to read it, in milliseconds; [`DEFAULT_CYCLE_MS`] when absent or 0.
    #[serde(default)]
    pub collect_cycle: u64,
    /// Whether its readings go to the cloud.
    #[serde(default)]
    pub report_to_cloud: bool,
    /// KubeEdge's direct push to databases; refused.
    #[serde(default)]
    push_method: Option<Value>,
}

impl DeviceProperty {
    /// How often to read it, in milliseconds.
    pub const fn collect_ms(&self) -> u64 {
        if self.collect_cycle == 0 { DEFAULT_CYCLE_MS } else { self.collect_cycle }
    }
}

/// A desired value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// The value as text; `None` (or empty, as KubeEdge writes it) when nothing is desired.
    #[serde(default, deserialize_with = "scalar")]
    pub value: Option<String>,
    /// KubeEdge's metadata (`timestamp`, `type`), kept and not interpreted.
    #[serde(default)]
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// A named group of properties that may be written together with it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Method {
    /// Its name, unique in the device.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The properties it may write.
    pub property_names: Vec<String>,
}

/// How a device's state is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateReport {
    /// Whether changes of state go to the cloud.
    #[serde(default)]
    pub report_to_cloud: bool,
    /// KubeEdge repeats the state so often, in milliseconds; here a state is reported when it changes.
    #[serde(default)]
    pub report_cycle: u64,
}

/// Text, or a number or boolean spelled without quotes; KubeEdge's empty string means absent.
fn scalar<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(s) => Ok(Some(s).filter(|s| !s.is_empty())),
        Value::Bool(b) => Ok(Some(b.to_string())),
        Value::Number(n) => Ok(Some(n.to_string())),
        other => Err(serde::de::Error::custom(format!("{other} is not a string, a number or a boolean"))),
    }
}

fn fail<T>(path: impl Into<String>, message: impl Into<String>) -> Result<T, ObjectError> {
    Err(ObjectError { path: path.into(), message: message.into() })
}

/// Deserialises below `root`, naming the field on failure.
fn view<'de, T: Deserialize<'de>>(root: &str, value: &'de Value) -> Result<T, ObjectError> {
    if value.is_null() {
        return fail(root, "is missing");
    }
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = match e.path().to_string().as_str() {
            "." => root.to_owned(),
            inner if inner.starts_with('[') => format!("{root}{inner}"),
            inner => format!("{root}.{inner}"),
        };
        ObjectError { path, message: e.inner().to_string() }
    })
}

/// Checks a list's length and that its names are neither empty nor repeated.
fn names<'a>(path: &str, all: impl ExactSizeIterator<Item = &'a str>) -> Result<(), ObjectError> {
    if all.len() > MAX_PROPERTIES {
        return fail(path, format!("{} entries are more than {MAX_PROPERTIES}", all.len()));
    }
    let mut seen = std::collections::HashSet::new();
    for (i, name) in all.enumerate() {
        let at = || format!("{path}[{i}].name");
        // KubeEdge's ErrorKey: at most 128 bytes of letters, digits and - _ . , : / @ #.
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@#".contains(c);
        if name.is_empty() || name.len() > 128 || !name.chars().all(allowed) {
            return fail(at(), format!("{name:?} is not a name: 1 to 128 letters, digits or any of - _ . , : / @ #"));
        }
        if !seen.insert(name) {
            return fail(at(), format!("{name:?} is there twice"));
        }
    }
    Ok(())
}

fn cycle(path: String, ms: u64) -> Result<(), ObjectError> {
    match ms {
        0 | MIN_CYCLE_MS..=MAX_CYCLE_MS => Ok(()),
        _ => {
            let hint =
                if ms > MAX_CYCLE_MS { " (milliseconds; older KubeEdge examples wrote nanoseconds)" } else { "" };
            fail(path, format!("{ms} is not between {MIN_CYCLE_MS} and {MAX_CYCLE_MS} milliseconds{hint}"))
        }
    }
}

impl DeviceModel {
    /// Takes apart and checks `spec` of a `DeviceModel`.
    ///
    /// # Errors
    /// Names the field (from `spec` on), what is wrong with it and what would be right.
    pub fn parse(spec: &Value) -> Result<DeviceModel, ObjectError> {
        let model: DeviceModel = view("spec", spec)?;
        if model.protocol.is_empty() {
            return fail("spec.protocol", "is empty; name the protocol, such as modbus");
        }
        names("spec.properties", model.properties.iter().map(|p| p.name.as_str()))?;
        for (i, p) in model.properties.iter().enumerate() {
            let at = |field: &str| format!("spec.properties[{i}].{field}");
            let number = |field: &str, text: &Option<String>| match text {
                Some(t) if !matches!(t.parse::<f64>(), Ok(n) if n.is_finite()) => {
                    fail(at(field), format!("{t:?} is not a number"))
                }
                Some(_) if !matches!(p.value_type, PropertyType::Int | PropertyType::Float | PropertyType::Double) => {
                    fail(at(field), "only INT, FLOAT and DOUBLE have limits")
                }
                Some(t) => Ok(t.parse::<f64>().ok()),
                None => Ok(None),
            };
            let (min, max) = (number("minimum", &p.minimum)?, number("maximum", &p.maximum)?);
            if matches!((min, max), (Some(min), Some(max)) if min > max) {
                return fail(at("minimum"), "is above maximum");
            }
            if let Some(v) = &p.visitors {
                visitor(&at("visitors"), v, &model.protocol)?;
                if v.config_data.as_ref().is_some_and(|d| d.get(behaviour::EXPOSE).is_some()) {
                    let path = format!("{}.{}", at("visitors.configData"), behaviour::EXPOSE);
                    return fail(path, "belongs to a Device: two devices of this model would share the register");
                }
            }
        }
        if let Some(data) = &model.protocol_config_data {
            mapping("spec.protocolConfigData", data)?;
            behaviour::health("spec.protocolConfigData", None, Some(data))?;
        }
        Ok(model)
    }

    /// The property with this name.
    pub fn property(&self, name: &str) -> Option<&ModelProperty> {
        self.properties.iter().find(|p| p.name == name)
    }
}

fn mapping(path: &str, data: &Value) -> Result<(), ObjectError> {
    if data.is_object() { Ok(()) } else { fail(path, "must be a mapping") }
}

fn visitor(path: &str, v: &ProtocolConfig, protocol: &str) -> Result<(), ObjectError> {
    if v.protocol_name != protocol {
        return fail(
            format!("{path}.protocolName"),
            format!("{:?} is not the protocol of the device, {protocol:?}", v.protocol_name),
        );
    }
    if let Some(data) = &v.config_data {
        mapping(&format!("{path}.configData"), data)?;
        let path = format!("{path}.configData");
        behaviour::check_report(&path, data)?;
        behaviour::expose(&path, Some(data))?;
        let data = behaviour::visitor_data(data);
        match protocol {
            BLUETOOTH => view::<bluetooth::Visitor>(&path, &data).map(drop)?,
            MODBUS => view::<modbus::Visitor>(&path, &data).map(drop)?,
            MQTT => view::<mqtt::Visitor>(&path, &data).map(drop)?,
            HTTP => view::<http::Visitor>(&path, &data).map(drop)?,
            SNMP => view::<snmp::Visitor>(&path, &data).map(drop)?,
            ONVIF => view::<onvif::Visitor>(&path, &data).map(drop)?,
            VIRTUAL => view::<simulated::Visitor>(&path, &data).map(drop)?,
            _ => {}
        }
    }
    Ok(())
}

impl Device {
    /// Takes apart and checks `spec` of a `Device`, as far as that can be done without its model.
    ///
    /// # Errors
    /// Names the field (from `spec` on), what is wrong with it and what would be right.
    pub fn parse(spec: &Value) -> Result<Device, ObjectError> {
        let device: Device = view("spec", spec)?;
        if !crate::name::is_subdomain(&device.device_model_ref.name) {
            return fail("spec.deviceModelRef.name", "name the DeviceModel of this device");
        }
        let protocol = &device.protocol;
        if protocol.protocol_name.is_empty() {
            return fail("spec.protocol.protocolName", "is empty; name the protocol, such as modbus");
        }
        if let Some(data) = &protocol.config_data {
            mapping("spec.protocol.configData", data)?;
            let path = "spec.protocol.configData";
            behaviour::health(path, None, Some(data))?;
            let data = behaviour::link_data(data);
            match protocol.protocol_name.as_str() {
                BLUETOOTH => view::<bluetooth::Link>(path, &data).map(drop)?,
                MODBUS => view::<modbus::Link>(path, &data).map(drop)?,
                MQTT => view::<mqtt::Link>(path, &data).map(drop)?,
                HTTP => view::<http::Link>(path, &data).map(drop)?,
                SNMP => view::<snmp::Link>(path, &data).map(drop)?,
                ONVIF => view::<onvif::Link>(path, &data).map(drop)?,
                VIRTUAL => view::<simulated::Link>(path, &data).map(drop)?,
                _ => {}
            }
        }
        names("spec.properties", device.properties.iter().map(|p| p.name.as_str()))?;
        for (i, p) in device.properties.iter().enumerate() {
            let at = |field: &str| format!("spec.properties[{i}].{field}");
            cycle(at("collectCycle"), p.collect_cycle)?;
            cycle(at("reportCycle"), p.report_cycle)?;
            if p.push_method.is_some() {
                let data = crate::topic::Topic::DeviceData("<id>".to_owned());
                let instead = format!("readings go on the bus ({data}) and, with reportToCloud, to the cloud");
                return fail(at("pushMethod"), format!("is not supported: {instead}"));
            }
            if let Some(v) = &p.visitors {
                visitor(&at("visitors"), v, &protocol.protocol_name)?;
            }
        }
        names("spec.methods", device.methods.iter().map(|m| m.name.as_str()))?;
        for (i, m) in device.methods.iter().enumerate() {
            if let Some(n) = m.property_names.iter().find(|n| device.property(n).is_none()) {
                return fail(
                    format!("spec.methods[{i}].propertyNames"),
                    format!("{n:?} is not a property of the device"),
                );
            }
        }
        if let Some(report) = device.state_report {
            cycle("spec.stateReport.reportCycle".to_owned(), report.report_cycle)?;
        }
        Ok(device)
    }

    /// The property with this name.
    pub fn property(&self, name: &str) -> Option<&DeviceProperty> {
        self.properties.iter().find(|p| p.name == name)
    }
}

/// Checks `spec` of a `DeviceModel`.
///
/// # Errors
/// As [`DeviceModel::parse`].
pub fn check_model(spec: &Value) -> Result<(), ObjectError> {
    DeviceModel::parse(spec).map(drop)
}

/// Checks `spec` of a `Device`, as far as that can be done without its model.
///
/// # Errors
/// As [`Device::parse`].
pub fn check_device(spec: &Value) -> Result<(), ObjectError> {
    Device::parse(spec).map(drop)
}

/// Settings with defaults: the keys of `over` replace those of `under`, as KubeEdge's devices override their model.
pub fn merged(under: Option<&Value>, over: Option<&Value>) -> Value {
    let mut map = under.and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, value) in over.and_then(Value::as_object).into_iter().flatten() {
        map.insert(key.clone(), value.clone());
    }
    Value::Object(map)
}
