//! What the mapper needs of a Bluetooth stack, and nothing more: adapters that hear, and devices that can be connected to.
//!
//! [`bluez`](super::bluez) is the one that ships. The trait is here so that everything above it can be tested without a
//! stack, a controller or a D-Bus.

use std::future::Future;
use std::pin::Pin;

use edge_model::device::bluetooth::WriteType;

use super::address::Address;
use super::decode::Section;
use super::uuid::Uuid;
use crate::AccessError;

/// Things that come by themselves.
pub type Stream<T> = Pin<Box<dyn futures_util::Stream<Item = T> + Send>>;

/// What an adapter tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something about a device.
    Heard(Address, Heard),
    /// The adapter does not scan any more.
    Stopped,
    /// The adapter, the Bluetooth daemon or the way to it is gone, for this reason. Nothing follows.
    Lost(String),
}

/// What is heard of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The strength of its signal, in dBm.
    Rssi(i16),
    /// A part of its advertisement.
    Section(Section),
    /// It was connected or disconnected.
    Connected(bool),
}

/// Why a connected device did not do as it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It said no; the connection is as it was.
    Refused(String),
    /// The connection is not there, or not any more.
    Disconnected(String),
    /// No answer came.
    Timeout,
}

impl Fault {
    /// In words of the field; `ms` is how long was waited.
    pub fn access(self, ms: u32) -> AccessError {
        match self {
            Fault::Refused(why) => AccessError::Refused(why),
            Fault::Disconnected(why) => AccessError::Disconnected(why),
            Fault::Timeout => AccessError::Timeout(ms),
        }
    }
}

/// A characteristic of a connected device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Characteristic {
    /// Its service.
    pub service: Uuid,
    /// Its name.
    pub uuid: Uuid,
    /// Whether it can be read.
    pub readable: bool,
    /// Whether the device sends it by itself, acknowledged or not.
    pub sends: bool,
}

/// A value a device sent by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The service of the characteristic.
    pub service: Uuid,
    /// The characteristic.
    pub uuid: Uuid,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// The system's Bluetooth.
pub trait Stack: Send + Sync + 'static {
    /// An adapter that is ready.
    type Radio: Radio;

    /// Makes an adapter ready. `adapter` is its name (`hci0`), its address, or empty for the first one.
    ///
    /// # Errors
    /// Why it cannot be used now.
    fn open(&self, adapter: &str) -> impl Future<Output = Result<(Self::Radio, Stream<Event>), String>> + Send;
}

/// An adapter that is ready. Its futures may be dropped at any time.
pub trait Radio: Send + Sync + 'static {
    /// A device it knows.
    type Peer: Clone + Send + Sync + 'static;

    /// Listens to advertisements, or stops to.
    fn scan(&self, on: bool) -> impl Future<Output = Result<(), String>> + Send;

    /// A device by its address; `None` when it has not been heard yet.
    fn peer(&self, address: Address) -> impl Future<Output = Result<Option<Self::Peer>, Fault>> + Send;

    /// Pairs with a device unless that was done before.
    fn bond(&self, address: Address, passkey: Option<u32>) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Connects, and finds the device's characteristics (from memory, where the stack remembers them).
    fn connect(&self, peer: &Self::Peer) -> impl Future<Output = Result<Vec<Characteristic>, Fault>> + Send;

    /// Disconnects, also in the middle of connecting. What goes wrong does not matter.
    fn disconnect(&self, peer: &Self::Peer) -> impl Future<Output = ()> + Send;

    /// Reads.
    fn read(&self, peer: &Self::Peer, from: &Characteristic) -> impl Future<Output = Result<Vec<u8>, Fault>> + Send;

    /// Writes.
    fn write(
        &self,
        peer: &Self::Peer,
        to: &Characteristic,
        bytes: &[u8],
        how: WriteType,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Asks the device to send a characteristic by itself.
    fn subscribe(&self, peer: &Self::Peer, to: &Characteristic) -> impl Future<Output = Result<(), Fault>> + Send;

    /// What the device sends by itself from now on.
    fn notifications(&self, peer: &Self::Peer) -> impl Future<Output = Result<Stream<Notification>, Fault>> + Send;
}
