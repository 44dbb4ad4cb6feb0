//! The node as a Modbus server: twins as registers, for panels, controllers and SCADA that speak nothing else.
//!
//! Which property is where stands beside its visitor ([`edge_model::device::behaviour::expose`]); values come from the twins in
//! the store, so that clients see what everybody else sees. A write goes the way of every write: through the field's checks to
//! the device, with read-back, and is acknowledged when the device has it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_mappers::modbus::server::{Door, Entry, Exposed, Identity, Refusal, Server, Settings, Write};
use edge_mappers::resolve;
use edge_model::device::status::DeviceStatus;
use edge_model::device::{Device, DeviceModel, behaviour};
use edge_model::{Key, Kind, Object};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::field::{CommandError, Commands};
use crate::store::{Change, Filter, Store, Watch};

/// Writes of clients that wait for the field.
const WRITES: usize = 16;
/// How long a device may take to agree to a write.
const WITHIN: Duration = Duration::from_secs(10);

/// One exposed property.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    device: Key,
    entry: Entry,
}

/// Serves clients until told to stop.
///
/// # Errors
/// The address cannot be bound, or a listener failed.
pub async fn run(
    listen: Option<SocketAddr>,
    store: &Store,
    commands: &Commands,
    ready: impl FnOnce(),
    stop: CancellationToken,
) -> io::Result<()> {
    let Some(listen) = listen else {
        ready();
        stop.cancelled().await;
        return Ok(());
    };
    let mut ready = Some(ready);
    // Once per set of exposed properties: another set is another server, and clients connect again.
    while !stop.is_cancelled() {
        let (devices, version) = store.list(Kind::Device, None);
        let mut watch = store.watch(Filter::default(), version);
        let shown: Vec<Shown> = devices.iter().flat_map(|d| exposed(store, d)).collect();
        let entries = shown.iter().map(|s| s.entry.clone()).collect();
        let identity = Identity {
            vendor: "edge-runtime".to_owned(),
            product: "gateway".to_owned(),
            revision: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (writes, wanted) = mpsc::channel(WRITES);
        let settings = Settings { doors: vec![Door::Tcp(listen)], entries, identity, within: WITHIN };
        let (server, registers) = Server::bind(settings, writes).await?;
        for device in &devices {
            show(device, &shown, &registers);
        }
        if let Some(ready) = ready.take() {
            ready();
        }
        let round = stop.child_token();
        let follow = async {
            follow(store, &mut watch, &shown, &registers).await;
            round.cancel();
        };
        let serve = server.run(round.clone());
        tokio::pin!(follow);
        let (served, (), ()) = tokio::join!(
            serve,
            async {
                tokio::select! {
                    () = &mut follow => {}
                    () = round.cancelled() => {}
                }
            },
            obey(commands, &shown, wanted, &round),
        );
        served?;
    }
    Ok(())
}

/// What a device exposes. What does not fit is told in the log and left out.
fn exposed(store: &Store, object: &Arc<Object>) -> Vec<Shown> {
    let Ok(device) = Device::parse(object.spec()) else { return Vec::new() };
    let key = Key::new(Kind::DeviceModel, &object.metadata.namespace, &device.device_model_ref.name);
    let model = store.get(&key).and_then(|m| DeviceModel::parse(m.spec()).ok());
    let Some(points) = model.and_then(|m| resolve::points(&device, &m).ok()) else { return Vec::new() };
    let mut shown = Vec::new();
    for (property, mut point) in device.properties.iter().zip(points) {
        let data = property.visitors.as_ref().and_then(|v| v.config_data.as_ref());
        let Ok(Some((unit, visitor))) = behaviour::expose("configData", data) else { continue };
        // What stands in a read-only table is not written, whatever the model says.
        point.writable &= visitor.register.is_writable();
        match Entry::new(unit, point, &visitor) {
            Ok(entry) => shown.push(Shown { device: object.key(), entry }),
            Err(why) => tracing::warn!(device = %object.key(), property = %property.name, "not exposed: {why}"),
        }
    }
    shown
}

/// The values of a device's twins into its registers.
fn show(object: &Object, shown: &[Shown], registers: &Exposed) {
    let status: DeviceStatus = serde_json::from_value(object.status().clone()).unwrap_or_default();
    let key = object.key();
    for (index, s) in shown.iter().enumerate().filter(|(_, s)| s.device == key) {
        let twin = status.twins.iter().find(|t| t.property_name == s.entry.point.name).map(|t| &t.reported);
        let good = twin.filter(|t| t.metadata.quality == "good");
        let value = good.and_then(|t| s.entry.point.parse(&serde_json::Value::from(t.value.as_str())).ok());
        if let Err(error) = registers.set(index, value.as_ref()) {
            tracing::debug!(device = %key, property = %s.entry.point.name, %error, "a value does not fit its registers");
        }
    }
}

/// Follows the twins until other properties are exposed than before. Most changes are values: what is exposed is looked at only
/// when somebody wrote a Device or a model.
async fn follow(store: &Store, watch: &mut Watch, shown: &[Shown], registers: &Exposed) {
    let mut generations = BTreeMap::new();
    while let Ok(event) = watch.next().await {
        let object = &event.object;
        if !matches!(object.kind, Kind::Device | Kind::DeviceModel) {
            continue;
        }
        let generation = (object.metadata.uid.clone(), object.metadata.generation);
        let written = generations.insert(object.key(), generation.clone()) != Some(generation);
        if written || event.change == Change::Deleted {
            let (devices, _) = store.list(Kind::Device, None);
            if !devices.iter().flat_map(|d| exposed(store, d)).eq(shown.iter().cloned()) {
                return;
            }
        }
        if object.kind == Kind::Device {
            show(object, shown, registers);
        }
    }
}

/// Brings the writes of clients to the devices.
async fn obey(commands: &Commands, shown: &[Shown], mut wanted: mpsc::Receiver<Write>, round: &CancellationToken) {
    let mut under_way = JoinSet::new();
    loop {
        let write = tokio::select! {
            () = round.cancelled() => break,
            Some(_) = under_way.join_next() => continue,
            write = wanted.recv() => match write {
                Some(write) => write,
                None => break,
            },
        };
        let values: Vec<_> =
            write.values.into_iter().filter_map(|(i, value)| Some((shown.get(i)?.clone(), value))).collect();
        let commands = commands.clone();
        under_way.spawn(async move {
            let mut outcome = Ok(());
            for (s, value) in values {
                let (namespace, device, property) = (&s.device.namespace, &s.device.name, &s.entry.point.name);
                if let Err(error) = commands.set(namespace, device, property, value.to_json()).await {
                    tracing::info!(device = %s.device, %property, %error, "the write of a Modbus client failed");
                    outcome = Err(refusal(&error));
                    break;
                }
            }
            // The client may have gone.
            let _ = write.reply.send(outcome);
        });
    }
    under_way.shutdown().await;
}

const fn refusal(error: &CommandError) -> Refusal {
    match error {
        CommandError::OutOfRange(_) | CommandError::ReadOnly(_) => Refusal::Value,
        CommandError::Busy => Refusal::Busy,
        _ => Refusal::Failure,
    }
}
