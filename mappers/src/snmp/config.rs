//! An SNMP agent, resolved.

use std::sync::Arc;
use std::time::Duration;

use edge_model::device::snmp::{Link, Syntax, Version, Visitor};
use edge_model::device::{Device, DeviceModel, PropertyType, SNMP};

use super::driver::Driver;
use crate::device::{NEVER, Outlet, Settings};
use crate::resolve::{self, ConfigError, fail, within};
use crate::{Point, Profile};

/// The shortest password of version 3 (RFC 3414, section 11.2).
const MIN_PASSWORD: usize = 8;
/// Numbers in an object identifier at most (RFC 2578, section 3.5).
const MAX_ARCS: usize = 128;

/// One agent.
#[derive(Debug, PartialEq)]
pub struct Config {
    profile: Arc<Profile>,
    periods: Vec<Duration>,
    pub(super) link: Link,
    /// One per point.
    pub(super) objects: Vec<Object>,
}

/// What a point is.
#[derive(Debug, PartialEq)]
pub(super) struct Object {
    pub(super) oid: Id,
    pub(super) scale: f64,
    pub(super) source: Source,
    /// How it is written.
    pub(super) syntax: Syntax,
}

/// Where the values of a point come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The object itself.
    Get,
    /// Everything below it.
    Walk,
    /// Traps only.
    Trap,
}

/// An object identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(pub(super) Vec<u64>);

impl Id {
    /// From numbers with dots between them; a dot before the first is taken as well.
    pub(super) fn parse(text: &str) -> Option<Id> {
        let numbers: Option<Vec<u64>> =
            text.strip_prefix('.').unwrap_or(text).split('.').map(|n| n.parse::<u32>().ok().map(u64::from)).collect();
        // The first two share a byte on the wire (X.690, section 8.19.4).
        let first = |n: &[u64]| matches!(n, [0 | 1, 0..=39, ..] | [2, 0..=0xffff, ..]);
        numbers.filter(|n| first(n) && n.len() <= MAX_ARCS).map(Id)
    }

    /// What comes after this, in an identifier below it.
    pub(super) fn below<'a>(&self, other: &'a Id) -> Option<&'a [u64]> {
        other.0.strip_prefix(self.0.as_slice()).filter(|rest| !rest.is_empty())
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&dotted(&self.0))
    }
}

/// Numbers with dots between them.
pub(super) fn dotted(numbers: &[u64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

impl Settings for Config {
    type Driver = Driver;

    fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    fn periods(&self) -> Vec<Duration> {
        self.periods.clone()
    }

    fn driver(self: Arc<Self>, outlet: &Outlet) -> Driver {
        Driver::new(self, Arc::clone(&outlet.traps), outlet.clock)
    }
}

/// Resolves a device against its model.
///
/// # Errors
/// Names the field that does not fit.
pub fn resolve(namespace: &str, name: &str, device: &Device, model: &DeviceModel) -> Result<Config, ConfigError> {
    resolve::speaks(SNMP, device, model)?;
    let link: Link = resolve::link(device, model)?;
    check("spec.protocol.configData", &link)?;
    let (mut points, mut periods, mut objects) = (Vec::new(), Vec::new(), Vec::new());
    for property in resolve::properties::<Visitor>(device, model) {
        let (property, point) = property?;
        let object = object(&property.path, &property.visitor, &point)?;
        if object.source == Source::Trap && link.trap_listen.is_none() {
            return fail("spec.protocol.configData.trapListen", format!("is missing: {} comes from traps", point.name));
        }
        let collect = Duration::from_millis(property.own.collect_ms());
        periods.push(if object.source == Source::Trap { NEVER } else { collect });
        objects.push(object);
        points.push(point);
    }
    let profile = Arc::new(Profile { namespace: namespace.to_owned(), name: name.to_owned(), points });
    Ok(Config { profile, periods, link, objects })
}

fn check(path: &str, link: &Link) -> Result<(), ConfigError> {
    if link.host.is_empty() {
        return fail(format!("{path}.host"), "is empty");
    }
    within(path, "timeout", link.timeout, 100, 60_000)?;
    within(path, "retries", u64::from(link.retries), 0, 10)?;
    within(path, "maxValues", link.max_values as u64, 1, 100)?;
    if link.version != Version::V3 {
        return Ok(());
    }
    if link.user.is_empty() {
        return fail(format!("{path}.user"), "is missing: version 3 needs one");
    }
    if link.privacy.is_some() && link.auth.is_none() {
        return fail(format!("{path}.auth"), "is missing: privacy needs it");
    }
    let short = |on: bool, password: &str| on && password.len() < MIN_PASSWORD;
    let message = format!("has fewer than {MIN_PASSWORD} characters");
    if short(link.auth.is_some(), &link.auth_password) {
        return fail(format!("{path}.authPassword"), message);
    }
    if short(link.privacy.is_some(), &link.privacy_password) {
        return fail(format!("{path}.privacyPassword"), message);
    }
    Ok(())
}

fn object(path: &str, v: &Visitor, point: &Point) -> Result<Object, ConfigError> {
    let Some(oid) = Id::parse(&v.oid) else {
        return fail(format!("{path}.oid"), format!("{:?} is not an identifier such as 1.3.6.1.2.1.1.3.0", v.oid));
    };
    if !v.scale.is_finite() || v.scale == 0.0 {
        return fail(format!("{path}.scale"), "must not be 0");
    }
    if v.walk && v.trap {
        return fail(format!("{path}.walk"), "and trap exclude each other");
    }
    if v.walk && point.value_type != PropertyType::String {
        return fail(format!("{path}.walk"), "makes a JSON mapping, and the property is no STRING");
    }
    if point.writable && (v.walk || v.trap) {
        let key = if v.walk { "walk" } else { "trap" };
        return fail(format!("{path}.{key}"), "can only be read, and the model says ReadWrite");
    }
    let source = match (v.walk, v.trap) {
        (true, _) => Source::Walk,
        (_, true) => Source::Trap,
        _ => Source::Get,
    };
    let usual = match point.value_type {
        PropertyType::String | PropertyType::Bytes => Syntax::Octets,
        _ => Syntax::Integer,
    };
    Ok(Object { oid, scale: v.scale, source, syntax: v.write_as.unwrap_or(usual) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolved(link: Value, visitor: Value, kind: &str, access: &str) -> Result<Config, ConfigError> {
        let model = json!({"protocol": "snmp", "properties": [{"name": "p", "type": kind, "accessMode": access}]});
        let device = json!({
            "deviceModelRef": {"name": "m"},
            "protocol": {"protocolName": "snmp", "configData": link},
            "properties": [{"name": "p", "visitors": {"protocolName": "snmp", "configData": visitor}}],
        });
        let (model, device) = (DeviceModel::parse(&model).unwrap(), Device::parse(&device).unwrap());
        resolve("default", "agent", &device, &model)
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (link, visitor) = ("spec.protocol.configData", "spec.properties[0].visitors.configData");
        let (there, uptime) = (json!({"host": "a"}), json!({"oid": "1.3.6.1.2.1.1.3.0"}));
        assert!(resolved(there.clone(), uptime.clone(), "INT", "ReadOnly").is_ok());
        let v3 = |more: Value| {
            let mut link = json!({"host": "a", "version": "v3", "user": "u"});
            for (k, v) in more.as_object().unwrap() {
                link[k] = v.clone();
            }
            link
        };
        let cases = [
            (json!({"host": ""}), uptime.clone(), "INT", "ReadOnly", link, "host"),
            (json!({"host": "a", "maxValues": 0}), uptime.clone(), "INT", "ReadOnly", link, "maxValues"),
            (json!({"host": "a", "version": "v3"}), uptime.clone(), "INT", "ReadOnly", link, "user"),
            (
                v3(json!({"auth": "SHA", "authPassword": "short"})),
                uptime.clone(),
                "INT",
                "ReadOnly",
                link,
                "authPassword",
            ),
            (v3(json!({"privacy": "AES"})), uptime.clone(), "INT", "ReadOnly", link, "auth"),
            (there.clone(), json!({"oid": "1.3.x"}), "INT", "ReadOnly", visitor, "oid"),
            (there.clone(), json!({"oid": "1.3", "scale": 0}), "INT", "ReadOnly", visitor, "scale"),
            (there.clone(), json!({"oid": "1.3", "walk": true}), "INT", "ReadOnly", visitor, "walk"),
            (there.clone(), json!({"oid": "1.3", "walk": true}), "STRING", "ReadWrite", visitor, "walk"),
            (there, json!({"oid": "1.3", "trap": true}), "INT", "ReadOnly", link, "trapListen"),
        ];
        for (l, v, kind, access, path, key) in cases {
            let error = resolved(l.clone(), v.clone(), kind, access).unwrap_err();
            assert_eq!(error.path, format!("{path}.{key}"), "{l} {v}: {error}");
        }
    }

    #[test]
    fn identifiers() {
        assert_eq!(Id::parse(".1.3.6").map(|i| i.to_string()), Some("1.3.6".into()));
        for text in ["", ".", "1", "1.", "1.40", "3.1", "1.3.4294967296", "1.3.-1"] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
        let (table, cell) = (Id::parse("1.3.6").unwrap(), Id::parse("1.3.6.2.1").unwrap());
        assert_eq!(table.below(&cell), Some([2, 1].as_slice()));
        assert_eq!((table.below(&table), cell.below(&table)), (None, None));
    }
}
