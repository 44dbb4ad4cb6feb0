//! KubeEdge's Device Mapper Interface (DMI): mappers in pods or beside us that speak gRPC instead of MQTT.
//!
//! ```text
//!  mapper ── MapperRegister, ReportDeviceStatus, ReportDeviceStates ──► <run-dir>/dmi.sock
//!  mapper's socket ◄── RegisterDevice, UpdateDevice, RemoveDevice, …DeviceModel ── one follower per mapper
//! ```
//! What mappers report goes on the bus, where the field takes it exactly as it takes KubeEdge's MQTT mappers; nothing else here
//! touches a twin. Registrations are kept in the run directory: mappers register once, and we may be restarted.
//!
//! A client whose library makes an `:authority` of the socket's path (grpcio does, Go's does not) must be told another, such as
//! `localhost`: h2 refuses what is no authority by RFC 3986.
//!
//! In a pod, mount the folder of the socket by `hostPath` and name it as the mapper's `edgecore_sock`.

mod convert;
mod grpc;
mod mapper;
mod messages;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use edge_model::topic::{Topic, device_id};
use edge_model::{Key, Kind};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::grpc::Status;
use self::messages::{
    Empty, MapperRegisterRequest, MapperRegisterResponse, ReportDeviceStatesRequest, ReportDeviceStatusRequest,
};
use crate::bus::{Bus, Retain};
use crate::clock::now_ms;
use crate::store::Store;

/// Connections at once: mappers have one each.
const CONNECTIONS: usize = 64;
/// Mappers at once.
const MAPPERS: usize = 64;

/// Where mappers register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The Unix socket; its owner and group may use it.
    pub socket: PathBuf,
    /// Where registrations are kept over a restart, in memory.
    pub registrations: PathBuf,
}

/// A mapper that has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Registration {
    name: String,
    protocol: String,
    socket: PathBuf,
}

/// By name, with what was told at a registration nobody has acted on yet.
type Mappers = BTreeMap<String, (Registration, Option<mapper::Told>)>;

struct Shared {
    store: Store,
    bus: Bus,
    settings: Settings,
    mappers: Mutex<Mappers>,
    /// Somebody has registered.
    registered: Notify,
}

/// Serves mappers until told to stop.
///
/// # Errors
/// The socket cannot be made.
pub async fn run(
    settings: &Settings,
    store: &Store,
    bus: &Bus,
    ready: impl FnOnce(),
    stop: CancellationToken,
) -> Result<(), io::Error> {
    // What an earlier run left; a second runtime is kept away by the API's lock.
    match std::fs::remove_file(&settings.socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&settings.socket)?;
    std::fs::set_permissions(&settings.socket, std::fs::Permissions::from_mode(0o660))?;
    let mappers = known(&settings.registrations);
    let shared = Arc::new(Shared {
        store: store.clone(),
        bus: bus.clone(),
        settings: settings.clone(),
        mappers: Mutex::new(mappers),
        registered: Notify::new(),
    });
    ready();
    let mut connections = JoinSet::new();
    let mut followers: BTreeMap<String, tokio::task::AbortHandle> = BTreeMap::new();
    let mut following = JoinSet::new();
    shared.registered.notify_one();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = shared.registered.notified() => {
                let mut mappers = shared.mappers.lock().unwrap_or_else(PoisonError::into_inner);
                for (name, (registration, told)) in mappers.iter_mut() {
                    // Whoever registers has forgotten what it was told before; the others are left alone.
                    let Some(told) = told.take() else { continue };
                    let follower = following.spawn(mapper::follow(store.clone(), registration.clone(), told));
                    if let Some(old) = followers.insert(name.clone(), follower) {
                        old.abort();
                    }
                }
            }
            Some(_) = following.join_next() => {}
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    if let Err(error) = grpc::serve(stream, |path, message| shared.handle(path, message)).await {
                        tracing::debug!(%error, "the connection of a mapper ended");
                    }
                });
            }
        }
    }
    following.shutdown().await;
    connections.shutdown().await;
    Ok(())
}

/// The registrations of an earlier run. They are a help, not a promise: what cannot be read is none.
fn known(path: &Path) -> Mappers {
    let list = std::fs::read(path).ok().and_then(|t| serde_json::from_slice::<Vec<Registration>>(&t).ok());
    let list = list.unwrap_or_default();
    list.into_iter().map(|r| (r.name.clone(), (r, Some(mapper::Told::new())))).collect()
}

impl Shared {
    fn handle(&self, path: &str, message: &Bytes) -> Result<Vec<u8>, Status> {
        match path {
            "/v1beta1.DeviceManagerService/MapperRegister" => {
                self.register(grpc::decode(message)?).map(|r| r.encode_to_vec())
            }
            "/v1beta1.DeviceManagerService/ReportDeviceStatus" => self.status(grpc::decode(message)?),
            "/v1beta1.DeviceManagerService/ReportDeviceStates" => self.state(&grpc::decode(message)?),
            other => Err(Status::unknown(other)),
        }
    }

    fn register(&self, request: MapperRegisterRequest) -> Result<MapperRegisterResponse, Status> {
        let invalid = |why: &str| Status::new(grpc::INVALID_ARGUMENT, why);
        let info = request.mapper.ok_or_else(|| invalid("mapper is missing"))?;
        if info.name.is_empty() || info.name.len() > 253 || info.protocol.is_empty() {
            return Err(invalid("mapper.name and mapper.protocol must be there"));
        }
        let socket = PathBuf::from(String::from_utf8(info.address).map_err(|_| invalid("mapper.address is no path"))?);
        if !socket.is_absolute() {
            return Err(invalid("mapper.address must be the absolute path of the mapper's Unix socket"));
        }
        let registration = Registration { name: info.name, protocol: info.protocol, socket };
        let (objects, _) = mapper::wanted(&self.store, &registration.protocol);
        let of = |kind| objects.iter().filter(move |o| o.kind == kind);
        let response = match request.with_data {
            true => MapperRegisterResponse {
                model_list: of(Kind::DeviceModel).map(|o| convert::model(o)).collect(),
                device_list: of(Kind::Device).map(|o| convert::device(o)).collect(),
            },
            false => MapperRegisterResponse::default(),
        };
        let told = if request.with_data { mapper::told(&objects) } else { mapper::Told::new() };
        let mut mappers = self.mappers.lock().unwrap_or_else(PoisonError::into_inner);
        if mappers.len() >= MAPPERS && !mappers.contains_key(&registration.name) {
            return Err(invalid("there are too many mappers"));
        }
        tracing::info!(mapper = %registration.name, protocol = %registration.protocol, "mapper registered");
        mappers.insert(registration.name.clone(), (registration, Some(told)));
        let list: Vec<&Registration> = mappers.values().map(|(r, _)| r).collect();
        let kept = serde_json::to_vec(&list).map_err(io::Error::from);
        if let Err(error) = kept.and_then(|text| std::fs::write(&self.settings.registrations, text)) {
            tracing::warn!(%error, "the registrations of mappers are not kept over a restart");
        }
        drop(mappers);
        self.registered.notify_one();
        Ok(response)
    }

    fn device(&self, namespace: &str, name: &str) -> Result<String, Status> {
        let key = Key::new(Kind::Device, namespace, name);
        let found = self.store.get(&key).ok_or_else(|| Status::new(grpc::NOT_FOUND, format!("{key} not found")))?;
        Ok(device_id(&found.metadata.namespace, &found.metadata.name))
    }

    fn status(&self, request: ReportDeviceStatusRequest) -> Result<Vec<u8>, Status> {
        let id = self.device(&request.device_namespace, &request.device_name)?;
        let twins = request.reported_device.unwrap_or_default().twins;
        let reported = twins.into_iter().filter_map(|t| Some((t.property_name, t.reported?.value)));
        let twin: serde_json::Map<String, serde_json::Value> =
            reported.map(|(property, value)| (property, json!({"actual": {"value": value}}))).collect();
        if !twin.is_empty() {
            let payload = json!({"event_id": "", "timestamp": now_ms(), "twin": twin});
            self.bus.publish(&Topic::TwinUpdate(id), payload.to_string(), Retain::No);
        }
        Ok(Empty {}.encode_to_vec())
    }

    fn state(&self, request: &ReportDeviceStatesRequest) -> Result<Vec<u8>, Status> {
        let id = self.device(&request.device_namespace, &request.device_name)?;
        let payload = json!({"event_id": "", "timestamp": now_ms(), "state": request.state});
        self.bus.publish(&Topic::DeviceState(id), payload.to_string(), Retain::Yes);
        Ok(Empty {}.encode_to_vec())
    }
}
