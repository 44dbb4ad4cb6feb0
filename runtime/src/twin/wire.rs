//! KubeEdge's JSON on the device topics.
//!
//! Source: KubeEdge, `edge/pkg/devicetwin/dttype/types.go` and `types_helper.go`, and the mapper framework's
//! `pkg/common/eventtype.go`. Ours: `quality` in a data value's metadata when it is not good.

use std::collections::BTreeMap;

use edge_model::reading::Quality;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Entry, Twin};

/// The largest twin update taken, in bytes.
pub const MAX_PAYLOAD: usize = 65_536;
/// KubeEdge's `BadRequestCode`.
pub const BAD_REQUEST: u16 = 400;
/// KubeEdge's `NotFoundCode`.
pub const NOT_FOUND: u16 = 404;
/// KubeEdge's `ConflictCode`.
pub const CONFLICT: u16 = 409;
/// KubeEdge's `InternalErrorCode`.
pub const INTERNAL: u16 = 500;

/// `DeviceTwinUpdate`: wanted and reported values from the bus.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Update {
    /// Given back in the answer.
    #[serde(default)]
    pub event_id: String,
    /// By property.
    #[serde(default)]
    pub twin: BTreeMap<String, UpdateTwin>,
}

/// `MsgTwin`: the sides of one property.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct UpdateTwin {
    /// The value wanted.
    #[serde(default)]
    pub expected: Option<UpdateValue>,
    /// The value the device has.
    #[serde(default)]
    pub actual: Option<UpdateValue>,
}

/// `TwinValue`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct UpdateValue {
    /// As text.
    #[serde(default)]
    pub value: Option<String>,
}

/// `DeviceUpdate`: a mapper says whether its device answers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StateUpdate {
    /// `online`, `offline`, …
    #[serde(default)]
    pub state: String,
}

/// Takes a payload apart.
///
/// # Errors
/// What is wrong, as KubeEdge's `reason`.
pub fn parse<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, String> {
    if payload.len() > MAX_PAYLOAD {
        return Err(format!("{} bytes are more than {MAX_PAYLOAD}", payload.len()));
    }
    serde_json::from_slice(payload).map_err(|e| e.to_string())
}

fn message(event_id: &str, time_ms: i64, rest: Value) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("event_id".to_owned(), json!(event_id));
    map.insert("timestamp".to_owned(), json!(time_ms));
    if let Value::Object(rest) = rest {
        map.extend(rest);
    }
    Value::Object(map).to_string().into_bytes()
}

/// `MsgTwin` of an entry. `actual_version` counts the changes of the reported value at the edge (KubeEdge's `TwinVersion`); what is
/// wanted has the version of its object.
fn msg_twin(e: &Entry) -> Value {
    let mut twin = json!({"metadata": {"type": e.type_word}});
    if let Some(desired) = &e.desired {
        twin["expected"] = json!({"value": desired});
    }
    if let Some(reported) = &e.reported {
        twin["actual"] = json!({"value": reported, "metadata": {"timestamp": e.time_ms}});
        twin["actual_version"] = json!({"cloud": 0, "edge": e.version});
    }
    twin
}

fn twins<'a>(entries: impl Iterator<Item = &'a Entry>) -> Map<String, Value> {
    entries.map(|e| (e.name.clone(), msg_twin(e))).collect()
}

/// `DeviceTwinResult`: the whole twin, or what an update made of some properties.
pub fn result(event_id: &str, time_ms: i64, twin: &Twin, only: impl Fn(&str) -> bool) -> Vec<u8> {
    let twin = twins(twin.entries.iter().filter(|e| only(&e.name)));
    message(event_id, time_ms, json!({"twin": twin}))
}

/// `Result`: why not.
pub fn error(event_id: &str, time_ms: i64, code: u16, reason: &str) -> Vec<u8> {
    message(event_id, time_ms, json!({"code": code, "reason": reason}))
}

/// `DeviceTwinDelta`: the wanted values the device does not have; `None` when it has them all.
pub fn delta(time_ms: i64, twin: &Twin) -> Option<Vec<u8>> {
    let wanted = || twin.entries.iter().filter(|e| e.desired.is_some());
    let differs: Map<String, Value> =
        wanted().filter(|e| e.differs()).map(|e| (e.name.clone(), json!(e.desired))).collect();
    if differs.is_empty() {
        return None;
    }
    Some(message("", time_ms, json!({"twin": twins(wanted()), "delta": differs})))
}

/// `DeviceTwinDocument`: properties before and after a change.
pub fn document(time_ms: i64, before: &[Entry], twin: &Twin) -> Vec<u8> {
    let pair = |old: &Entry| {
        let new = twin.entries.iter().find(|e| e.name == old.name)?;
        Some((old.name.clone(), json!({"last": msg_twin(old), "current": msg_twin(new)})))
    };
    let map: Map<String, Value> = before.iter().filter_map(pair).collect();
    message("", time_ms, json!({"twin": map}))
}

/// `DeviceUpdate`: online or offline.
pub fn state(time_ms: i64, state: &str) -> Vec<u8> {
    message("", time_ms, json!({"state": state}))
}

/// `MembershipGetResult`: the devices of the node, by identifier, with their state.
pub fn members<'a>(event_id: &str, time_ms: i64, devices: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let devices: Vec<Value> = devices.map(|(id, state)| json!({"id": id, "name": id, "state": state})).collect();
    message(event_id, time_ms, json!({"devices": devices}))
}

/// `MembershipUpdate`: devices that came and went, by identifier.
pub fn membership(time_ms: i64, added: &[String], removed: &[String]) -> Vec<u8> {
    let list = |ids: &[String]| -> Vec<Value> { ids.iter().map(|id| json!({"id": id, "name": id})).collect() };
    message("", time_ms, json!({"added_devices": list(added), "removed_devices": list(removed)}))
}

/// One value of a [`data`] message.
#[derive(Debug, Clone, Copy)]
pub struct Datum<'a> {
    /// The property.
    pub name: &'a str,
    /// The value as text; empty when there is none.
    pub value: &'a str,
    /// KubeEdge's word for its type.
    pub type_word: &'a str,
    /// Whether it may be believed.
    pub quality: Quality,
}

/// `DeviceData`: readings as they come.
pub fn data<'a>(time_ms: i64, values: impl Iterator<Item = Datum<'a>>) -> Vec<u8> {
    let one = |d: Datum<'_>| {
        let mut metadata = json!({"timestamp": time_ms, "type": d.type_word});
        if d.quality != Quality::Good {
            metadata["quality"] = json!(d.quality.as_str());
        }
        (d.name.to_owned(), json!({"value": d.value, "metadata": metadata}))
    };
    let map: Map<String, Value> = values.map(one).collect();
    message("", time_ms, json!({"data": map}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twin() -> Twin {
        let mut e = Entry::new("temp", "int");
        e.desired = Some("30".into());
        e.target = Some("30".into());
        e.report(Some("29".into()), Quality::Good, 5);
        Twin { entries: vec![e, Entry::new("level", "float")] }
    }

    fn read(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn shapes_are_kubeedges() {
        let t = twin();
        let temp = json!({"expected": {"value": "30"}, "actual": {"value": "29", "metadata": {"timestamp": 5}}, "actual_version": {"cloud": 0, "edge": 1}, "metadata": {"type": "int"}});
        assert_eq!(
            read(&result("e", 9, &t, |_| true)),
            json!({"event_id": "e", "timestamp": 9, "twin": {"temp": temp, "level": {"metadata": {"type": "float"}}}})
        );
        assert_eq!(
            read(&delta(9, &t).unwrap()),
            json!({"event_id": "", "timestamp": 9, "twin": {"temp": temp}, "delta": {"temp": "30"}})
        );
        let mut after = t.clone();
        after.entries[0].report(Some("30".into()), Quality::Good, 6);
        assert_eq!(delta(9, &after), None);
        let doc = read(&document(9, &t.entries[..1], &after));
        assert_eq!(doc["twin"]["temp"]["last"], temp);
        assert_eq!(doc["twin"]["temp"]["current"]["actual"]["value"], "30");
        let one = Datum { name: "temp", value: "29", type_word: "int", quality: Quality::Good };
        assert_eq!(
            read(&data(9, [one].into_iter())),
            json!({"event_id": "", "timestamp": 9, "data": {"temp": {"value": "29", "metadata": {"timestamp": 9, "type": "int"}}}})
        );
        assert_eq!(
            read(&error("e", 9, BAD_REQUEST, "no")),
            json!({"event_id": "e", "timestamp": 9, "code": 400, "reason": "no"})
        );
    }

    #[test]
    fn updates_are_taken_as_kubeedge_sends_them() {
        let text = br#"{"event_id":"1","timestamp":2,"twin":{"temp":{"expected":{"value":"31","metadata":{"timestamp":2}},"metadata":{"type":"int"}}}}"#;
        let update: Update = parse(text).unwrap();
        assert_eq!(update.twin["temp"].expected.as_ref().unwrap().value.as_deref(), Some("31"));
        assert!(parse::<Update>(b"{").is_err());
        assert!(parse::<Update>(&vec![b' '; MAX_PAYLOAD + 1]).unwrap_err().contains("more than"));
    }
}
