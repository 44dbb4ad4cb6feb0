//! Traps and informs of version 3, purely: whose they are, whether they are true and in time, and what is answered.
//!
//! A trap names the engine of its sender, an inform that of its receiver (RFC 3412, section 6.2.2): senders of informs ask
//! for ours first. What is refused is counted by reason as RFC 3414 (section 5) does, and a sender that wants to know is told.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_model::device::snmp::Link;
use sha2::{Digest as _, Sha256};
use snmp2::{AsnReader, Pdu};

use super::traps::{Notification, notification};
use super::usm::{Envelope, Keys, Level, Message, OCTETS, SEQUENCE, User, integer, seal, tlv};

/// How far clocks may be apart, in seconds (RFC 3414, section 2.2.3).
const WINDOW: u32 = 150;
/// Engines a device is remembered to have had, so that an old one's messages cannot be played again.
const ENGINES: usize = 4;
/// Boots begin with this day: 2024-01-01, in minutes since 1970.
const FIRST_BOOT: u64 = 28_401_120;
const INFORM: u8 = 0xa6;
const RESPONSE: u8 = 0xa2;
const REPORT: u8 = 0xa8;
const COUNTER: u8 = 0x41;

/// Why a message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is protected less or more than the device is configured for")]
    Level,
    #[error("it is too old, or its sender's clock is wrong")]
    Late,
    #[error("no device with that address has that user")]
    User,
    #[error("it is for another engine")]
    Engine,
    #[error("its digest is wrong")]
    Digest,
    #[error("it cannot be decrypted")]
    Sealed,
    #[error("it is no trap")]
    Malformed,
}

impl Refusal {
    /// The last but one number of its counter, below `usmStats` (RFC 3414, section 5).
    const fn number(self) -> u8 {
        match self {
            Refusal::Level => 1,
            Refusal::Late => 2,
            Refusal::User => 3,
            Refusal::Engine => 4,
            Refusal::Digest => 5,
            Refusal::Sealed => 6,
            Refusal::Malformed => 7,
        }
    }
}

/// The user of one device.
#[derive(Debug)]
pub(super) struct Member {
    user: User,
    /// Where the device's messages come from.
    from: Vec<IpAddr>,
    clocks: Mutex<Vec<Clock>>,
}

/// The latest an engine has said of its clock.
#[derive(Debug)]
struct Clock {
    engine: Vec<u8>,
    boots: u32,
    time: u32,
    at: Instant,
}

impl Member {
    pub(super) fn new(link: &Link, from: Vec<IpAddr>) -> Member {
        Member { user: User::new(link), from, clocks: Mutex::default() }
    }

    /// Whether an authentic message is no older than what was heard before (RFC 3414, section 3.2.7, b).
    fn is_in_time(&self, message: &Message<'_>, now: Instant) -> bool {
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        let (boots, time) = (message.boots, message.time);
        if boots >= i32::MAX.unsigned_abs() {
            return false;
        }
        let Some(clock) = clocks.iter_mut().find(|c| c.engine == message.engine) else {
            if clocks.len() == ENGINES {
                clocks.remove(0);
            }
            clocks.push(Clock { engine: message.engine.to_vec(), boots, time, at: now });
            return true;
        };
        if (boots, time) > (clock.boots, clock.time) {
            (clock.boots, clock.time, clock.at) = (boots, time, now);
        }
        let expected = clock.time.saturating_add(seconds(now.saturating_duration_since(clock.at)));
        boots == clock.boots && time.saturating_add(WINDOW) >= expected
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// What a message brought.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Whose trap, and what it says.
    pub(super) traps: Vec<(Arc<Member>, Notification)>,
    /// Goes back to the sender.
    pub(super) answer: Option<Vec<u8>>,
    /// Why it was dropped, and how often that has been.
    pub(super) refused: Option<(Refusal, u32)>,
}

/// This node as an engine, which receives informs.
#[derive(Debug)]
pub(super) struct Engine {
    id: Vec<u8>,
    boots: u32,
    start: Instant,
    /// By [`Refusal::number`].
    refused: [AtomicU32; 8],
}

impl Engine {
    /// `machine` is this machine's name, the same after a restart; `utc_ms` the time. The engine has nothing to remember:
    /// it counts as a boot every minute, which is more than the last one as long as the clock is right.
    pub(super) fn new(machine: &[u8], utc_ms: i64, start: Instant) -> Engine {
        // RFC 3411, section 5, SnmpEngineID: the format of octets, of no enterprise.
        let mut id = vec![0x80, 0, 0, 0, 5];
        id.extend(Sha256::digest([b"edge-runtime ", machine].concat()).iter().take(16));
        let minutes = u64::try_from(utc_ms).unwrap_or(0) / 60_000;
        let boots =
            u32::try_from(minutes.saturating_sub(FIRST_BOOT)).unwrap_or(1).clamp(1, i32::MAX.unsigned_abs() - 1);
        Engine { id, boots, start, refused: Default::default() }
    }

    fn time(&self, now: Instant) -> u32 {
        seconds(now.saturating_duration_since(self.start))
    }

    /// One packet.
    pub(super) fn receive(&self, members: &[Arc<Member>], bytes: &[u8], from: IpAddr, now: Instant) -> Received {
        let mut received = Received::default();
        let known: Vec<&Arc<Member>> = members.iter().filter(|m| m.from.contains(&from.to_canonical())).collect();
        let Some(message) = Message::parse(bytes) else {
            received.refused = Some((Refusal::Malformed, self.count(Refusal::Malformed)));
            return received;
        };
        let mut why = if message.engine.is_empty() { Refusal::Engine } else { Refusal::User };
        let mut told = None;
        for member in known.iter().filter(|m| !message.engine.is_empty() && m.user.name == message.user) {
            let keys = member.user.keys(message.engine);
            match self.open(member, &keys, &message, now) {
                Ok((said, inside)) => {
                    if let Some(inside) = inside {
                        received.answer = self.seal(member, &keys, &message, message.level, &inside, now);
                    }
                    received.traps.push((Arc::clone(member), said));
                }
                Err(refusal) => {
                    // Of several the one that came closest: only who has the key can tell that it is late.
                    if told.is_none() || refusal == Refusal::Late {
                        (why, told) = (refusal, Some((*member, keys)));
                    }
                }
            }
        }
        if !received.traps.is_empty() {
            return received;
        }
        // A sender of informs has yet to learn which engine this is.
        if message.reportable && message.engine != self.id {
            why = Refusal::Engine;
        }
        let count = self.count(why);
        if message.reportable && !known.is_empty() {
            received.answer = self.report(why, count, told, &message, now);
        }
        // To ask for our engine is no offence.
        received.refused = (!message.engine.is_empty()).then_some((why, count));
        received
    }

    fn count(&self, why: Refusal) -> u32 {
        let counter = self.refused.get(usize::from(why.number()));
        counter.map_or(0, |c| c.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    /// The trap inside, and for an inform what confirms it.
    fn open(
        &self,
        member: &Member,
        keys: &Keys,
        message: &Message<'_>,
        now: Instant,
    ) -> Result<(Notification, Option<Vec<u8>>), Refusal> {
        if message.level != member.user.level() {
            return Err(Refusal::Level);
        }
        let ours = message.engine == self.id;
        if message.level != Level::Plain {
            if !message.is_signed(&member.user, keys) {
                return Err(Refusal::Digest);
            }
            let in_time = if ours {
                message.boots == self.boots && message.time.abs_diff(self.time(now)) <= WINDOW
            } else {
                member.is_in_time(message, now)
            };
            if !in_time {
                return Err(Refusal::Late);
            }
        }
        let mut inside = message.open(&member.user, keys).ok_or(Refusal::Sealed)?;
        let mut reader = AsnReader::from_bytes(&inside);
        // The context: of which of the engine's parts it speaks.
        let context = reader.read_asn_octetstring().and_then(|_| reader.read_asn_octetstring());
        context.map_err(|_| Refusal::Malformed)?;
        let at = inside.len() - reader.bytes_left();
        let pdu = inside.get(at..).unwrap_or_default();
        let inform = pdu.first() == Some(&INFORM);
        // A PDU is that of version 2c, which the library reads.
        let plain = tlv(SEQUENCE, &[&integer(1), &tlv(OCTETS, &[]), pdu]);
        let said = Pdu::from_bytes(&plain).ok().and_then(|pdu| notification(&pdu)).ok_or(Refusal::Malformed)?;
        if !inform {
            return Ok((said, None));
        }
        if !ours {
            return Err(Refusal::Engine);
        }
        // The response is the inform with another name (RFC 3416, section 4.2.7).
        if let Some(tag) = inside.get_mut(at) {
            *tag = RESPONSE;
        }
        Ok((said, Some(inside)))
    }

    fn report(
        &self,
        why: Refusal,
        count: u32,
        told: Option<(&Arc<Member>, Keys)>,
        message: &Message<'_>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        if why == Refusal::Malformed {
            return None;
        }
        let oid = [0x2b, 6, 1, 6, 3, 15, 1, 1, why.number(), 0];
        let mut value = integer(count & 0x7fff_ffff);
        if let Some(tag) = value.first_mut() {
            *tag = COUNTER;
        }
        let variable = tlv(SEQUENCE, &[&tlv(0x06, &[&oid]), &value]);
        let pdu = tlv(REPORT, &[&integer(0), &integer(0), &integer(0), &tlv(SEQUENCE, &[&variable])]);
        let inside = [tlv(OCTETS, &[&self.id]), tlv(OCTETS, &[]), pdu].concat();
        match told {
            // A clock is only corrected by who proves to be the engine.
            Some((member, keys)) if why == Refusal::Late => {
                self.seal(member, &keys, message, Level::Signed, &inside, now)
            }
            _ => seal(&self.envelope(message, Level::Plain, now)?, &User::nobody(message.user), &Keys::none(), &inside),
        }
    }

    fn seal(
        &self,
        member: &Member,
        keys: &Keys,
        message: &Message<'_>,
        level: Level,
        inside: &[u8],
        now: Instant,
    ) -> Option<Vec<u8>> {
        seal(&self.envelope(message, level, now)?, &member.user, keys, inside)
    }

    fn envelope(&self, message: &Message<'_>, level: Level, now: Instant) -> Option<Envelope<'_>> {
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).ok()?;
        Some(Envelope { id: message.id, level, engine: &self.id, boots: self.boots, time: self.time(now), salt })
    }
}

#[cfg(test)]
#[path = "v3_tests.rs"]
mod tests;
