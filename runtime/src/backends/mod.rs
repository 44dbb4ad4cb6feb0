//! What stands behind the API: its small traits, answered by the parts of the node.

mod images;
mod logs;

use edge_model::Key;
use edge_model::reading::Reading;
use serde_json::{Value, json};

pub use images::StoredImages;
pub use logs::PodLogs;

use crate::api::backend::{BackendError, Properties, Reply};
use crate::field::{CommandError, Commands};

/// Properties of devices, through the field.
pub struct FieldProperties(pub Commands);

impl Properties for FieldProperties {
    fn read<'a>(&'a self, device: &'a Key, property: &'a str) -> Reply<'a, Value> {
        Box::pin(async move {
            let readings = self.0.get(&device.namespace, &device.name, Some(property)).await?;
            let reading = readings.first().ok_or_else(|| BackendError::NotFound(format!("no property {property}")))?;
            Ok(document(reading))
        })
    }

    fn write<'a>(&'a self, device: &'a Key, property: &'a str, value: &'a Value) -> Reply<'a, Value> {
        Box::pin(async move {
            let reading = self.0.set(&device.namespace, &device.name, property, value.clone()).await?;
            Ok(document(&reading))
        })
    }
}

/// A reading as the API shows it.
fn document(reading: &Reading) -> Value {
    json!({
        "property": reading.property,
        "value": reading.value.as_ref().map_or(Value::Null, edge_model::reading::Value::to_json),
        "unit": reading.unit,
        "quality": reading.quality.as_str(),
        "time": edge_model::time::rfc3339_millis(reading.time_ms),
    })
}

impl From<CommandError> for BackendError {
    fn from(error: CommandError) -> BackendError {
        let message = error.to_string();
        match error {
            CommandError::NotFound(_) => BackendError::NotFound(message),
            CommandError::ReadOnly(_) | CommandError::OutOfRange(_) => BackendError::Invalid(message),
            CommandError::Offline(_) | CommandError::Busy => BackendError::Unavailable(message),
            CommandError::Refused(_) | CommandError::Mismatch { .. } => BackendError::Failed(message),
        }
    }
}
