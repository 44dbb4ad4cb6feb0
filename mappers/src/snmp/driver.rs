//! Reads, writes and traps.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;

use edge_model::device::PropertyType;
use edge_model::device::snmp::Version;
use edge_model::reading::{Quality, Value};
use serde_json::{Map, Value as Json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::config::{Config, Id, Source, dotted};
use super::decode::{self, Wire};
use super::link::{Ask, Link, status};
use super::traps::{Hub, Listener, Sender, Trap};
use super::v3::Member;
use crate::device::{self, Settings as _};
use crate::payload::same;
use crate::{AccessError, Point, Sample};

/// Rows of a walk at most; larger tables are for a network manager.
const MAX_ROWS: usize = 512;

/// See the module.
pub struct Driver {
    config: Arc<Config>,
    link: Link,
    hub: Arc<Hub>,
    clock: fn() -> i64,
    traps: Option<Traps>,
    /// One per point that comes from traps: how many there were, and what the last one said.
    heard: Vec<(u64, Option<Value>)>,
    /// Of a trap that came while the device was offline.
    pending: Vec<Sample>,
}

struct Traps {
    _listener: Arc<Listener>,
    /// Who the agent is in version 3.
    member: Option<Arc<Member>>,
    inbox: Receiver<Arc<Trap>>,
    /// Where the agent's traps come from.
    from: Vec<IpAddr>,
}

impl Driver {
    pub(super) fn new(config: Arc<Config>, hub: Arc<Hub>, clock: fn() -> i64) -> Driver {
        let heard = vec![(0, None); config.objects.len()];
        Driver { config, link: Link::default(), hub, clock, traps: None, heard, pending: Vec::new() }
    }

    /// Listens for traps, if the device sends any.
    async fn listen(&mut self) -> Result<(), String> {
        let Some(at) = self.config.link.trap_listen.filter(|_| self.traps.is_none()) else { return Ok(()) };
        let link = &self.config.link;
        let found = tokio::net::lookup_host((link.host.as_str(), link.port)).await.map_err(|e| e.to_string())?;
        let from: Vec<IpAddr> = found.map(|a| a.ip().to_canonical()).collect();
        let listener =
            self.hub.listen(at, (self.clock)()).map_err(|e| format!("cannot listen for traps at {at}: {e}"))?;
        let inbox = listener.traps.subscribe();
        let member = (link.version == Version::V3).then(|| Arc::new(Member::new(link, from.clone())));
        if let Some(member) = &member {
            listener.admit(member);
        }
        self.traps = Some(Traps { inbox, _listener: listener, member, from });
        Ok(())
    }

    /// Objects in as few requests as the agent takes.
    async fn get(&mut self, points: &[usize]) -> Result<Vec<Sample>, AccessError> {
        let config = Arc::clone(&self.config);
        let mut samples = Vec::with_capacity(points.len());
        let mut waiting: Vec<Vec<usize>> = points.chunks(config.link.max_values).rev().map(<[usize]>::to_vec).collect();
        while let Some(mut chunk) = waiting.pop() {
            let ids: Vec<&Id> = chunk.iter().filter_map(|p| config.objects.get(*p)).map(|o| &o.oid).collect();
            let reply = self.link.ask(&config.link, Ask::Get(&ids)).await?;
            match reply.status {
                0 => samples.extend(chunk.iter().filter_map(|p| sample(&config, *p, &reply.values))),
                // The answer does not fit into a message: half of it will.
                1 if chunk.len() > 1 => {
                    let rest = chunk.split_off(chunk.len() / 2);
                    waiting.push(rest);
                    waiting.push(chunk);
                }
                // One of them spoils the answer of all, as in version 1: without it the others are there.
                _ if reply.index >= 1 && reply.index <= chunk.len() => {
                    samples.push(refused(chunk.remove(reply.index - 1)));
                    if !chunk.is_empty() {
                        waiting.push(chunk);
                    }
                }
                _ => samples.extend(chunk.into_iter().map(refused)),
            }
        }
        Ok(samples)
    }

    /// Everything below an object.
    async fn walk(&mut self, point: usize) -> Result<Option<Sample>, AccessError> {
        let config = Arc::clone(&self.config);
        let Some(object) = config.objects.get(point) else { return Ok(None) };
        let mut rows = Map::new();
        let mut at = object.oid.clone();
        'more: while rows.len() < MAX_ROWS {
            let reply = self.link.ask(&config.link, Ask::Next(&at)).await?;
            if reply.status != 0 || reply.values.is_empty() {
                break;
            }
            for (id, wire) in reply.values {
                let Some(rest) = object.oid.below(&id).filter(|_| wire != Wire::Missing) else { break 'more };
                // An agent that goes backwards would be followed in circles.
                if id <= at {
                    return Err(AccessError::Garbage(format!("{id} comes after {at}")));
                }
                if rows.len() < MAX_ROWS {
                    rows.insert(dotted(rest), wire.to_json());
                }
                at = id;
            }
        }
        let point = u16::try_from(point).unwrap_or(u16::MAX);
        Ok(Some(Sample { point, quality: Quality::Good, value: Some(Value::Text(Json::Object(rows).to_string())) }))
    }

    /// What a trap says of this device's points; nothing when it is another's.
    fn take(&mut self, trap: &Trap) -> Vec<Sample> {
        let config = Arc::clone(&self.config);
        let ours = self.traps.as_ref().is_some_and(|t| match (&trap.sender, &t.member) {
            (Sender::Member(sender), Some(member)) => Arc::ptr_eq(sender, member),
            (Sender::Community(said), None) => {
                t.from.contains(&trap.from.to_canonical()) && *said == config.link.community.as_bytes()
            }
            // Who speaks version 3 is not believed without it.
            _ => false,
        });
        if !ours {
            return Vec::new();
        }
        let mut samples = Vec::new();
        let points = config.objects.iter().zip(&config.profile().points).zip(&mut self.heard);
        for (index, ((object, point), heard)) in points.enumerate() {
            let carried = trap.values.iter().find(|(id, _)| *id == object.oid).map(|(_, wire)| wire);
            let (quality, value) = match carried {
                Some(wire) => decode::value(object, point, wire),
                None if object.source == Source::Trap && trap.kind == object.oid => {
                    heard.0 += 1;
                    (Quality::Good, Some(happened(point, heard.0, trap)))
                }
                None => continue,
            };
            heard.1.clone_from(&value);
            samples.push(Sample { point: u16::try_from(index).unwrap_or(u16::MAX), quality, value });
        }
        samples
    }

    /// The next trap, of whomever. Cancel safe.
    async fn trap(&mut self) -> Arc<Trap> {
        loop {
            let Some(traps) = &mut self.traps else { return pending().await };
            match traps.inbox.recv().await {
                Ok(trap) => return trap,
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(device = %self.config.profile().name, lost, "traps lost")
                }
                Err(RecvError::Closed) => self.traps = None,
            }
        }
    }
}

/// What a kind of trap means for a point that stands for it.
fn happened(point: &Point, count: u64, trap: &Trap) -> Value {
    match point.value_type {
        PropertyType::Boolean => Value::Bool(true),
        PropertyType::String => {
            let values: Map<String, Json> = trap.values.iter().map(|(id, w)| (id.to_string(), w.to_json())).collect();
            Value::Text(Json::Object(values).to_string())
        }
        PropertyType::Bytes => Value::Bytes(Vec::new()),
        PropertyType::Int => Value::UInt(count),
        #[expect(clippy::cast_precision_loss, reason = "2^53 traps would take ages")]
        PropertyType::Float | PropertyType::Double => Value::Float(count as f64),
    }
}

fn sample(config: &Config, point: usize, values: &[(Id, Wire)]) -> Option<Sample> {
    let (object, of) = (config.objects.get(point)?, config.profile().points.get(point)?);
    let wire = values.iter().find(|(id, _)| *id == object.oid).map_or(&Wire::Missing, |(_, wire)| wire);
    let (quality, value) = decode::value(object, of, wire);
    Some(Sample { point: u16::try_from(point).ok()?, quality, value })
}

fn refused(point: usize) -> Sample {
    Sample { point: u16::try_from(point).unwrap_or(u16::MAX), quality: Quality::Refused, value: None }
}

impl device::Driver for Driver {
    async fn read(&mut self, points: &[usize]) -> Result<Vec<Sample>, AccessError> {
        let config = Arc::clone(&self.config);
        let of = |source: Source| -> Vec<usize> {
            points.iter().copied().filter(|p| config.objects.get(*p).is_some_and(|o| o.source == source)).collect()
        };
        let deaf = self.listen().await.err();
        if let Some(error) = &deaf {
            tracing::warn!(device = %config.profile().name, %error, "no traps");
        }
        let mut samples = self.get(&of(Source::Get)).await?;
        for point in of(Source::Walk) {
            samples.extend(self.walk(point).await?);
        }
        for index in of(Source::Trap) {
            let point = u16::try_from(index).unwrap_or(u16::MAX);
            match (&deaf, self.heard.get(index)) {
                (Some(_), _) => samples.push(Sample { point, quality: Quality::Disconnected, value: None }),
                (None, Some((_, Some(value)))) => {
                    samples.push(Sample { point, quality: Quality::Good, value: Some(value.clone()) });
                }
                // Nothing has happened yet.
                (None, _) => {}
            }
        }
        Ok(samples)
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<Value, AccessError> {
        let config = Arc::clone(&self.config);
        let object = config.objects.get(point).ok_or_else(|| AccessError::Unknown(point.to_string()))?;
        let set = decode::set(object, value)?;
        let reply = self.link.ask(&config.link, Ask::Set(&object.oid, &set)).await?;
        if reply.status != 0 {
            return Err(AccessError::Refused(status(reply.status).to_owned()));
        }
        match self.get(&[point]).await?.into_iter().next().and_then(|s| s.value) {
            Some(found) if same(value, &found) => Ok(found),
            Some(found) => Err(AccessError::Mismatch { wrote: value.to_string(), found: found.to_string() }),
            None => Err(AccessError::Refused("what was written cannot be read".to_owned())),
        }
    }

    async fn event(&mut self) -> Result<Vec<Sample>, AccessError> {
        loop {
            if !self.pending.is_empty() {
                return Ok(std::mem::take(&mut self.pending));
            }
            let trap = self.trap().await;
            let samples = self.take(&trap);
            if !samples.is_empty() {
                return Ok(samples);
            }
        }
    }

    async fn back(&mut self) {
        loop {
            let trap = self.trap().await;
            let samples = self.take(&trap);
            // Whoever sends a trap is there.
            if !samples.is_empty() {
                self.pending = samples;
                return;
            }
        }
    }
}
