//! One registered mapper: keeps what it knows of models and devices equal to what is wanted.
//!
//! What is wanted is state, not a series of events: each round compares the store with what the mapper has been told, and a
//! round that fails is repeated. A mapper that restarts registers again, and is told everything anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_mappers::backoff::Backoff;
use edge_model::{Key, Kind, Object};

use super::grpc::{self, Status};
use super::messages::{DeviceRequest, ModelRequest, RemoveRequest};
use super::{Registration, convert};
use crate::store::{Change, Filter, Store, Watch};

/// The pauses after a call that failed.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What the mapper has been told: objects with their uid and generation.
pub(super) type Told = BTreeMap<Key, (String, u64)>;

/// The models and devices of a protocol. A model may leave its protocol to its devices.
pub(super) fn wanted(store: &Store, protocol: &str) -> (Vec<Arc<Object>>, u64) {
    let (models, _) = store.list(Kind::DeviceModel, None);
    let (devices, version) = store.list(Kind::Device, None);
    let all = models.into_iter().chain(devices);
    (all.filter(|o| convert::protocol(o) == protocol).collect(), version)
}

/// As told.
pub(super) fn told(objects: &[Arc<Object>]) -> Told {
    objects.iter().map(|o| (o.key(), version_of(o))).collect()
}

/// Follows the store until cancelled.
pub(super) async fn follow(store: Store, registration: Registration, mut told: Told) {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        let (objects, version) = wanted(&store, &registration.protocol);
        let watch = store.watch(Filter::default(), version);
        match bring(&registration.socket, &objects, &mut told).await {
            Ok(()) => {
                backoff.reset();
                changed(watch, &registration.protocol, &told).await;
            }
            Err(status) => {
                tracing::warn!(mapper = %registration.name, "the mapper was not told: {status}");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// Waits for a change the mapper has not been told of. Most changes of devices are statuses, which are none.
async fn changed(mut watch: Watch, protocol: &str, told: &Told) {
    // Too far behind, or the like: everything is looked at again.
    while let Ok(event) = watch.next().await {
        let object = &event.object;
        let known = told.get(&object.key());
        let ours = matches!(object.kind, Kind::Device | Kind::DeviceModel) && convert::protocol(object) == protocol;
        let news = match known {
            // It may have got another protocol.
            Some(version) => event.change == Change::Deleted || !ours || *version != version_of(object),
            None => ours && event.change != Change::Deleted,
        };
        if news {
            return;
        }
    }
}

/// What tells one version of what is wanted from another.
fn version_of(object: &Object) -> (String, u64) {
    (object.metadata.uid.clone(), object.metadata.generation)
}

/// Tells the mapper what it does not know, models before their devices and the other way round when they go.
async fn bring(socket: &Path, objects: &[Arc<Object>], told: &mut Told) -> Result<(), Status> {
    let gone: Vec<Key> = told.keys().filter(|k| !objects.iter().any(|o| o.key() == **k)).cloned().collect();
    for key in gone.iter().filter(|k| k.kind == Kind::Device).chain(gone.iter().filter(|k| k.kind != Kind::Device)) {
        let method = match key.kind {
            Kind::Device => "/v1beta1.DeviceMapperService/RemoveDevice",
            _ => "/v1beta1.DeviceMapperService/RemoveDeviceModel",
        };
        let request = RemoveRequest { name: key.name.clone(), namespace: key.namespace.clone() };
        match grpc::call(socket, method, &request).await {
            Err(status) if status.code != grpc::NOT_FOUND => return Err(status),
            _ => told.remove(key),
        };
    }
    for object in objects {
        let now = version_of(object);
        let before = told.get(&object.key());
        if before == Some(&now) {
            continue;
        }
        match (object.kind, before.is_some()) {
            (Kind::Device, known) => {
                let request = DeviceRequest { device: Some(convert::device(object)) };
                let method = match known {
                    false => "/v1beta1.DeviceMapperService/RegisterDevice",
                    true => "/v1beta1.DeviceMapperService/UpdateDevice",
                };
                grpc::call(socket, method, &request).await?;
            }
            (_, known) => {
                let request = ModelRequest { model: Some(convert::model(object)) };
                let method = match known {
                    false => "/v1beta1.DeviceMapperService/CreateDeviceModel",
                    true => "/v1beta1.DeviceMapperService/UpdateDeviceModel",
                };
                grpc::call(socket, method, &request).await?;
            }
        }
        told.insert(object.key(), now);
    }
    Ok(())
}
