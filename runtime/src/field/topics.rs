//! KubeEdge's device topics: what local applications want, and what mappers in pods report.

use edge_model::reading::Quality;
use edge_model::topic::{Topic, split_device_id};
use edge_model::{Key, Kind};

use super::device::{Known, Mapper, State, Taken, target};
use super::unit::{Done, Field, Id, WORK};
use crate::bus::{Bus, Message, Retain};
use crate::clock::now_ms;
use crate::store::{Store, StoreError};
use crate::twin::wire;

impl Field {
    /// `…/twin/update`: values wanted by a local application, or reported by a mapper in a pod.
    pub(super) fn update(&mut self, message: &Message) {
        let Ok(Topic::TwinUpdate(topic_id)) = message.topic.parse::<Topic>() else { return };
        let now = now_ms();
        let respond = |bus: &Bus, payload| bus.publish(&Topic::TwinResult(topic_id.clone()), payload, Retain::No);
        let update: wire::Update = match wire::parse(&message.payload) {
            Ok(update) => update,
            Err(reason) => return respond(&self.context.bus, wire::error("", now, wire::BAD_REQUEST, &reason)),
        };
        let (namespace, name) = split_device_id(&topic_id);
        let id = (namespace.to_owned(), name.to_owned());
        let refuse = |code, reason: &str| wire::error(&update.event_id, now, code, reason);
        let Some(known) = self.devices.get_mut(&id) else {
            return respond(&self.context.bus, refuse(wire::NOT_FOUND, "device not found"));
        };
        // All of it is checked before any of it is done.
        let mut wanted = Vec::new();
        for (property, sides) in &update.twin {
            let Some(index) = known.profile.index(property) else {
                let reason = format!("property {property} is not one of the device");
                return respond(&self.context.bus, refuse(wire::NOT_FOUND, &reason));
            };
            if sides.actual.is_some() && !matches!(known.mapper, Mapper::Outside) {
                let reason = format!("property {property} is reported by the runtime itself");
                return respond(&self.context.bus, refuse(wire::CONFLICT, &reason));
            }
            if let (Some(text), Some(point)) =
                (sides.expected.as_ref().and_then(|e| e.value.as_ref()), known.profile.points.get(index))
            {
                if let Err(e) = target(&known.mapper, point, index, &serde_json::Value::from(text.as_str())) {
                    return respond(&self.context.bus, refuse(wire::BAD_REQUEST, &format!("{property}: {e}")));
                }
                wanted.push((property.clone(), text.clone()));
            }
        }
        let (mut taken, mut said) = (Taken::default(), false);
        for (property, sides) in &update.twin {
            let Some(text) = sides.actual.as_ref().and_then(|a| a.value.as_ref()) else { continue };
            said = true;
            outside_value(known, property, text, now, &mut taken);
        }
        self.tell(&id, now, &taken);
        if said {
            self.outside_online(&id, State::Online, now);
        }
        if wanted.is_empty() {
            self.pursue(&id);
            if let Some(known) = self.devices.get(&id) {
                let result = wire::result(&update.event_id, now, &known.twin, |p| update.twin.contains_key(p));
                respond(&self.context.bus, result);
            }
            return;
        }
        if self.work.len() >= WORK {
            return respond(&self.context.bus, refuse(wire::INTERNAL, "too many updates at once"));
        }
        let (store, bus, event_id) = (self.context.store.clone(), self.context.bus.clone(), update.event_id.clone());
        self.work.spawn(async move {
            let twin: serde_json::Map<String, serde_json::Value> =
                wanted.iter().map(|(p, v)| (p.clone(), serde_json::json!({"expected": {"value": v}}))).collect();
            let payload = match desire(&store, &id, &wanted).await {
                Ok(()) => serde_json::json!({"event_id": event_id, "timestamp": now_ms(), "twin": twin})
                    .to_string()
                    .into_bytes(),
                Err(e) => wire::error(&event_id, now_ms(), wire::INTERNAL, &e.to_string()),
            };
            bus.publish(&Topic::TwinResult(topic_id), payload, Retain::No);
            Done::Nothing
        });
    }

    /// `…/twin/get`: somebody asks for the whole twin.
    pub(super) fn get_twin(&mut self, message: &Message) {
        let Ok(Topic::TwinGet(topic_id)) = message.topic.parse::<Topic>() else { return };
        let (namespace, name) = split_device_id(&topic_id);
        let event_id = wire::parse::<wire::Update>(&message.payload).map(|u| u.event_id).unwrap_or_default();
        let payload = match self.devices.get(&(namespace.to_owned(), name.to_owned())) {
            Some(known) => wire::result(&event_id, now_ms(), &known.twin, |_| true),
            None => wire::error(&event_id, now_ms(), wire::NOT_FOUND, "device not found"),
        };
        self.context.bus.publish(&Topic::TwinGetResult(topic_id), payload, Retain::No);
    }

    /// `…/membership/get`: somebody asks which devices there are.
    pub(super) fn get_members(&mut self, message: &Message) {
        let Ok(Topic::MembershipGet(node)) = message.topic.parse::<Topic>() else { return };
        let event_id = wire::parse::<wire::Update>(&message.payload).map(|u| u.event_id).unwrap_or_default();
        let devices = self.devices.values().map(|k| (k.id.as_str(), k.state.word()));
        let payload = wire::members(&event_id, now_ms(), devices);
        self.context.bus.publish(&Topic::MembershipGetResult(node), payload, Retain::No);
    }

    /// `…/state/update`: a mapper in a pod says whether its device answers. Our own publications come by here, too.
    pub(super) fn outside_state(&mut self, message: &Message) {
        let Ok(Topic::DeviceState(topic_id)) = message.topic.parse::<Topic>() else { return };
        let Ok(update) = wire::parse::<wire::StateUpdate>(&message.payload) else { return };
        let (namespace, name) = split_device_id(&topic_id);
        let state = match update.state.as_str() {
            "online" | "ok" => State::Online,
            "offline" | "unhealthy" => State::Offline,
            _ => State::Unknown,
        };
        self.outside_online(&(namespace.to_owned(), name.to_owned()), state, now_ms());
    }

    fn outside_online(&mut self, id: &Id, state: State, now: i64) {
        let Some(known) = self.devices.get_mut(id).filter(|k| matches!(k.mapper, Mapper::Outside)) else { return };
        if state == State::Online {
            known.last_online_ms = now;
        }
        if known.says(state, String::new(), now) {
            self.state_changed(id, now);
        }
    }
}

/// A value reported by a mapper in a pod.
fn outside_value(known: &mut Known, property: &str, text: &str, now: i64, taken: &mut Taken) {
    let Some(index) = known.profile.index(property) else { return };
    let Some(point) = known.profile.points.get(index) else { return };
    let parsed = point.parse(&serde_json::Value::from(text)).ok();
    let quality = if parsed.is_some() { Quality::Good } else { Quality::Invalid };
    known.sample(u16::try_from(index).unwrap_or(u16::MAX), now, quality, parsed.as_ref(), taken);
}

/// Makes these values the desired ones in the device's spec. Somebody else's change in between is respected: the values are
/// set in what they left.
pub(super) async fn desire(store: &Store, id: &Id, wanted: &[(String, String)]) -> Result<(), StoreError> {
    let key = Key::new(Kind::Device, &id.0, &id.1);
    loop {
        let object = store.get(&key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        let mut object = (*object).clone();
        let properties = object.fields.get_mut("spec").and_then(|s| s.get_mut("properties"));
        let properties = properties.and_then(serde_json::Value::as_array_mut).into_iter().flatten();
        for property in properties.filter_map(serde_json::Value::as_object_mut) {
            let named = wanted.iter().find(|(name, _)| property.get("name").is_some_and(|n| n == name.as_str()));
            if let Some((_, value)) = named {
                property.insert("desired".to_owned(), serde_json::json!({"value": value}));
            }
        }
        match store.replace(object).await {
            Err(StoreError::Conflict { .. }) => {}
            other => return other.map(drop),
        }
    }
}
