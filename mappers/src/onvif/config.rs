//! A camera, resolved.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use edge_model::device::onvif::{Link, Transport, Visitor, What};
use edge_model::device::{Device, DeviceModel, ONVIF, PropertyType};

use super::driver::Driver;
use crate::device::{Outlet, Settings};
use crate::resolve::{self, ConfigError, fail, within};
use crate::{Point, Profile};

/// One camera.
#[derive(Debug, PartialEq)]
pub struct Config {
    profile: Arc<Profile>,
    periods: Vec<Duration>,
    pub(super) place: Place,
    /// User and password.
    pub(super) user: Option<(String, String)>,
    pub(super) rewrite_host: bool,
    pub(super) timeout: Duration,
    /// One per point.
    pub(super) items: Vec<Item>,
}

/// Where a camera is.
#[derive(Debug, PartialEq)]
pub(super) enum Place {
    /// Here.
    At(Service),
    /// Where the one with this endpoint reference says, asked for in the network of an address of ours, or in all.
    Named(String, Option<Ipv4Addr>),
}

/// Where a SOAP service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) host: String,
    pub(super) port: u16,
    /// Begins with a slash.
    pub(super) path: String,
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}{}", self.host, self.port, self.path)
        } else {
            write!(f, "http://{}:{}{}", self.host, self.port, self.path)
        }
    }
}

/// What a point is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) what: What,
    /// The token of a media profile; the camera's first when absent.
    pub(super) profile: Option<String>,
    pub(super) transport: Transport,
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
        Driver::new(self, outlet.clock)
    }
}

/// Resolves a device against its model.
///
/// # Errors
/// Names the field that does not fit.
pub fn resolve(namespace: &str, name: &str, device: &Device, model: &DeviceModel) -> Result<Config, ConfigError> {
    resolve::speaks(ONVIF, device, model)?;
    let link: Link = resolve::link(device, model)?;
    let path = "spec.protocol.configData";
    within(path, "timeout", link.timeout, 100, 60_000)?;
    let place = place(path, &link)?;
    let user = match (link.user, link.password) {
        (Some(user), password) => Some((user, password.unwrap_or_default())),
        (None, Some(_)) => return fail(format!("{path}.user"), "is missing: a password needs one"),
        (None, None) => None,
    };
    let (mut points, mut periods, mut items) = (Vec::new(), Vec::new(), Vec::new());
    for property in resolve::properties::<Visitor>(device, model) {
        let (property, point) = property?;
        let mut item = item(&property.path, property.visitor, &point)?;
        if matches!(item.what, What::SnapshotUri | What::StreamUri) && item.profile.is_none() {
            item.profile.clone_from(&link.profile);
        }
        periods.push(Duration::from_millis(property.own.collect_ms()));
        items.push(item);
        points.push(point);
    }
    let profile = Arc::new(Profile { namespace: namespace.to_owned(), name: name.to_owned(), points });
    let timeout = Duration::from_millis(link.timeout);
    Ok(Config { profile, periods, place, user, rewrite_host: link.rewrite_host, timeout, items })
}

fn place(path: &str, link: &Link) -> Result<Place, ConfigError> {
    let host = match (&link.address, &link.endpoint_reference) {
        (Some(_), Some(_)) => {
            return fail(
                format!("{path}.address"),
                "and endpointReference exclude each other: a camera is at a place, or is found",
            );
        }
        (None, None) => return fail(format!("{path}.address"), "is missing; or name an endpointReference"),
        (None, Some(name)) if name.trim().is_empty() => return fail(format!("{path}.endpointReference"), "is empty"),
        (None, Some(name)) => return Ok(Place::Named(name.trim().to_owned(), link.interface)),
        (Some(host), None) => host.trim_matches(['[', ']']),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '?' | '#')) {
        return fail(format!("{path}.address"), format!("{host:?} is no host name and no IP address"));
    }
    if link.interface.is_some() {
        return fail(format!("{path}.interface"), "is for cameras that are found: it does not go with address");
    }
    if !link.path.starts_with('/') || link.path.contains(|c: char| !c.is_ascii_graphic()) {
        return fail(format!("{path}.path"), format!("{:?} is not such as /onvif/device_service", link.path));
    }
    Ok(Place::At(Service { host: host.to_owned(), port: link.port, path: link.path.clone() }))
}

fn item(path: &str, v: Visitor, point: &Point) -> Result<Item, ConfigError> {
    let at = format!("{path}.value");
    if point.writable {
        return fail(at, "can only be read, and the model says ReadWrite");
    }
    let number = v.value == What::ClockOffset;
    if number != (point.value_type == PropertyType::Int) || !(number || point.value_type == PropertyType::String) {
        let right = if number { "an INT" } else { "a STRING" };
        return fail(at, format!("is {right}, and the model says {}", point.value_type.word()));
    }
    if v.profile.is_some() && !matches!(v.value, What::SnapshotUri | What::StreamUri) {
        return fail(format!("{path}.profile"), "goes with snapshotUri and streamUri only");
    }
    if v.transport.is_some() && v.value != What::StreamUri {
        return fail(format!("{path}.transport"), "goes with streamUri only");
    }
    Ok(Item { what: v.value, profile: v.profile, transport: v.transport.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn resolved(link: Value, visitor: Value, kind: &str, access: &str) -> Result<Config, ConfigError> {
        let model = json!({"protocol": "onvif", "properties": [{"name": "p", "type": kind, "accessMode": access}]});
        let device = json!({
            "deviceModelRef": {"name": "camera"},
            "protocol": {"protocolName": "onvif", "configData": link},
            "properties": [{"name": "p", "visitors": {"protocolName": "onvif", "configData": visitor}}],
        });
        resolve("default", "c", &Device::parse(&device).unwrap(), &DeviceModel::parse(&model).unwrap())
    }

    #[test]
    fn properties_take_the_profile_of_the_device() {
        let link = json!({"address": "[::1]", "profile": "a"});
        let config = resolved(link.clone(), json!({"value": "streamUri"}), "STRING", "ReadOnly").unwrap();
        assert_eq!((config.items[0].profile.as_deref(), config.items[0].transport), (Some("a"), Transport::Rtsp));
        let service = Service { host: "::1".into(), port: 80, path: "/onvif/device_service".into() };
        assert_eq!(config.place, Place::At(service));
        let own = resolved(link, json!({"value": "snapshotUri", "profile": "b"}), "STRING", "ReadOnly").unwrap();
        assert_eq!(own.items[0].profile.as_deref(), Some("b"));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (link, visitor) = ("spec.protocol.configData", "spec.properties[0].visitors.configData");
        let (there, model) = (json!({"address": "a"}), json!({"value": "model"}));
        let cases = [
            (json!({}), model.clone(), "STRING", link, "address"),
            (json!({"address": "a", "endpointReference": "b"}), model.clone(), "STRING", link, "address"),
            (json!({"address": "http://a"}), model.clone(), "STRING", link, "address"),
            (json!({"endpointReference": " "}), model.clone(), "STRING", link, "endpointReference"),
            (json!({"address": "a", "interface": "10.0.0.1"}), model.clone(), "STRING", link, "interface"),
            (json!({"address": "a", "path": "x"}), model.clone(), "STRING", link, "path"),
            (json!({"address": "a", "path": "/x y"}), model.clone(), "STRING", link, "path"),
            (json!({"address": "a", "timeout": 1}), model.clone(), "STRING", link, "timeout"),
            (json!({"address": "a", "password": "x"}), model.clone(), "STRING", link, "user"),
            (there.clone(), model.clone(), "INT", visitor, "value"),
            (there.clone(), json!({"value": "clockOffset"}), "STRING", visitor, "value"),
            (there.clone(), json!({"value": "model", "profile": "x"}), "STRING", visitor, "profile"),
            (there.clone(), json!({"value": "snapshotUri", "transport": "UDP"}), "STRING", visitor, "transport"),
        ];
        for (l, v, kind, path, key) in cases {
            let error = resolved(l.clone(), v.clone(), kind, "ReadOnly").unwrap_err();
            assert_eq!(error.path, format!("{path}.{key}"), "{l} {v}: {error}");
        }
        let error = resolved(there, model, "STRING", "ReadWrite").unwrap_err();
        assert_eq!(error.path, format!("{visitor}.value"));
    }
}
