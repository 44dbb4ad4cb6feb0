//! The field's one task: it holds every device's twin and never waits for a device, a disk or the bus.

use std::collections::BTreeMap;
use std::time::Duration;

use edge_mappers::modbus::Pauses;
use edge_mappers::{AccessError, Batch, Mappers};
use edge_model::device::status::DeviceStatus;
use edge_model::reading::{Reading, Value};
use edge_model::topic::Topic;
use edge_model::{Key, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::commands::Command;
use super::device::{Known, Mapper, Retry, State, Taken};
use super::topics::desire;
use super::{Context, Error, TICK};
use crate::bus::Retain;
use crate::clock::now_ms;
use crate::queue::{self, Stream};
use crate::store::{Durability, StoreError};
use crate::twin::wire;

/// Batches between the mappers and the field. When it is full the mappers wait, which slows polling and loses nothing.
const BATCHES: usize = 64;
/// Messages between the field and the queue. When it is full readings stay in their outbox, and states are dropped.
const MESSAGES: usize = 64;
/// Reads and writes under way. More commands are refused as busy.
pub(super) const WORK: usize = 64;

/// Namespace and name of a device.
pub(super) type Id = (String, String);

/// What a task of the field came back with.
pub(super) enum Done {
    /// Nothing to follow up.
    Nothing,
    /// A desired value was written, or not.
    Desired(Id, String, Result<Reading, AccessError>),
    /// A command wrote a property: its desired value, if any, is now this.
    Written(Id, String, Reading),
    /// The property is no longer being written by a command.
    NotWritten(Id, String),
}

/// See the module.
pub(super) struct Field {
    pub(super) context: Context,
    pub(super) devices: BTreeMap<Id, Known>,
    pub(super) mappers: Mappers,
    /// Devices the bus has not been told of: those that came and those that went.
    pub(super) came: Vec<String>,
    pub(super) went: Vec<String>,
    batches: mpsc::Receiver<Batch>,
    pub(super) work: JoinSet<Done>,
    to_queue: mpsc::Sender<(Stream, queue::Message)>,
    queueing: JoinSet<()>,
}

impl Field {
    pub(super) fn new(context: Context) -> Field {
        let (out, batches) = mpsc::channel(BATCHES);
        let (to_queue, messages) = mpsc::channel(MESSAGES);
        let ms = Duration::from_millis;
        let usual = Pauses::default();
        let capped = |first: Duration, most: u64| (first.min(ms(most)), ms(most));
        let pauses = Pauses {
            unit: capped(usual.unit.0, context.settings.probe_max_ms),
            link: capped(usual.link.0, context.settings.connect_max_ms),
        };
        let mut queueing = JoinSet::new();
        queueing.spawn(enqueue(context.queue.clone(), messages));
        let mappers = Mappers::new(out, now_ms, pauses, &context.settings.replay_dir, context.settings.bus_listen);
        Field {
            context,
            devices: BTreeMap::new(),
            mappers,
            came: Vec::new(),
            went: Vec::new(),
            batches,
            work: JoinSet::new(),
            to_queue,
            queueing,
        }
    }

    pub(super) async fn run(
        &mut self,
        inbox: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let bus = &self.context.bus;
        let any = "+".to_owned();
        let mut updates = bus.subscribe(&Topic::TwinUpdate(any.clone()).to_string());
        let mut gets = bus.subscribe(&Topic::TwinGet(any.clone()).to_string());
        let mut states = bus.subscribe(&Topic::DeviceState(any).to_string());
        let node = &self.context.settings.node_name;
        let mut members = bus.subscribe(&Topic::MembershipGet(node.clone()).to_string());
        let mut watches = self.list();
        let mut tick = Instant::now() + TICK;
        loop {
            let idle = self.devices.is_empty();
            // Every arm's future may be dropped without losing anything; the work is done in the arms.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(batch) = self.batches.recv() => self.batch(&batch),
                event = watches.next() => match event {
                    Ok(event) => self.changed(&event),
                    // Too far behind, or the like: everything is looked at again.
                    Err(_) => watches = self.list(),
                },
                Some(command) = inbox.recv() => self.command(command),
                Some(done) = self.work.join_next() => self.done(done.map_err(Error::Task)?),
                Some(ended) = self.queueing.join_next() => ended.map_err(Error::Task)?,
                failure = self.mappers.failure() => return Err(Error::Mapper(failure)),
                message = updates.next() => self.update(&message.ok_or(Error::Bus)?),
                message = gets.next() => self.get_twin(&message.ok_or(Error::Bus)?),
                message = members.next() => self.get_members(&message.ok_or(Error::Bus)?),
                message = states.next() => self.outside_state(&message.ok_or(Error::Bus)?),
                () = sleep_until(tick), if !idle => {
                    tick = Instant::now() + TICK;
                    self.tick().await;
                }
            }
        }
    }

    /// Stops the mappers and hands everything over.
    pub(super) async fn finish(mut self) {
        self.mappers.shutdown().await;
        self.work.shutdown().await;
        while let Ok(batch) = self.batches.try_recv() {
            for known in self.devices.values_mut().filter(|k| *k.profile == *batch.device) {
                known.take(&batch);
            }
        }
        for known in self.devices.values_mut() {
            while let Some((message, count)) = data_message(known) {
                if self.to_queue.send((Stream::Data, message)).await.is_err() {
                    break;
                }
                known.outbox.sent(count);
            }
            write_status(&self.context, known).await;
        }
        drop(self.to_queue);
        while self.queueing.join_next().await.is_some() {}
    }

    /// Samples of a mapper: into the twin, on the bus, towards the cloud.
    fn batch(&mut self, batch: &Batch) {
        let id = (batch.device.namespace.clone(), batch.device.name.clone());
        // A batch sent before a reconfiguration has another profile: its indices mean nothing any more.
        let Some(known) = self.devices.get_mut(&id).filter(|k| *k.profile == *batch.device) else { return };
        let taken = known.take(batch);
        self.tell(&id, batch.time_ms, &taken);
        self.pursue(&id);
    }

    /// Tells the bus what became of readings.
    pub(super) fn tell(&mut self, id: &Id, time_ms: i64, taken: &Taken) {
        let Some(known) = self.devices.get(id) else { return };
        let bus = &self.context.bus;
        // A mapper in a pod has said so on the bus itself.
        if !taken.told.is_empty() && !matches!(known.mapper, Mapper::Outside) {
            let data = taken.told.iter().filter_map(|s| {
                let point = known.profile.points.get(usize::from(s.point))?;
                Some((point, s.value.as_ref().map(Value::to_string).unwrap_or_default(), s.quality))
            });
            let data: Vec<_> = data.collect();
            let values = data.iter().map(|(point, value, quality)| wire::Datum {
                name: &point.name,
                value,
                type_word: point.value_type.word(),
                quality: *quality,
            });
            bus.publish(&Topic::DeviceData(known.id.clone()), wire::data(time_ms, values), Retain::No);
        }
        if !taken.before.is_empty() {
            let document = wire::document(time_ms, &taken.before, &known.twin);
            bus.publish(&Topic::TwinDocument(known.id.clone()), document, Retain::No);
        }
        if taken.news {
            self.state_changed(id, time_ms);
        }
    }

    /// A device went online or offline.
    pub(super) fn state_changed(&mut self, id: &Id, time_ms: i64) {
        let Some(known) = self.devices.get(id) else { return };
        let word = known.state.word();
        tracing::info!(device = %known.id, state = word, reason = %known.reason, "device state");
        // A mapper in a pod has said so on the bus itself.
        if !matches!(known.mapper, Mapper::Outside) {
            let state = wire::state(time_ms, word);
            self.context.bus.publish(&Topic::DeviceState(known.id.clone()), state, Retain::Yes);
        }
        let report = known.spec.as_ref().and_then(|s| s.state_report);
        if report.is_none_or(|r| r.report_to_cloud) {
            let payload = serde_json::json!({"time": time_ms, "state": word, "reason": known.reason});
            let subject = format!("devices/{}/{}/state", known.namespace, known.name);
            let message = queue::Message { time_ms, subject, payload: payload.to_string().into_bytes() };
            if self.to_queue.try_send((Stream::Events, message)).is_err() {
                tracing::warn!(device = %known.id, "the queue is behind: a state change was dropped");
            }
        }
    }

    /// Brings a device to its desired values, where it differs and can be brought.
    pub(super) fn pursue(&mut self, id: &Id) {
        let Some(known) = self.devices.get_mut(id) else { return };
        let differs = || known.twin.entries.iter().filter(|e| e.differs());
        let told: Vec<(String, String)> =
            differs().map(|e| (e.name.clone(), e.desired.clone().unwrap_or_default())).collect();
        if told != known.told {
            if let Some(delta) = wire::delta(now_ms(), &known.twin) {
                self.context.bus.publish(&Topic::TwinDelta(known.id.clone()), delta, Retain::No);
            }
            known.told = told;
        }
        let Mapper::Own(config) = &known.mapper else { return };
        if known.state != State::Online {
            return;
        }
        let Some(port) = self.mappers.port(config) else { return };
        let now = Instant::now();
        for entry in known.twin.entries.iter().filter(|e| e.differs()) {
            if self.work.len() >= WORK {
                return;
            }
            if !known.writing.entry(entry.name.clone()).or_insert_with(Retry::new).start(now) {
                continue;
            }
            let (id, port, property) = (id.clone(), port.clone(), entry.name.clone());
            let value = serde_json::Value::from(entry.desired.clone().unwrap_or_default());
            self.work.spawn(async move {
                let result = port.write(&property, value.clone()).await;
                super::access::audit(&id, &property, &value, &result);
                Done::Desired(id, property, result)
            });
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Desired(id, property, result) => {
                let Some(known) = self.devices.get_mut(&id) else { return };
                known.dirty = true;
                let error = result.err().map(|e| e.to_string()).unwrap_or_default();
                if let Some(retry) = known.writing.get_mut(&property) {
                    retry.end(Instant::now());
                }
                if let Some(entry) = known.twin.entry_mut(&property) {
                    entry.error = error;
                }
            }
            Done::NotWritten(id, property) => {
                if let Some(known) = self.devices.get_mut(&id) {
                    known.command_ended(&property);
                }
            }
            Done::Written(id, property, reading) => {
                let Some(known) = self.devices.get_mut(&id) else { return };
                known.command_ended(&property);
                let text = reading.value.as_ref().map(Value::to_string);
                let wanted = known.twin.entry_mut(&property).filter(|e| e.desired.is_some() && e.target != text);
                if let (Some(entry), Some(text)) = (wanted, text) {
                    (entry.desired, entry.target) = (Some(text.clone()), Some(text.clone()));
                    let store = self.context.store.clone();
                    self.work.spawn(async move {
                        if let Err(error) = desire(&store, &id, &[(property, text)]).await {
                            tracing::warn!(device = %id.1, %error, "desired value not stored");
                        }
                        Done::Nothing
                    });
                }
            }
        }
    }

    /// Once a second: messages to the queue, statuses to the store, desired values that are to be tried again.
    async fn tick(&mut self) {
        let (now, wall) = (Instant::now(), now_ms());
        let interval = Duration::from_millis(self.context.settings.status_interval_ms);
        let ids: Vec<Id> = self.devices.keys().cloned().collect();
        for id in &ids {
            let Some(taken) = self.devices.get_mut(id).map(|known| known.passed(wall)) else { continue };
            self.tell(id, wall, &taken);
        }
        for known in self.devices.values_mut() {
            while known.outbox.is_due(wall) {
                let Some((message, count)) = data_message(known) else { break };
                if self.to_queue.try_send((Stream::Data, message)).is_err() {
                    break;
                }
                known.outbox.sent(count);
            }
            if known.status_due(now, interval) {
                write_status(&self.context, known).await;
            }
        }
        for id in ids {
            self.pursue(&id);
        }
    }
}

/// The next message of a device for the cloud, and how many readings it has.
fn data_message(known: &Known) -> Option<(queue::Message, usize)> {
    let name = |i: u16| known.profile.points.get(usize::from(i)).map_or("", |p| p.name.as_str());
    let (time_ms, payload, count) = known.outbox.message(name)?;
    let subject = format!("devices/{}/{}/data", known.namespace, known.name);
    Some((queue::Message { time_ms, subject, payload }, count))
}

async fn write_status(context: &Context, known: &mut Known) {
    let key = Key::new(Kind::Device, &known.namespace, &known.name);
    let status: DeviceStatus = known.status();
    let Ok(value) = serde_json::to_value(status) else { return };
    known.dirty = false;
    known.status_at = Some(Instant::now());
    match context.store.set_status(&key, &known.uid, value, Durability::Lazy).await {
        // Deleted meanwhile: its event is on the way.
        Ok(_) | Err(StoreError::NotFound(_)) => {}
        Err(error) => tracing::warn!(device = %known.id, %error, "status not stored"),
    }
}

/// Hands messages to the queue. Several at a time, because each waits for a commit they can share; in order.
async fn enqueue(queue: queue::Queue, mut messages: mpsc::Receiver<(Stream, queue::Message)>) {
    let mut together = Vec::with_capacity(MESSAGES);
    while messages.recv_many(&mut together, MESSAGES).await > 0 {
        let pushes = together.drain(..).map(|(stream, message)| queue.push(stream, message));
        for error in futures_util::future::join_all(pushes).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a message for the cloud was not queued");
        }
    }
}
