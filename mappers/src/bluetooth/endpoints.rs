//! All Bluetooth devices of a node, and the adapters they are on.
//!
//! Nothing of the system's Bluetooth is touched before the first device is configured, and everything is given back when the
//! last one is removed; only the connection to D-Bus stays, idle.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::adapter::Adapter;
use super::config::Config;
use super::driver::Attached;
use super::link::Stack;
use crate::Port;
use crate::device::{Devices, Outlet};

/// A device that does not answer is probed at least so often: it runs on a battery, and its radio is slow to connect.
const PROBE: Duration = Duration::from_secs(30);

/// All Bluetooth devices of a node.
pub struct Bluetooth<S: Stack = super::bluez::BlueZ> {
    stack: Arc<S>,
    devices: Devices<Attached<S::Radio>>,
    adapters: HashMap<String, Arc<Adapter<S::Radio>>>,
    tasks: JoinSet<()>,
    pauses: (Duration, Duration),
}

impl<S: Stack> Bluetooth<S> {
    /// No devices yet. Samples go to `outlet`; `pauses` are the first and the longest between attempts to use an adapter.
    pub fn new(stack: S, outlet: Outlet, pauses: (Duration, Duration)) -> Bluetooth<S> {
        let outlet = Outlet { pauses: (outlet.pauses.0.min(PROBE), outlet.pauses.1.min(PROBE)), ..outlet };
        Bluetooth {
            stack: Arc::new(stack),
            devices: Devices::new(outlet),
            adapters: HashMap::new(),
            tasks: JoinSet::new(),
            pauses,
        }
    }

    /// The devices from now on. Those that are equal to what they were are left alone.
    pub fn set(&mut self, wanted: &[Arc<Config>]) {
        let mut attached = Vec::with_capacity(wanted.len());
        let mut used: HashMap<&str, usize> = HashMap::new();
        for config in wanted {
            let slots = used.entry(&config.adapter).or_insert(usize::MAX);
            *slots = config.max_connections.min(*slots);
        }
        for (name, slots) in &used {
            match self.adapters.get(*name) {
                Some(adapter) => adapter.set_slots(*slots),
                None => {
                    let adapter = Adapter::new(name, *slots);
                    self.tasks.spawn(Arc::clone(&adapter).run(Arc::clone(&self.stack), self.pauses));
                    self.adapters.insert((*name).to_owned(), adapter);
                }
            }
        }
        for config in wanted {
            if let Some(adapter) = self.adapters.get(&config.adapter) {
                let (config, adapter) = (Arc::clone(config), Arc::clone(adapter));
                attached.push(Arc::new(Attached { config, adapter }));
            }
        }
        self.devices.set(&attached);
        self.adapters.retain(|name, adapter| {
            let keep = used.contains_key(name.as_str());
            if !keep {
                adapter.stop.cancel();
            }
            keep
        });
    }

    /// Where commands for a device go.
    pub fn port(&self, device: &Arc<Config>) -> Option<Port> {
        let adapter = Arc::clone(self.adapters.get(&device.adapter)?);
        self.devices.port(&Attached { config: Arc::clone(device), adapter })
    }

    /// Waits until a task has failed, which none does by itself. Cancel safe.
    pub async fn failure(&mut self) -> JoinError {
        loop {
            tokio::select! {
                e = self.devices.failure() => return e,
                Some(ended) = self.tasks.join_next() => if let Err(e) = ended {
                    return e;
                },
            }
        }
    }

    /// Ends every task and waits for it; devices are disconnected first.
    pub async fn shutdown(&mut self) {
        self.devices.shutdown().await;
        for adapter in self.adapters.drain().map(|(_, a)| a) {
            adapter.stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The system's BlueZ.
impl Bluetooth {
    /// As [`Bluetooth::new`], on the system's BlueZ.
    pub fn of_the_system(outlet: Outlet, pauses: (Duration, Duration)) -> Bluetooth {
        Bluetooth::new(super::bluez::BlueZ::default(), outlet, pauses)
    }
}
