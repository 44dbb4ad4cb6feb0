//! An MQTT device, resolved.

use std::sync::Arc;
use std::time::Duration;

use edge_model::device::mqtt::{Link, Visitor};
use edge_model::device::{Device, DeviceModel, MQTT};

use super::driver::Driver;
use crate::device::{NEVER, Outlet, Settings};
use crate::payload::{Format, Path};
use crate::resolve::{self, ConfigError, fail, within};
use crate::{Point, Profile, tls};

/// The longest time a value may be believed without news, in milliseconds: one day.
const MAX_EXPIRE_MS: u64 = 86_400_000;

/// One MQTT device.
#[derive(Debug, PartialEq)]
pub struct Config {
    profile: Arc<Profile>,
    pub(super) broker: Broker,
    /// How long connecting and reading back may take.
    pub(super) timeout: Duration,
    pub(super) availability: Option<Availability>,
    /// One per point.
    pub(super) places: Vec<Place>,
}

/// The broker and who we are there. Devices for which these are equal share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Broker {
    /// Host and port; `None` for this node's own.
    pub(super) at: Option<(String, u16)>,
    /// User and password.
    pub(super) login: Option<(String, String)>,
    /// `Some` for TLS; inside, the authorities to trust, or `None` for those of the system.
    pub(super) tls: Option<Option<String>>,
}

/// How the device says whether it is there.
#[derive(Debug, PartialEq)]
pub(super) struct Availability {
    pub(super) topic: String,
    pub(super) path: Option<Path>,
    pub(super) online: String,
}

/// Where a point is.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    pub(super) topic: Option<String>,
    pub(super) format: Format,
    pub(super) command: Option<CommandTopic>,
    /// After how long without news the value is no longer believed.
    pub(super) expire: Option<Duration>,
}

/// How a point is written.
#[derive(Debug, PartialEq)]
pub(super) struct CommandTopic {
    pub(super) topic: String,
    pub(super) template: String,
    pub(super) retain: bool,
    pub(super) read_back: bool,
}

impl Settings for Config {
    type Driver = Driver;

    fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    fn periods(&self) -> Vec<Duration> {
        vec![NEVER; self.places.len()]
    }

    fn driver(self: Arc<Self>, outlet: &Outlet) -> Driver {
        Driver::new(self, Arc::clone(&outlet.brokers))
    }
}

/// Resolves a device against its model.
///
/// # Errors
/// Names the field that does not fit.
pub fn resolve(namespace: &str, name: &str, device: &Device, model: &DeviceModel) -> Result<Config, ConfigError> {
    resolve::speaks(MQTT, device, model)?;
    let link: Link = resolve::link(device, model)?;
    let path = "spec.protocol.configData";
    within(path, "timeout", link.timeout, 100, 60_000)?;
    if link.host.as_deref() == Some("") {
        return fail(format!("{path}.host"), "is empty");
    }
    if let Some(Err(e)) = link.ca.as_deref().map(tls::check) {
        return fail(format!("{path}.ca"), e);
    }
    if link.password.is_some() && link.user.is_none() {
        return fail(format!("{path}.user"), "is missing: a password needs one");
    }
    let availability = match &link.availability_topic {
        None => None,
        Some(t) => Some(Availability {
            topic: topic(&format!("{path}.availabilityTopic"), t, &link.base)?,
            path: place(&format!("{path}.availabilityPath"), link.availability_path.as_deref())?,
            online: link.online.clone(),
        }),
    };
    let (mut points, mut places) = (Vec::new(), Vec::new());
    for property in resolve::properties::<Visitor>(device, model) {
        let (property, point) = property?;
        places.push(visit(&property.path, property.visitor, &point, &link.base)?);
        points.push(point);
    }
    // The node's own bus speaks no TLS.
    let named = link.host.is_some() || link.port.is_some() || link.tls;
    let host = link.host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = link.port.unwrap_or(if link.tls { 8883 } else { 1883 });
    let broker = Broker {
        at: named.then_some((host, port)),
        login: link.user.map(|user| (user, link.password.unwrap_or_default())),
        tls: link.tls.then_some(link.ca),
    };
    let timeout = Duration::from_millis(link.timeout);
    let profile = Arc::new(Profile { namespace: namespace.to_owned(), name: name.to_owned(), points });
    Ok(Config { profile, broker, timeout, availability, places })
}

fn visit(path: &str, v: Visitor, point: &Point, base: &str) -> Result<Place, ConfigError> {
    let at = |key: &str| format!("{path}.{key}");
    within(path, "expire", v.expire, 0, MAX_EXPIRE_MS)?;
    let state = v.topic.as_deref().map(|t| topic(&at("topic"), t, base)).transpose()?;
    let command = v.command_topic.as_deref().map(|t| topic(&at("commandTopic"), t, base)).transpose()?;
    if state.is_none() && command.is_none() {
        return fail(at("topic"), "is missing: name the topic of its values, or a commandTopic");
    }
    if point.writable && command.is_none() {
        return fail(at("commandTopic"), "is missing: the model says that the property can be written");
    }
    let read_back = v.read_back && state.is_some();
    let template = v.command_template.unwrap_or_else(|| "{{value}}".to_owned());
    Ok(Place {
        topic: state,
        format: Format { path: place(&at("path"), v.path.as_deref())?, on: v.on, off: v.off },
        command: command.map(|topic| CommandTopic { topic, template, retain: v.retain, read_back }),
        expire: (v.expire > 0).then(|| Duration::from_millis(v.expire)),
    })
}

fn place(path: &str, text: Option<&str>) -> Result<Option<Path>, ConfigError> {
    text.map(Path::parse).transpose().map_err(|message| ConfigError { path: path.to_owned(), message })
}

/// A topic with the device's base in it (MQTT 3.1.1, section 4.7: names have no wildcards).
fn topic(path: &str, text: &str, base: &str) -> Result<String, ConfigError> {
    let whole = match text.strip_prefix('~') {
        Some(_) if base.is_empty() => {
            return fail(path, format!("{text:?} begins with the device's base, which is empty"));
        }
        Some(rest) => format!("{base}{rest}"),
        None => text.to_owned(),
    };
    if whole.is_empty() || whole.len() > 1024 || whole.contains(['+', '#', '\0']) {
        return fail(path, format!("{whole:?} is not a topic: 1 to 1024 bytes without + and #"));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolved(link: Value, visitor: Value) -> Result<Config, ConfigError> {
        let model = json!({"protocol": "mqtt", "properties": [{"name": "power", "type": "BOOLEAN", "accessMode": "ReadWrite"}]});
        let device = json!({
            "deviceModelRef": {"name": "plug"},
            "protocol": {"protocolName": "mqtt", "configData": link},
            "properties": [{"name": "power", "visitors": {"protocolName": "mqtt", "configData": visitor}}],
        });
        let (model, device) = (DeviceModel::parse(&model).unwrap(), Device::parse(&device).unwrap());
        resolve("default", "plug", &device, &model)
    }

    #[test]
    fn the_base_goes_into_topics_and_the_bus_is_the_broker() {
        let config = resolved(
            json!({"base": "zigbee2mqtt/plug", "availabilityTopic": "~/availability"}),
            json!({"topic": "~", "path": "state", "commandTopic": "~/set"}),
        )
        .unwrap();
        assert_eq!(config.broker.at, None);
        assert_eq!(config.places[0].topic.as_deref(), Some("zigbee2mqtt/plug"));
        assert_eq!(config.places[0].command.as_ref().unwrap().topic, "zigbee2mqtt/plug/set");
        assert_eq!(config.availability.unwrap().topic, "zigbee2mqtt/plug/availability");
        let at = |link: Value| resolved(link, json!({"commandTopic": "a"})).unwrap().broker.at;
        for (link, host, port) in [
            (json!({"tls": true}), "127.0.0.1", 8883),
            (json!({"port": 1884}), "127.0.0.1", 1884),
            (json!({"host": "hub"}), "hub", 1883),
        ] {
            assert_eq!(at(link), Some((host.to_owned(), port)));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (link, visitor) = ("spec.protocol.configData", "spec.properties[0].visitors.configData");
        let cases = [
            (json!({"timeout": 1}), json!({"commandTopic": "a"}), link, "timeout"),
            (json!({"host": ""}), json!({"commandTopic": "a"}), link, "host"),
            (json!({"ca": "x"}), json!({"commandTopic": "a"}), link, "ca"),
            (json!({"password": "x"}), json!({"commandTopic": "a"}), link, "user"),
            (json!({"availabilityTopic": "+"}), json!({"commandTopic": "a"}), link, "availabilityTopic"),
            (json!({}), json!({}), visitor, "topic"),
            (json!({}), json!({"topic": "a"}), visitor, "commandTopic"),
            (json!({}), json!({"topic": "~/a", "commandTopic": "a"}), visitor, "topic"),
            (json!({}), json!({"topic": "a/#", "commandTopic": "a"}), visitor, "topic"),
            (json!({}), json!({"path": "a[", "commandTopic": "a"}), visitor, "path"),
            (json!({}), json!({"expire": 86_400_001, "commandTopic": "a"}), visitor, "expire"),
        ];
        for (l, v, path, key) in cases {
            let error = resolved(l.clone(), v.clone()).unwrap_err();
            assert_eq!(error.path, format!("{path}.{key}"), "{l} {v}: {error}");
        }
    }
}
