//! Every protocol this node speaks itself: the one place that names them all.
//!
//! A protocol is a folder with `config` (its Device and model, resolved), `decode` (its bytes to values), and a driver; it is
//! added here with one variant and one line in each function.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use edge_model::device::{BLUETOOTH, Device, DeviceModel, HTTP, MODBUS, MQTT, ONVIF, SNMP, VIRTUAL};
use edge_model::reading::Value;
use tokio::sync::mpsc;
use tokio::task::JoinError;

use crate::bluetooth::{self, Bluetooth};
use crate::device::{Devices, Outlet, Settings};
use crate::modbus::{self, Modbus, Pauses};
use crate::resolve::ConfigError;
use crate::{AccessError, Batch, Port, Profile, http, mqtt, onvif, simulated, snmp};

/// A device of one of the protocols, resolved. Equal exactly when the device need not be talked to anew.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// Modbus.
    Modbus(Arc<modbus::Config>),
    /// Bluetooth Low Energy.
    Bluetooth(Arc<bluetooth::Config>),
    /// A device with MQTT topics of its own.
    Mqtt(Arc<mqtt::Config>),
    /// A device with an HTTP interface.
    Http(Arc<http::Config>),
    /// An SNMP agent.
    Snmp(Arc<snmp::Config>),
    /// A camera that speaks ONVIF.
    Onvif(Arc<onvif::Config>),
    /// A device that is not there.
    Virtual(Arc<simulated::Config>),
}

impl Config {
    /// Resolves a device against its model. `None` for a protocol that is not spoken here: its mapper is elsewhere.
    ///
    /// # Errors
    /// Names the field that does not fit.
    pub fn resolve(
        namespace: &str,
        name: &str,
        device: &Device,
        model: &DeviceModel,
    ) -> Result<Option<Config>, ConfigError> {
        Ok(Some(match device.protocol.protocol_name.as_str() {
            MODBUS => Config::Modbus(Arc::new(modbus::resolve(namespace, name, device, model)?)),
            BLUETOOTH => Config::Bluetooth(Arc::new(bluetooth::resolve(namespace, name, device, model)?)),
            MQTT => Config::Mqtt(Arc::new(mqtt::resolve(namespace, name, device, model)?)),
            HTTP => Config::Http(Arc::new(http::resolve(namespace, name, device, model)?)),
            SNMP => Config::Snmp(Arc::new(snmp::resolve(namespace, name, device, model)?)),
            ONVIF => Config::Onvif(Arc::new(onvif::resolve(namespace, name, device, model)?)),
            VIRTUAL => Config::Virtual(Arc::new(simulated::resolve(namespace, name, device, model)?)),
            _ => return Ok(None),
        }))
    }

    /// Names, types and limits of its points.
    pub fn profile(&self) -> &Arc<Profile> {
        match self {
            Config::Modbus(c) => &c.profile,
            Config::Bluetooth(c) => &c.profile,
            Config::Mqtt(c) => c.profile(),
            Config::Http(c) => c.profile(),
            Config::Snmp(c) => c.profile(),
            Config::Onvif(c) => c.profile(),
            Config::Virtual(c) => c.profile(),
        }
    }

    /// What the device would report after `value` was written to a point. The value has passed the model's checks.
    ///
    /// # Errors
    /// Why the value can never be written.
    pub fn target(&self, index: usize, value: Value) -> Result<Value, AccessError> {
        match self {
            Config::Modbus(c) => match c.registers.get(index) {
                Some(register) => register.codec.canonical(&value, register.count),
                None => Err(AccessError::Unknown(index.to_string())),
            },
            Config::Bluetooth(c) => c.target(index, &value),
            Config::Mqtt(_) | Config::Http(_) | Config::Snmp(_) | Config::Onvif(_) | Config::Virtual(_) => Ok(value),
        }
    }
}

/// All devices this node talks to itself.
pub struct Mappers {
    modbus: Modbus,
    bluetooth: Bluetooth,
    mqtt: Devices<mqtt::Config>,
    http: Devices<http::Config>,
    snmp: Devices<snmp::Config>,
    onvif: Devices<onvif::Config>,
    simulated: Devices<simulated::Config>,
}

impl Mappers {
    /// No devices yet. Samples go to `batches`; when it is full, mappers wait. `clock` gives UTC milliseconds;
    /// `files` is the folder whose files a device's description may name, `broker` the MQTT broker of devices that name none.
    pub fn new(
        batches: mpsc::Sender<Batch>,
        clock: fn() -> i64,
        pauses: Pauses,
        files: &Path,
        broker: SocketAddr,
    ) -> Mappers {
        let outlet = Outlet {
            batches: batches.clone(),
            clock,
            pauses: pauses.unit,
            files: files.into(),
            traps: Arc::default(),
            brokers: Arc::new(mqtt::broker::Brokers::new(broker)),
        };
        let bluetooth = Bluetooth::of_the_system(outlet.clone(), pauses.link);
        Mappers {
            modbus: Modbus::new(batches, clock, pauses),
            bluetooth,
            mqtt: Devices::new(outlet.clone()),
            http: Devices::new(outlet.clone()),
            snmp: Devices::new(outlet.clone()),
            onvif: Devices::new(outlet.clone()),
            simulated: Devices::new(outlet),
        }
    }

    /// The devices from now on. Those that are equal to what they were are left alone.
    pub fn set(&mut self, devices: &[Config]) {
        self.modbus.set(&pick(devices, |c| if let Config::Modbus(c) = c { Some(c) } else { None }));
        self.bluetooth.set(&pick(devices, |c| if let Config::Bluetooth(c) = c { Some(c) } else { None }));
        self.mqtt.set(&pick(devices, |c| if let Config::Mqtt(c) = c { Some(c) } else { None }));
        self.http.set(&pick(devices, |c| if let Config::Http(c) = c { Some(c) } else { None }));
        self.snmp.set(&pick(devices, |c| if let Config::Snmp(c) = c { Some(c) } else { None }));
        self.onvif.set(&pick(devices, |c| if let Config::Onvif(c) = c { Some(c) } else { None }));
        self.simulated.set(&pick(devices, |c| if let Config::Virtual(c) = c { Some(c) } else { None }));
    }

    /// Where commands for a device go.
    pub fn port(&self, device: &Config) -> Option<Port> {
        match device {
            Config::Modbus(c) => self.modbus.port(c),
            Config::Bluetooth(c) => self.bluetooth.port(c),
            Config::Mqtt(c) => self.mqtt.port(c),
            Config::Http(c) => self.http.port(c),
            Config::Snmp(c) => self.snmp.port(c),
            Config::Onvif(c) => self.onvif.port(c),
            Config::Virtual(c) => self.simulated.port(c),
        }
    }

    /// Waits until a task has failed, which none does by itself. Cancel safe.
    pub async fn failure(&mut self) -> JoinError {
        tokio::select! {
            e = self.modbus.failure() => e,
            e = self.bluetooth.failure() => e,
            e = self.mqtt.failure() => e,
            e = self.http.failure() => e,
            e = self.snmp.failure() => e,
            e = self.onvif.failure() => e,
            e = self.simulated.failure() => e,
        }
    }

    /// Ends every task and waits for it.
    pub async fn shutdown(&mut self) {
        self.modbus.shutdown().await;
        self.bluetooth.shutdown().await;
        self.mqtt.shutdown().await;
        self.http.shutdown().await;
        self.snmp.shutdown().await;
        self.onvif.shutdown().await;
        self.simulated.shutdown().await;
    }
}

/// The devices of one protocol.
fn pick<C>(devices: &[Config], of: fn(&Config) -> Option<&Arc<C>>) -> Vec<Arc<C>> {
    devices.iter().filter_map(of).cloned().collect()
}
