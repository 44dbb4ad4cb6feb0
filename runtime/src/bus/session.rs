//! What one client is owed: a bounded outbox, and what it has not acknowledged yet. It outlives the connection when the
//! client asked for that.
//!
//! ```text
//!  offer ─► waiting ─► in flight ──────────── PUBACK ─► forgotten          (QoS 1)
//!              │           └─ PUBREC ─► released ─ PUBCOMP ─► forgotten    (QoS 2)
//!              └─ QoS 0 ─► written and forgotten
//!  after a reconnect everything in flight is sent again, in its order, marked DUP (MQTT 5.0, section 4.4)
//! ```

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rumqttd::protocol::QoS;
use tokio::sync::Notify;

use super::tree::SubscriberId;
use super::{Options, Publication, Settings};

/// QoS 2 messages a client may have sent without releasing them; the "receive maximum" of MQTT 5.
pub const RECEIVE_MAXIMUM: usize = 64;

/// A session of one client.
pub struct Session {
    /// Its name in the tree of subscriptions.
    pub id: SubscriberId,
    /// Rings when there may be something to send.
    pub wake: Notify,
    outbox: Mutex<Outbox>,
}

#[derive(Default)]
pub struct Outbox {
    /// The connection it belongs to now; 0 for none.
    epoch: u64,
    waiting: VecDeque<Queued>,
    in_flight: VecDeque<InFlight>,
    /// How many of `in_flight` this connection has been sent.
    sent: usize,
    /// Payload bytes of everything above.
    bytes: usize,
    last_pkid: u16,
    /// QoS 2 messages received and not yet released: their repeats are not published again.
    pub received: HashSet<u16>,
    /// The filters it has subscribed to.
    pub filters: HashSet<String>,
}

#[derive(Debug)]
struct Queued {
    publication: Arc<Publication>,
    qos: QoS,
    retain: bool,
    identifiers: Vec<usize>,
}

#[derive(Debug)]
struct InFlight {
    pkid: u16,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Waits for PUBACK (QoS 1) or PUBREC (QoS 2).
    Published(Queued),
    /// Waits for PUBCOMP.
    Released,
}

/// What to send next.
#[derive(Debug)]
pub enum Outgoing {
    /// A PUBLISH.
    Publish {
        /// The message.
        publication: Arc<Publication>,
        /// With this QoS.
        qos: QoS,
        /// Whether it may be a repeat.
        dup: bool,
        /// The retain flag.
        retain: bool,
        /// 0 for QoS 0.
        pkid: u16,
        /// Identifiers of the subscriptions it matched.
        identifiers: Vec<usize>,
    },
    /// A PUBREL, again.
    Release(u16),
}

impl Session {
    /// A new session, owed nothing.
    pub fn new(id: SubscriberId) -> Session {
        Session { id, wake: Notify::new(), outbox: Mutex::default() }
    }

    /// Its outbox, locked; never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message for all the matching subscriptions of this client. False when it was dropped.
    pub fn offer(
        &self,
        publication: &Arc<Publication>,
        matching: &[(SubscriberId, Options)],
        settings: &Settings,
    ) -> bool {
        let highest = matching.iter().map(|(_, o)| o.qos as u8).max().unwrap_or(0);
        let queued = Queued {
            publication: Arc::clone(publication),
            qos: if highest < publication.qos as u8 { qos(highest) } else { publication.qos },
            retain: publication.retain && matching.iter().any(|(_, o)| o.retain_as_published),
            identifiers: matching.iter().filter_map(|(_, o)| o.identifier).collect(),
        };
        self.push(queued, settings)
    }

    /// A retained message for a new subscription. False when it was dropped.
    pub fn offer_retained(&self, publication: &Arc<Publication>, options: &Options, settings: &Settings) -> bool {
        let queued = Queued {
            publication: Arc::clone(publication),
            qos: qos((publication.qos as u8).min(options.qos as u8)),
            retain: true,
            identifiers: options.identifier.into_iter().collect(),
        };
        self.push(queued, settings)
    }

    fn push(&self, queued: Queued, settings: &Settings) -> bool {
        let mut outbox = self.lock();
        if outbox.epoch == 0 && queued.qos == QoS::AtMostOnce {
            return true; // Nobody is there, and QoS 0 is not kept: that is not a loss.
        }
        let bytes = outbox.bytes + queued.publication.payload.len();
        let empty = outbox.waiting.is_empty() && outbox.in_flight.is_empty();
        if outbox.waiting.len() >= settings.queue_messages || (bytes > settings.queue_bytes && !empty) {
            return false;
        }
        outbox.bytes = bytes;
        outbox.waiting.push_back(queued);
        drop(outbox);
        self.wake.notify_one();
        true
    }
}

impl Outbox {
    /// Gives the session to a connection: what is in flight will be sent again.
    pub fn attach(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.sent = 0;
    }

    /// Takes it back; only what has to be kept for an absent client stays.
    pub fn detach(&mut self) {
        self.epoch = 0;
        let bytes = &mut self.bytes;
        self.waiting.retain(|q| {
            let keep = q.qos != QoS::AtMostOnce;
            *bytes -= if keep { 0 } else { q.publication.payload.len() };
            keep
        });
    }

    /// The next packet for the connection `epoch`, with at most `window` unacknowledged; `None` when there is none now.
    pub fn next(&mut self, epoch: u64, window: u16) -> Option<Outgoing> {
        if self.epoch != epoch {
            return None;
        }
        if let Some(again) = self.in_flight.get(self.sent) {
            self.sent += 1;
            return Some(match &again.stage {
                Stage::Published(queued) => queued.outgoing(again.pkid, true),
                Stage::Released => Outgoing::Release(again.pkid),
            });
        }
        loop {
            let next = self.waiting.front()?;
            let expired = next.publication.expires.is_some_and(|at| at <= Instant::now());
            if !expired && next.qos != QoS::AtMostOnce && self.in_flight.len() >= usize::from(window) {
                return None;
            }
            let next = self.waiting.pop_front()?;
            if expired || next.qos == QoS::AtMostOnce {
                self.bytes -= next.publication.payload.len();
            }
            if expired {
                continue;
            }
            if next.qos == QoS::AtMostOnce {
                return Some(next.outgoing(0, false));
            }
            let pkid = self.free_pkid();
            let outgoing = next.outgoing(pkid, false);
            self.in_flight.push_back(InFlight { pkid, stage: Stage::Published(next) });
            self.sent = self.in_flight.len();
            return Some(outgoing);
        }
    }

    /// The window is smaller than the space of identifiers, so a free one is found.
    fn free_pkid(&mut self) -> u16 {
        loop {
            self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
            if !self.in_flight.iter().any(|f| f.pkid == self.last_pkid) {
                return self.last_pkid;
            }
        }
    }

    /// PUBACK or PUBCOMP, in any order; one that answers nothing is ignored.
    pub fn acknowledged(&mut self, pkid: u16) {
        let Some(at) = self.in_flight.iter().position(|f| f.pkid == pkid) else { return };
        if let Some(InFlight { stage: Stage::Published(queued), .. }) = self.in_flight.remove(at) {
            self.bytes -= queued.publication.payload.len();
        }
        self.sent -= usize::from(at < self.sent);
    }

    /// PUBREC: the message is the client's now. False when it answers nothing.
    pub fn received_by_client(&mut self, pkid: u16) -> bool {
        let Some(found) = self.in_flight.iter_mut().find(|f| f.pkid == pkid) else { return false };
        if let Stage::Published(queued) = std::mem::replace(&mut found.stage, Stage::Released) {
            self.bytes -= queued.publication.payload.len();
        }
        true
    }
}

impl Queued {
    fn outgoing(&self, pkid: u16, dup: bool) -> Outgoing {
        Outgoing::Publish {
            publication: Arc::clone(&self.publication),
            qos: self.qos,
            dup,
            retain: self.retain,
            pkid,
            identifiers: self.identifiers.clone(),
        }
    }
}

/// The QoS of a number; what is above 2 cannot occur.
pub fn qos(n: u8) -> QoS {
    match n {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUB: [(SubscriberId, Options); 1] =
        [(1, Options { qos: QoS::ExactlyOnce, no_local: false, retain_as_published: false, identifier: Some(7) })];

    fn publication(payload: &str, q: u8) -> Arc<Publication> {
        let mut p = Publication::new("t".into(), payload.to_owned().into(), false);
        p.qos = qos(q);
        Arc::new(p)
    }

    fn sent(outgoing: Option<Outgoing>) -> Option<(u16, bool, String)> {
        match outgoing? {
            Outgoing::Publish { publication, dup, pkid, .. } => {
                Some((pkid, dup, String::from_utf8_lossy(&publication.payload).into_owned()))
            }
            Outgoing::Release(pkid) => Some((pkid, true, "release".into())),
        }
    }

    #[test]
    fn the_window_holds_and_a_reconnect_repeats_in_order() {
        let (session, settings) = (Session::new(1), Settings::default());
        session.lock().attach(1);
        for (payload, q) in [("a", 1), ("b", 2), ("c", 1), ("d", 0)] {
            assert!(session.offer(&publication(payload, q), &SUB, &settings));
        }
        let mut outbox = session.lock();
        assert_eq!(sent(outbox.next(1, 2)), Some((1, false, "a".into())));
        assert_eq!(sent(outbox.next(1, 2)), Some((2, false, "b".into())));
        assert_eq!(sent(outbox.next(1, 2)), None, "the window is full");
        assert!(outbox.received_by_client(2) && !outbox.received_by_client(9));
        outbox.detach();
        outbox.attach(2);
        assert_eq!(sent(outbox.next(1, 2)), None, "the old connection gets nothing");
        assert_eq!(sent(outbox.next(2, 2)), Some((1, true, "a".into())));
        assert_eq!(sent(outbox.next(2, 2)), Some((2, true, "release".into())));
        outbox.acknowledged(2);
        outbox.acknowledged(2);
        assert_eq!(sent(outbox.next(2, 2)), Some((3, false, "c".into())), "d went with the old connection");
        outbox.acknowledged(3);
        outbox.acknowledged(1);
        assert_eq!((outbox.bytes, outbox.in_flight.len(), outbox.sent), (0, 0, 0));
    }

    #[test]
    fn bounded_and_counted() {
        let session = Session::new(1);
        let settings = Settings { queue_messages: 2, queue_bytes: 10, ..Settings::default() };
        assert!(session.offer(&publication("gone", 0), &SUB, &settings), "QoS 0 for an absent client is no loss");
        assert!(session.offer(&publication("larger than all", 1), &SUB, &settings), "one always fits");
        assert!(!session.offer(&publication("x", 1), &SUB, &settings));
        session.lock().attach(1);
        assert_eq!(sent(session.lock().next(1, 9)).map(|s| s.2), Some("larger than all".into()));
        session.lock().acknowledged(1);
        assert!(session.offer(&publication("1", 1), &SUB, &settings));
        assert!(session.offer(&publication("2", 0), &SUB, &settings));
        assert!(!session.offer(&publication("3", 1), &SUB, &settings));
    }
}
