//! One device with a task of its own, for protocols in which devices do not share a wire.
//!
//! A protocol gives [`Settings`] and a [`Driver`]: how to read points, how to write one, and what comes by itself. When to
//! read, how long to wait after a failure, whose command goes first and what is sent on is the same for all of them, and here.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_model::reading::{Quality, Reading, Value};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;
use crate::port::{self, Command, Port, What};
use crate::schedule::Schedule;
use crate::{AccessError, Batch, Link, Profile, Sample, Stats};

/// The period of points that are never read, because their values come by themselves: a year.
pub const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// A device's settings, resolved: they differ exactly when the device has to be talked to anew.
pub trait Settings: PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// How such a device is talked to.
    type Driver: Driver;

    /// Names, types and limits of its points.
    fn profile(&self) -> &Arc<Profile>;

    /// How often each point is read, as many as there are points, or [`NEVER`].
    fn periods(&self) -> Vec<Duration>;

    /// The way to the device. Opens nothing: that is left to the first read, which may fail.
    fn driver(self: Arc<Self>, outlet: &Outlet) -> Self::Driver;
}

/// How to talk to one device. A future of it may be dropped whenever the device is removed.
pub trait Driver: Send + 'static {
    /// Reads points (indices into the profile). A point may be missing from the answer.
    ///
    /// # Errors
    /// The device as a whole does not answer.
    fn read(&mut self, points: &[usize]) -> impl Future<Output = Result<Vec<Sample>, AccessError>> + Send;

    /// Writes a point; returns what the device has now. The value has passed the model's checks.
    ///
    /// # Errors
    /// Any [`AccessError`].
    fn write(&mut self, point: usize, value: &Value) -> impl Future<Output = Result<Value, AccessError>> + Send;

    /// Waits for samples that come by themselves. Cancel safe.
    ///
    /// # Errors
    /// The device is lost until it is read again; it is not asked for events before.
    fn event(&mut self) -> impl Future<Output = Result<Vec<Sample>, AccessError>> + Send {
        pending()
    }

    /// Waits, while the device is lost, for a sign that it is back: then it is read before its pause is over. Cancel safe.
    fn back(&mut self) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// Where batches go, and what time it is.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// Batches; when it is full, devices wait.
    pub batches: mpsc::Sender<Batch>,
    /// UTC milliseconds.
    pub clock: fn() -> i64,
    /// The first and the longest pause of a device that does not answer.
    pub pauses: (Duration, Duration),
    /// The folder whose files a device's description may name.
    pub files: Arc<Path>,
    /// The sockets of traps.
    pub traps: Arc<crate::snmp::traps::Hub>,
    /// The connections to MQTT brokers.
    pub brokers: Arc<crate::mqtt::broker::Brokers>,
}

/// The devices of one protocol, each with its task.
pub struct Devices<S> {
    outlet: Outlet,
    devices: HashMap<(String, String), Entry<S>>,
    tasks: JoinSet<()>,
}

struct Entry<S> {
    settings: Arc<S>,
    inbox: mpsc::Sender<Command>,
    task: AbortHandle,
}

impl<S: Settings> Devices<S> {
    /// No devices yet.
    pub fn new(outlet: Outlet) -> Devices<S> {
        Devices { outlet, devices: HashMap::new(), tasks: JoinSet::new() }
    }

    /// The devices from now on. Those that are equal to what they were are left alone.
    pub fn set(&mut self, wanted: &[Arc<S>]) {
        let id = |s: &S| (s.profile().namespace.clone(), s.profile().name.clone());
        let same = |e: &Entry<S>| wanted.contains(&e.settings);
        self.devices.retain(|_, entry| {
            let keep = same(entry);
            if !keep {
                entry.task.abort();
            }
            keep
        });
        for settings in wanted {
            if self.devices.contains_key(&id(settings)) {
                continue;
            }
            let (inbox, commands) = port::inbox();
            let device = Device::new(Arc::clone(settings), commands, self.outlet.clone());
            let task = self.tasks.spawn(device.run());
            self.devices.insert(id(settings), Entry { settings: Arc::clone(settings), inbox, task });
        }
    }

    /// Where commands for a device go.
    pub fn port(&self, settings: &S) -> Option<Port> {
        let (namespace, name) = (&settings.profile().namespace, &settings.profile().name);
        let entry = self.devices.get(&(namespace.clone(), name.clone()))?;
        Some(Port::new(entry.inbox.clone(), namespace, name))
    }

    /// Waits until a task has failed, which none does by itself. Cancel safe.
    pub async fn failure(&mut self) -> JoinError {
        loop {
            match self.tasks.join_next().await {
                Some(Err(e)) if !e.is_cancelled() => return e,
                Some(_) => {}
                None => pending().await,
            }
        }
    }

    /// Ends every task and waits for it.
    pub async fn shutdown(&mut self) {
        self.devices.clear();
        self.tasks.shutdown().await;
    }
}

/// The task of one device.
///
/// ```text
///  Online ── no answer ──► Offline ── the pause is over, or a sign: a read ──► Online
///                             ▲─────────── still none ──────────┘ (the pause doubles)
/// ```
struct Device<D> {
    driver: D,
    profile: Arc<Profile>,
    groups: Vec<usize>,
    schedule: Schedule,
    inbox: mpsc::Receiver<Command>,
    outlet: Outlet,
    stats: Stats,
    /// Why it is offline and when it is tried again.
    offline: Option<(Instant, AccessError)>,
    backoff: Backoff,
}

impl<D: Driver> Device<D> {
    fn new<S: Settings<Driver = D>>(settings: Arc<S>, inbox: mpsc::Receiver<Command>, outlet: Outlet) -> Device<D> {
        let (profile, periods) = (Arc::clone(settings.profile()), settings.periods());
        let schedule = Schedule::new(periods.iter().copied(), Instant::now());
        let groups = periods.iter().map(|p| schedule.group(*p).unwrap_or(0)).collect();
        let backoff = Backoff::new(outlet.pauses.0, outlet.pauses.1);
        let (stats, driver) = (Stats::default(), settings.driver(&outlet));
        Device { driver, profile, groups, schedule, inbox, outlet, stats, offline: None, backoff }
    }

    async fn run(mut self) {
        loop {
            let next = self.offline.as_ref().map(|o| o.0).or_else(|| self.schedule.next());
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let awake = self.offline.is_none();
            let event = async {
                if awake {
                    return Some(self.driver.event().await);
                }
                self.driver.back().await;
                None
            };
            tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                event = event => match event {
                    Some(Ok(samples)) => self.send(samples).await,
                    Some(Err(error)) => self.failed(error).await,
                    None => self.poll().await,
                },
                () = due => self.poll().await,
            }
        }
    }

    async fn poll(&mut self) {
        let now = Instant::now();
        let probe = self.offline.is_some();
        let wanted = |(i, group): (usize, &usize)| (probe || self.schedule.is_due(*group, now)).then_some(i);
        let due: Vec<usize> = self.groups.iter().enumerate().filter_map(wanted).collect();
        self.schedule.advance(now);
        // A failure has been told.
        if let Ok(samples) = self.read(&due).await {
            self.send(samples).await;
        }
    }

    async fn read(&mut self, points: &[usize]) -> Result<Vec<Sample>, AccessError> {
        let start = Instant::now();
        let answer = self.driver.read(points).await;
        self.account(start, answer).await
    }

    async fn account<T>(&mut self, start: Instant, answer: Result<T, AccessError>) -> Result<T, AccessError> {
        self.stats.requests += 1;
        self.stats.errors += u64::from(answer.is_err());
        match &answer {
            Err(e @ (AccessError::Timeout(_) | AccessError::Disconnected(_) | AccessError::Garbage(_))) => {
                self.failed(e.clone()).await;
            }
            _ => {
                self.stats.round_trip_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.offline = None;
                self.backoff.reset();
            }
        }
        answer
    }

    /// The device does not answer: its values are bad from the moment that is known.
    async fn failed(&mut self, error: AccessError) {
        let news = self.offline.as_ref().is_none_or(|(_, old)| *old != error);
        let quality = match error {
            AccessError::Garbage(_) => Quality::Invalid,
            AccessError::Timeout(_) => Quality::Timeout,
            _ => Quality::Disconnected,
        };
        self.offline = Some((Instant::now() + self.backoff.pause(), error));
        let all = 0..u16::try_from(if news { self.profile.points.len() } else { 0 }).unwrap_or(u16::MAX);
        self.send(all.map(|point| Sample { point, quality, value: None }).collect()).await;
    }

    fn batch(&self, samples: Vec<Sample>) -> Batch {
        let link = match &self.offline {
            Some((_, error)) => Link::Offline(error.to_string()),
            None => Link::Online,
        };
        let (device, time_ms) = (Arc::clone(&self.profile), (self.outlet.clock)());
        Batch { device, time_ms, samples, link, stats: self.stats }
    }

    async fn send(&mut self, samples: Vec<Sample>) {
        let samples = samples.into_iter().map(|s| self.within_limits(s)).collect();
        // Nobody listens any more only while everything is being stopped.
        let _ = self.outlet.batches.send(self.batch(samples)).await;
    }

    /// A value the model does not allow is none.
    fn within_limits(&self, sample: Sample) -> Sample {
        let point = self.profile.points.get(usize::from(sample.point));
        match (&sample.value, point) {
            (Some(value), Some(point)) if !point.allows(value) => {
                Sample { quality: Quality::Invalid, value: None, ..sample }
            }
            _ => sample,
        }
    }

    async fn command(&mut self, command: Command) {
        let result = match command.what {
            What::Read(property) => self.read_now(property.as_deref()).await,
            What::Write(property, value) => self.write_now(&property, &value).await,
        };
        // Whoever asked may have gone.
        let _ = command.reply.send(result);
    }

    async fn read_now(&mut self, property: Option<&str>) -> Result<Vec<Reading>, AccessError> {
        let points: Vec<usize> = match property {
            None => (0..self.profile.points.len()).collect(),
            Some(p) => vec![self.profile.index(p).ok_or_else(|| AccessError::Unknown(p.to_owned()))?],
        };
        let samples = self.read(&points).await?;
        self.answer(samples).await
    }

    async fn write_now(&mut self, property: &str, value: &serde_json::Value) -> Result<Vec<Reading>, AccessError> {
        let unknown = || AccessError::Unknown(property.to_owned());
        let at = self.profile.index(property).ok_or_else(unknown)?;
        let point = self.profile.points.get(at).ok_or_else(unknown)?;
        if !point.writable {
            return Err(AccessError::ReadOnly(property.to_owned()));
        }
        let value = point.parse(value)?;
        let start = Instant::now();
        let answer = self.driver.write(at, &value).await;
        let now = self.account(start, answer).await?;
        let point = u16::try_from(at).unwrap_or(u16::MAX);
        self.answer(vec![Sample { point, quality: Quality::Good, value: Some(now) }]).await
    }

    async fn answer(&mut self, samples: Vec<Sample>) -> Result<Vec<Reading>, AccessError> {
        let readings = self.batch(samples.clone()).readings().collect();
        self.send(samples).await;
        Ok(readings)
    }
}
