//! The Modbus mapper in a test: started, asked, and its batches waited for.

use std::sync::Arc;
use std::time::Duration;

use edge_mappers::modbus::{Config, Modbus, Pauses, resolve};
use edge_mappers::{AccessError, Batch, Port};
use edge_model::device::{Device, DeviceModel};
use edge_model::reading::{Quality, Reading, Value};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::field::{PATIENCE, device, model, model_property, property};

/// A mapper that retries fast, and what it sends.
pub struct Mapper {
    /// The mapper itself.
    pub modbus: Modbus,
    batches: mpsc::Receiver<Batch>,
    /// What it polls.
    pub devices: Vec<Arc<Config>>,
}

fn clock() -> i64 {
    1_000
}

impl Mapper {
    /// Starts polling devices.
    pub fn start(devices: Vec<Config>) -> Mapper {
        let (out, batches) = mpsc::channel(64);
        let fast = (Duration::from_millis(20), Duration::from_millis(100));
        let mut modbus = Modbus::new(out, clock, Pauses { unit: fast, link: fast });
        let devices: Vec<_> = devices.into_iter().map(Arc::new).collect();
        modbus.set(&devices);
        Mapper { modbus, batches, devices }
    }

    /// Where commands for a device go.
    ///
    /// # Panics
    /// When it is not polled.
    pub fn port(&self, device: usize) -> Port {
        self.modbus.port(&self.devices[device]).expect("a port")
    }

    /// Waits for a batch that is so. The channel goes on being emptied, as the field does.
    pub async fn batch(&mut self, what: &str, is: impl Fn(&Batch) -> bool) -> Batch {
        let found = async {
            loop {
                let batch = self.batches.recv().await.expect("the mapper runs");
                if is(&batch) {
                    return batch;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("never came: {what}"))
    }

    /// Does something while the channel is being emptied.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let done = async {
            loop {
                tokio::select! {
                    result = &mut work => return result,
                    _ = self.batches.recv() => {}
                }
            }
        };
        timeout(PATIENCE, done).await.expect("an answer in time")
    }

    /// Reads all of a device.
    ///
    /// # Errors
    /// The mapper's.
    pub async fn read(&mut self, device: usize) -> Result<Vec<Reading>, AccessError> {
        let port = self.port(device);
        self.during(async move { port.read(None).await }).await
    }

    /// Writes a property of a device.
    ///
    /// # Errors
    /// The mapper's.
    pub async fn write(&mut self, device: usize, property: &str, value: Json) -> Result<Reading, AccessError> {
        let (port, property) = (self.port(device), property.to_owned());
        self.during(async move { port.write(&property, value).await }).await
    }
}

/// A resolved device: its link keys, and its properties as `(name, type, visitor keys)`.
pub fn config(name: &str, link: Json, properties: &[(&str, &str, Json)]) -> Config {
    let in_model: Vec<Json> = properties.iter().map(|(n, t, _)| model_property(n, t, "ReadWrite")).collect();
    let tables = ["InputRegister", "DiscreteInputRegister", "DeviceIdentification"];
    let read_only = |t: &Json| t["register"].as_str().is_some_and(|table| tables.contains(&table));
    let in_model: Vec<Json> = in_model
        .into_iter()
        .zip(properties)
        .map(|(mut m, (_, _, keys))| {
            if read_only(keys) {
                m["accessMode"] = json!("ReadOnly");
            }
            m
        })
        .collect();
    let in_device: Vec<Json> = properties.iter().map(|(n, _, keys)| property(n, keys.clone())).collect();
    let model = DeviceModel::parse(&model(&in_model)).expect("a model");
    let device = Device::parse(&device("m", link, &in_device)).expect("a device");
    resolve("default", name, &device, &model).expect("a config")
}

/// The value of a property; `None` when it is bad or not there.
pub fn value(readings: &[Reading], property: &str) -> Option<Value> {
    readings.iter().find(|r| r.property == property).and_then(|r| r.value.clone())
}

/// The quality of a property.
///
/// # Panics
/// When it is not there.
pub fn quality(readings: &[Reading], property: &str) -> Quality {
    readings.iter().find(|r| r.property == property).map(|r| r.quality).expect("the property")
}
