//! What the field knows of one device: its objects resolved, its twin, its state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edge_mappers::backoff::Backoff;
use edge_mappers::{Batch, Config, Link, Point, Profile, Stats, resolve};
use edge_model::device::behaviour::{self, Health, Report};
use edge_model::device::status::{DeviceStatus, Extensions};
use edge_model::device::{Device, DeviceModel, DeviceProperty, ProtocolConfig};
use edge_model::object::ObjectError;
use edge_model::reading::{Quality, Value};
use edge_model::{Object, topic};
use tokio::time::Instant;

use super::outbox::Outbox;
use super::report::{Reports, Told};
use crate::twin::{Entry, Twin};

/// A desired value that could not be written is tried again after this long, doubling, at most a minute.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often a status is renewed when only times and counters changed.
const REFRESH: Duration = Duration::from_secs(60);

/// Who talks to the device.
#[derive(Debug, Clone)]
pub(super) enum Mapper {
    /// A mapper in this process.
    Own(Config),
    /// A mapper in a pod, over the bus.
    Outside,
    /// Nobody: the objects do not fit, for this reason.
    None(String),
}

/// Whether the device answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Unknown,
    Online,
    Offline,
}

impl State {
    pub(super) const fn word(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Online => "online",
            State::Offline => "offline",
        }
    }
}

/// One device.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) id: String,
    pub(super) uid: String,
    pub(super) generation: u64,
    /// The generation of the model it was resolved with; 0 when there was none.
    pub(super) model_generation: u64,
    pub(super) spec: Option<Device>,
    pub(super) profile: Arc<Profile>,
    pub(super) mapper: Mapper,
    pub(super) twin: Twin,
    pub(super) outbox: Outbox,
    pub(super) reports: Reports,
    health: Health,
    /// What its link said last, and since when: the state follows when it has said so for long enough.
    said: (State, i64, String),
    pub(super) state: State,
    pub(super) reason: String,
    pub(super) stats: Stats,
    pub(super) last_online_ms: i64,
    /// Desired writes: those under way, and when those that failed are tried again.
    pub(super) writing: BTreeMap<String, Retry>,
    /// The last delta put on the bus: the wanted values in it.
    pub(super) told: Vec<(String, String)>,
    /// Something in the status is news.
    pub(super) dirty: bool,
    pub(super) status_at: Option<Instant>,
}

/// Who is writing a property, and when its desired value may be written again.
///
/// The pause holds after a success, too: a device that keeps changing its mind is corrected ever more rarely, not in a loop.
#[derive(Debug)]
pub(super) struct Retry {
    /// The desired value is being written.
    under_way: bool,
    /// So many commands are writing the property: meanwhile its desired value is not what somebody wants.
    pub(super) commands: usize,
    at: Instant,
    backoff: Backoff,
}

impl Retry {
    pub(super) fn new() -> Retry {
        Retry { under_way: false, commands: 0, at: Instant::now(), backoff: Backoff::new(RETRY.0, RETRY.1) }
    }

    /// Whether the desired value may be written now; then it is under way.
    pub(super) fn start(&mut self, now: Instant) -> bool {
        if self.under_way || self.commands > 0 || self.at > now {
            return false;
        }
        if now.saturating_duration_since(self.at) > RETRY.1 {
            self.backoff.reset();
        }
        self.under_way = true;
        true
    }

    /// The write came to an end.
    pub(super) fn end(&mut self, now: Instant) {
        self.under_way = false;
        self.at = now + self.backoff.pause();
    }
}

/// Resolves the objects. `Err` says why nobody can talk to the device.
fn resolved(object: &Object, spec: Option<&Device>, model: Option<&Object>, node: &str) -> Result<Resolved, String> {
    let Some(spec) = spec else {
        return Err(Device::parse(object.spec()).err().map_or_else(String::new, |e| e.to_string()));
    };
    let reference = &spec.device_model_ref.name;
    let elsewhere = !spec.node_name.is_empty() && !node.is_empty() && spec.node_name != node;
    if elsewhere {
        return Err(format!("the device is attached to node {}", spec.node_name));
    }
    let model = model.ok_or_else(|| format!("DeviceModel {reference} is missing"))?;
    let model = DeviceModel::parse(model.spec()).map_err(|e| format!("DeviceModel {reference}: {e}"))?;
    let (rules, health) = behaviours(spec, &model).map_err(|e| e.to_string())?;
    let (namespace, name) = (&object.metadata.namespace, &object.metadata.name);
    if let Some(config) = Config::resolve(namespace, name, spec, &model).map_err(|e| e.to_string())? {
        let profile = Arc::clone(config.profile());
        return Ok(Resolved { mapper: Mapper::Own(config), profile, rules, health });
    }
    let points = resolve::points(spec, &model).map_err(|e| e.to_string())?;
    let profile = Profile { namespace: namespace.clone(), name: name.clone(), points };
    Ok(Resolved { mapper: Mapper::Outside, profile: Arc::new(profile), rules, health })
}

/// What the objects say of a device.
struct Resolved {
    mapper: Mapper,
    profile: Arc<Profile>,
    rules: Vec<Report>,
    health: Health,
}

/// When and as what readings and states are told.
fn behaviours(spec: &Device, model: &DeviceModel) -> Result<(Vec<Report>, Health), ObjectError> {
    let (under, over) = (model.protocol_config_data.as_ref(), spec.protocol.config_data.as_ref());
    let health = behaviour::health("spec.protocol.configData", under, over)?;
    let rule = |(i, p): (usize, &DeviceProperty)| {
        let data = |v: Option<&'_ ProtocolConfig>| v.and_then(|v| v.config_data.clone());
        let under = data(model.property(&p.name).and_then(|m| m.visitors.as_ref()));
        let path = format!("spec.properties[{i}].visitors.configData");
        behaviour::report(&path, under.as_ref(), data(p.visitors.as_ref()).as_ref())
    };
    Ok((spec.properties.iter().enumerate().map(rule).collect::<Result<_, _>>()?, health))
}

impl Known {
    /// What is known of a device from its objects, keeping from `old` what is still true.
    pub(super) fn new(object: &Object, model: Option<&Object>, node: &str, old: Option<Known>) -> Known {
        let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
        let spec = Device::parse(object.spec()).ok();
        let resolved = resolved(object, spec.as_ref(), model, node).unwrap_or_else(|why| {
            let profile = Profile { namespace: namespace.clone(), name: name.clone(), points: Vec::new() };
            let (mapper, profile) = (Mapper::None(why), Arc::new(profile));
            Resolved { mapper, profile, rules: Vec::new(), health: Health::default() }
        });
        let Resolved { mapper, profile, rules, health } = resolved;
        let mut known = Known {
            id: topic::device_id(&namespace, &name),
            uid: object.metadata.uid.clone(),
            generation: object.metadata.generation,
            model_generation: model.map_or(0, |m| m.metadata.generation),
            outbox: outbox(spec.as_ref()),
            reports: Reports::new(rules),
            health,
            said: (State::Unknown, 0, String::new()),
            twin: Twin { entries: profile.points.iter().map(|p| Entry::new(&p.name, p.value_type.word())).collect() },
            state: State::Unknown,
            reason: if let Mapper::None(why) = &mapper { why.clone() } else { String::new() },
            stats: Stats::default(),
            last_online_ms: 0,
            writing: BTreeMap::new(),
            told: Vec::new(),
            dirty: true,
            status_at: None,
            namespace,
            name,
            spec,
            profile,
            mapper,
        };
        known.inherit(object, old);
        known.desire();
        known
    }

    /// The same device: its values, state and counters go on. A device that is the same on the wire keeps its state.
    fn inherit(&mut self, object: &Object, old: Option<Known>) {
        let Some(mut old) = old.filter(|o| o.uid == self.uid) else {
            if let Ok(status) = serde_json::from_value::<DeviceStatus>(object.status().clone()) {
                self.twin.restore(&status.twins);
                self.last_online_ms = edge_model::time::parse_rfc3339(&status.last_online_time).unwrap_or(0);
            }
            return;
        };
        let same_wire = match (&self.mapper, &old.mapper) {
            (Mapper::Own(a), Mapper::Own(b)) => a == b,
            (Mapper::Outside, Mapper::Outside) => true,
            _ => false,
        };
        for entry in &mut self.twin.entries {
            if let Some(before) = old.twin.entry_mut(&entry.name).filter(|b| b.type_word == entry.type_word) {
                let (desired, target, error) = (entry.desired.take(), entry.target.take(), String::new());
                *entry = Entry { desired, target, error, ..before.clone() };
                if !same_wire {
                    entry.quality = Quality::Disconnected;
                }
            }
        }
        self.last_online_ms = old.last_online_ms;
        self.status_at = old.status_at;
        self.told = std::mem::take(&mut old.told);
        self.outbox.dropped = old.outbox.dropped;
        if same_wire {
            (self.state, self.reason, self.stats) = (old.state, std::mem::take(&mut old.reason), old.stats);
            self.said = std::mem::replace(&mut old.said, (State::Unknown, 0, String::new()));
            if self.reports.same_rules(&old.reports) {
                self.reports = std::mem::take(&mut old.reports);
            }
            self.writing = std::mem::take(&mut old.writing);
            // What is newly desired need not wait for the pause of what was desired before.
            self.writing.retain(|_, r| r.under_way || r.commands > 0);
            self.outbox =
                if self.same_reports(old.spec.as_ref()) { old.outbox } else { std::mem::take(&mut self.outbox) };
        }
    }

    fn same_reports(&self, old: Option<&Device>) -> bool {
        cycles(self.spec.as_ref()) == cycles(old)
    }

    /// Takes the desired values from the spec. What can never be written is said at once and never tried.
    fn desire(&mut self) {
        for (i, entry) in self.twin.entries.iter_mut().enumerate() {
            let wanted = self.spec.as_ref().and_then(|s| s.property(&entry.name)).and_then(|p| p.desired.as_ref());
            entry.desired = wanted.and_then(|d| d.value.clone());
            entry.target = None;
            entry.error.clear();
            let (Some(text), Some(point)) = (&entry.desired, self.profile.points.get(i)) else { continue };
            match target(&self.mapper, point, i, &serde_json::Value::from(text.as_str())) {
                Ok(target) => entry.target = Some(target.to_string()),
                Err(e) => entry.error = e.to_string(),
            }
        }
    }

    /// A command that wrote a property came to an end.
    pub(super) fn command_ended(&mut self, property: &str) {
        if let Some(retry) = self.writing.get_mut(property) {
            retry.commands = retry.commands.saturating_sub(1);
        }
    }

    /// The status as it is now.
    pub(super) fn status(&self) -> DeviceStatus {
        DeviceStatus {
            twins: self.twin.to_status(),
            state: self.state.word().to_owned(),
            last_online_time: match self.last_online_ms {
                0 => String::new(),
                ms => edge_model::time::rfc3339(ms),
            },
            extensions: Extensions {
                reason: self.reason.clone(),
                requests: self.stats.requests,
                errors: self.stats.errors,
                timeouts: self.stats.timeouts,
                exceptions: self.stats.exceptions,
                overruns: self.stats.overruns,
                reconnects: self.stats.reconnects,
                round_trip_us: self.stats.round_trip_us,
                dropped: self.outbox.dropped,
                observed_generation: self.generation,
            },
        }
    }

    /// Whether its status is to be written now.
    pub(super) fn status_due(&self, now: Instant, interval: Duration) -> bool {
        let pause = if self.dirty { interval } else { REFRESH };
        self.status_at.is_none_or(|at| now.saturating_duration_since(at) + Duration::from_millis(50) >= pause)
    }

    /// Takes the samples of a batch.
    pub(super) fn take(&mut self, batch: &Batch) -> Taken {
        let mut taken = Taken::default();
        for s in &batch.samples {
            self.sample(s.point, batch.time_ms, s.quality, s.value.as_ref(), &mut taken);
        }
        self.stats = batch.stats;
        let (state, reason) = match &batch.link {
            Link::Online => (State::Online, String::new()),
            Link::Offline(why) => (State::Offline, why.clone()),
        };
        if state == State::Online {
            self.last_online_ms = batch.time_ms;
        }
        taken.news = self.says(state, reason, batch.time_ms);
        taken
    }

    /// One reading: into the twin if it is another one, and on to whoever is told.
    pub(super) fn sample(
        &mut self,
        point: u16,
        time_ms: i64,
        quality: Quality,
        value: Option<&Value>,
        taken: &mut Taken,
    ) {
        let Some(entry) = self.twin.entries.get_mut(usize::from(point)) else { return };
        let (from, other_quality) = (taken.told.len(), quality != entry.quality);
        let moved = self.reports.take(point, time_ms, quality, value, &mut taken.told);
        // Within the deadband only the time is renewed.
        let text = value.filter(|_| moved || entry.reported.is_none()).map(Value::to_string);
        let was = (text.is_some() || other_quality).then(|| entry.clone());
        if entry.report(text, quality, time_ms) {
            taken.before.extend(was);
            self.dirty = true;
        }
        for told in taken.told.get(from..).unwrap_or_default() {
            self.outbox.take(told.point, told.time_ms, told.quality, told.value.as_ref(), other_quality);
        }
    }

    /// What follows from time alone: windows that are over, values that are stale, a state that has lasted long enough.
    pub(super) fn passed(&mut self, now_ms: i64) -> Taken {
        let mut taken = Taken::default();
        self.reports.due(now_ms, &mut taken.told);
        for told in &taken.told {
            self.outbox.take(told.point, told.time_ms, told.quality, told.value.as_ref(), false);
        }
        for index in 0..self.twin.entries.len() {
            let limit = i64::try_from(self.reports.stale_ms(index)).unwrap_or(i64::MAX);
            let Some(entry) = self.twin.entries.get(index).filter(|_| limit > 0) else { continue };
            if entry.quality == Quality::Good && now_ms.saturating_sub(entry.time_ms) > limit {
                let (time_ms, point) = (entry.time_ms, u16::try_from(index).unwrap_or(u16::MAX));
                self.sample(point, now_ms, Quality::Stale, None, &mut taken);
                // The time stays that of the value.
                if let Some(entry) = self.twin.entries.get_mut(index) {
                    entry.time_ms = time_ms;
                }
            }
        }
        let (state, _, reason) = self.said.clone();
        if state != State::Unknown {
            taken.news = self.says(state, reason, now_ms);
        }
        taken
    }

    /// The link says whether the device answers. Whether the state is another one now.
    pub(super) fn says(&mut self, state: State, reason: String, now_ms: i64) -> bool {
        let since = if self.said.0 == state { self.said.1 } else { now_ms };
        self.said = (state, since, reason.clone());
        let patience = match state {
            State::Online => self.health.online_after,
            State::Offline => self.health.offline_after,
            State::Unknown => 0,
        };
        let patience = i64::try_from(patience).unwrap_or(i64::MAX);
        let settled = self.state == State::Unknown || !(0..patience).contains(&now_ms.saturating_sub(since));
        if state == self.state || settled {
            let news = state != self.state;
            self.dirty |= news || reason != self.reason;
            (self.state, self.reason) = (state, reason);
            return news;
        }
        false
    }
}

/// What became of readings.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// What changed in the twin, as it was before.
    pub(super) before: Vec<Entry>,
    /// What bus and cloud are told.
    pub(super) told: Vec<Told>,
    /// The state is another one.
    pub(super) news: bool,
}

/// What the device would report after a value was written to it.
///
/// # Errors
/// Why the value can never be written.
pub(super) fn target(
    mapper: &Mapper,
    point: &Point,
    index: usize,
    value: &serde_json::Value,
) -> Result<Value, edge_mappers::AccessError> {
    if !point.writable {
        return Err(edge_mappers::AccessError::ReadOnly(point.name.clone()));
    }
    let parsed = point.parse(value)?;
    match mapper {
        Mapper::Own(config) => config.target(index, parsed),
        // A mapper in a pod reports what it likes; the text as given is the best guess.
        Mapper::Outside | Mapper::None(_) => Ok(parsed),
    }
}

fn cycles(spec: Option<&Device>) -> Vec<(Option<u64>, u64)> {
    let one = |p: &edge_model::device::DeviceProperty| (p.report_to_cloud.then_some(p.report_cycle), p.collect_ms());
    spec.map(|s| s.properties.iter().map(one).collect()).unwrap_or_default()
}

fn outbox(spec: Option<&Device>) -> Outbox {
    Outbox::new(cycles(spec))
}
