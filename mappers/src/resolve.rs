//! Resolving a Device against its DeviceModel: what is the same for every protocol.

use edge_model::device::behaviour::{link_data, visitor_data};
use edge_model::device::{self, AccessMode, Device, DeviceModel, DeviceProperty, ModelProperty};
use serde::Deserialize;
use serde_json::Value;

use crate::Point;

/// Why a device cannot be used as its objects say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ConfigError {
    /// The field of the Device, from `spec` on.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// An error about the field at `path`.
pub(crate) fn fail<T>(path: impl Into<String>, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { path: path.into(), message: message.into() })
}

/// Takes a protocol's settings apart.
pub(crate) fn view<'de, T: Deserialize<'de>>(path: &str, value: &'de Value) -> Result<T, ConfigError> {
    T::deserialize(value).map_err(|e| ConfigError { path: path.to_owned(), message: e.to_string() })
}

/// Refuses a number outside its range.
pub(crate) fn within(path: &str, key: &str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    fail(format!("{path}.{key}"), format!("{value} is not between {low} and {high}"))
}

/// Whether the device and its model speak `protocol`.
pub(crate) fn speaks(protocol: &str, device: &Device, model: &DeviceModel) -> Result<(), ConfigError> {
    let (d, m) = (&device.protocol.protocol_name, &model.protocol);
    if m == protocol && d == protocol {
        return Ok(());
    }
    fail("spec.protocol.protocolName", format!("{d:?} does not fit the model's protocol {m:?}"))
}

/// `protocol.configData` of a device over the defaults of its model.
pub(crate) fn link<T: for<'de> Deserialize<'de>>(device: &Device, model: &DeviceModel) -> Result<T, ConfigError> {
    let data = device::merged(model.protocol_config_data.as_ref(), device.protocol.config_data.as_ref());
    view("spec.protocol.configData", &link_data(&data))
}

/// One property of a device with what the model and the visitors say of it.
pub(crate) struct Property<'a, V> {
    /// Of the device.
    pub(crate) own: &'a DeviceProperty,
    /// Of the model.
    pub(crate) model: &'a ModelProperty,
    /// `visitors.configData` of the device over that of the model.
    pub(crate) visitor: V,
    /// The path of that, for errors.
    pub(crate) path: String,
}

/// Every property of a device, in order, with the point it makes.
pub(crate) fn properties<'a, V: for<'de> Deserialize<'de>>(
    device: &'a Device,
    model: &'a DeviceModel,
) -> impl Iterator<Item = Result<(Property<'a, V>, Point), ConfigError>> {
    device.properties.iter().enumerate().map(|(i, own)| {
        let (in_model, point) = point(i, own, model)?;
        let default = in_model.visitors.as_ref().and_then(|v| v.config_data.as_ref());
        let over = own.visitors.as_ref().and_then(|v| v.config_data.as_ref());
        let path = format!("spec.properties[{i}].visitors.configData");
        let visitor = view(&path, &visitor_data(&device::merged(default, over)))?;
        Ok((Property { own, model: in_model, visitor, path }, point))
    })
}

/// The points of a device of whatever protocol.
///
/// # Errors
/// A property is not one of the model's.
pub fn points(device: &Device, model: &DeviceModel) -> Result<Vec<Point>, ConfigError> {
    device.properties.iter().enumerate().map(|(i, own)| Ok(point(i, own, model)?.1)).collect()
}

fn point<'a>(
    index: usize,
    own: &DeviceProperty,
    model: &'a DeviceModel,
) -> Result<(&'a ModelProperty, Point), ConfigError> {
    let Some(in_model) = model.property(&own.name) else {
        let path = format!("spec.properties[{index}].name");
        return fail(path, format!("{:?} is not a property of the model", own.name));
    };
    let limit = |text: &Option<String>| text.as_deref().and_then(|t| t.parse().ok());
    let point = Point {
        name: own.name.clone(),
        value_type: in_model.value_type,
        unit: in_model.unit.clone(),
        writable: in_model.access_mode == AccessMode::ReadWrite,
        minimum: limit(&in_model.minimum),
        maximum: limit(&in_model.maximum),
    };
    Ok((in_model, point))
}
