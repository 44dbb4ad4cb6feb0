//! EdgeX Foundry's device profiles and devices (v2 and v3, `res/profiles` and `res/devices`) as DeviceModels and Devices.
//!
//! Pure: files in, objects and a list of what could not be brought along out. Keys are taken in any case, as EdgeX wrote them
//! in capitals in v2 (TOML) and without in v3 (YAML).
//!
//! | EdgeX | here |
//! |---|---|
//! | profile | DeviceModel; its name in small letters |
//! | device resource | property, with its type, access, limits, unit; `scale` and `offset` where the protocol has them |
//! | device command that can be written | method |
//! | device, `protocols` | Device, `protocol`: modbus-tcp, snmp, mqtt; any other whose resources have no attributes is virtual |
//! | auto event | collect cycle, and readings go to the cloud; what has none is read once a minute |
//!
//! Left out without a word, because they mean nothing here: labels, tags, manufacturer, isHidden, defaultValue, onChange.

mod device;
mod places;
mod profile;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::manifest::{ManifestError, Tree};
use places::At;
use profile::Profile;

/// What came of the files.
#[derive(Debug, Default)]
pub struct Outcome {
    /// DeviceModels, then Devices, as manifests.
    pub objects: Vec<Value>,
    /// What could not be brought along, each with its place.
    pub left: Vec<ManifestError>,
}

impl Outcome {
    /// Notes something that is left behind.
    fn leave(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.left.push(at.error(message.into()));
    }
}

/// Converts the files of one EdgeX service, in whatever order.
pub fn convert(files: &[Tree]) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut profiles, mut lists) = (Vec::new(), Vec::new());
    for file in files {
        let root = At::root(file);
        if root.get("deviceResources").is_some() {
            profiles.push(Profile::new(root));
        } else if let Some(list) = root.get("deviceList") {
            lists.push(list);
        } else {
            outcome.leave(&root, "is neither a device profile (deviceResources) nor a list of devices (deviceList)");
        }
    }
    let devices: Vec<At<'_>> = lists.iter().flat_map(At::items).collect();
    // A profile does not say which service it is for; its devices do.
    for profile in &mut profiles {
        let own = devices.iter().find(|d| d.text("profileName").is_some_and(|n| n == profile.name));
        profile.choose(own.and_then(|d| d.get("protocols")).as_ref());
    }
    for profile in &profiles {
        profile.model(&mut outcome);
    }
    for at in &devices {
        device::convert(at, &profiles, &mut outcome);
    }
    outcome
}

/// A name of Kubernetes: small letters, digits and dashes.
fn name(text: &str) -> String {
    let letters = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let mut name: String = letters.collect();
    while name.contains("--") {
        name = name.replace("--", "-");
    }
    name.trim_matches('-').chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
}

/// A duration as Go writes it (`20s`, `1m30s`, `500ms`), in milliseconds.
fn duration(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text.trim(), 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let ms = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * ms;
        rest = after;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be between 0 and a day")]
    (0.0..=86_400_000.0).contains(&total).then_some(total as u64)
}
