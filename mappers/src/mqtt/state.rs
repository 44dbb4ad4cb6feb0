//! What a connection has heard of one device.

use std::collections::VecDeque;
use std::sync::Arc;

use edge_model::reading::{Quality, Value};
use tokio::time::Instant;

use super::config::Config;
use crate::device::Settings as _;
use crate::payload::Found;
use crate::{AccessError, Sample};

/// Samples that wait for the device's task. It takes them at once unless the node is overloaded; then the oldest are the
/// least loss, because the latest value of each point is held besides.
const NEWS: usize = 1_024;

/// What is known of the device since the connection was made.
#[derive(Debug)]
pub(super) struct State {
    config: Arc<Config>,
    /// Why the connection ended.
    pub(super) lost: Option<String>,
    /// The broker has taken the subscriptions.
    pub(super) subscribed: bool,
    /// What the device says of itself.
    available: Option<bool>,
    held: Vec<Option<Held>>,
    news: VecDeque<Sample>,
}

#[derive(Debug, Clone)]
struct Held {
    /// The value; `None` when it made no sense or is too old.
    value: Option<Value>,
    quality: Quality,
    at: Instant,
    /// Counts what was heard.
    turn: u64,
}

impl State {
    pub(super) fn new(config: Arc<Config>) -> State {
        let held = config.places.iter().map(|_| None).collect();
        State { config, lost: None, subscribed: false, available: None, held, news: VecDeque::new() }
    }

    /// One message.
    pub(super) fn take(&mut self, topic: &str, payload: &[u8], now: Instant) {
        let config = Arc::clone(&self.config);
        let document: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
        if let Some(a) = config.availability.as_ref().filter(|a| a.topic == topic) {
            let said = match (&a.path, &document) {
                (None, _) => Some(String::from_utf8_lossy(payload).into_owned()),
                (Some(path), Some(d)) => {
                    path.find(d).map(|json| json.as_str().map_or_else(|| json.to_string(), str::to_owned))
                }
                (Some(_), None) => None,
            };
            self.available = Some(said.is_some_and(|said| said.trim() == a.online));
        }
        for (index, (place, point)) in config.places.iter().zip(&config.profile().points).enumerate() {
            if place.topic.as_deref() != Some(topic) {
                continue;
            }
            let (quality, value) = match place.format.read(point, payload, document.as_ref()) {
                Found::Value(value) => (Quality::Good, Some(value)),
                Found::Nothing => continue,
                Found::Wrong(_) => (Quality::Invalid, None),
            };
            self.hold(index, quality, value, now);
        }
    }

    fn hold(&mut self, index: usize, quality: Quality, value: Option<Value>, now: Instant) {
        let Some(held) = self.held.get_mut(index) else { return };
        let turn = held.as_ref().map_or(1, |h| h.turn + 1);
        *held = Some(Held { value: value.clone(), quality, at: now, turn });
        if self.news.len() == NEWS {
            self.news.pop_front();
        }
        self.news.push_back(Sample { point: u16::try_from(index).unwrap_or(u16::MAX), quality, value });
    }

    /// No longer believes what is too old.
    pub(super) fn expire(&mut self, now: Instant) {
        for index in 0..self.held.len() {
            if self.ends(index).is_some_and(|end| end <= now) {
                self.hold(index, Quality::Timeout, None, now);
            }
        }
    }

    /// When the next value will be too old.
    pub(super) fn next_end(&self) -> Option<Instant> {
        (0..self.held.len()).filter_map(|index| self.ends(index)).min()
    }

    fn ends(&self, index: usize) -> Option<Instant> {
        let (held, place) = (self.held.get(index)?.as_ref()?, self.config.places.get(index)?);
        held.value.as_ref()?;
        Some(held.at + place.expire?)
    }

    /// Whether the broker has taken the subscriptions and said what it knows of the device's availability.
    pub(super) fn is_settled(&self) -> bool {
        self.subscribed && (self.config.availability.is_none() || self.available.is_some())
    }

    /// Whether the device can be talked to.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn health(&self) -> Result<(), AccessError> {
        let why = match (&self.lost, &self.config.availability, self.available) {
            (Some(why), ..) => why.as_str(),
            (None, None, _) | (None, Some(_), Some(true)) => return Ok(()),
            (None, Some(_), None) => "the device has not said that it is there",
            (None, Some(_), Some(false)) => "the device says that it is not there",
        };
        Err(AccessError::Disconnected(why.to_owned()))
    }

    /// What has been heard since the last time.
    pub(super) fn take_news(&mut self) -> Vec<Sample> {
        self.news.drain(..).collect()
    }

    /// What is held of points.
    pub(super) fn samples(&self, points: &[usize]) -> Vec<Sample> {
        let one = |index: &usize| {
            let held = self.held.get(*index)?.as_ref()?;
            let point = u16::try_from(*index).ok()?;
            Some(Sample { point, quality: held.quality, value: held.value.clone() })
        };
        points.iter().filter_map(one).collect()
    }

    /// How often something has been heard of a point, and its value.
    pub(super) fn heard(&self, index: usize) -> (u64, Option<&Value>) {
        let held = self.held.get(index).and_then(Option::as_ref);
        held.map_or((0, None), |h| (h.turn, h.value.as_ref()))
    }
}
