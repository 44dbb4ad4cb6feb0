//! The sockets traps come on: one per address, shared by the devices that name it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use snmp2::{AsnReader, MessageType, Pdu};
use tokio::net::UdpSocket;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::config::Id;
use super::decode::Wire;
use super::link::{id, values};
use super::usm::SEQUENCE;
use super::v3::{Engine, Member, Refusal};

/// Traps that wait for a device's task; a flood loses the oldest, as UDP would.
const WAITING: usize = 64;
/// The longest message, in bytes: what fits into a UDP packet.
const MAX_PACKET: usize = 65_507;
/// `snmpTrapOID.0`, whose value says which trap it is (RFC 3416, section 4.2.6).
const TRAP_OID: [u64; 11] = [1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0];
/// `snmpTraps`, below which the generic traps of version 1 are (RFC 3584, section 3.1).
const GENERIC: [u64; 9] = [1, 3, 6, 1, 6, 3, 1, 1, 5];

/// One trap.
#[derive(Debug)]
pub(super) struct Trap {
    pub(super) from: IpAddr,
    pub(super) sender: Sender,
    /// Which trap it is.
    pub(super) kind: Id,
    pub(super) values: Vec<(Id, Wire)>,
}

/// Which trap it is, and its values.
pub(super) type Notification = (Id, Vec<(Id, Wire)>);

/// Who a trap says it is from.
#[derive(Debug)]
pub(super) enum Sender {
    /// Versions 1 and 2c: whoever knows the community.
    Community(Vec<u8>),
    /// Version 3: who proved to be the user of a device.
    Member(Arc<Member>),
}

/// Who has proved, or shall prove, to be the user of a device.
type Members = Arc<Mutex<Vec<Weak<Member>>>>;

/// A socket and who listens on it; it is closed when nobody does any more.
pub(super) struct Listener {
    pub(super) traps: broadcast::Sender<Arc<Trap>>,
    members: Members,
    _task: JoinSet<()>,
}

impl Listener {
    /// From now on messages of version 3 of this user are taken, for as long as it is held.
    pub(super) fn admit(&self, member: &Arc<Member>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|m| m.strong_count() > 0);
        members.push(Arc::downgrade(member));
    }
}

/// All sockets of this node.
#[derive(Default)]
pub struct Hub {
    open: Mutex<HashMap<SocketAddr, Weak<Listener>>>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hub")
    }
}

impl Hub {
    /// The socket at an address, opened if need be; `utc_ms` is the time.
    pub(super) fn listen(&self, at: SocketAddr, utc_ms: i64) -> io::Result<Arc<Listener>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, listener| listener.strong_count() > 0);
        if let Some(there) = open.get(&at).and_then(Weak::upgrade) {
            return Ok(there);
        }
        let socket = std::net::UdpSocket::bind(at)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let (traps, _) = broadcast::channel(WAITING);
        let mut task = JoinSet::new();
        let members = Members::default();
        let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
        let engine = Engine::new(&[&machine, at.to_string().as_bytes()].concat(), utc_ms, Instant::now());
        task.spawn(hear(socket, traps.clone(), engine, Arc::clone(&members)));
        let listener = Arc::new(Listener { traps, members, _task: task });
        open.insert(at, Arc::downgrade(&listener));
        Ok(listener)
    }
}

async fn hear(socket: UdpSocket, traps: broadcast::Sender<Arc<Trap>>, engine: Engine, members: Members) {
    let mut packet = vec![0; MAX_PACKET];
    loop {
        // An error is about a packet sent before, such as an answer nobody took.
        let Ok((length, from)) = socket.recv_from(&mut packet).await else { continue };
        let Some(bytes) = packet.get(..length) else { continue };
        let (heard, answer) = if is_v3(bytes) {
            let members: Vec<Arc<Member>> = {
                let members = members.lock().unwrap_or_else(PoisonError::into_inner);
                members.iter().filter_map(Weak::upgrade).collect()
            };
            let received = engine.receive(&members, bytes, from.ip(), Instant::now());
            if let Some((why, count)) = received.refused {
                refused(from, why, count);
            }
            let from = from.ip();
            let trap = |(member, (kind, values))| Trap { from, sender: Sender::Member(member), kind, values };
            (received.traps.into_iter().map(trap).collect(), received.answer)
        } else {
            parse(bytes, from.ip()).map_or_else(Default::default, |(trap, answer)| (vec![trap], answer))
        };
        if let Some(answer) = answer {
            // The sender repeats what is not confirmed.
            let _ = socket.send_to(&answer, from).await;
        }
        for trap in heard {
            // Nobody listens while the last device is being removed.
            let _ = traps.send(Arc::new(trap));
        }
    }
}

/// Said at the first, second, fourth, …: a flood of them fills no log.
fn refused(from: SocketAddr, why: Refusal, count: u32) {
    if count.is_power_of_two() {
        tracing::warn!(%from, %why, count, "message of SNMPv3 dropped");
    }
}

/// Whether it says of itself that it is of version 3.
fn is_v3(bytes: &[u8]) -> bool {
    let body = AsnReader::from_bytes(bytes).read_raw(SEQUENCE);
    body.is_ok_and(|body| AsnReader::from_bytes(body).read_asn_integer().is_ok_and(|version| version == 3))
}

/// A trap of version 1 or 2c, or an inform with the answer it waits for.
fn parse(bytes: &[u8], from: IpAddr) -> Option<(Trap, Option<Vec<u8>>)> {
    let pdu = Pdu::from_bytes(bytes).ok()?;
    let (kind, values) = notification(&pdu)?;
    let mut answer = None;
    if pdu.message_type == MessageType::InformRequest {
        let mut response = pdu.clone();
        response.message_type = MessageType::Response;
        answer = response.to_bytes().ok();
    }
    let sender = Sender::Community(pdu.community.to_vec());
    Some((Trap { from, sender, kind, values }, answer))
}

/// What a trap carries; `None` when it is none.
pub(super) fn notification(pdu: &Pdu<'_>) -> Option<Notification> {
    let mut values = values(pdu);
    let kind = match (pdu.message_type, &pdu.v1_trap_info) {
        (MessageType::TrapV1, Some(v1)) => {
            let number = |n: i64| u64::try_from(n).ok();
            Id(match v1.generic_trap {
                6 => {
                    let enterprise = id(&v1.enterprise)?.0;
                    enterprise.into_iter().chain([0, number(v1.specific_trap)?]).collect()
                }
                generic => GENERIC.into_iter().chain([number(generic)?.checked_add(1)?]).collect(),
            })
        }
        (MessageType::Trap | MessageType::InformRequest, _) => {
            let at = values.iter().position(|(name, _)| name.0 == TRAP_OID)?;
            match values.remove(at).1 {
                Wire::Text(text) => Id::parse(&text)?,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((kind, values))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_packet_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, IpAddr::from([127, 0, 0, 1]));
        }

        #[test]
        fn no_damage_is_too_strange(at in 0usize..46, to in any::<u8>()) {
            // SNMPv1, community `public`, coldStart of 1.3.6.1.4.1.8072.3.2.10 from 127.0.0.1 with no values.
            let mut packet = b"\x30\x2a\x02\x01\x00\x04\x06public\xa4\x1d\x06\x0a\x2b\x06\x01\x04\x01\xbf\x08\x03\x02\x0a\
                \x40\x04\x7f\x00\x00\x01\x02\x01\x00\x02\x01\x00\x43\x01\x07\x30\x00".to_vec();
            if let Some(byte) = packet.get_mut(at) {
                *byte = to;
            }
            let _ = parse(&packet, IpAddr::from([127, 0, 0, 1]));
        }
    }

    #[test]
    fn a_generic_trap_of_version_1_has_the_name_it_has_in_version_2() {
        let packet = b"\x30\x2a\x02\x01\x00\x04\x06public\xa4\x1d\x06\x0a\x2b\x06\x01\x04\x01\xbf\x08\x03\x02\x0a\
            \x40\x04\x7f\x00\x00\x01\x02\x01\x00\x02\x01\x00\x43\x01\x07\x30\x00";
        let (trap, answer) = parse(packet, IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(trap.kind.to_string(), "1.3.6.1.6.3.1.1.5.1");
        assert!(matches!(&trap.sender, Sender::Community(c) if c == b"public"), "{trap:?}");
        assert_eq!(answer, None);
    }
}
