//! Objects → devices: the field follows what is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_model::{Key, Kind, Object};

use super::device::{Known, Mapper};
use super::unit::{Field, Id};
use crate::bus::Retain;
use crate::clock::now_ms;
use crate::store::{Change, Filter, StoreError, Watch, WatchEvent};
use crate::twin::wire;
use edge_model::topic::Topic;

/// The two watches of the field.
pub(super) struct Watches {
    devices: Watch,
    models: Watch,
}

impl Watches {
    /// The next change of a device or a model. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        tokio::select! {
            event = self.models.next() => event,
            event = self.devices.next() => event,
        }
    }
}

impl Field {
    /// Lists everything and watches from there.
    pub(super) fn list(&mut self) -> Watches {
        let (devices, version) = self.context.store.list(Kind::Device, None);
        let gone: Vec<Id> = {
            let there: BTreeMap<Id, ()> = devices.iter().map(|d| (id(d), ())).collect();
            self.devices.keys().filter(|k| !there.contains_key(*k)).cloned().collect()
        };
        for id in gone {
            self.remove(&id);
        }
        for device in &devices {
            self.resolve(device);
        }
        self.apply();
        let watch = |kind| self.context.store.watch(Filter::kind(kind), version);
        Watches { devices: watch(Kind::Device), models: watch(Kind::DeviceModel) }
    }

    /// One change.
    pub(super) fn changed(&mut self, event: &WatchEvent) {
        let object = &event.object;
        match (object.kind, event.change) {
            (Kind::Device, Change::Deleted) => {
                // A device deleted and made again at once is seen as it is now.
                match self.context.store.get(&object.key()) {
                    None => self.remove(&id(object)),
                    Some(now) => self.resolve(&now),
                }
            }
            (Kind::Device, _) => {
                // Most changes are statuses, written here.
                let same = |k: &Known| k.uid == object.metadata.uid && k.generation == object.metadata.generation;
                if self.devices.get(&id(object)).is_some_and(same) {
                    return;
                }
                self.resolve(object);
            }
            (Kind::DeviceModel, _) => {
                let (devices, _) = self.context.store.list(Kind::Device, Some(&object.metadata.namespace));
                let refers = |d: &&Arc<Object>| d.spec()["deviceModelRef"]["name"] == *object.metadata.name;
                for device in devices.iter().filter(refers) {
                    self.resolve(device);
                }
            }
            _ => return,
        }
        self.apply();
    }

    /// Resolves a device against its model as both are in the store now.
    fn resolve(&mut self, device: &Object) {
        let model = device.spec()["deviceModelRef"]["name"]
            .as_str()
            .and_then(|name| self.context.store.get(&Key::new(Kind::DeviceModel, &device.metadata.namespace, name)));
        let id = id(device);
        let generation = model.as_ref().map_or(0, |m| m.metadata.generation);
        let meta = &device.metadata;
        let same = |k: &Known| k.uid == meta.uid && (k.generation, k.model_generation) == (meta.generation, generation);
        if self.devices.get(&id).is_some_and(same) {
            return;
        }
        let old = self.devices.remove(&id);
        let old_was_none = old.is_none();
        let known = Known::new(device, model.as_deref(), &self.context.settings.node_name, old);
        if let Mapper::None(why) = &known.mapper {
            tracing::warn!(device = %device.key(), reason = %why, "device cannot be used");
        }
        if old_was_none {
            self.came.push(known.id.clone());
        }
        self.devices.insert(id, known);
    }

    fn remove(&mut self, id: &Id) {
        if let Some(known) = self.devices.remove(id) {
            // The retained state goes with the device.
            self.context.bus.publish(&Topic::DeviceState(known.id.clone()), Vec::new(), Retain::Yes);
            self.went.push(known.id);
        }
    }

    /// Tells the mappers what to poll, and the bus what is wanted.
    fn apply(&mut self) {
        let own: Vec<_> = self
            .devices
            .values()
            .filter_map(|k| match &k.mapper {
                Mapper::Own(config) => Some(config.clone()),
                Mapper::Outside | Mapper::None(_) => None,
            })
            .collect();
        self.mappers.set(&own);
        if !(self.came.is_empty() && self.went.is_empty()) {
            let topic = Topic::MembershipUpdated(self.context.settings.node_name.clone());
            let payload = wire::membership(now_ms(), &self.came, &self.went);
            self.context.bus.publish(&topic, payload, Retain::No);
            (self.came, self.went) = (Vec::new(), Vec::new());
        }
        let ids: Vec<Id> = self.devices.keys().cloned().collect();
        for id in ids {
            self.pursue(&id);
        }
    }
}

/// Namespace and name.
pub(super) fn id(object: &Object) -> Id {
    (object.metadata.namespace.clone(), object.metadata.name.clone())
}
