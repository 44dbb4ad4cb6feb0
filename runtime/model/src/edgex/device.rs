//! A device of a list.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::places::At;
use super::profile::Profile;
use super::{Outcome, duration, name};
use crate::device::{MAX_CYCLE_MS, MIN_CYCLE_MS, MODBUS, MQTT, SNMP};

/// How often what has no auto event is read, in milliseconds: EdgeX would only on demand.
const SELDOM_MS: u64 = 60_000;

pub(super) fn convert(at: &At<'_>, profiles: &[Profile<'_>], outcome: &mut Outcome) {
    let Some(own) = at.text("name").filter(|n| !name(n).is_empty()) else {
        return outcome.leave(at, "a device without a name");
    };
    let wanted = at.text("profileName").unwrap_or_default();
    let Some(profile) = profiles.iter().find(|p| p.name == wanted && !wanted.is_empty()) else {
        let place = at.get("profileName").unwrap_or_else(|| at.clone());
        return outcome.leave(&place, format!("the profile {wanted:?} is not among the files; {own} is left out"));
    };
    let Some(link) = link(at, &own, profile, outcome) else { return };
    let resources = profile.resources();
    let mut cycles = BTreeMap::new();
    for event in at.get("autoEvents").map(|list| list.items()).unwrap_or_default() {
        let interval = event.text("interval").and_then(|t| duration(&t));
        let Some(interval) = interval.filter(|ms| (MIN_CYCLE_MS..=MAX_CYCLE_MS).contains(ms)) else {
            let place = event.get("interval").unwrap_or(event);
            outcome.leave(&place, "is not a duration such as 20s, 10ms to 24h");
            continue;
        };
        let source = event.text("sourceName").or_else(|| event.text("resource")).unwrap_or_default();
        for member in profile.members(&source) {
            if !resources.iter().any(|r| r.name == member) {
                outcome.leave(&event, format!("{member:?} is not a property"));
                continue;
            }
            let cycle = cycles.entry(member).or_insert(interval);
            *cycle = interval.min(*cycle);
        }
    }
    let properties: Vec<Value> = resources
        .iter()
        .map(|r| match cycles.get(&r.name) {
            Some(cycle) => json!({"name": r.name, "collectCycle": cycle, "reportToCloud": true}),
            None => json!({"name": r.name, "collectCycle": SELDOM_MS}),
        })
        .collect();
    let mut spec = json!({
        "deviceModelRef": {"name": name(&profile.name)},
        "protocol": {"protocolName": profile.protocol, "configData": link},
        "properties": properties,
    });
    let methods = profile.methods(&resources);
    if !methods.is_empty() {
        spec["methods"] = methods.into();
    }
    outcome.objects.push(json!({
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": name(&own)},
        "spec": spec,
    }));
}

/// Where the device is, in the words of its protocol.
fn link(at: &At<'_>, own: &str, profile: &Profile<'_>, outcome: &mut Outcome) -> Option<Value> {
    let protocols = at.get("protocols").map(|p| p.entries()).unwrap_or_default();
    let Some((word, how)) = protocols.into_iter().next() else {
        outcome.leave(at, format!("has no protocols; {own} is left out"));
        return None;
    };
    let address = how.text("address").filter(|a| !a.is_empty());
    let mut link = json!({});
    match profile.protocol {
        MODBUS => {
            if !word.eq_ignore_ascii_case("modbus-tcp") {
                outcome.leave(&how, format!("{word} is not brought along, only modbus-tcp; {own} is left out"));
                return None;
            }
            let Some(address) = address else {
                outcome.leave(&how, "Address is missing");
                return None;
            };
            link["ip"] = address.into();
            whole(&how, "port", "port", &mut link, outcome);
            whole(&how, "unitID", "slaveID", &mut link, outcome);
            // Seconds there, milliseconds here.
            if let Some(seconds) = how.number("timeout").filter(|s| (0.001..=60.0).contains(s)) {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 60000")]
                let ms = (seconds * 1_000.0) as u64;
                link["timeout"] = ms.into();
            }
        }
        SNMP => {
            let Some(address) = address else {
                outcome.leave(&how, "Address is missing");
                return None;
            };
            link["host"] = address.into();
            whole(&how, "port", "port", &mut link, outcome);
            if let Some(community) = profile.community() {
                link["community"] = community.into();
            }
        }
        MQTT => {
            // The service's usual topics: incoming/data/<device>/<resource>.
            link["base"] = format!("incoming/data/{own}").into();
        }
        _ => {}
    }
    Some(link)
}

/// A whole number, which EdgeX also writes in quotes.
fn whole(from: &At<'_>, theirs: &str, ours: &str, link: &mut Value, outcome: &mut Outcome) {
    let Some(at) = from.get(theirs) else { return };
    match at.said().and_then(|t| t.trim().parse::<u16>().ok()) {
        Some(number) => link[ours] = number.into(),
        None => outcome.leave(&at, "is not a whole number"),
    }
}
