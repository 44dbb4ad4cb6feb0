//! A Bluetooth device and its model, resolved: nothing left to look up, default or refuse while it is talked to.

use std::sync::Arc;
use std::time::Duration;

use edge_model::device::bluetooth::{Decoder, Link, MAX_OFFLINE_AFTER_MS, Mode, Visitor, WriteType};
use edge_model::device::{BLUETOOTH, Device, DeviceModel};
use edge_model::reading::Value;

use super::address::Address;
use super::codec::Codec;
use super::decode::hex;
use super::uuid::Uuid;
use crate::resolve::{self, ConfigError, Property, fail, within};
use crate::{AccessError, Profile};

/// The largest passkey: six digits (Bluetooth Core 5.4, volume 3, part H, 2.3.5.3).
const MAX_PASSKEY: u32 = 999_999;

/// One Bluetooth device.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// Names, types and limits of its points.
    pub profile: Arc<Profile>,
    /// Its address.
    pub address: Address,
    /// The adapter that hears it: a name, an address, or empty for the first one.
    pub adapter: String,
    /// What its advertisements are.
    pub decoder: Decoder,
    /// The key of encrypted ones: 16 bytes, 12, or none.
    pub key: Vec<u8>,
    /// Silence after which a device that only advertises is offline.
    pub offline_after: Duration,
    /// How long a read or write may take.
    pub timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The most connections of its adapter.
    pub max_connections: usize,
    /// Whether to pair first.
    pub bond: bool,
    /// What to answer when it asks for a passkey.
    pub passkey: Option<u32>,
    /// Where each point is, as many and in the order of the profile's points.
    pub sources: Vec<Source>,
    /// How often each is read, or told at most when nothing changed.
    pub cycles: Vec<Duration>,
}

/// Keys do not go into logs.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config({} at {})", self.profile.name, self.address)
    }
}

/// Where one point is.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A field of a known advertisement format.
    Field(String),
    /// Part of the manufacturer data of a company.
    Manufacturer(u16, Codec),
    /// Part of the service data of a service.
    Service(Uuid, Codec),
    /// The strength of its signal, in dBm.
    Rssi,
    /// When it was last heard, UTC milliseconds.
    LastSeen,
    /// Whether it is connected.
    Connected,
    /// A characteristic.
    Gatt(Gatt),
}

/// A characteristic.
#[derive(Debug, Clone, PartialEq)]
pub struct Gatt {
    /// Its name.
    pub uuid: Uuid,
    /// Its service, if one has to be told.
    pub service: Option<Uuid>,
    /// Whether the device sends it by itself.
    pub mode: Mode,
    /// How it is written.
    pub write: WriteType,
    /// Whether a write is checked by reading.
    pub read_back: bool,
    /// How its bytes make a value.
    pub codec: Codec,
}

impl Config {
    /// Whether it has to be connected to.
    pub fn connects(&self) -> bool {
        self.sources.iter().any(|s| matches!(s, Source::Gatt(_)))
    }

    /// What the device would report after `value` was written to a point.
    ///
    /// # Errors
    /// Why the value can never be written.
    pub fn target(&self, index: usize, value: &Value) -> Result<Value, AccessError> {
        match self.sources.get(index) {
            Some(Source::Gatt(gatt)) => gatt.codec.canonical(value),
            Some(_) => Err(AccessError::ReadOnly(index.to_string())),
            None => Err(AccessError::Unknown(index.to_string())),
        }
    }
}

/// Resolves a device against its model.
///
/// # Errors
/// Names the field that does not fit.
pub fn resolve(namespace: &str, name: &str, device: &Device, model: &DeviceModel) -> Result<Config, ConfigError> {
    resolve::speaks(BLUETOOTH, device, model)?;
    let link: Link = resolve::link(device, model)?;
    let path = "spec.protocol.configData";
    let Some(address) = Address::parse(&link.mac_address) else {
        return fail(
            format!("{path}.macAddress"),
            format!("{:?} is no address like A4:C1:38:02:83:F4", link.mac_address),
        );
    };
    within(path, "offlineAfter", link.offline_after.into(), 1_000, MAX_OFFLINE_AFTER_MS.into())?;
    within(path, "timeout", link.timeout.into(), 100, 60_000)?;
    within(path, "connectTimeout", link.connect_timeout.into(), 1_000, 60_000)?;
    within(path, "maxConnections", link.max_connections.into(), 1, 32)?;
    within(path, "passkey", link.passkey.unwrap_or(0).into(), 0, MAX_PASSKEY.into())?;
    let key = hex(&link.encryption_key).filter(|k| matches!(k.len(), 0 | 12 | 16));
    let Some(key) = key else {
        return fail(format!("{path}.encryptionKey"), "must be 32 hexadecimal digits (24 for MiBeacon 2 and 3)");
    };
    let (mut points, mut sources, mut cycles) = (Vec::new(), Vec::new(), Vec::new());
    for found in resolve::properties::<Visitor>(device, model) {
        let (property, point) = found?;
        let source = source(&property)?;
        if point.writable && !matches!(source, Source::Gatt(_)) {
            let why = "what is advertised cannot be written; say ReadOnly in the model";
            return fail(property.path, why);
        }
        cycles.push(Duration::from_millis(property.own.collect_ms()));
        sources.push(source);
        points.push(point);
    }
    let millis = |ms: u32| Duration::from_millis(ms.into());
    Ok(Config {
        profile: Arc::new(Profile { namespace: namespace.to_owned(), name: name.to_owned(), points }),
        address,
        adapter: link.adapter,
        decoder: link.decoder,
        key,
        offline_after: millis(link.offline_after),
        timeout: millis(link.timeout),
        connect_timeout: millis(link.connect_timeout),
        max_connections: link.max_connections.into(),
        bond: link.bond || link.passkey.is_some(),
        passkey: link.passkey,
        sources,
        cycles,
    })
}

fn source(property: &Property<'_, Visitor>) -> Result<Source, ConfigError> {
    let (v, path) = (&property.visitor, &property.path);
    let uuid = |key: &str, text: &str| match Uuid::parse(text) {
        Some(uuid) => Ok(uuid),
        None => fail(format!("{path}.{key}"), format!("{text:?} is no UUID of 4, 8 or 32 hexadecimal digits")),
    };
    let codec = || match Codec::resolve(v, property.model.value_type) {
        Ok(codec) => Ok(codec),
        Err((key, message)) => fail(format!("{path}.{key}"), message),
    };
    let places = [
        ("characteristicUUID", v.characteristic_uuid.is_some()),
        ("companyID", v.company_id.is_some()),
        ("serviceDataUUID", v.service_data_uuid.is_some()),
        ("field", v.field.is_some()),
    ];
    if let [_, (second, _), ..] = places.iter().filter(|(_, there)| *there).collect::<Vec<_>>()[..] {
        return fail(format!("{path}.{second}"), "a property is in one place only");
    }
    if let Some(text) = &v.characteristic_uuid {
        let codec = codec()?;
        if property.model.access_mode == edge_model::device::AccessMode::ReadWrite
            && let Err((key, message)) = codec.writable()
        {
            return fail(format!("{path}.{key}"), message);
        }
        let service = v.service_uuid.as_deref().map(|s| uuid("serviceUUID", s)).transpose()?;
        let uuid = uuid("characteristicUUID", text)?;
        let (mode, write, read_back) = (v.mode, v.write_type, v.read_back);
        return Ok(Source::Gatt(Gatt { uuid, service, mode, write, read_back, codec }));
    }
    if let Some(company) = v.company_id {
        return Ok(Source::Manufacturer(company, codec()?));
    }
    if let Some(text) = &v.service_data_uuid {
        return Ok(Source::Service(uuid("serviceDataUUID", text)?, codec()?));
    }
    let field = v.field.clone().unwrap_or_else(|| property.own.name.clone());
    Ok(match field.as_str() {
        "rssi" => Source::Rssi,
        "lastSeen" => Source::LastSeen,
        "connected" => Source::Connected,
        _ => Source::Field(field),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn resolved(link: Json, access: &str, visitor: Json) -> Result<Config, ConfigError> {
        let model = json!({"protocol": "bluetooth", "properties": [
            {"name": "temperature", "type": "FLOAT", "accessMode": access, "unit": "°C"}]});
        let device = json!({
            "deviceModelRef": {"name": "m"},
            "protocol": {"protocolName": "bluetooth", "configData": link},
            "properties": [{"name": "temperature", "collectCycle": 5000,
                "visitors": {"protocolName": "bluetooth", "configData": visitor}}],
        });
        let (device, model) = (Device::parse(&device).unwrap(), DeviceModel::parse(&model).unwrap());
        resolve("default", "d", &device, &model)
    }

    #[test]
    fn a_sensor_needs_little() {
        let link = json!({"macAddress": "a4:c1:38:02:83:f4"});
        let config = resolved(link.clone(), "ReadOnly", json!({})).unwrap();
        assert_eq!(config.sources, [Source::Field("temperature".to_owned())]);
        assert_eq!(config.cycles, [Duration::from_secs(5)]);
        assert!(!config.connects() && !config.bond);
        let of = |visitor| resolved(link.clone(), "ReadOnly", visitor).unwrap().sources.remove(0);
        assert_eq!(of(json!({"field": "rssi"})), Source::Rssi);
        assert!(matches!(of(json!({"companyID": 1177, "offset": 1})), Source::Manufacturer(1177, _)));
        assert!(matches!(of(json!({"serviceDataUUID": "181a"})), Source::Service(u, _) if u == Uuid::short(0x181a)));
        let gatt = resolved(link, "ReadWrite", json!({"characteristicUUID": "2a6e", "mode": "notify"})).unwrap();
        assert!(gatt.connects());
    }

    #[test]
    fn secrets_are_not_shown() {
        let link = json!({"macAddress": "a4:c1:38:02:83:f4", "passkey": 123_456,
            "encryptionKey": "231d39c1d7cc1ab1aee224cd096db932"});
        let config = resolved(link, "ReadOnly", json!({})).unwrap();
        assert!(config.bond && config.key.len() == 16);
        let shown = format!("{config:?}");
        assert_eq!(shown, "Config(d at A4:C1:38:02:83:F4)");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_field() {
        let data = "spec.protocol.configData";
        for (link, path) in [
            (json!({}), "macAddress"),
            (json!({"macAddress": "A4:C1"}), "macAddress"),
            (json!({"macAddress": "A4:C1:38:02:83:F4", "passkey": 1_000_000}), "passkey"),
            (json!({"macAddress": "A4:C1:38:02:83:F4", "encryptionKey": "12"}), "encryptionKey"),
            (json!({"macAddress": "A4:C1:38:02:83:F4", "offlineAfter": 1}), "offlineAfter"),
            (json!({"macAddress": "A4:C1:38:02:83:F4", "maxConnections": 0}), "maxConnections"),
        ] {
            assert_eq!(resolved(link, "ReadOnly", json!({})).unwrap_err().path, format!("{data}.{path}"));
        }
        let visitor = "spec.properties[0].visitors.configData";
        for (access, data, path) in [
            ("ReadWrite", json!({}), ""),
            ("ReadOnly", json!({"characteristicUUID": "xyz"}), ".characteristicUUID"),
            ("ReadOnly", json!({"characteristicUUID": "2a6e", "companyID": 1}), ".companyID"),
            ("ReadOnly", json!({"characteristicUUID": "2a6e", "dataType": "string"}), ".dataType"),
            ("ReadWrite", json!({"characteristicUUID": "2a6e", "offset": 1}), ".offset"),
        ] {
            let error = resolved(json!({"macAddress": "A4:C1:38:02:83:F4"}), access, data).unwrap_err();
            assert_eq!(error.path, format!("{visitor}{path}"), "{error}");
        }
    }
}
