//! One device: what it advertises, and, where that is wanted, a connection to it.
//!
//! ```text
//!            a read, a write                connected, characteristics found, subscribed
//!  Apart ───────────────────► Connecting ────────────────────────────────────────────────► Connected
//!    ▲  ▲                         │ fails: the pause doubles                                   │  │
//!    │  └─────────────────────────┘                                                            │  │
//!    ├── its turn is over, and another device waits for the slot ──────────────────────────────┘  │
//!    └── the device, the adapter or bluetoothd is gone: back-off, then all over, subscriptions too ┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use edge_model::device::bluetooth::Mode;
use edge_model::reading::{Quality, Value};
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::adapter::{Adapter, Air, Held, Listening};
use super::config::{Config, Gatt, Source};
use super::link::{Characteristic, Fault, Heard, Notification, Radio, Stream};
use super::state::{Known, bad, good};
use crate::device::{self, NEVER, Outlet, Settings};
use crate::{AccessError, Profile, Sample};

/// How often a device that sends by itself is looked after: is it still connected, does it still answer.
const KEEP: Duration = Duration::from_secs(30);
/// How long a device that sends by itself keeps its connection when others wait for the slot. One that is only read gives
/// it away after each read.
const TURN: Duration = Duration::from_secs(15);
/// How often a device whose turn is over looks whether somebody waits.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait for a slot: several turns of others.
const SLOT: Duration = Duration::from_secs(60);
/// Pairing may need somebody to press a button.
const PAIRING: Duration = Duration::from_secs(60);

/// A device and the adapter it is on.
pub struct Attached<R: Radio> {
    /// What it is.
    pub config: Arc<Config>,
    /// Where it is heard.
    pub adapter: Arc<Adapter<R>>,
}

impl<R: Radio> PartialEq for Attached<R> {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config && Arc::ptr_eq(&self.adapter, &other.adapter)
    }
}

impl<R: Radio> std::fmt::Debug for Attached<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.config.fmt(f)
    }
}

impl<R: Radio> Settings for Attached<R> {
    type Driver = Driver<R>;

    fn profile(&self) -> &Arc<Profile> {
        &self.config.profile
    }

    fn periods(&self) -> Vec<Duration> {
        let period = |(source, cycle): (&Source, &Duration)| match source {
            Source::Gatt(Gatt { mode: Mode::Read, .. }) => *cycle,
            Source::Gatt(_) => KEEP,
            _ => NEVER,
        };
        self.config.sources.iter().zip(&self.config.cycles).map(period).collect()
    }

    fn driver(self: Arc<Self>, outlet: &Outlet) -> Driver<R> {
        let connects = self.config.connects();
        Driver {
            ear: self.adapter.ear(self.config.address),
            air: self.adapter.air(),
            clock: outlet.clock,
            known: Known::new(self.config.sources.len()),
            sent: vec![None; self.config.sources.len()],
            pending: Vec::new(),
            turn: if gatts(&self.config).any(|(_, g)| g.mode != Mode::Read) { TURN } else { Duration::ZERO },
            listening: (!connects).then(|| self.adapter.listen()),
            link: None,
            config: Arc::clone(&self.config),
            adapter: Arc::clone(&self.adapter),
        }
    }
}

/// See the module.
pub struct Driver<R: Radio> {
    config: Arc<Config>,
    adapter: Arc<Adapter<R>>,
    ear: mpsc::Receiver<Heard>,
    air: watch::Receiver<Air<R>>,
    clock: fn() -> i64,
    known: Known,
    /// What the device last sent by itself, by point.
    sent: Vec<Option<Value>>,
    /// Samples that came while something else was done.
    pending: Vec<Sample>,
    /// Kept all the time by a device that only advertises.
    listening: Option<Listening<R>>,
    link: Option<Link<R>>,
    /// How long a connection is kept when others wait for its slot.
    turn: Duration,
}

struct Link<R: Radio> {
    held: Held<R>,
    characteristics: Vec<Characteristic>,
    notifications: Stream<Notification>,
    /// When to look whether another device waits for the slot.
    look: Instant,
}

impl<R: Radio> Driver<R> {
    fn hear(&mut self, heard: &Heard) {
        let samples = self.known.hear(&self.config, heard, Instant::now(), (self.clock)());
        self.pending.extend(samples);
    }

    fn drain(&mut self) {
        while let Ok(heard) = self.ear.try_recv() {
            self.hear(&heard);
        }
    }

    /// Why the adapter cannot be used now.
    fn down(&self) -> Option<String> {
        match &*self.air.borrow() {
            Air::Down(why) => Some(why.clone()),
            Air::Up(_) => None,
        }
    }

    /// The adapter is gone: what is known of the device and what still waits to be looked at are from before.
    fn forget(&mut self) {
        while self.ear.try_recv().is_ok() {}
        self.known.forget();
        self.pending.clear();
    }

    /// Why nothing is known of a device that should be heard.
    fn silence(&mut self) -> AccessError {
        let why = match (self.down(), self.known.refusal, self.known.was_heard()) {
            (Some(why), ..) => why,
            (None, _, false) => "not heard yet".to_owned(),
            (None, Some(why), _) => format!("not heard any more; before that: {why}"),
            (None, None, _) => format!("not heard for {} s", self.config.offline_after.as_secs()),
        };
        self.known.forget();
        AccessError::Disconnected(why)
    }

    fn ms(duration: Duration) -> u32 {
        u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
    }

    /// Makes sure of a connection.
    async fn connect(&mut self) -> Result<(), AccessError> {
        if self.link.is_some() {
            return Ok(());
        }
        let lost = |why: &str| AccessError::Disconnected(why.to_owned());
        let radio = match &*self.air.borrow_and_update() {
            Air::Down(why) => return Err(lost(why)),
            Air::Up(radio) => Arc::clone(radio),
        };
        let slot = timeout(SLOT, self.adapter.slot()).await;
        let slot = slot.ok().flatten().ok_or_else(|| lost("all connections of the adapter are in use"))?;
        let limit = self.config.connect_timeout + if self.config.bond { PAIRING } else { Duration::ZERO };
        let end = Instant::now() + limit;
        let peer = match tokio::time::timeout_at(end, self.find(&radio)).await {
            Ok(found) => found.map_err(|f| f.access(Self::ms(limit)))?,
            Err(_) => return Err(lost("not heard: out of reach, switched off, or connected elsewhere")),
        };
        let held = Held::new(&self.adapter, Arc::clone(&radio), peer.clone(), slot);
        let config = Arc::clone(&self.config);
        let made = async {
            if config.bond {
                radio.bond(config.address, config.passkey).await?;
            }
            let notifications = radio.notifications(&peer).await?;
            let characteristics = radio.connect(&peer).await?;
            for gatt in gatts(&config).filter(|g| g.1.mode != Mode::Read).map(|g| g.1) {
                let Some(found) = find(&characteristics, gatt) else { continue };
                match radio.subscribe(&peer, found).await {
                    Ok(()) => {}
                    // The point tells when it is read.
                    Err(Fault::Refused(why)) => {
                        tracing::debug!(device = %config.profile.name, uuid = %gatt.uuid, reason = %why, "bluetooth: not subscribed");
                    }
                    Err(fault) => return Err(fault),
                }
            }
            Ok((notifications, characteristics))
        };
        let made = tokio::time::timeout_at(end, made).await.unwrap_or(Err(Fault::Timeout));
        // Dropping `held` ends whatever was begun. Who refuses to be connected or paired is not there.
        let (notifications, characteristics) = made.map_err(|fault| match fault {
            Fault::Refused(why) => AccessError::Disconnected(why),
            fault => fault.access(Self::ms(limit)),
        })?;
        // What is waiting is from before.
        self.drain();
        tracing::debug!(device = %config.profile.name, "bluetooth: connected");
        let look = Instant::now() + self.turn;
        self.link = Some(Link { held, characteristics, notifications, look });
        self.sent.fill(None);
        Ok(())
    }

    /// The device, as soon as it is heard.
    async fn find(&mut self, radio: &R) -> Result<R::Peer, Fault> {
        if let Some(peer) = radio.peer(self.config.address).await? {
            return Ok(peer);
        }
        let _listening = self.adapter.listen();
        loop {
            match self.ear.recv().await {
                Some(heard) => self.hear(&heard),
                None => return Err(Fault::Disconnected("the adapter is gone".to_owned())),
            }
            if let Some(peer) = radio.peer(self.config.address).await? {
                return Ok(peer);
            }
        }
    }

    /// Gives the connection up; the adapter ends it.
    fn leave(&mut self) {
        self.link = None;
    }

    /// Gives the slot to a device that waits for it, if there is one and this one had its turn.
    fn give_way(&mut self) {
        let now = Instant::now();
        let Some(link) = self.link.as_mut().filter(|l| l.look <= now) else { return };
        link.look = now + LOOK;
        if self.adapter.is_wanted() {
            tracing::debug!(device = %self.config.profile.name, "bluetooth: gives its slot to another device");
            self.leave();
        }
    }

    /// A fault of the connection ends it; a refusal does not.
    fn fault(&mut self, fault: Fault) -> AccessError {
        if !matches!(fault, Fault::Refused(_)) {
            self.leave();
        }
        fault.access(Self::ms(self.config.timeout))
    }

    async fn read_characteristic(&mut self, gatt: &Gatt) -> Result<Vec<u8>, Fault> {
        let missing = || Fault::Refused(format!("the device has no characteristic {}", gatt.uuid));
        let link = self.link.as_ref().ok_or_else(|| Fault::Disconnected("not connected".to_owned()))?;
        let found = find(&link.characteristics, gatt).ok_or_else(missing)?;
        let (radio, peer) = link.held.get().ok_or_else(missing)?;
        timeout(self.config.timeout, radio.read(peer, found)).await.unwrap_or(Err(Fault::Timeout))
    }

    fn is_readable(&self, gatt: &Gatt) -> bool {
        let characteristics = self.link.as_ref().map(|l| &l.characteristics[..]).unwrap_or_default();
        find(characteristics, gatt).is_none_or(|c| c.readable)
    }

    fn notified(&mut self, notification: &Notification) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (i, gatt) in gatts(&self.config) {
            let same = gatt.uuid == notification.uuid && gatt.service.is_none_or(|s| s == notification.service);
            if !same || gatt.mode == Mode::Read {
                continue;
            }
            match gatt.codec.decode(&notification.value) {
                Ok(value) => {
                    if let Some(sent) = self.sent.get_mut(i) {
                        *sent = Some(value.clone());
                    }
                    samples.push(good(i, value));
                }
                Err(_) => samples.push(bad(i, Quality::Invalid)),
            }
        }
        samples
    }

    /// The samples of what is not connected to: last heard, and only while it still holds.
    fn heard(&self, points: &[usize]) -> Vec<Sample> {
        let heard = self.known.is_heard(self.config.offline_after, Instant::now());
        let mut samples = self.known.known(points);
        for sample in &mut samples {
            let connected = matches!(self.config.sources.get(usize::from(sample.point)), Some(Source::Connected));
            if !heard && !connected {
                (sample.quality, sample.value) = (Quality::Disconnected, None);
            }
        }
        samples
    }
}

/// The points that are characteristics.
fn gatts(config: &Config) -> impl Iterator<Item = (usize, &Gatt)> {
    config.sources.iter().enumerate().filter_map(|(i, s)| match s {
        Source::Gatt(gatt) => Some((i, gatt)),
        _ => None,
    })
}

/// The characteristic a point is, on the device as it is.
fn find<'a>(all: &'a [Characteristic], gatt: &Gatt) -> Option<&'a Characteristic> {
    all.iter().find(|c| c.uuid == gatt.uuid && gatt.service.is_none_or(|s| s == c.service))
}

impl<R: Radio> device::Driver for Driver<R> {
    async fn read(&mut self, points: &[usize]) -> Result<Vec<Sample>, AccessError> {
        self.drain();
        self.pending.retain(|s| !points.contains(&usize::from(s.point)));
        if self.listening.is_some() {
            if let Some(why) = self.down() {
                self.forget();
                return Err(AccessError::Disconnected(why));
            }
            if !self.known.is_heard(self.config.offline_after, Instant::now()) {
                return Err(self.silence());
            }
            return Ok(self.known.known(points));
        }
        self.connect().await?;
        let config = Arc::clone(&self.config);
        let mut samples = self.heard(points);
        // Several points may be parts of one characteristic: it is read once.
        let mut read: Vec<(&Gatt, Result<Vec<u8>, Fault>)> = Vec::new();
        for (i, gatt) in gatts(&config).filter(|g| points.contains(&g.0)) {
            if !self.is_readable(gatt) {
                if let Some(Some(value)) = self.sent.get(i) {
                    samples.push(good(i, value.clone()));
                }
                continue;
            }
            let before =
                read.iter().find(|(g, _)| (g.uuid, g.service) == (gatt.uuid, gatt.service)).map(|r| r.1.clone());
            let answer = match before {
                Some(answer) => answer,
                None => {
                    let answer = self.read_characteristic(gatt).await;
                    read.push((gatt, answer.clone()));
                    answer
                }
            };
            samples.push(match answer.map(|bytes| gatt.codec.decode(&bytes)) {
                Ok(Ok(value)) => good(i, value),
                Ok(Err(_)) => bad(i, Quality::Invalid),
                Err(Fault::Refused(_)) => bad(i, Quality::Refused),
                Err(fault) => return Err(self.fault(fault)),
            });
        }
        self.give_way();
        Ok(samples)
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<Value, AccessError> {
        let config = Arc::clone(&self.config);
        let Some(Source::Gatt(gatt)) = config.sources.get(point) else {
            return Err(AccessError::ReadOnly(point.to_string()));
        };
        let bytes = gatt.codec.encode(value)?;
        self.connect().await?;
        let missing = || AccessError::Refused(format!("the device has no characteristic {}", gatt.uuid));
        let link = self.link.as_ref().ok_or_else(missing)?;
        let found = find(&link.characteristics, gatt).ok_or_else(missing)?;
        let (radio, peer) = link.held.get().ok_or_else(missing)?;
        let written = timeout(config.timeout, radio.write(peer, found, &bytes, gatt.write)).await;
        let readable = found.readable;
        written.unwrap_or(Err(Fault::Timeout)).map_err(|fault| self.fault(fault))?;
        if !gatt.read_back || !readable {
            return gatt.codec.canonical(value);
        }
        let back = self.read_characteristic(gatt).await.map_err(|fault| self.fault(fault))?;
        let found = gatt.codec.decode(&back).map_err(|e| AccessError::Garbage(e.to_owned()))?;
        // What follows the value in the characteristic is not ours.
        if back.get(..bytes.len()) == Some(&bytes[..]) {
            return Ok(found);
        }
        Err(AccessError::Mismatch { wrote: value.to_string(), found: found.to_string() })
    }

    async fn event(&mut self) -> Result<Vec<Sample>, AccessError> {
        loop {
            if !self.pending.is_empty() {
                return Ok(std::mem::take(&mut self.pending));
            }
            let far = Instant::now() + NEVER;
            let silent = self.listening.as_ref().and_then(|_| self.known.silent_at(self.config.offline_after));
            let turn = self.link.as_ref().map(|l| l.look);
            let notified = async {
                match &mut self.link {
                    Some(link) => link.notifications.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                notification = notified => match notification {
                    Some(notification) => return Ok(self.notified(&notification)),
                    None => {
                        self.leave();
                        return Err(AccessError::Disconnected("the connection is gone".to_owned()));
                    }
                },
                heard = self.ear.recv() => match heard {
                    Some(Heard::Connected(false)) if self.link.is_some() => {
                        self.hear(&Heard::Connected(false));
                        self.leave();
                        return Err(AccessError::Disconnected("the device ended the connection".to_owned()));
                    }
                    Some(heard) => self.hear(&heard),
                    None => return Err(AccessError::Disconnected("the adapter is gone".to_owned())),
                },
                changed = self.air.changed() => {
                    let why = match &*self.air.borrow_and_update() {
                        Air::Down(why) => Some(why.clone()),
                        Air::Up(_) if changed.is_err() => Some("the adapter is gone".to_owned()),
                        Air::Up(_) => None,
                    };
                    if let Some(why) = why {
                        self.leave();
                        self.forget();
                        return Err(AccessError::Disconnected(why));
                    }
                }
                () = sleep_until(silent.unwrap_or(far)) => return Err(self.silence()),
                () = sleep_until(turn.unwrap_or(far)) => self.give_way(),
            }
        }
    }

    async fn back(&mut self) {
        loop {
            tokio::select! {
                heard = self.ear.recv() => match heard {
                    // From before the adapter was gone.
                    Some(_) if self.down().is_some() => {}
                    Some(heard) => {
                        self.hear(&heard);
                        // A device that has to be connected is not waited for by its advertisements: it may refuse for ever.
                        if self.listening.is_some() && !matches!(heard, Heard::Connected(_)) {
                            return;
                        }
                    }
                    None => std::future::pending().await,
                },
                changed = self.air.changed() => match changed {
                    Ok(()) if matches!(&*self.air.borrow_and_update(), Air::Up(_)) => return,
                    Ok(()) => {}
                    Err(_) => std::future::pending().await,
                },
            }
        }
    }
}
