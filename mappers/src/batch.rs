//! What a mapper sends: the samples of one answer, with how the device is doing.

use std::sync::Arc;

use edge_model::reading::{Quality, Reading, Value};

use crate::Profile;

/// The samples of one answer of a device, or news of its state. Names stay in the shared profile, so that a sample is small.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The device.
    pub device: Arc<Profile>,
    /// When the answer came, UTC milliseconds.
    pub time_ms: i64,
    /// What it said; empty when this only reports the state.
    pub samples: Vec<Sample>,
    /// Whether the device answers, and if not, why.
    pub link: Link,
    /// Its counters.
    pub stats: Stats,
}

/// One value of one point.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The index of the point in the profile.
    pub point: u16,
    /// Whether the value may be believed.
    pub quality: Quality,
    /// The value, exactly when the quality is good.
    pub value: Option<Value>,
}

/// Whether a device answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It answered just now.
    Online,
    /// It did not, for this reason.
    Offline(String),
}

/// Counters of a device since it was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests sent.
    pub requests: u64,
    /// How many of them failed.
    pub errors: u64,
    /// How many of them were not answered in time.
    pub timeouts: u64,
    /// How many of them the device answered with an error of its own.
    pub exceptions: u64,
    /// Periods in which nothing was asked because the wire or the device was too slow.
    pub overruns: u64,
    /// How often its connection was opened again.
    pub reconnects: u64,
    /// The last round trip, in microseconds.
    pub round_trip_us: u64,
}

impl Batch {
    /// The samples as readings.
    pub fn readings(&self) -> impl Iterator<Item = Reading> + '_ {
        self.samples.iter().filter_map(|s| {
            let point = self.device.points.get(usize::from(s.point))?;
            Some(Reading {
                namespace: self.device.namespace.clone(),
                device: self.device.name.clone(),
                property: point.name.clone(),
                time_ms: self.time_ms,
                quality: s.quality,
                value: s.value.clone(),
                unit: point.unit.clone(),
            })
        })
    }
}
