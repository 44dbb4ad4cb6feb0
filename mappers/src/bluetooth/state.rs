//! What is known of a device from the air: what is news, what is a repetition, and when silence lasts too long.

use std::time::Duration;

use edge_model::reading::{Quality, Value};
use tokio::time::Instant;

use super::codec::fit;
use super::config::{Config, Source};
use super::decode::{self, Decoded, Section};
use super::link::Heard;
use crate::Sample;

/// A sealed packet with a smaller number is an old one played back, unless its sender began again (as Home Assistant does).
const BEGUN_AGAIN: u32 = 100;

/// What is known of a device from the air.
#[derive(Debug)]
pub struct Known {
    /// When anything was heard that still counts.
    last: Option<Instant>,
    /// Whether anything ever was.
    heard: bool,
    /// The last value of each point, and when it was told.
    told: Vec<Option<(Value, Instant)>>,
    packet: Option<u32>,
    sealed: Option<u32>,
    /// Why the last advertisement could not be used.
    pub refusal: Option<&'static str>,
}

impl Known {
    /// Nothing heard yet of a device with so many points.
    pub fn new(points: usize) -> Known {
        Known { last: None, heard: false, told: vec![None; points], packet: None, sealed: None, refusal: None }
    }

    /// When silence has lasted too long; `None` when nothing was heard yet.
    pub fn silent_at(&self, after: Duration) -> Option<Instant> {
        self.last.map(|last| last + after)
    }

    /// Whether it has been heard within this time.
    pub fn is_heard(&self, after: Duration, now: Instant) -> bool {
        self.silent_at(after).is_some_and(|at| at > now)
    }

    /// Whether it was ever heard.
    pub const fn was_heard(&self) -> bool {
        self.heard
    }

    /// Takes something heard; returns the samples that are to be told.
    ///
    /// A changed value is told at once, an unchanged one at most once per cycle. A new packet is told even if its values are
    /// the old ones, so that a button pressed twice is two presses; the same packet heard again is none.
    pub fn hear(&mut self, config: &Config, heard: &Heard, now: Instant, now_ms: i64) -> Vec<Sample> {
        let mut samples = Vec::new();
        match heard {
            Heard::Connected(on) => self.tell_all(config, &Source::Connected, Value::Bool(*on), now, &mut samples),
            Heard::Rssi(rssi) => {
                self.seen(config, now, now_ms, &mut samples);
                self.tell_all(config, &Source::Rssi, Value::Int(i64::from(*rssi)), now, &mut samples);
            }
            Heard::Section(section) => {
                self.seen(config, now, now_ms, &mut samples);
                match decode::decode(config.decoder, config.address, &config.key, section) {
                    Some(Ok(decoded)) => self.decoded(config, decoded, now, &mut samples),
                    Some(Err(why)) if self.refusal != Some(why) => {
                        tracing::debug!(device = %config.profile.name, reason = why, "bluetooth: advertisement not used");
                        self.refusal = Some(why);
                    }
                    Some(Err(_)) | None => {}
                }
                self.raw(config, section, now, &mut samples);
            }
        }
        samples
    }

    /// What is known now of some points.
    pub fn known(&self, points: &[usize]) -> Vec<Sample> {
        let sample = |i: &usize| {
            let (value, _) = self.told.get(*i)?.as_ref()?;
            Some(good(*i, value.clone()))
        };
        points.iter().filter_map(sample).collect()
    }

    fn seen(&mut self, config: &Config, now: Instant, now_ms: i64, samples: &mut Vec<Sample>) {
        (self.last, self.heard) = (Some(now), true);
        self.tell_all(config, &Source::LastSeen, Value::Int(now_ms), now, samples);
    }

    fn decoded(&mut self, config: &Config, decoded: Decoded, now: Instant, samples: &mut Vec<Sample>) {
        self.refusal = None;
        let mut fresh = false;
        if let Some(number) = decoded.packet {
            if decoded.sealed {
                let old = self.sealed.is_some_and(|last| number < last && number >= BEGUN_AGAIN);
                if old {
                    self.refusal = Some("an old encrypted packet, played back");
                    return;
                }
                self.sealed = Some(number);
            }
            if self.packet == Some(number) {
                return;
            }
            fresh = self.packet.replace(number).is_some();
        }
        for (i, source) in config.sources.iter().enumerate() {
            let Source::Field(field) = source else { continue };
            if let Some((_, value)) = decoded.fields.iter().find(|(n, _)| n == field) {
                self.tell(config, i, value.clone(), now, fresh, samples);
            }
        }
    }

    fn raw(&mut self, config: &Config, section: &Section, now: Instant, samples: &mut Vec<Sample>) {
        for (i, source) in config.sources.iter().enumerate() {
            let decoded = match (source, section) {
                (Source::Manufacturer(company, codec), Section::Manufacturer(c, bytes)) if c == company => {
                    codec.decode(bytes)
                }
                (Source::Service(service, codec), Section::Service(s, bytes)) if s == service => codec.decode(bytes),
                _ => continue,
            };
            match decoded {
                Ok(value) => self.tell(config, i, value, now, false, samples),
                Err(why) => {
                    self.refusal = Some(why);
                    if let Some(told) = self.told.get_mut(i)
                        && told.take().is_some()
                    {
                        samples.push(bad(i, Quality::Invalid));
                    }
                }
            }
        }
    }

    fn tell_all(&mut self, config: &Config, what: &Source, value: Value, now: Instant, samples: &mut Vec<Sample>) {
        for (i, source) in config.sources.iter().enumerate() {
            if source != what {
                continue;
            }
            // These change with every packet: the cycle is how often they are worth telling.
            let quiet = !matches!(what, Source::Connected) && self.is_within_cycle(config, i, now);
            if !quiet {
                self.tell(config, i, value.clone(), now, true, samples);
            }
        }
    }

    fn is_within_cycle(&self, config: &Config, index: usize, now: Instant) -> bool {
        let cycle = config.cycles.get(index).copied().unwrap_or_default();
        self.told.get(index).and_then(Option::as_ref).is_some_and(|(_, at)| *at + cycle > now)
    }

    fn tell(&mut self, config: &Config, index: usize, value: Value, now: Instant, fresh: bool, to: &mut Vec<Sample>) {
        let Some(point) = config.profile.points.get(index) else { return };
        let Some(value) = fit(value, point.value_type) else {
            to.push(bad(index, Quality::Invalid));
            return;
        };
        let quiet = self.is_within_cycle(config, index, now);
        let Some(told) = self.told.get_mut(index) else { return };
        if !fresh && quiet && told.as_ref().is_some_and(|(old, _)| *old == value) {
            return;
        }
        *told = Some((value.clone(), now));
        to.push(good(index, value));
    }

    /// The device went silent, or the adapter is gone: nothing that is known holds any longer.
    pub fn forget(&mut self) {
        self.told.fill(None);
        self.last = None;
        self.packet = None;
    }
}

/// A sample that may be believed.
pub fn good(index: usize, value: Value) -> Sample {
    Sample { point: u16::try_from(index).unwrap_or(u16::MAX), quality: Quality::Good, value: Some(value) }
}

/// A sample without a value.
pub fn bad(index: usize, quality: Quality) -> Sample {
    Sample { point: u16::try_from(index).unwrap_or(u16::MAX), quality, value: None }
}

#[cfg(test)]
mod tests {
    use edge_model::device::{Device, DeviceModel};
    use serde_json::json;

    use super::super::config::resolve;
    use super::super::decode::{bthome, hex};
    use super::*;

    fn config(key: &str) -> Config {
        let names = [("temperature", "FLOAT"), ("button", "STRING"), ("rssi", "INT")];
        let properties = names.map(|(n, t)| json!({"name": n, "type": t, "accessMode": "ReadOnly"}));
        let own = names.map(|(n, _)| json!({"name": n, "collectCycle": 1000}));
        let device = json!({
            "deviceModelRef": {"name": "m"},
            "protocol": {"protocolName": "bluetooth",
                "configData": {"macAddress": "54:48:E6:8F:80:A5", "encryptionKey": key}},
            "properties": own,
        });
        let model = json!({"protocol": "bluetooth", "properties": properties});
        let (device, model) = (Device::parse(&device).unwrap(), DeviceModel::parse(&model).unwrap());
        resolve("default", "d", &device, &model).unwrap()
    }

    fn bthome(packet: &str) -> Heard {
        Heard::Section(Section::Service(bthome::SERVICE, hex(packet).unwrap()))
    }

    fn values(samples: Vec<Sample>) -> Vec<(u16, String)> {
        samples.into_iter().map(|s| (s.point, s.value.map_or_else(|| "bad".to_owned(), |v| v.to_string()))).collect()
    }

    #[test]
    fn repetitions_are_told_once_per_cycle_and_changes_at_once() {
        let (config, start) = (config(""), Instant::now());
        let mut known = Known::new(config.sources.len());
        let mut at =
            |ms: u64, packet: &str| values(known.hear(&config, &bthome(packet), start + Duration::from_millis(ms), 0));
        assert_eq!(at(0, "4002ca09"), [(0, "25.06".to_owned())]);
        assert_eq!(at(10, "4002ca09"), []);
        assert_eq!(at(20, "40025d09"), [(0, "23.97".to_owned())]);
        assert_eq!(at(1_019, "40025d09"), []);
        assert_eq!(at(1_020, "40025d09"), [(0, "23.97".to_owned())]);
    }

    #[test]
    fn a_button_pressed_twice_is_two_presses_and_a_repeated_packet_none() {
        let (config, now) = (config(""), Instant::now());
        let mut known = Known::new(config.sources.len());
        let mut at = |packet: &str| values(known.hear(&config, &bthome(packet), now, 0)).len();
        assert_eq!(at("4000073a01"), 1);
        assert_eq!((at("4000073a01"), at("4000073a01")), (0, 0));
        assert_eq!((at("4000083a01"), at("4000083a01")), (1, 0));
    }

    #[test]
    fn old_sealed_packets_are_not_believed() {
        let (config, now) = (config("231d39c1d7cc1ab1aee224cd096db932"), Instant::now());
        let mut known = Known::new(config.sources.len());
        let mut at = |packet: &str| values(known.hear(&config, &bthome(packet), now, 0)).len();
        // Counters 0x112233 (heard twice), 0x112232, 0x112234, 0xffffffff and, after a new battery, 0: vectors of bthome-ble.
        assert_eq!((at("41e445f3c9962b332211006c7c4519"), at("41e445f3c9962b332211006c7c4519")), (1, 0));
        assert_eq!(at("41723d3035fb88322211009e7414c0"), 0);
        assert_eq!(at("413e932cc7175f34221100553876af"), 1);
        assert_eq!(at("41ba0db07aeef6ffffffff21fd4600"), 1);
        assert_eq!(at("41de40b50e676600000000d7cb95de"), 1);
    }

    #[test]
    fn silence_is_noticed_and_forgotten() {
        let (config, start) = (config(""), Instant::now());
        let mut known = Known::new(config.sources.len());
        let minute = Duration::from_secs(60);
        assert!(!known.is_heard(minute, start));
        assert_eq!(values(known.hear(&config, &Heard::Rssi(-60), start, 0)), [(2, "-60".to_owned())]);
        assert_eq!(values(known.hear(&config, &Heard::Rssi(-61), start, 0)), []);
        assert!(known.is_heard(minute, start + Duration::from_secs(59)));
        assert!(!known.is_heard(minute, start + minute));
        assert_eq!(known.known(&[0, 2]).len(), 1);
        known.forget();
        assert_eq!(known.known(&[0, 2]), []);
    }
}
