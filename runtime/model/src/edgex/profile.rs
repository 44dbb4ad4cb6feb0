//! A profile: a DeviceModel with visitors.

use serde_json::{Map, Value, json};

use super::places::At;
use super::{Outcome, name};
use crate::device::{MODBUS, MQTT, SNMP, VIRTUAL};

/// A device profile.
pub(super) struct Profile<'a> {
    pub(super) name: String,
    pub(super) at: At<'a>,
    /// Ours.
    pub(super) protocol: &'static str,
}

/// A resource that has become a property.
pub(super) struct Resource {
    pub(super) name: String,
    pub(super) writable: bool,
}

impl<'a> Profile<'a> {
    pub(super) fn new(at: At<'a>) -> Profile<'a> {
        Profile { name: at.text("name").unwrap_or_default(), at, protocol: VIRTUAL }
    }

    /// Chooses the protocol by what a device of it says, or by the attributes of its resources.
    pub(super) fn choose(&mut self, protocols: Option<&At<'_>>) {
        let first = self.resources_at().into_iter().find_map(|r| r.get("attributes"));
        let has = |key: &str| first.as_ref().is_some_and(|a| a.get(key).is_some());
        let says = |word: &str| {
            protocols.is_some_and(|p| p.entries().iter().any(|(name, _)| name.to_ascii_lowercase().starts_with(word)))
        };
        self.protocol = match () {
            () if says("modbus") || has("primaryTable") => MODBUS,
            () if says("snmp") || has("oid") => SNMP,
            () if says("mqtt") => MQTT,
            () => VIRTUAL,
        };
    }

    fn resources_at(&self) -> Vec<At<'a>> {
        self.at.get("deviceResources").map(|list| list.items()).unwrap_or_default()
    }

    /// The names of the resources of a command, or of the resource with this name.
    pub(super) fn members(&self, source: &str) -> Vec<String> {
        let commands = self.at.get("deviceCommands").map(|list| list.items()).unwrap_or_default();
        match commands.iter().find(|c| c.text("name").is_some_and(|n| n == source)) {
            None => vec![source.to_owned()],
            Some(command) => {
                let operations = command.get("resourceOperations").map(|list| list.items()).unwrap_or_default();
                operations.iter().filter_map(|o| o.text("deviceResource")).collect()
            }
        }
    }

    /// The commands that write: their names and what they write.
    pub(super) fn methods(&self, resources: &[Resource]) -> Vec<Value> {
        let commands = self.at.get("deviceCommands").map(|list| list.items()).unwrap_or_default();
        let one = |command: &At<'_>| {
            let (name, access) = (command.text("name")?, command.text("readWrite").unwrap_or_default());
            let writable = |n: &String| resources.iter().any(|r| r.name == *n && r.writable);
            let members: Vec<String> = self.members(&name).into_iter().filter(writable).collect();
            (access.contains('W') && !members.is_empty()).then(|| json!({"name": name, "propertyNames": members}))
        };
        commands.iter().filter_map(one).collect()
    }

    /// The communities the resources name, for SNMP.
    pub(super) fn community(&self) -> Option<String> {
        self.resources_at().iter().find_map(|r| r.get("attributes")?.text("community"))
    }

    /// The resources that can be properties.
    pub(super) fn resources(&self) -> Vec<Resource> {
        let mut nothing = Outcome::default();
        self.resources_at().iter().filter_map(|r| Some(self.property(r, &mut nothing)?.1)).collect()
    }

    /// The DeviceModel.
    pub(super) fn model(&self, outcome: &mut Outcome) {
        if name(&self.name).is_empty() {
            return outcome.leave(&self.at, "the profile has no name");
        }
        let mut properties = Vec::new();
        for resource in self.resources_at() {
            properties.extend(self.property(&resource, outcome).map(|p| p.0));
        }
        for command in self.at.get("deviceCommands").map(|list| list.items()).unwrap_or_default() {
            for operation in command.get("resourceOperations").map(|list| list.items()).unwrap_or_default() {
                if let Some(mappings) = operation.get("mappings") {
                    outcome.leave(&mappings, "names for values: they stay numbers");
                }
            }
        }
        outcome.objects.push(json!({
            "apiVersion": "devices.kubeedge.io/v1beta1",
            "kind": "DeviceModel",
            "metadata": {"name": name(&self.name)},
            "spec": {"protocol": self.protocol, "properties": properties},
        }));
    }

    /// A resource as a property of the model.
    fn property(&self, at: &At<'_>, outcome: &mut Outcome) -> Option<(Value, Resource)> {
        let Some(own) = at.text("name").filter(|n| !n.is_empty()) else {
            outcome.leave(at, "a resource without a name");
            return None;
        };
        let Some(properties) = at.get("properties") else {
            outcome.leave(at, "a resource without properties");
            return None;
        };
        let kind = properties.text("valueType").unwrap_or_default();
        let value_type = match kind.to_ascii_lowercase().as_str() {
            "bool" => "BOOLEAN",
            "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16" | "uint32" | "uint64" => "INT",
            "float32" => "FLOAT",
            "float64" => "DOUBLE",
            "string" => "STRING",
            "binary" => "BYTES",
            _ => {
                outcome.leave(
                    &properties.get("valueType").unwrap_or(properties.clone()),
                    format!("{kind:?} is no type here; {own} is left out"),
                );
                return None;
            }
        };
        let access = properties.text("readWrite").unwrap_or_else(|| "R".to_owned());
        let mut writable = access.contains('W');
        let visitor = match self.protocol {
            MODBUS => modbus(at, &properties, &kind, !access.contains('R'), outcome)?,
            SNMP => snmp(at, &properties, outcome)?,
            MQTT => {
                if writable {
                    outcome.leave(
                        at,
                        format!("EdgeX' answers to commands have topics of their own; {own} can only be read"),
                    );
                }
                writable = false;
                json!({"topic": format!("~/{own}")})
            }
            _ => virtual_values(&properties, value_type),
        };
        let mut property = Map::new();
        property.insert("name".into(), own.clone().into());
        property.insert("type".into(), value_type.into());
        property.insert("accessMode".into(), if writable { "ReadWrite" } else { "ReadOnly" }.into());
        if let Some(text) = at.text("description").filter(|t| !t.is_empty()) {
            property.insert("description".into(), text.into());
        }
        if let Some(unit) = properties.text("units") {
            property.insert("unit".into(), unit.into());
        }
        if matches!(value_type, "INT" | "FLOAT" | "DOUBLE") {
            for key in ["minimum", "maximum"] {
                if let Some(limit) = properties.number(key) {
                    property.insert(key.into(), limit.to_string().into());
                }
            }
        }
        for key in ["mask", "shift", "base", "assertion"] {
            let said = properties.get(key).filter(|v| v.said().is_some_and(|t| !matches!(t.as_str(), "" | "0")));
            if let Some(at) = said {
                outcome.leave(&at, "is not known here; values come without it");
            }
        }
        property.insert("visitors".into(), json!({"protocolName": self.protocol, "configData": visitor}));
        Some((Value::Object(property), Resource { name: own, writable }))
    }
}

/// Registers and how they make a value.
fn modbus(at: &At<'_>, properties: &At<'_>, kind: &str, write_only: bool, outcome: &mut Outcome) -> Option<Value> {
    let Some(attributes) = at.get("attributes") else {
        outcome.leave(at, "has no attributes: no register is known");
        return None;
    };
    let table = attributes.text("primaryTable").unwrap_or_default().to_ascii_uppercase();
    let register = match table.as_str() {
        "COILS" => "CoilRegister",
        "DISCRETES_INPUT" | "DISCRETE_INPUTS" => "DiscreteInputRegister",
        "HOLDING_REGISTERS" => "HoldingRegister",
        "INPUT_REGISTERS" => "InputRegister",
        _ => {
            outcome.leave(
                &attributes.get("primaryTable").unwrap_or(attributes),
                format!("{table:?} is none of the four tables"),
            );
            return None;
        }
    };
    let start = attributes.get("startingAddress");
    let text = start.as_ref().and_then(At::said).unwrap_or_default();
    let (address, bit) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let Ok(offset) = address.parse::<u16>() else {
        outcome.leave(&start.unwrap_or(attributes), format!("{text:?} is not an address from 0 to 65535"));
        return None;
    };
    let mut visitor = json!({"register": register, "offset": offset});
    let bits = register.starts_with(['C', 'D']);
    if let (Some(bit), Some(start)) = (bit, &start) {
        match bit.parse::<u8>() {
            Ok(bit) if bit < 16 && start.is_text() => visitor["bit"] = bit.into(),
            _ => {
                outcome.leave(
                    start,
                    "a bit of a register must be in quotes, such as \"10.1\": 10.10 and 10.1 are one number",
                );
                return None;
            }
        }
    } else if !bits && !kind.eq_ignore_ascii_case("bool") {
        let raw = attributes.text("rawType").unwrap_or_else(|| kind.to_owned()).to_ascii_lowercase();
        match raw.as_str() {
            "int16" | "uint16" | "int32" | "uint32" | "int64" | "uint64" | "float32" | "float64" => {
                visitor["dataType"] = raw.into();
            }
            "string" | "binary" => {
                let size = attributes.number("stringRegisterSize").filter(|n| (1.0..=125.0).contains(n));
                let Some(size) = size else {
                    outcome.leave(&attributes, "stringRegisterSize is missing: how many registers, 1 to 125");
                    return None;
                };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 125")]
                let size = size as u16;
                visitor["dataType"] = if raw == "string" { "string" } else { "bytes" }.into();
                visitor["limit"] = size.into();
            }
            _ => {
                outcome.leave(&attributes, format!("{raw:?} fits no register"));
                return None;
            }
        }
    }
    for (theirs, ours) in [("isByteSwap", "isSwap"), ("isWordSwap", "isRegisterSwap")] {
        if attributes.flag(theirs) {
            visitor[ours] = true.into();
        }
    }
    if let Some(scale) = properties.number("scale").filter(|s| *s != 1.0 && *s != 0.0 && !bits) {
        visitor["scale"] = scale.into();
    }
    if let Some(offset) = properties.number("offset").filter(|o| *o != 0.0 && !bits) {
        visitor["bias"] = offset.into();
    }
    if write_only {
        visitor["readBack"] = false.into();
    }
    Some(visitor)
}

fn snmp(at: &At<'_>, properties: &At<'_>, outcome: &mut Outcome) -> Option<Value> {
    let Some(oid) = at.get("attributes").and_then(|a| a.text("oid")) else {
        outcome.leave(at, "has no attribute oid");
        return None;
    };
    let mut visitor = json!({"oid": oid});
    if let Some(scale) = properties.number("scale").filter(|s| *s != 1.0 && *s != 0.0) {
        visitor["scale"] = scale.into();
    }
    if let Some(offset) = properties.get("offset").filter(|o| o.said().is_some_and(|t| t != "0")) {
        outcome.leave(&offset, "is not known for SNMP; values come without it");
    }
    Some(visitor)
}

/// EdgeX' virtual devices make random values; between the limits, if there are any.
fn virtual_values(properties: &At<'_>, value_type: &str) -> Value {
    match value_type {
        "BOOLEAN" => json!({"generator": "random", "low": 0, "high": 1}),
        "STRING" | "BYTES" => json!({}),
        _ => {
            let low = properties.number("minimum").unwrap_or(0.0);
            let high = properties.number("maximum").unwrap_or(low + 100.0);
            json!({"generator": "random", "low": low, "high": high.max(low)})
        }
    }
}
