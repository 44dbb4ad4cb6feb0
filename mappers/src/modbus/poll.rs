//! One task per endpoint: it owns the wire, asks for what is due, and lets writes go first.

use std::sync::Arc;

use edge_model::reading::{Quality, Reading};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::config::Config;
use super::encode::{Encoded, merge};
use super::endpoints::Pauses;
use super::link::{Fault, Link, Payload};
use super::plan::{Request, Span};
use super::unit::Unit;
use crate::backoff::Backoff;
use crate::port::{Command, What};
use crate::{AccessError, Batch, Sample, Stats};

/// See the module.
pub(super) struct Poller {
    pub(super) link: Link,
    pub(super) units: Vec<Unit>,
    pub(super) wanted: watch::Receiver<Vec<Arc<Config>>>,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) out: mpsc::Sender<Batch>,
    pub(super) clock: fn() -> i64,
    pub(super) pauses: Pauses,
    /// The answer to the last request of a poll. Its samples are made while the next request is under way.
    pub(super) kept: Option<Answer>,
}

/// An answer with what is needed to make a batch of it.
pub(super) struct Answer {
    config: Arc<Config>,
    /// The points that were asked for.
    points: Vec<u16>,
    span: Span,
    payload: Payload,
    time_ms: i64,
    stats: Stats,
}

impl Answer {
    fn batch(&self) -> Batch {
        Batch {
            device: Arc::clone(&self.config.profile),
            time_ms: self.time_ms,
            samples: self.config.samples(&self.points, self.span, &self.payload),
            link: crate::Link::Online,
            stats: self.stats,
        }
    }
}

/// What became of one read.
enum Step {
    /// It is answered.
    Answered(Answer),
    /// It is refused for good, and that is told.
    Refused,
    /// It was refused as a whole: ask for its halves.
    Halves([Request; 2]),
    /// The device does not answer.
    Failed(Fault),
}

impl Poller {
    pub(super) async fn run(mut self) {
        self.reconcile();
        loop {
            let now = Instant::now();
            let next = self.next(now);
            if next.is_none_or(|(at, _)| at > now) {
                self.deliver().await;
            }
            let due = async {
                match next {
                    // Without the timer, whose grain is a millisecond.
                    Some((at, unit)) if at <= now => unit,
                    Some((at, unit)) => {
                        sleep_until(at).await;
                        unit
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // In the order of urgency: writes go before reads, so a flood of commands is bounded by its channel only.
                biased;
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.reconcile(),
                    Err(_) => return,
                },
                Some(command) = self.inbox.recv() => {
                    self.deliver().await;
                    self.command(command).await;
                }
                unit = due => self.poll(unit).await,
            }
        }
    }

    /// Whose turn it is: of those who want the wire now the one whose deadline is first, otherwise who wants it first.
    fn next(&self, now: Instant) -> Option<(Instant, usize)> {
        let all = || self.units.iter().enumerate().filter_map(|(i, u)| Some((u.next()?, i)));
        let ready = all().filter(|((at, _), _)| *at <= now).min_by_key(|((_, deadline), i)| (*deadline, *i));
        ready.or_else(|| all().min()).map(|((at, _), i)| (at, i))
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

    /// One request of one device's poll.
    async fn poll(&mut self, index: usize) {
        let Some(unit) = self.units.get_mut(index) else { return };
        let Some(request) = unit.next_request(Instant::now()) else { return };
        let due = unit.due();
        let (config, start) = (Arc::clone(&unit.config), Instant::now());
        let kept = self.kept.take();
        // Sends the request, makes the samples of the answer before, waits for this one.
        let (answer, ()) = tokio::join!(self.link.read(&config, request.span), deliver(&self.out, kept));
        let answer = self.account(index, start, answer).await;
        let step = self.settle(index, request, &due, answer).await;
        let Some(unit) = self.units.get_mut(index) else { return };
        match step {
            Step::Answered(answer) => {
                unit.resume(due, None);
                self.kept = Some(answer);
            }
            Step::Refused | Step::Failed(_) => unit.resume(due, None),
            Step::Halves(halves) => unit.resume(due, Some(halves)),
        }
    }

    /// What follows from the answer to a read, or none.
    async fn settle(&mut self, index: usize, request: Request, due: &[usize], answer: Result<Payload, Fault>) -> Step {
        let Some(unit) = self.units.get_mut(index) else { return Step::Refused };
        let alone = request.last - request.first <= 1;
        let only = due.get(request.first).copied().unwrap_or(0);
        match answer {
            Ok(payload) => {
                unit.map.set_good(only);
                Step::Answered(Answer {
                    config: Arc::clone(&unit.config),
                    points: unit.points(request, due),
                    span: request.span,
                    payload,
                    time_ms: (self.clock)(),
                    stats: unit.stats,
                })
            }
            // Illegal address, illegal value and device failure are how devices refuse a hole in a range.
            Err(Fault::Exception(2..=4)) if !alone => Step::Halves(unit.map.split(request, due)),
            Err(Fault::Exception(code)) => {
                if alone && matches!(code, 2..=4) {
                    unit.set_refused(only, Instant::now());
                }
                let samples = unit.refused(request, due, Quality::Refused);
                self.send(index, samples).await;
                Step::Refused
            }
            Err(fault) => Step::Failed(fault),
        }
    }

    async fn deliver(&mut self) {
        deliver(&self.out, self.kept.take()).await;
    }

    /// One read with everything that follows from it for the device's state.
    async fn read(&mut self, index: usize, span: Span) -> Result<Payload, Fault> {
        let Some(unit) = self.units.get(index) else { return Err(Fault::Disconnected("removed".to_owned())) };
        let (config, start) = (Arc::clone(&unit.config), Instant::now());
        let answer = self.link.read(&config, span).await;
        self.account(index, start, answer).await
    }

    async fn account<T>(&mut self, index: usize, start: Instant, answer: Result<T, Fault>) -> Result<T, Fault> {
        let reconnects = self.link.reconnects();
        let Some(unit) = self.units.get_mut(index) else { return answer };
        unit.spoken_to(Instant::now());
        unit.stats.requests += 1;
        unit.stats.errors += u64::from(answer.is_err());
        unit.stats.timeouts += u64::from(matches!(answer, Err(Fault::Timeout(_))));
        unit.stats.exceptions += u64::from(matches!(answer, Err(Fault::Exception(_))));
        unit.stats.reconnects = reconnects;
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
            let answer = self.read(index, request.span).await;
            match self.settle(index, request, &due, answer).await {
                Step::Answered(answer) => {
                    let batch = answer.batch();
                    samples.extend_from_slice(&batch.samples);
                    let _ = self.out.send(batch).await;
                }
                // The samples of one that is refused are told with the others.
                Step::Refused => {
                    let Some(unit) = self.units.get(index) else { return Err(AccessError::Gone) };
                    samples.extend(unit.refused(request, &due, Quality::Refused));
                }
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
        let read_back = register.read_back && !config.is_broadcast();
        let span = Span { table: register.table, address: register.address, count: register.count };
        let read = match &encoded {
            Encoded::Registers(words) if read_back && config.read_write => {
                let answer = self.link.write_read(&config, register.address, words).await;
                Some(self.account(index, start, answer).await?)
            }
            _ => {
                let answer = self.link.write(&config, register.address, &encoded).await;
                self.account(index, start, answer).await?;
                if read_back { Some(self.read(index, span).await?) } else { None }
            }
        };
        if let Some(read) = read {
            let (stuck, found) = match (read, &encoded) {
                (Payload::Registers(r), Encoded::Registers(wrote)) => (r == *wrote, register.codec.decode(&r)),
                (Payload::Registers(r), Encoded::Masked { masks, values }) => {
                    (merge(&r, masks, values) == r, register.codec.decode(&r))
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

/// Makes the samples of an answer and sends them on.
async fn deliver(out: &mpsc::Sender<Batch>, answer: Option<Answer>) {
    if let Some(answer) = answer {
        // Nobody listens any more only while everything is being stopped.
        let _ = out.send(answer.batch()).await;
    }
}

fn sample(at: usize, value: edge_model::reading::Value) -> Sample {
    Sample { point: u16::try_from(at).unwrap_or(u16::MAX), quality: Quality::Good, value: Some(value) }
}
