//! A Bluetooth that obeys tests: a world of devices that answer or not, and an adapter that comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_model::device::bluetooth::WriteType;
use futures_util::stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::address::Address;
use super::link::{Characteristic, Event, Fault, Notification, Radio, Stack, Stream};
use super::uuid::Uuid;

/// The characteristic every device has.
pub(super) const BATTERY: u16 = 0x2a19;

/// What happens, and what has happened.
#[derive(Default)]
pub(super) struct World {
    pub(super) peers: BTreeMap<Address, Peer>,
    /// There is no adapter.
    pub(super) unplugged: bool,
    /// How often the adapter was asked for.
    pub(super) opened: u32,
    events: Option<UnboundedSender<Event>>,
    /// From the beginning of connecting to the end of disconnecting.
    pub(super) connected: BTreeSet<Address>,
    /// The most there ever were at once.
    pub(super) most: usize,
    /// Who was connected, in order.
    pub(super) order: Vec<Address>,
}

/// One device.
#[derive(Default)]
pub(super) struct Peer {
    /// It lets nobody connect.
    pub(super) refuses: bool,
    pub(super) value: u8,
    /// How often somebody tried to connect.
    pub(super) tried: u32,
    /// How often a subscription was made.
    pub(super) subscribed: u32,
    notify: Option<UnboundedSender<Notification>>,
}

impl Peer {
    pub(super) fn of(value: u8) -> Peer {
        Peer { value, ..Peer::default() }
    }
}

/// The system's Bluetooth.
#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<World>>);

/// One life of the adapter.
pub(super) struct Adapter {
    world: Fake,
    life: u32,
}

fn streamed<T: Send + 'static>(from: UnboundedReceiver<T>) -> Stream<T> {
    Box::pin(stream::unfold(from, async |mut from| Some((from.recv().await?, from))))
}

fn battery() -> Characteristic {
    // Short names are below the base of all (Bluetooth Core 5.4, volume 3, part B, 2.5.1).
    let uuid = |short: u16| Uuid(u128::from(short) << 96 | 0x1000_8000_0080_5f9b_34fb);
    Characteristic { service: uuid(0x180f), uuid: uuid(BATTERY), readable: true, sends: true }
}

impl Fake {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device sends its value by itself; false when nobody has subscribed.
    pub(super) fn notify(&self, address: Address, value: u8) -> bool {
        let world = self.world();
        let Some(notify) = world.peers.get(&address).and_then(|p| p.notify.as_ref()) else { return false };
        let Characteristic { service, uuid, .. } = battery();
        notify.send(Notification { service, uuid, value: vec![value] }).is_ok()
    }

    /// The device ends its connection, as when it is carried away.
    pub(super) fn drop_connection(&self, address: Address) {
        if let Some(peer) = self.world().peers.get_mut(&address) {
            peer.notify = None;
        }
    }

    /// The adapter is pulled out: with it go all connections.
    pub(super) fn unplug(&self) {
        let mut world = self.world();
        world.unplugged = true;
        world.connected.clear();
        world.peers.values_mut().for_each(|p| p.notify = None);
        if let Some(events) = world.events.take() {
            let _ = events.send(Event::Lost("pulled out".to_owned()));
        }
    }
}

impl Stack for Fake {
    type Radio = Adapter;

    async fn open(&self, _: &str) -> Result<(Adapter, Stream<Event>), String> {
        let mut world = self.world();
        world.opened += 1;
        if world.unplugged {
            return Err("no adapter".to_owned());
        }
        let (events, heard) = unbounded_channel();
        world.events = Some(events);
        Ok((Adapter { world: self.clone(), life: world.opened }, streamed(heard)))
    }
}

impl Adapter {
    /// The device, if this is the adapter that is there now and the device is connected to it.
    fn with<T>(&self, address: Address, what: impl FnOnce(&mut Peer) -> T) -> Result<T, Fault> {
        let mut world = self.world.world();
        let there = !world.unplugged && world.opened == self.life && world.connected.contains(&address);
        match world.peers.get_mut(&address).filter(|_| there) {
            Some(peer) => Ok(what(peer)),
            None => Err(Fault::Disconnected("not connected".to_owned())),
        }
    }
}

impl Radio for Adapter {
    type Peer = Address;

    async fn scan(&self, _: bool) -> Result<(), String> {
        Ok(())
    }

    async fn peer(&self, address: Address) -> Result<Option<Address>, Fault> {
        Ok(self.world.world().peers.contains_key(&address).then_some(address))
    }

    async fn bond(&self, _: Address, _: Option<u32>) -> Result<(), Fault> {
        Ok(())
    }

    async fn connect(&self, peer: &Address) -> Result<Vec<Characteristic>, Fault> {
        {
            let mut world = self.world.world();
            if world.unplugged || world.opened != self.life {
                return Err(Fault::Disconnected("the adapter is gone".to_owned()));
            }
            world.connected.insert(*peer);
            world.order.push(*peer);
            world.most = world.most.max(world.connected.len());
        }
        // It takes a while, in which others may try.
        tokio::task::yield_now().await;
        self.with(*peer, |p| {
            p.tried += 1;
            if p.refuses { Err(Fault::Refused("go away".to_owned())) } else { Ok(vec![battery()]) }
        })?
    }

    async fn disconnect(&self, peer: &Address) {
        tokio::task::yield_now().await;
        let mut world = self.world.world();
        world.connected.remove(peer);
        if let Some(peer) = world.peers.get_mut(peer) {
            peer.notify = None;
        }
    }

    async fn read(&self, peer: &Address, _: &Characteristic) -> Result<Vec<u8>, Fault> {
        tokio::task::yield_now().await;
        self.with(*peer, |p| vec![p.value])
    }

    async fn write(&self, peer: &Address, _: &Characteristic, bytes: &[u8], _: WriteType) -> Result<(), Fault> {
        self.with(*peer, |p| p.value = bytes.first().copied().unwrap_or(0))
    }

    async fn subscribe(&self, peer: &Address, _: &Characteristic) -> Result<(), Fault> {
        self.with(*peer, |p| p.subscribed += 1)
    }

    async fn notifications(&self, peer: &Address) -> Result<Stream<Notification>, Fault> {
        let (notify, sent) = unbounded_channel();
        if let Some(peer) = self.world.world().peers.get_mut(peer) {
            peer.notify = Some(notify);
        }
        Ok(streamed(sent))
    }
}
