//! One task per endpoint: it owns the wire, asks for what is due, and lets writes go first.
//!
//! What is wanted of an endpoint is state (a watched list of devices), not a series of events: a task that was busy sees the
//! last word, and a device that did not change keeps its schedule, its counters and what was learnt of its registers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use edge_model::reading::{Quality, Reading};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::config::{Config, Endpoint};
use super::decode::Encoded;
use super::link::{Fault, Link, Payload};
use super::plan::{Request, Span};
use super::unit::Unit;
use crate::backoff::Backoff;
use crate::{AccessError, Batch, Sample};

/// Commands that wait for one endpoint: a person's or a controller's, never a stream. More are refused as busy.
const COMMANDS: usize = 32;

/// How long to wait after failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The first and the longest pause of a device that does not answer.
    pub unit: (Duration, Duration),
    /// The first and the longest pause between attempts to connect.
    pub link: (Duration, Duration),
}

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses {
            unit: (Duration::from_secs(1), Duration::from_secs(60)),
            link: (Duration::from_millis(500), Duration::from_secs(10)),
        }
    }
}

/// All Modbus endpoints of a node.
pub struct Modbus {
    out: mpsc::Sender<Batch>,
    clock: fn() -> i64,
    pauses: Pauses,
    endpoints: HashMap<Endpoint, Handle>,
    tasks: JoinSet<()>,
}

struct Handle {
    wanted: watch::Sender<Vec<Arc<Config>>>,
    inbox: mpsc::Sender<Command>,
}

impl Modbus {
    /// Nothing polled yet. Samples go to `out`; when it is full, polling waits. `clock` gives UTC milliseconds.
    pub fn new(out: mpsc::Sender<Batch>, clock: fn() -> i64, pauses: Pauses) -> Modbus {
        Modbus { out, clock, pauses, endpoints: HashMap::new(), tasks: JoinSet::new() }
    }

    /// The devices to poll from now on. Those that are equal to what they were are left alone.
    pub fn set(&mut self, devices: &[Arc<Config>]) {
        let mut wanted: HashMap<&Endpoint, Vec<Arc<Config>>> = HashMap::new();
        for device in devices {
            wanted.entry(&device.endpoint).or_default().push(Arc::clone(device));
        }
        // A task whose list is dropped ends.
        self.endpoints.retain(|endpoint, _| wanted.contains_key(endpoint));
        for (endpoint, list) in wanted {
            match self.endpoints.get(endpoint) {
                Some(handle) => {
                    handle.wanted.send_if_modified(|old| {
                        let differs = *old != list;
                        *old = list;
                        differs
                    });
                }
                None => self.start(endpoint.clone(), list),
            }
        }
    }

    fn start(&mut self, endpoint: Endpoint, list: Vec<Arc<Config>>) {
        let (wanted, watched) = watch::channel(list);
        let (inbox, commands) = mpsc::channel(COMMANDS);
        let (first, longest) = self.pauses.link;
        let poller = Poller {
            link: Link::new(endpoint.clone(), Backoff::new(first, longest)),
            units: Vec::new(),
            wanted: watched,
            inbox: commands,
            out: self.out.clone(),
            clock: self.clock,
            pauses: self.pauses,
        };
        self.tasks.spawn(poller.run());
        self.endpoints.insert(endpoint, Handle { wanted, inbox });
    }

    /// Where commands for a device go.
    pub fn port(&self, device: &Config) -> Option<Port> {
        let handle = self.endpoints.get(&device.endpoint)?;
        let (namespace, name) = (device.profile.namespace.clone(), device.profile.name.clone());
        Some(Port { inbox: handle.inbox.clone(), namespace, name })
    }

    /// Waits until a task has failed, which none does by itself. Cancel safe.
    pub async fn failure(&mut self) -> tokio::task::JoinError {
        loop {
            match self.tasks.join_next().await {
                Some(Err(e)) => return e,
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Ends every task and waits for it.
    pub async fn shutdown(mut self) {
        self.endpoints.clear();
        self.tasks.shutdown().await;
    }
}

/// Where commands for one device go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Port {
    inbox: mpsc::Sender<Command>,
    namespace: String,
    name: String,
}

#[derive(Debug)]
struct Command {
    namespace: String,
    name: String,
    what: What,
    reply: oneshot::Sender<Result<Vec<Reading>, AccessError>>,
}

#[derive(Debug)]
enum What {
    Read(Option<String>),
    Write(String, serde_json::Value),
}

impl Port {
    /// Reads one property now, or all of them. Registers the device refuses come as readings of bad quality.
    ///
    /// # Errors
    /// Any [`AccessError`]; when the device does not answer, why.
    pub async fn read(&self, property: Option<&str>) -> Result<Vec<Reading>, AccessError> {
        self.call(What::Read(property.map(str::to_owned))).await
    }

    /// Writes a property and reads it back. Nothing goes on the wire that the model or the register does not allow.
    ///
    /// # Errors
    /// Any [`AccessError`].
    pub async fn write(&self, property: &str, value: serde_json::Value) -> Result<Reading, AccessError> {
        let readings = self.call(What::Write(property.to_owned(), value)).await?;
        readings.into_iter().next().ok_or(AccessError::Gone)
    }

    async fn call(&self, what: What) -> Result<Vec<Reading>, AccessError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { namespace: self.namespace.clone(), name: self.name.clone(), what, reply };
        self.inbox.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => AccessError::Busy,
            mpsc::error::TrySendError::Closed(_) => AccessError::Gone,
        })?;
        answer.await.unwrap_or(Err(AccessError::Gone))
    }
}

struct Poller {
    link: Link,
    units: Vec<Unit>,
    wanted: watch::Receiver<Vec<Arc<Config>>>,
    inbox: mpsc::Receiver<Command>,
    out: mpsc::Sender<Batch>,
    clock: fn() -> i64,
    pauses: Pauses,
}

/// What became of one read.
enum Step {
    /// It is done and its samples are sent.
    Done,
    /// It was refused as a whole: ask for its halves.
    Halves([Request; 2]),
    /// The device does not answer.
    Failed(Fault),
}

impl Poller {
    async fn run(mut self) {
        self.reconcile();
        loop {
            let next = self.next();
            let due = async {
                match next {
                    Some((at, unit)) => {
                        sleep_until(at).await;
                        unit
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // In the order of urgency; polls come last, so a flood of commands is bounded by its channel only.
                biased;
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.reconcile(),
                    Err(_) => return,
                },
                Some(command) = self.inbox.recv() => self.command(command).await,
                unit = due => self.poll(unit).await,
            }
        }
    }

    /// The device that wants the wire first.
    fn next(&self) -> Option<(Instant, usize)> {
        self.units.iter().enumerate().filter_map(|(i, u)| Some((u.next()?, i))).min()
    }

    /// Makes the units those that are wanted; equal ones stay as they are.
    fn reconcile(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let mut old = std::mem::take(&mut self.units);
        let (first, longest) = self.pauses.unit;
        for config in wanted {
            let unit = match old.iter().position(|u| u.config == config) {
                Some(at) => old.swap_remove(at),
                None => Unit::new(config, Backoff::new(first, longest), Instant::now()),
            };
            self.units.push(unit);
        }
    }

    async fn poll(&mut self, index: usize) {
        let Some(unit) = self.units.get_mut(index) else { return };
        let (mut due, mut requests) = (Vec::new(), Vec::new());
        unit.take_due(Instant::now(), &mut due);
        unit.map.plan(&due, &mut requests);
        requests.reverse();
        while let Some(request) = requests.pop() {
            // Writes go before reads.
            while let Ok(command) = self.inbox.try_recv() {
                self.command(command).await;
            }
            match self.step(index, request, &due, None).await {
                Step::Done => {}
                Step::Halves([a, b]) => requests.extend([b, a]),
                Step::Failed(_) => return,
            }
        }
    }

    /// One request: asks, decodes, sends the samples on. Whoever wants them, too, gives a list for them.
    async fn step(&mut self, index: usize, request: Request, due: &[usize], wanted: Option<&mut Vec<Sample>>) -> Step {
        let answer = self.read(index, request.span).await;
        let Some(unit) = self.units.get_mut(index) else { return Step::Done };
        let alone = request.last - request.first <= 1;
        let only = due.get(request.first).copied().unwrap_or(0);
        let samples = match answer {
            Ok(payload) => {
                unit.map.set_good(only);
                unit.decode(request, due, &payload)
            }
            // Illegal address, illegal value and device failure are how devices refuse a hole in a range.
            Err(Fault::Exception(2..=4)) if !alone => return Step::Halves(unit.map.split(request, due)),
            Err(Fault::Exception(code)) => {
                if alone && matches!(code, 2..=4) {
                    unit.set_refused(only, Instant::now());
                }
                unit.refused(request, due, Quality::Refused)
            }
            Err(fault) => return Step::Failed(fault),
        };
        if let Some(wanted) = wanted {
            wanted.extend_from_slice(&samples);
        }
        self.send(index, samples).await;
        Step::Done
    }

    /// One read with everything that follows from it for the device's state.
    async fn read(&mut self, index: usize, span: Span) -> Result<Payload, Fault> {
        let Some(unit) = self.units.get(index) else { return Err(Fault::Disconnected("removed".to_owned())) };
        let (config, start) = (Arc::clone(&unit.config), Instant::now());
        let answer = self.link.read(&config, span).await;
        self.account(index, start, answer).await
    }

    async fn account<T>(&mut self, index: usize, start: Instant, answer: Result<T, Fault>) -> Result<T, Fault> {
        let Some(unit) = self.units.get_mut(index) else { return answer };
        unit.stats.requests += 1;
        unit.stats.errors += u64::from(answer.is_err());
        match answer {
            // A gateway's word that the device behind it does not answer (Modbus Application Protocol V1.1b3, section 7).
            Err(
                fault @ (Fault::Timeout(_) | Fault::Disconnected(_) | Fault::Garbage(_) | Fault::Exception(10 | 11)),
            ) => {
                let quality = match fault {
                    Fault::Disconnected(_) => Quality::Disconnected,
                    Fault::Garbage(_) => Quality::Invalid,
                    Fault::Timeout(_) | Fault::Exception(_) => Quality::Timeout,
                };
                // The values are bad from the moment that is known; the probes that follow repeat only the counters.
                let link = self.link.refused_until().filter(|_| matches!(fault, Fault::Disconnected(_)));
                let news = unit.failed(fault.clone(), Instant::now(), link);
                let samples = if news { unit.without_values(quality) } else { Vec::new() };
                self.send(index, samples).await;
                Err(fault)
            }
            answer => {
                unit.stats.round_trip_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                unit.answered();
                answer
            }
        }
    }

    async fn send(&mut self, index: usize, samples: Vec<Sample>) {
        let Some(unit) = self.units.get(index) else { return };
        let (device, link) = (Arc::clone(&unit.config.profile), unit.link());
        // Nobody listens any more only while everything is being stopped.
        let _ = self.out.send(Batch { device, time_ms: (self.clock)(), samples, link, stats: unit.stats }).await;
    }

    async fn command(&mut self, command: Command) {
        let Command { namespace, name, what, reply } = command;
        let is = |u: &Unit| u.config.profile.namespace == namespace && u.config.profile.name == name;
        let result = match self.units.iter().position(is) {
            None => Err(AccessError::Gone),
            Some(index) => match self.units.get(index).and_then(|u| u.known_fault(Instant::now())) {
                Some(fault) => Err(fault.into()),
                None => match what {
                    What::Read(property) => self.read_now(index, property.as_deref()).await,
                    What::Write(property, value) => self.write_now(index, &property, &value).await,
                },
            },
        };
        // Whoever asked may have gone.
        let _ = reply.send(result);
    }

    async fn read_now(&mut self, index: usize, property: Option<&str>) -> Result<Vec<Reading>, AccessError> {
        let Some(unit) = self.units.get(index) else { return Err(AccessError::Gone) };
        let point = match property {
            None => None,
            Some(p) => Some(unit.config.profile.index(p).ok_or_else(|| AccessError::Unknown(p.to_owned()))?),
        };
        let (due, mut requests, mut samples) = (unit.sorted(point), Vec::new(), Vec::new());
        unit.map.plan(&due, &mut requests);
        while let Some(request) = requests.pop() {
            match self.step(index, request, &due, Some(&mut samples)).await {
                Step::Done => {}
                Step::Halves(halves) => requests.extend(halves),
                Step::Failed(fault) => return Err(fault.into()),
            }
        }
        samples.sort_by_key(|s| s.point);
        self.readings(index, samples)
    }

    async fn write_now(
        &mut self,
        index: usize,
        property: &str,
        value: &serde_json::Value,
    ) -> Result<Vec<Reading>, AccessError> {
        let Some(unit) = self.units.get(index) else { return Err(AccessError::Gone) };
        let config = Arc::clone(&unit.config);
        let unknown = || AccessError::Unknown(property.to_owned());
        let at = config.profile.index(property).ok_or_else(unknown)?;
        let (Some(point), Some(register)) = (config.profile.points.get(at), config.registers.get(at)) else {
            return Err(unknown());
        };
        if !point.writable {
            return Err(AccessError::ReadOnly(property.to_owned()));
        }
        let value = point.parse(value)?;
        let encoded = register.codec.encode(&value, register.count)?;
        let mut now = register.codec.canonical(&value, register.count)?;
        let start = Instant::now();
        let answer = self.link.write(&config, register.address, &encoded).await;
        self.account(index, start, answer).await?;
        if register.read_back {
            let span = Span { table: register.table, address: register.address, count: register.count };
            let (stuck, found) = match (self.read(index, span).await?, &encoded) {
                (Payload::Registers(r), Encoded::Registers(wrote)) => (r == *wrote, register.codec.decode(&r)),
                (Payload::Registers(r), Encoded::Bit(mask, on)) => {
                    (r.first().is_some_and(|r| (r & mask != 0) == *on), register.codec.decode(&r))
                }
                (Payload::Bits(b), Encoded::Bits(wrote)) => (b == *wrote, register.codec.decode_bits(&b)),
                _ => (false, Err("another table")),
            };
            let found = found.map_err(|e| AccessError::Garbage(e.to_owned()))?;
            if !stuck {
                self.send(index, vec![sample(at, found.clone())]).await;
                return Err(AccessError::Mismatch { wrote: now.to_string(), found: found.to_string() });
            }
            now = found;
        }
        let samples = vec![sample(at, now)];
        self.send(index, samples.clone()).await;
        self.readings(index, samples)
    }

    fn readings(&self, index: usize, samples: Vec<Sample>) -> Result<Vec<Reading>, AccessError> {
        let unit = self.units.get(index).ok_or(AccessError::Gone)?;
        let (device, link) = (Arc::clone(&unit.config.profile), unit.link());
        let batch = Batch { device, time_ms: (self.clock)(), samples, link, stats: unit.stats };
        Ok(batch.readings().collect())
    }
}

fn sample(at: usize, value: edge_model::reading::Value) -> Sample {
    Sample { point: u16::try_from(at).unwrap_or(u16::MAX), quality: Quality::Good, value: Some(value) }
}
