//! BlueZ: btleplug for adapters, advertisements and GATT; our own D-Bus connection for what it has no word for.
//!
//! btleplug does not tell when bluetoothd or an adapter goes away, cannot pair, and never closes a connection it has opened.
//! So one session is kept for the life of the system bus, opened when the first device needs it, and [`bus`](super::bus)
//! watches and pairs.

use std::collections::BTreeSet;
use std::sync::Arc;

use btleplug::api::{
    Central as _, CentralEvent, CentralState, CharPropFlags, Manager as _, Peripheral as _, ScanFilter,
};
use btleplug::platform::{Adapter, Manager, Peripheral, PeripheralId};
use edge_model::device::bluetooth::WriteType;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Mutex;

use super::address::Address;
use super::bus::{Bus, Notice};
use super::decode::Section;
use super::link::{Characteristic, Event, Fault, Heard, Notification, Radio, Stack, Stream};
use super::uuid::Uuid;

/// The system's BlueZ. Nothing is opened before the first adapter is asked for.
#[derive(Default)]
pub struct BlueZ {
    session: Mutex<Option<Arc<Session>>>,
}

struct Session {
    manager: Manager,
    bus: Bus,
}

/// One adapter.
pub struct Hci {
    session: Arc<Session>,
    adapter: Adapter,
    /// Its object on D-Bus, such as `/org/bluez/hci0`.
    path: String,
}

impl BlueZ {
    async fn session(&self) -> Result<Arc<Session>, String> {
        let mut kept = self.session.lock().await;
        if let Some(session) = kept.as_ref().filter(|s| !s.bus.is_lost()) {
            return Ok(Arc::clone(session));
        }
        *kept = None;
        let bus = Bus::open().await.map_err(|e| format!("no D-Bus: {e}"))?;
        let manager = Manager::new().await.map_err(|e| format!("no D-Bus: {e}"))?;
        let session = Arc::new(Session { manager, bus });
        *kept = Some(Arc::clone(&session));
        Ok(session)
    }
}

impl Stack for BlueZ {
    type Radio = Hci;

    async fn open(&self, wanted: &str) -> Result<(Hci, Stream<Event>), String> {
        let session = self.session().await?;
        let notices = session.bus.notices();
        let mut adapters = Vec::new();
        for adapter in session.manager.adapters().await.map_err(|e| format!("no Bluetooth daemon: {e}"))? {
            // "hci0 (usb:v1D6Bp0246d0542)"
            let info = adapter.adapter_info().await.map_err(|e| e.to_string())?;
            let name = info.split(' ').next().unwrap_or_default().to_owned();
            let is_it = match Address::parse(wanted) {
                Some(w) => adapter.adapter_address().await.ok().flatten().is_some_and(|a| a.into_inner() == w.0),
                None => wanted.is_empty() || name == wanted,
            };
            if is_it {
                adapters.push((name, adapter));
            }
        }
        adapters.sort_by(|a, b| a.0.cmp(&b.0));
        let Some((name, adapter)) = adapters.into_iter().next() else {
            let which =
                if wanted.is_empty() { "no Bluetooth adapter".to_owned() } else { format!("no adapter {wanted}") };
            return Err(which);
        };
        let path = format!("/org/bluez/{name}");
        session.bus.watch_adapter(&path).await.map_err(|e| format!("no D-Bus: {e}"))?;
        if adapter.adapter_state().await.ok() != Some(CentralState::PoweredOn) {
            session.bus.power(&path).await.map_err(|e| format!("{name} does not switch on: {e}"))?;
        }
        let events = adapter.events().await.map_err(|e| e.to_string())?;
        let heard = {
            let adapter = adapter.clone();
            events.then(move |event| heard(adapter.clone(), event)).flat_map(stream::iter)
        };
        let own = path.clone();
        let noticed = notices.filter_map(move |notice| std::future::ready(event(notice, &own)));
        let all = stream::select(heard, noticed);
        Ok((Hci { session, adapter, path }, Box::pin(all)))
    }
}

/// A notice as an event of the adapter at `path`.
fn event(notice: Notice, path: &str) -> Option<Event> {
    match notice {
        Notice::BusLost => Some(Event::Lost("the system's D-Bus is gone".to_owned())),
        Notice::DaemonGone => Some(Event::Lost("the Bluetooth daemon is gone".to_owned())),
        Notice::Removed(p) if p == path => Some(Event::Lost("the adapter is gone".to_owned())),
        Notice::ScanEnded(p) if p == path => Some(Event::Stopped),
        Notice::Removed(_) | Notice::ScanEnded(_) => None,
    }
}

async fn heard(adapter: Adapter, event: CentralEvent) -> Vec<Event> {
    let of = |id: &PeripheralId, heard: Vec<Heard>| {
        let address = address(id);
        heard.into_iter().filter_map(|h| Some(Event::Heard(address?, h))).collect::<Vec<_>>()
    };
    match event {
        CentralEvent::RssiUpdate { id, rssi } => of(&id, vec![Heard::Rssi(rssi)]),
        CentralEvent::ManufacturerDataAdvertisement { id, manufacturer_data } => {
            of(&id, manufacturer_data.into_iter().map(|(c, b)| Heard::Section(Section::Manufacturer(c, b))).collect())
        }
        CentralEvent::ServiceDataAdvertisement { id, service_data } => {
            let section = |(u, b): (uuid::Uuid, Vec<u8>)| Heard::Section(Section::Service(Uuid(u.as_u128()), b));
            of(&id, service_data.into_iter().map(section).collect())
        }
        CentralEvent::DeviceConnected(id) => of(&id, vec![Heard::Connected(true)]),
        CentralEvent::DeviceDisconnected(id) => of(&id, vec![Heard::Connected(false)]),
        // The advertisement it was discovered by is in its properties, and in no event. Without a signal strength it is only
        // remembered.
        CentralEvent::DeviceDiscovered(id) => {
            let Ok(peripheral) = adapter.peripheral(&id).await else { return Vec::new() };
            let Ok(Some(properties)) = peripheral.properties().await else { return Vec::new() };
            let Some(rssi) = properties.rssi else { return Vec::new() };
            let manufacturer = properties.manufacturer_data.into_iter().map(|(c, b)| Section::Manufacturer(c, b));
            let service = properties.service_data.into_iter().map(|(u, b)| Section::Service(Uuid(u.as_u128()), b));
            let sections = manufacturer.chain(service).map(Heard::Section);
            of(&id, std::iter::once(Heard::Rssi(rssi)).chain(sections).collect())
        }
        CentralEvent::StateUpdate(CentralState::PoweredOff) => {
            vec![Event::Lost("the adapter was switched off".to_owned())]
        }
        _ => Vec::new(),
    }
}

/// BlueZ names devices after their addresses: `hci0/dev_A4_C1_38_02_83_F4`.
fn address(id: &PeripheralId) -> Option<Address> {
    Address::parse(id.to_string().rsplit_once("dev_")?.1)
}

/// btleplug gives D-Bus errors as text; their names say which kind they are.
fn fault(error: btleplug::Error) -> Fault {
    let (all, text) = (format!("{error:?}"), error.to_string());
    let any = |names: &[&str]| names.iter().any(|n| all.contains(n));
    if any(&["NoReply", "Error.Timeout", "TimedOut", "timed out"]) {
        return Fault::Timeout;
    }
    if any(&["NotConnected", "UnknownObject", "UnknownMethod", "ServiceUnknown", "Disconnected", "DoesNotExist"]) {
        return Fault::Disconnected(text);
    }
    let no = ["NotPermitted", "NotAuthorized", "NotSupported", "InvalidValueLength", "InvalidOffset", "ATT error"];
    if any(&no) {
        return Fault::Refused(text);
    }
    Fault::Disconnected(text)
}

impl Hci {
    fn of(&self, characteristic: &Characteristic) -> btleplug::api::Characteristic {
        btleplug::api::Characteristic {
            uuid: uuid::Uuid::from_u128(characteristic.uuid.0),
            service_uuid: uuid::Uuid::from_u128(characteristic.service.0),
            properties: CharPropFlags::empty(),
            descriptors: BTreeSet::new(),
        }
    }
}

impl Radio for Hci {
    type Peer = Peripheral;

    async fn scan(&self, on: bool) -> Result<(), String> {
        let done = match on {
            true => self.adapter.start_scan(ScanFilter::default()).await,
            false => self.adapter.stop_scan().await,
        };
        match done {
            // Of our own, from before.
            Err(e) if on && format!("{e:?}").contains("InProgress") => Ok(()),
            done => done.map_err(|e| e.to_string()),
        }
    }

    async fn peer(&self, address: Address) -> Result<Option<Peripheral>, Fault> {
        let known = self.adapter.peripherals().await.map_err(fault)?;
        Ok(known.into_iter().find(|p| p.address().into_inner() == address.0))
    }

    async fn bond(&self, address: Address, passkey: Option<u32>) -> Result<(), Fault> {
        self.session.bus.bond(&self.path, address, passkey).await
    }

    async fn connect(&self, peer: &Peripheral) -> Result<Vec<Characteristic>, Fault> {
        peer.connect().await.map_err(fault)?;
        peer.discover_services().await.map_err(fault)?;
        let services = peer.services();
        let all = services.iter().flat_map(|s| &s.characteristics);
        Ok(all
            .map(|c| Characteristic {
                service: Uuid(c.service_uuid.as_u128()),
                uuid: Uuid(c.uuid.as_u128()),
                readable: c.properties.contains(CharPropFlags::READ),
                sends: c.properties.intersects(CharPropFlags::NOTIFY | CharPropFlags::INDICATE),
            })
            .collect())
    }

    async fn disconnect(&self, peer: &Peripheral) {
        if let Err(error) = peer.disconnect().await {
            tracing::debug!(device = %peer.address(), %error, "bluetooth: not disconnected");
        }
    }

    async fn read(&self, peer: &Peripheral, from: &Characteristic) -> Result<Vec<u8>, Fault> {
        peer.read(&self.of(from)).await.map_err(fault)
    }

    async fn write(&self, peer: &Peripheral, to: &Characteristic, bytes: &[u8], how: WriteType) -> Result<(), Fault> {
        let how = match how {
            WriteType::Request => btleplug::api::WriteType::WithResponse,
            WriteType::Command => btleplug::api::WriteType::WithoutResponse,
        };
        peer.write(&self.of(to), bytes, how).await.map_err(fault)
    }

    async fn subscribe(&self, peer: &Peripheral, to: &Characteristic) -> Result<(), Fault> {
        peer.subscribe(&self.of(to)).await.map_err(fault)
    }

    async fn notifications(&self, peer: &Peripheral) -> Result<Stream<Notification>, Fault> {
        let sent = peer.notifications().await.map_err(fault)?;
        Ok(Box::pin(sent.map(|n| Notification {
            service: Uuid(n.service_uuid.as_u128()),
            uuid: Uuid(n.uuid.as_u128()),
            value: n.value,
        })))
    }
}
