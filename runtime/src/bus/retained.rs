//! Retained messages: the last one of each topic, in memory, bounded in number and in bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Publication;
use super::filter::matches;

/// What one entry costs beside its topic and payload, roughly: the allocations and the map's own.
const ENTRY_BYTES: usize = 128;

/// The retained messages.
#[derive(Debug)]
pub struct Retained {
    messages: BTreeMap<String, Arc<Publication>>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

impl Retained {
    /// Nothing retained yet, and never more than these limits.
    pub fn new(messages_max: usize, bytes_max: usize) -> Retained {
        Retained { messages: BTreeMap::new(), bytes: 0, messages_max, bytes_max }
    }

    /// How many messages are kept.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Keeps the message instead of the topic's last one; an empty payload only removes that (MQTT 5.0, section 3.3.1.3).
    /// False when it does not fit: the topic then keeps nothing, because an outdated value would be worse.
    pub fn set(&mut self, publication: &Arc<Publication>) -> bool {
        if let Some(old) = self.messages.remove(&publication.topic) {
            self.bytes -= cost(&old);
        }
        if publication.payload.is_empty() {
            return true;
        }
        if self.messages.len() >= self.messages_max || self.bytes + cost(publication) > self.bytes_max {
            self.drop_expired();
        }
        if self.messages.len() >= self.messages_max || self.bytes + cost(publication) > self.bytes_max {
            return false;
        }
        self.bytes += cost(publication);
        self.messages.insert(publication.topic.clone(), Arc::clone(publication));
        true
    }

    /// The messages a new subscription with this filter is given, in the order of their topics.
    pub fn matching(&self, filter: &str) -> Vec<Arc<Publication>> {
        if !filter.contains(['+', '#']) {
            return self.messages.get(filter).cloned().into_iter().collect();
        }
        self.messages.iter().filter(|(topic, _)| matches(filter, topic)).map(|(_, p)| Arc::clone(p)).collect()
    }

    fn drop_expired(&mut self) {
        let now = Instant::now();
        let bytes = &mut self.bytes;
        self.messages.retain(|_, p| {
            let keep = p.expires.is_none_or(|at| at > now);
            *bytes -= if keep { 0 } else { cost(p) };
            keep
        });
    }
}

fn cost(publication: &Publication) -> usize {
    ENTRY_BYTES + publication.topic.len() * 2 + publication.payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &str) -> Arc<Publication> {
        Arc::new(Publication::new(topic.to_owned(), payload.to_owned().into(), true))
    }

    #[test]
    fn bounded_in_number_and_bytes_and_replaced_in_place() {
        let mut retained = Retained::new(2, 10_000);
        assert!(retained.set(&message("a", "1")) && retained.set(&message("b", "2")));
        assert!(!retained.set(&message("c", "3")), "two is the limit");
        assert!(retained.set(&message("a", "4")), "a topic that has one may replace it");
        assert_eq!(retained.matching("+").iter().map(|p| &p.payload[..]).collect::<Vec<_>>(), [b"4", b"2"]);
        assert!(retained.set(&message("a", "")) && retained.set(&message("c", "3")));
        assert!(!retained.set(&message("b", &"x".repeat(10_000))));
        assert_eq!(retained.matching("b").len(), 0, "no outdated value is left");
        assert!(retained.set(&message("c", "")));
        assert_eq!((retained.len(), retained.bytes), (0, 0));
    }
}
