//! Device twins: what each property should be (desired), what the device says it is (reported), and the difference (delta).
//!
//! ```text
//!  desired  ─────────────┐
//!  (spec, bus, cloud)    ├─► delta ─► write, or `…/twin/update/delta` for a mapper in a pod
//!  reported ─────────────┘
//!  (readings)
//! ```
//! Values are text, as in KubeEdge; two values are equal when the device could not tell them apart ([`Entry::target`]).
//! No I/O here: the field owns the twins, [`wire`] gives them KubeEdge's JSON.

use edge_model::device::status::{Twin as StatusTwin, TwinMetadata, TwinValue};
use edge_model::reading::Quality;

pub mod wire;

/// The twin of one device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Twin {
    /// One per property, in the device's order.
    pub entries: Vec<Entry>,
}

/// One property's two sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The property.
    pub name: String,
    /// KubeEdge's word for its type.
    pub type_word: &'static str,
    /// The value wanted, as given.
    pub desired: Option<String>,
    /// The wanted value as the device would report it (in its own resolution); `None` when it can never be written.
    pub target: Option<String>,
    /// Why the wanted value is not in the device; empty while nothing went wrong.
    pub error: String,
    /// The last good value.
    pub reported: Option<String>,
    /// Whether the last reading may be believed.
    pub quality: Quality,
    /// When it was last read, UTC milliseconds; 0 when never.
    pub time_ms: i64,
    /// How often the reported value has changed since the device was made.
    pub version: u64,
}

impl Entry {
    /// A property nobody has read.
    pub fn new(name: &str, type_word: &'static str) -> Entry {
        Entry {
            name: name.to_owned(),
            type_word,
            desired: None,
            target: None,
            error: String::new(),
            reported: None,
            quality: Quality::Disconnected,
            time_ms: 0,
            version: 0,
        }
    }

    /// Takes a reading. Whether the value or its quality is another one now.
    pub fn report(&mut self, value: Option<String>, quality: Quality, time_ms: i64) -> bool {
        let changed = quality != self.quality || (value.is_some() && value != self.reported);
        self.quality = quality;
        self.time_ms = time_ms;
        if value.is_some() {
            self.version += u64::from(value != self.reported);
            self.reported = value;
        }
        if self.reported == self.target {
            self.error.clear();
        }
        changed
    }

    /// Whether the device has another value than the one wanted, or may have.
    pub fn differs(&self) -> bool {
        match (&self.target, &self.reported) {
            (Some(target), Some(reported)) => target != reported,
            // Nothing readable there: a register that can only be written.
            (Some(_), None) => self.quality == Quality::Refused,
            (None, _) => false,
        }
    }
}

impl Twin {
    /// The entry of a property.
    pub fn entry_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.name == name)
    }

    /// Takes over what an earlier run had in the object's status: values are kept, but nothing is believed until read again.
    pub fn restore(&mut self, status: &[StatusTwin]) {
        for old in status {
            if let Some(entry) = self.entry_mut(&old.property_name) {
                let value = &old.reported.value;
                let never = old.reported.metadata.timestamp.is_empty();
                entry.reported = (!never && !value.is_empty()).then(|| value.clone());
                entry.time_ms = old.reported.metadata.timestamp.parse().unwrap_or(0);
                entry.version = old.reported.metadata.version;
            }
        }
    }

    /// As the status carries it.
    pub fn to_status(&self) -> Vec<StatusTwin> {
        let entry = |e: &Entry| StatusTwin {
            property_name: e.name.clone(),
            reported: match e.time_ms {
                0 => TwinValue::default(),
                time => TwinValue {
                    value: e.reported.clone().unwrap_or_default(),
                    metadata: TwinMetadata {
                        timestamp: time.to_string(),
                        value_type: e.type_word.to_owned(),
                        quality: e.quality.as_str().to_owned(),
                        version: e.version,
                        error: String::new(),
                    },
                },
            },
            observed_desired: match &e.desired {
                None => TwinValue::default(),
                Some(value) => TwinValue {
                    value: value.clone(),
                    metadata: TwinMetadata { error: e.error.clone(), ..TwinMetadata::default() },
                },
            },
        };
        self.entries.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differs_only_where_something_can_be_done() {
        let mut e = Entry::new("p", "int");
        assert!(!e.differs());
        e.desired = Some("30.04".into());
        e.target = Some("30".into());
        assert!(!e.differs(), "not read yet");
        assert!(e.report(Some("29".into()), Quality::Good, 1));
        assert!(e.differs());
        e.error = "no answer".into();
        assert!(e.report(Some("30".into()), Quality::Good, 2));
        assert!(!e.differs() && e.error.is_empty());
        assert!(!e.report(Some("30".into()), Quality::Good, 3), "the same again is no news");
        assert!(e.report(None, Quality::Timeout, 4), "another quality is");
        assert_eq!(e.reported.as_deref(), Some("30"));
    }

    #[test]
    fn status_comes_back_unbelieved() {
        let mut twin = Twin { entries: vec![Entry::new("a", "int"), Entry::new("b", "int")] };
        twin.entries[0].report(Some("5".into()), Quality::Good, 7);
        let mut again = Twin { entries: vec![Entry::new("b", "int"), Entry::new("a", "int")] };
        again.restore(&twin.to_status());
        assert_eq!(again.entries[1].reported.as_deref(), Some("5"));
        assert_eq!(again.entries[1].quality, Quality::Disconnected);
        assert_eq!(again.entries[1].version, 1);
        assert_eq!(again.entries[0].reported, None);
    }
}
