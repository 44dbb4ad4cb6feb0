//! One adapter: it is opened, scans while somebody listens, and is opened again when it, bluetoothd or D-Bus was gone.
//!
//! ```text
//!          opened              lost: unplugged, switched off, bluetoothd or D-Bus ended
//!  Down ────────────► Up ─────────────────────────────────────────────────────────────► Down ─┐
//!    ▲                                                                                    ▲   │ the pause doubles
//!    └── a device was configured                                                          └───┘
//! ```
//! What is heard goes to the devices that wait for it; everything else on the air is dropped here. Connections are slots: a
//! controller has few, and devices that need one take turns.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::link::{Event, Heard, Radio, Stack, Stream};
use crate::backoff::Backoff;

/// What was heard of one device and not yet looked at. When it is full the newest is dropped: it will be said again.
const HEARD: usize = 32;
/// How soon scanning is started again after somebody else has ended it.
const RESCAN: Duration = Duration::from_secs(2);
/// How long disconnecting may take.
const LEAVE: Duration = Duration::from_secs(5);

/// What a device can do with its adapter now.
pub enum Air<R> {
    /// Nothing, for this reason.
    Down(String),
    /// Everything.
    Up(Arc<R>),
}

impl<R> Clone for Air<R> {
    fn clone(&self) -> Self {
        match self {
            Air::Down(why) => Air::Down(why.clone()),
            Air::Up(radio) => Air::Up(Arc::clone(radio)),
        }
    }
}

/// What an adapter and the devices on it share.
pub struct Adapter<R: Radio> {
    name: String,
    air: watch::Sender<Air<R>>,
    /// How many want it to scan.
    listeners: watch::Sender<usize>,
    ears: Mutex<HashMap<Address, Vec<mpsc::Sender<Heard>>>>,
    slots: Arc<Semaphore>,
    /// How many slots there are.
    total: AtomicUsize,
    /// How many devices wait for one.
    waiting: AtomicUsize,
    /// Connections nobody needs any more.
    leaving: mpsc::UnboundedSender<Leaving<R>>,
    left: Mutex<Option<mpsc::UnboundedReceiver<Leaving<R>>>>,
    /// Nobody needs the adapter any more.
    pub(super) stop: CancellationToken,
}

/// A connection that is to be ended, and the slot it takes until then. There are never more than slots.
type Leaving<R> = (Arc<R>, <R as Radio>::Peer, OwnedSemaphorePermit);

/// A device that is connected, or about to be. Dropping it disconnects, whenever that happens.
pub struct Held<R: Radio> {
    adapter: Arc<Adapter<R>>,
    what: Option<Leaving<R>>,
}

impl<R: Radio> Held<R> {
    /// Takes care of a device that takes a slot of the adapter.
    pub fn new(adapter: &Arc<Adapter<R>>, radio: Arc<R>, peer: R::Peer, slot: OwnedSemaphorePermit) -> Held<R> {
        Held { adapter: Arc::clone(adapter), what: Some((radio, peer, slot)) }
    }

    /// The adapter and the device on it.
    pub fn get(&self) -> Option<(&Arc<R>, &R::Peer)> {
        self.what.as_ref().map(|(radio, peer, _)| (radio, peer))
    }
}

impl<R: Radio> Drop for Held<R> {
    fn drop(&mut self) {
        if let Some(leaving) = self.what.take() {
            // The adapter's task has ended only when everything ends.
            let _ = self.adapter.leaving.send(leaving);
        }
    }
}

/// The adapter scans at least as long as this is kept.
pub struct Listening<R: Radio>(Arc<Adapter<R>>);

impl<R: Radio> Drop for Listening<R> {
    fn drop(&mut self) {
        self.0.listeners.send_modify(|n| *n = n.saturating_sub(1));
    }
}

/// Counts somebody who waits for a slot, also when the waiting is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<R: Radio> Adapter<R> {
    /// An adapter that is not opened yet, with so many connections.
    pub fn new(name: &str, slots: usize) -> Arc<Adapter<R>> {
        let (leaving, left) = mpsc::unbounded_channel();
        Arc::new(Adapter {
            name: name.to_owned(),
            air: watch::Sender::new(Air::Down("the adapter is not ready yet".to_owned())),
            listeners: watch::Sender::new(0),
            ears: Mutex::default(),
            slots: Arc::new(Semaphore::new(slots)),
            total: AtomicUsize::new(slots),
            waiting: AtomicUsize::new(0),
            leaving,
            left: Mutex::new(Some(left)),
            stop: CancellationToken::new(),
        })
    }

    /// From now on this many connections. Those there are stay until they end.
    pub fn set_slots(&self, wanted: usize) {
        let now = self.total.load(Ordering::Acquire);
        if wanted > now {
            self.slots.add_permits(wanted - now);
            self.total.store(wanted, Ordering::Release);
        } else {
            let gone = self.slots.forget_permits(now - wanted);
            self.total.store(now - gone, Ordering::Release);
        }
    }

    /// What can be done with it, now and later.
    pub fn air(&self) -> watch::Receiver<Air<R>> {
        self.air.subscribe()
    }

    /// What is heard of a device from now on.
    pub fn ear(&self, address: Address) -> mpsc::Receiver<Heard> {
        let (ear, heard) = mpsc::channel(HEARD);
        let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        ears.retain(|_, list| {
            list.retain(|e| !e.is_closed());
            !list.is_empty()
        });
        ears.entry(address).or_default().push(ear);
        heard
    }

    /// Makes it scan.
    pub fn listen(self: &Arc<Self>) -> Listening<R> {
        self.listeners.send_modify(|n| *n += 1);
        Listening(Arc::clone(self))
    }

    /// A slot for a connection, in the order of asking. `None` only while everything ends.
    pub async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// Whether somebody waits for a slot.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    fn tell(&self, address: Address, heard: &Heard) {
        let ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        for ear in ears.get(&address).into_iter().flatten() {
            // Full or gone: see HEARD.
            let _ = ear.try_send(heard.clone());
        }
    }

    /// Keeps the adapter up until it is stopped; then ends the connections that are left.
    pub async fn run<S: Stack<Radio = R>>(self: Arc<Self>, stack: Arc<S>, pauses: (Duration, Duration)) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut left) = left else { return };
        let disconnect = async |(radio, peer, slot): Leaving<R>| {
            // A device that does not let go must not keep its slot for ever.
            let _ = timeout(LEAVE, radio.disconnect(&peer)).await;
            drop(slot);
        };
        // Not begun anew when everything ends: a device that is being disconnected then would stay connected.
        let mut leaving = pin!(async {
            while let Some(leaving) = left.recv().await {
                disconnect(leaving).await;
            }
        });
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.keep(stack, pauses) => {}
            () = &mut leaving => {}
        }
        // Devices that were removed let go of their connections now.
        let all = u32::try_from(self.total.load(Ordering::Acquire)).unwrap_or(u32::MAX);
        let _ = timeout(LEAVE, async {
            tokio::select! {
                () = leaving => {}
                _ = self.slots.acquire_many(all) => {}
            }
        })
        .await;
        let air = self.air.borrow().clone();
        if let Air::Up(radio) = air {
            // It may not be scanning; then this does nothing.
            let _ = timeout(LEAVE, radio.scan(false)).await;
        }
    }

    async fn keep<S: Stack<Radio = R>>(&self, stack: Arc<S>, pauses: (Duration, Duration)) {
        let mut backoff = Backoff::new(pauses.0, pauses.1);
        loop {
            let why = match stack.open(&self.name).await {
                Ok((radio, events)) => {
                    let radio = Arc::new(radio);
                    tracing::info!(adapter = %self.name, "bluetooth: adapter ready");
                    self.air.send_replace(Air::Up(Arc::clone(&radio)));
                    let why = self.up(&*radio, events, &mut backoff).await;
                    tracing::warn!(adapter = %self.name, reason = %why, "bluetooth: adapter lost");
                    why
                }
                Err(why) => {
                    tracing::debug!(adapter = %self.name, reason = %why, "bluetooth: adapter not ready");
                    why
                }
            };
            self.air.send_if_modified(|air| {
                let news = !matches!(air, Air::Down(old) if *old == why);
                *air = Air::Down(why);
                news
            });
            sleep(backoff.pause()).await;
        }
    }

    /// Until it is lost: why.
    async fn up(&self, radio: &R, mut events: Stream<Event>, backoff: &mut Backoff) -> String {
        let mut listeners = self.listeners.subscribe();
        let mut scanning = false;
        loop {
            let wanted = *listeners.borrow_and_update() > 0;
            if wanted != scanning {
                match radio.scan(wanted).await {
                    Ok(()) => scanning = wanted,
                    Err(why) if wanted => return format!("it does not scan: {why}"),
                    // Whoever ended it before us.
                    Err(_) => scanning = false,
                }
            }
            tokio::select! {
                changed = listeners.changed() => if changed.is_err() {
                    return "ended".to_owned();
                },
                event = events.next() => match event {
                    Some(Event::Heard(address, heard)) => {
                        backoff.reset();
                        self.tell(address, &heard);
                    }
                    Some(Event::Stopped) if scanning => {
                        sleep(RESCAN).await;
                        scanning = false;
                    }
                    Some(Event::Stopped) => {}
                    Some(Event::Lost(why)) => return why,
                    None => return "the Bluetooth stack is gone".to_owned(),
                },
            }
        }
    }
}
