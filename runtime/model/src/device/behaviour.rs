//! What a device's readings and state are made of before anybody hears of them: ours, where KubeEdge has no word for it.
//!
//! The keys live in `configData`, which KubeEdge's API keeps as it is, and mean the same for every protocol: `report` beside
//! a property's visitor (of the model, of the device, or both: key by key the device wins), `health` beside the device's
//! address.
//!
//! ```yaml
//! visitors:
//!   protocolName: modbus
//!   configData:
//!     register: InputRegister
//!     offset: 10
//!     report: {deadband: 0.5, maxAge: 60000}
//! ```

use serde::Deserialize;
use serde_json::Value;

use super::{fail, view};
use crate::object::ObjectError;

/// The key of [`Report`].
pub const REPORT: &str = "report";
/// The key of [`Health`].
pub const HEALTH: &str = "health";
/// The key of [`expose`].
pub const EXPOSE: &str = "expose";
/// The longest window or age, in milliseconds: one day.
const LONGEST_MS: u64 = 86_400_000;
/// The shortest window, in milliseconds.
const SHORTEST_MS: u64 = 100;

/// When a property's readings are reported, and as what.
///
/// A reading within the deadband of the last reported one changes nothing: not the twin, not the bus, not the cloud. With an
/// aggregate the twin follows every reading beyond the deadband, and bus and cloud get one value for each window.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Report {
    /// Report changes only; readings that say the same again are left out. Implied by a deadband.
    pub on_change: bool,
    /// How far a number may move without being reported, in the property's unit; not negative.
    pub deadband: f64,
    /// The same as a share of the last reported value, in percent, 0 to 100. With both, the wider one counts.
    pub deadband_percent: f64,
    /// With `onChange` or a deadband: report the value anyway when it was not for so long, in milliseconds, up to one day; 0
    /// for never.
    pub max_age: u64,
    /// What one value for many readings is.
    pub aggregate: Option<Aggregate>,
    /// How long readings are taken together, in milliseconds, 100 to one day; needed with an aggregate.
    pub window: u64,
    /// A value that was not read again for so long is stale, in milliseconds, up to one day; 0 for never. Looked at once a
    /// second.
    pub stale: u64,
}

/// One value for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The arithmetic mean of the good ones.
    Mean,
    /// The last one.
    Last,
}

/// When a device counts as offline or online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Health {
    /// It must have been silent for so long, in milliseconds, up to one day; 0 for at once.
    pub offline_after: u64,
    /// It must have answered for so long, in milliseconds, up to one day; 0 for at once.
    pub online_after: u64,
}

/// A device's `configData` without what is not its protocol's.
pub fn link_data(data: &Value) -> Value {
    without(data, &[HEALTH])
}

/// A visitor's `configData` without what is not its protocol's.
pub fn visitor_data(data: &Value) -> Value {
    without(data, &[REPORT, EXPOSE])
}

fn without(data: &Value, keys: &[&str]) -> Value {
    let mut own = data.clone();
    if let Some(map) = own.as_object_mut() {
        map.retain(|key, _| !keys.contains(&key.as_str()));
    }
    own
}

/// The report of a property out of its visitors' `configData`, those of the model first.
///
/// # Errors
/// Names the key below `path` that is wrong.
pub fn report(path: &str, under: Option<&Value>, over: Option<&Value>) -> Result<Report, ObjectError> {
    let part = |v: Option<&Value>| v.and_then(|v| v.get(REPORT)).cloned();
    let (under, over) = (part(under), part(over));
    if under.is_none() && over.is_none() {
        return Ok(Report::default());
    }
    let report = report_part(path, &super::merged(under.as_ref(), over.as_ref()))?;
    match report.aggregate {
        Some(_) if report.window < SHORTEST_MS => {
            let message = format!("an aggregate needs a window of {SHORTEST_MS} to {LONGEST_MS} milliseconds");
            fail(format!("{path}.{REPORT}.window"), message)
        }
        None if report.window > 0 => {
            let message = "say what the window makes of its readings: min, max, mean or last";
            fail(format!("{path}.{REPORT}.aggregate"), message)
        }
        _ => Ok(report),
    }
}

/// Checks the report in one of the two visitors, as far as that can be done without the other.
///
/// # Errors
/// Names the key below `path` that is wrong.
pub fn check_report(path: &str, data: &Value) -> Result<(), ObjectError> {
    data.get(REPORT).map_or(Ok(()), |part| report_part(path, part).map(drop))
}

fn report_part(path: &str, part: &Value) -> Result<Report, ObjectError> {
    let path = format!("{path}.{REPORT}");
    let report: Report = view(&path, part)?;
    let at = |key: &str| format!("{path}.{key}");
    for (key, x, most) in [("deadband", report.deadband, f64::MAX), ("deadbandPercent", report.deadband_percent, 100.0)]
    {
        if !(0.0..=most).contains(&x) {
            return fail(at(key), format!("{x} is not between 0 and {most}"));
        }
    }
    for (key, ms) in [("maxAge", report.max_age), ("stale", report.stale), ("window", report.window)] {
        if ms > LONGEST_MS {
            return fail(at(key), format!("{ms} is more than {LONGEST_MS} milliseconds"));
        }
    }
    Ok(report)
}

/// The health of a device out of its `configData`, that of the model first.
///
/// # Errors
/// Names the key below `path` that is wrong.
pub fn health(path: &str, under: Option<&Value>, over: Option<&Value>) -> Result<Health, ObjectError> {
    let part = |v: Option<&Value>| v.and_then(|v| v.get(HEALTH)).cloned();
    let (under, over) = (part(under), part(over));
    if under.is_none() && over.is_none() {
        return Ok(Health::default());
    }
    let path = format!("{path}.{HEALTH}");
    let health: Health = view(&path, &super::merged(under.as_ref(), over.as_ref()))?;
    for (key, ms) in [("offlineAfter", health.offline_after), ("onlineAfter", health.online_after)] {
        if ms > LONGEST_MS {
            return fail(format!("{path}.{key}"), format!("{ms} is more than {LONGEST_MS} milliseconds"));
        }
    }
    Ok(health)
}

/// Where the node's own Modbus server shows a property: the unit identifier (1 when absent) and, as in a Modbus visitor, the
/// register. `expose: {unit: 1, register: InputRegister, offset: 10, dataType: float32}` beside the visitor of any protocol.
///
/// # Errors
/// Names the key below `path` that is wrong.
pub fn expose(path: &str, data: Option<&Value>) -> Result<Option<(u8, super::modbus::Visitor)>, ObjectError> {
    let Some(mut place) = data.and_then(|d| d.get(EXPOSE)).cloned() else { return Ok(None) };
    let path = format!("{path}.{EXPOSE}");
    let unit = match place.as_object_mut().and_then(|map| map.remove("unit")) {
        None => 1,
        Some(unit) => match unit.as_u64().and_then(|u| u8::try_from(u).ok()).filter(|u| (1..=247).contains(u)) {
            Some(unit) => unit,
            None => return fail(format!("{path}.unit"), format!("{unit} is not between 1 and 247")),
        },
    };
    Ok(Some((unit, view(&path, &place)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_device_wins_key_by_key_and_mistakes_have_a_path() {
        let model = json!({"register": "x", "report": {"deadband": 1, "maxAge": 5}});
        let device = json!({"report": {"deadband": 2.5}});
        let both = report("v", Some(&model), Some(&device)).unwrap();
        assert_eq!((both.deadband, both.max_age), (2.5, 5));
        assert_eq!(report("v", None, None), Ok(Report::default()));
        assert_eq!(visitor_data(&model), json!({"register": "x"}));
        // Half of it may stand in the model, half in the device.
        let (half, other) = (json!({"report": {"aggregate": "mean"}}), json!({"report": {"window": 1000}}));
        assert_eq!(report("v", Some(&half), Some(&other)).unwrap().window, 1000);
        assert!(check_report("v", &half).is_ok() && check_report("v", &other).is_ok());
        let wrong = [
            (json!({"report": {"deadband": -1}}), "v.report.deadband"),
            (json!({"report": {"deadbandPercent": 101}}), "v.report.deadbandPercent"),
            (json!({"report": {"aggregate": "mean"}}), "v.report.window"),
            (json!({"report": {"window": 1000}}), "v.report.aggregate"),
            (json!({"report": {"aggregate": "median", "window": 1000}}), "v.report.aggregate"),
            (json!({"report": {"stale": 86_400_001}}), "v.report.stale"),
            (json!({"report": {"foo": 1}}), "v.report"),
        ];
        for (data, path) in wrong {
            let error = report("v", None, Some(&data)).unwrap_err();
            assert!(error.path.starts_with(path), "{data}: {error}");
        }
        assert_eq!(health("c", None, Some(&json!({"health": {"offlineAfter": 9}}))).unwrap().offline_after, 9);
        assert!(health("c", None, Some(&json!({"health": {"offlineafter": 9}}))).is_err());
    }
}
