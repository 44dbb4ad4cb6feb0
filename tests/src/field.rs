//! A field in a test: store, bus and queue in memory, the field unit running, and waits that are conditions with deadlines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_model::device::status::{DeviceStatus, Twin};
use edge_model::{Key, Kind, Object};
use edge_runtime::bus::Bus;
use edge_runtime::field::{self, Commands, Context, Settings};
use edge_runtime::queue::Queue;
use edge_runtime::store::Store;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a condition may take before the test fails: far longer than it ever should, also on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is there.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A running field.
pub struct Field {
    /// Its objects.
    pub store: Store,
    /// Its bus.
    pub bus: Bus,
    /// Its queue.
    pub queue: Queue,
    /// Its commands.
    pub commands: Commands,
    stop: CancellationToken,
    task: JoinHandle<Result<(), field::Error>>,
}

impl Field {
    /// Starts one that retries fast.
    pub fn start() -> Field {
        let settings = Settings {
            node_name: "gw".into(),
            probe_max_ms: 200,
            connect_max_ms: 200,
            status_interval_ms: 100,
            ..Settings::default()
        };
        let (store, bus, queue) = (Store::in_memory(), Bus::in_memory(), Queue::in_memory());
        Field::start_on(store, bus, queue, settings)
    }

    /// Starts one on what is there.
    pub fn start_on(store: Store, bus: Bus, queue: Queue, settings: Settings) -> Field {
        let (commands, inbox) = field::commands();
        let stop = CancellationToken::new();
        let context = Context { store: store.clone(), bus: bus.clone(), queue: queue.clone(), inbox, settings };
        let task = tokio::spawn(field::run(context, stop.clone()));
        Field { store, bus, queue, commands, stop, task }
    }

    /// Listens on a filter from now on.
    pub fn listen(&self, filter: &str) -> Listener {
        Listener::new(&self.bus, filter)
    }

    /// Applies an object of a spec.
    pub async fn apply(&self, kind: Kind, name: &str, spec: Value) -> Arc<Object> {
        self.store.apply(Object::new(kind, "", name, spec)).await.expect("applies").0
    }

    /// The status of a device; empty when there is none.
    pub fn status(&self, device: &str) -> DeviceStatus {
        let object = self.store.get(&Key::new(Kind::Device, "", device));
        object.and_then(|o| serde_json::from_value(o.status().clone()).ok()).unwrap_or_default()
    }

    /// Waits until the status is so.
    pub async fn status_when(&self, device: &str, what: &str, is: impl Fn(&DeviceStatus) -> bool) -> DeviceStatus {
        let start = Instant::now();
        loop {
            let status = self.status(device);
            if is(&status) {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "{device} never became {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops it and waits.
    pub async fn stop(self) -> (Store, Queue) {
        self.stop.cancel();
        self.task.await.expect("ends").expect("without an error");
        (self.store, self.queue)
    }
}

/// Hears everything on a filter, however late the test looks: a task empties the subscription all the time.
pub struct Listener {
    heard: mpsc::UnboundedReceiver<Value>,
    task: JoinHandle<()>,
}

impl Listener {
    fn new(bus: &Bus, filter: &str) -> Listener {
        let mut subscription = bus.subscribe(filter);
        let (sender, heard) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Some(message) = subscription.next().await {
                // A retained state is cleared with an empty message, which is no JSON.
                let json = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
                let _ = sender.send(json);
            }
        });
        Listener { heard, task }
    }

    /// The next message that is so.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub async fn message(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let json = self.heard.recv().await.expect("the bus is open");
                if is(&json) {
                    return json;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("never came: {what}"))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A property's twin in a status.
pub fn twin<'a>(status: &'a DeviceStatus, property: &str) -> Option<&'a Twin> {
    status.twins.iter().find(|t| t.property_name == property)
}

/// A property's reported value in a status; empty when there is none.
pub fn reported<'a>(status: &'a DeviceStatus, property: &str) -> &'a str {
    twin(status, property).map_or("", |t| &t.reported.value)
}

/// A model's property.
pub fn model_property(name: &str, kind: &str, access: &str) -> Value {
    json!({"name": name, "type": kind, "accessMode": access})
}

/// A Modbus model.
pub fn model(properties: &[Value]) -> Value {
    json!({"protocol": "modbus", "properties": properties})
}

/// A device's property, read every 50 ms.
pub fn property(name: &str, data: Value) -> Value {
    let visitors = json!({"protocolName": "modbus", "configData": data});
    json!({"name": name, "collectCycle": 50, "visitors": visitors})
}

/// A Modbus device on loopback.
pub fn device(model: &str, link: Value, properties: &[Value]) -> Value {
    // A loaded machine is no dead device.
    let mut data = json!({"ip": "127.0.0.1", "timeout": 30_000});
    for (key, value) in link.as_object().into_iter().flatten() {
        data[key] = value.clone();
    }
    json!({
        "deviceModelRef": {"name": model},
        "protocol": {"protocolName": "modbus", "configData": data},
        "properties": properties,
    })
}
