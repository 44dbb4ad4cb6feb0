//! Events: what happened to objects, kept in the store as Kubernetes' Event objects and told on the bus.
//!
//! ```text
//!  any part ── Recorder::record (never waits) ──► channel ──► run ──► store (count + 1 when it is known already)
//!                                                              └────► bus: edge/events
//! ```
//!
//! The same thing happening again is the same Event with a higher count, and only so many are kept, the least recent going
//! first. Events must not wear out flash: they reach the disk together with something that matters more, or never.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_model::event::{Event, EventType, Reference, Source};
use edge_model::topic::Topic;
use edge_model::{Kind, Object};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Retain};
use crate::store::{Store, StoreError};

/// How many events may wait to be recorded. A burst beyond it is dropped and counted: whoever records must not wait.
const WAITING: usize = 256;
/// The longest message kept, in bytes (Kubernetes' limit).
const MESSAGE_MAX: usize = 1024;
/// The longest part of an object's name that begins an event's name, in bytes; a dot and 16 hex digits follow.
const NAME_MAX: usize = 230;

/// What can be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How many events are kept, 16 to 10,000.
    pub kept: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { kept: 512 }
    }
}

/// What happened, before it is counted.
#[derive(Debug)]
struct Happening {
    about: Reference,
    kind: EventType,
    reason: &'static str,
    message: String,
    component: &'static str,
    at: i64,
}

/// A handle that records; cheap to clone. Each part of the runtime has its own, with its name.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Happening>,
    component: &'static str,
    dropped: Arc<AtomicU64>,
}

/// The other end, for [`run`].
#[derive(Debug)]
pub struct Inbox {
    receiver: mpsc::Receiver<Happening>,
}

/// A recorder and the inbox of the unit that keeps what it records.
pub fn channel(component: &'static str) -> (Recorder, Inbox) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Recorder { sender, component, dropped: Arc::default() }, Inbox { receiver })
}

impl Recorder {
    /// The same for another part of the runtime.
    #[must_use]
    pub fn component(&self, component: &'static str) -> Recorder {
        Recorder { component, ..self.clone() }
    }

    /// Records that something happened. Never waits; what does not fit is dropped and counted.
    pub fn record(&self, about: Reference, kind: EventType, reason: &'static str, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > MESSAGE_MAX {
            let end = (0..=MESSAGE_MAX - 3).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        match kind {
            EventType::Normal => {
                tracing::info!(object = %about.name, namespace = %about.namespace, reason, "{message}");
            }
            EventType::Warning => {
                tracing::warn!(object = %about.name, namespace = %about.namespace, reason, "{message}");
            }
        }
        let at = crate::clock::now_ms();
        let happening = Happening { about, kind, reason, message, component: self.component, at };
        if self.sender.try_send(happening).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// For the record: nothing to worry about.
    pub fn normal(&self, about: Reference, reason: &'static str, message: impl Into<String>) {
        self.record(about, EventType::Normal, reason, message);
    }

    /// Something is not as wanted.
    pub fn warning(&self, about: Reference, reason: &'static str, message: impl Into<String>) {
        self.record(about, EventType::Warning, reason, message);
    }

    /// How many events were dropped because too many were waiting.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Keeps what is recorded, until `stop`. `node` is the name of this node.
pub async fn run(
    inbox: &mut Inbox,
    store: &Store,
    bus: &Bus,
    node: &str,
    settings: &Settings,
    stop: CancellationToken,
) {
    loop {
        let happening = tokio::select! {
            happening = inbox.receiver.recv() => happening,
            () = stop.cancelled() => None,
        };
        let Some(happening) = happening else { break };
        keep(happening, store, bus, node, settings).await;
    }
    // What was recorded before the stop is kept, too.
    while let Ok(happening) = inbox.receiver.try_recv() {
        keep(happening, store, bus, node, settings).await;
    }
}

async fn keep(happening: Happening, store: &Store, bus: &Bus, node: &str, settings: &Settings) {
    let name = name(&happening);
    let at = edge_model::time::rfc3339(happening.at);
    let mut event = Event {
        involved_object: happening.about,
        reason: happening.reason.to_owned(),
        message: happening.message,
        kind: happening.kind,
        count: 1,
        first_timestamp: at.clone(),
        last_timestamp: at,
        source: Source { component: happening.component.to_owned(), host: node.to_owned() },
    };
    let key = event.to_object(&name).key();
    if let Some(before) = store.get(&key).and_then(|o| Event::read(&o.fields).ok()) {
        event.count = before.count.saturating_add(1);
        event.first_timestamp = before.first_timestamp;
    }
    if let Ok(payload) = serde_json::to_vec(&event) {
        bus.publish(&Topic::Events, payload, Retain::No);
    }
    if let Err(error) = store.apply_lazily(event.to_object(&name)).await {
        tracing::warn!(%error, reason = event.reason, "an event could not be kept");
        return;
    }
    if event.count == 1 {
        forget_old(store, settings.kept).await;
    }
}

/// The same for the same thing about the same object, so that the store itself knows what is to be counted.
fn name(happening: &Happening) -> String {
    let mut hash = Sha256::new();
    let about = &happening.about;
    for part in [&about.kind, &about.namespace, &about.name, &about.uid, &about.field_path, &happening.message] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(happening.reason);
    hash.update([happening.kind as u8]);
    let digest = hash.finalize();
    let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let object = about.name.get(..about.name.len().min(NAME_MAX)).unwrap_or("").trim_end_matches(['.', '-']);
    if edge_model::name::is_subdomain(object) { format!("{object}.{hex}") } else { hex }
}

/// Deletes the least recent events once an eighth too many are there, all in one commit of the store.
async fn forget_old(store: &Store, kept: usize) {
    let (mut events, _) = store.list(Kind::Event, None);
    if events.len() <= kept + kept / 8 {
        return;
    }
    let last = |o: &Object| o.fields.get("lastTimestamp").and_then(|t| t.as_str()).map(str::to_owned);
    events.sort_by_cached_key(|o| (last(o), o.metadata.version()));
    let too_many = events.len() - kept;
    let deletions = events.iter().take(too_many).map(|o| {
        let key = o.key();
        async move { store.delete(&key, None).await }
    });
    for result in join_all(deletions).await {
        match result {
            Ok(_) | Err(StoreError::NotFound(_)) => {}
            Err(error) => tracing::warn!(%error, "an old event could not be deleted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn recorded(records: &[(&str, &'static str, &str)], kept: usize) -> Store {
        let (store, bus) = (Store::in_memory(), Bus::in_memory());
        let stop = CancellationToken::new();
        stop.cancel();
        for batch in records.chunks(WAITING) {
            let (recorder, mut inbox) = channel("test");
            for (name, reason, message) in batch {
                let object = Object::new(Kind::Pod, "", name, json!({}));
                recorder.warning(Reference::to(&object), reason, *message);
            }
            run(&mut inbox, &store, &bus, "gw", &Settings { kept }, stop.clone()).await;
        }
        store
    }

    #[tokio::test]
    async fn the_same_thing_is_counted() {
        let store =
            recorded(&[("a", "BackOff", "x"), ("a", "BackOff", "x"), ("a", "BackOff", "y"), ("b", "BackOff", "x")], 16)
                .await;
        let (events, _) = store.list(Kind::Event, None);
        let mut seen: Vec<_> = events
            .iter()
            .map(|o| Event::read(&o.fields).unwrap())
            .map(|e| (e.involved_object.name, e.message, e.count))
            .collect();
        seen.sort();
        let expected = [("a", "x", 2), ("a", "y", 1), ("b", "x", 1)].map(|(n, m, c)| (n.to_owned(), m.to_owned(), c));
        assert_eq!(seen, expected);
        assert!(events.iter().all(|o| Object::from_json(o.to_json()).is_ok()), "names are names");
    }

    #[tokio::test]
    async fn only_so_many_are_kept() {
        let names: Vec<String> = (0..600).map(|n| format!("p{n}")).collect();
        let records: Vec<(&str, &'static str, &str)> = names.iter().map(|n| (n.as_str(), "Started", "")).collect();
        let store = recorded(&records, 64).await;
        let (events, _) = store.list(Kind::Event, None);
        assert!((64..=72).contains(&events.len()), "{}", events.len());
        assert!(events.iter().any(|o| o.metadata.name.starts_with("p599.")), "the newest is there");
    }

    #[tokio::test]
    async fn a_burst_is_dropped_and_counted_and_long_messages_are_cut() {
        let (recorder, _inbox) = channel("test");
        let about = Reference { name: "a".into(), ..Reference::default() };
        for _ in 0..WAITING + 3 {
            recorder.normal(about.clone(), "Pulled", "ü".repeat(1000));
        }
        assert_eq!(recorder.dropped(), 3);
        let long = "n".repeat(253);
        let happening = Happening {
            about: Reference { name: long, ..about },
            kind: EventType::Normal,
            reason: "Pulled",
            message: String::new(),
            component: "test",
            at: 0,
        };
        assert!(edge_model::name::is_subdomain(&name(&happening)));
    }
}
