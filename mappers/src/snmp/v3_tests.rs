//! Messages of version 3 from a sender with keys of its own, and damaged ones.

use proptest::prelude::*;

use super::*;

const THEM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const SENDER: &[u8] = &[0x80, 0, 0x1f, 0x88, 4, b'p', b'l', b'c'];
/// coldStart, with no values but its name: request-id 7.
const TRAP: &[u8] =
    b"\xa7\x24\x02\x01\x07\x02\x01\x00\x02\x01\x00\x30\x19\x30\x17\x06\x0a\x2b\x06\x01\x06\x03\x01\x01\x04\x01\x00\
    \x06\x09\x2b\x06\x01\x06\x03\x01\x01\x05\x01";

fn link(more: &str) -> Link {
    let mut link = serde_json::json!({"host": "plc", "version": "v3", "user": "u"});
    for (key, value) in serde_json::from_str::<serde_json::Map<_, _>>(more).unwrap() {
        link[&key] = value;
    }
    serde_json::from_value(link).unwrap()
}

fn protected(auth: &str, privacy: &str) -> Link {
    link(&format!(
        r#"{{"auth":"{auth}","authPassword":"password1","privacy":"{privacy}","privacyPassword":"password2"}}"#
    ))
}

fn signed() -> Link {
    link(r#"{"auth":"SHA","authPassword":"password1"}"#)
}

/// A message as a sender with this device's passwords makes it.
fn message(link: &Link, engine: &[u8], boots: u32, time: u32, pdu: &[u8]) -> Vec<u8> {
    let user = User::new(link);
    let inside = [tlv(OCTETS, &[SENDER]), tlv(OCTETS, &[]), pdu.to_vec()].concat();
    let outside = Envelope { id: 4711, level: user.level(), engine, boots, time, salt: [1, 2, 3, 4, 5, 6, 7, 8] };
    seal(&outside, &user, &user.keys(engine), &inside).unwrap()
}

fn inform() -> Vec<u8> {
    [&[INFORM], &TRAP[1..]].concat()
}

/// The bit a sender sets that wants to hear what is wrong; only for messages that are not signed or signed by `link`.
fn reportable(link: &Link, mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.windows(2).position(|w| w == [OCTETS, 1]).unwrap() + 2;
    bytes[at] |= 4;
    let (user, message) = (User::new(link), Message::parse(&bytes).unwrap());
    message.signed_anew(&user, &user.keys(message.engine)).unwrap_or_else(|| bytes.clone())
}

fn engine() -> (Engine, Instant) {
    let start = Instant::now();
    (Engine::new(b"machine", 1_764_547_200_000, start), start)
}

fn member(link: &Link) -> Vec<Arc<Member>> {
    vec![Arc::new(Member::new(link, vec![THEM]))]
}

fn refusal(received: &Received) -> Option<Refusal> {
    received.refused.map(|(why, _)| why)
}

#[test]
fn keys_are_those_of_the_standard() {
    // RFC 3414, section A.3.
    let engine = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    for (auth, key) in
        [("MD5", "526f5eed9fcce26f8964c2930787d82b"), ("SHA", "6695febc9288e36282235fc7151f128497b38f3f")]
    {
        let user = User::new(&link(&format!(r#"{{"auth":"{auth}","authPassword":"maplesyrup"}}"#)));
        assert_eq!(hex(user.keys(&engine).signing()), key, "{auth}");
    }
}

#[test]
fn traps_of_every_level_are_opened() {
    let (engine, now) = engine();
    let mut links = vec![link("{}"), signed()];
    for privacy in ["DES", "AES", "AES192", "AES256"] {
        links.push(protected("MD5", privacy));
    }
    for auth in ["SHA", "SHA224", "SHA256", "SHA384", "SHA512"] {
        links.push(protected(auth, "AES"));
    }
    for link in links {
        let received = engine.receive(&member(&link), &message(&link, SENDER, 3, 100, TRAP), THEM, now);
        let [(_, (kind, values))] = received.traps.as_slice() else { panic!("{link:?}: {received:?}") };
        assert_eq!((kind.to_string().as_str(), values.len()), ("1.3.6.1.6.3.1.1.5.1", 0));
        assert_eq!((received.answer, received.refused), (None, None), "nobody answers a trap");
    }
}

#[test]
fn what_is_not_right_is_dropped_and_counted() {
    let (engine, now) = engine();
    let link = protected("SHA", "AES");
    let (members, good) = (member(&link), message(&link, SENDER, 3, 100, TRAP));
    let try_it = |bytes: &[u8], from| {
        let received = engine.receive(&members, bytes, from, now);
        assert!(received.traps.is_empty() && received.answer.is_none(), "{received:?}");
        received.refused
    };
    let mut other = link.clone();
    other.auth_password = "password9".to_owned();
    assert_eq!(try_it(&message(&other, SENDER, 3, 100, TRAP), THEM), Some((Refusal::Digest, 1)));
    assert_eq!(try_it(&message(&other, SENDER, 3, 100, TRAP), THEM), Some((Refusal::Digest, 2)));
    let mut other = link.clone();
    other.privacy_password = "password9".to_owned();
    // A wrong key gives noise: it has no form, or that of nothing.
    let noise = try_it(&message(&other, SENDER, 3, 100, TRAP), THEM).map(|(why, _)| why);
    assert!(matches!(noise, Some(Refusal::Sealed | Refusal::Malformed)), "{noise:?}");
    let mut other = link.clone();
    other.user = "nobody".to_owned();
    assert_eq!(try_it(&message(&other, SENDER, 3, 100, TRAP), THEM), Some((Refusal::User, 1)));
    assert_eq!(try_it(&good, IpAddr::from([192, 0, 2, 10])), Some((Refusal::User, 2)), "another's address");
    for less in [signed(), self::link("{}")] {
        let why = try_it(&message(&less, SENDER, 3, 100, TRAP), THEM).map(|(why, _)| why);
        assert_eq!(why, Some(Refusal::Level), "{less:?}");
    }
    let strange = try_it(b"\x30\x03\x02\x01\x03", THEM).map(|(why, _)| why);
    assert_eq!(strange, Some(Refusal::Malformed));
    assert!(engine.receive(&members, &good, THEM, now).refused.is_none(), "nothing of that spoils the right one");
}

#[test]
fn what_is_played_again_later_is_dropped() {
    let (engine, start) = engine();
    let link = signed();
    let members = member(&link);
    let at = |boots, time, after: u64| {
        let now = start + Duration::from_secs(after);
        refusal(&engine.receive(&members, &message(&link, SENDER, boots, time, TRAP), THEM, now))
    };
    assert_eq!(at(3, 1_000, 0), None);
    assert_eq!(at(3, 1_000, 150), None, "within the window");
    assert_eq!(at(3, 1_000, 151), Some(Refusal::Late));
    assert_eq!(at(2, 9_000, 0), Some(Refusal::Late), "of before the restart");
    assert_eq!(at(4, 0, 200), None, "restarted");
    assert_eq!(at(3, 1_200, 200), Some(Refusal::Late));
    assert_eq!(at(i32::MAX.unsigned_abs(), 0, 200), Some(Refusal::Late), "a clock that has ended");
    // Another engine has another clock.
    let other = message(&link, b"\x80\0\0\0\x05other", 1, 1, TRAP);
    assert_eq!(refusal(&engine.receive(&members, &other, THEM, start)), None);
}

#[test]
fn an_inform_asks_for_the_engine_and_is_confirmed() {
    let (engine, now) = engine();
    let (link, nobody) = (protected("SHA256", "AES"), link(r#"{"user":""}"#));
    let members = member(&link);
    let probe = reportable(&nobody, message(&nobody, &[], 0, 0, &[&[0xa0], &TRAP[1..]].concat()));
    let received = engine.receive(&members, &probe, THEM, now);
    assert_eq!(received.refused, None, "asking is no offence");
    let report = received.answer.expect("a report");
    let report = Message::parse(&report).unwrap();
    assert_eq!((report.id, report.level, report.boots), (4711, Level::Plain, engine.boots));
    assert!(engine.receive(&members, &probe, IpAddr::from([192, 0, 2, 10]), now).answer.is_none(), "not to strangers");
    // The clock is wrong: said by a signed report.
    let keys = members[0].user.keys(report.engine);
    let late = reportable(&link, message(&link, report.engine, 1, 1, &inform()));
    let received = engine.receive(&members, &late, THEM, now);
    assert_eq!((refusal(&received), received.traps.len()), (Some(Refusal::Late), 0));
    let told = received.answer.expect("a report");
    let told = Message::parse(&told).unwrap();
    assert_eq!(told.level, Level::Signed);
    assert!(told.is_signed(&members[0].user, &keys));
    // And now all of it right.
    let good = reportable(&link, message(&link, report.engine, report.boots, report.time, &inform()));
    let received = engine.receive(&members, &good, THEM, now);
    assert_eq!(received.traps.len(), 1, "{received:?}");
    let answer = received.answer.expect("a response");
    let answer = Message::parse(&answer).unwrap();
    assert_eq!((answer.id, answer.level), (4711, Level::Sealed));
    assert!(answer.is_signed(&members[0].user, &keys));
    let inside = answer.open(&members[0].user, &keys).unwrap();
    assert!(inside.ends_with(&[&[RESPONSE], &TRAP[1..]].concat()), "the inform, named a response: {inside:02x?}");
    // An inform for an engine this is not, such as before a change of this machine's name.
    let stale = reportable(&link, message(&link, SENDER, 5, 5, &inform()));
    let received = engine.receive(&members, &stale, THEM, now);
    assert_eq!((refusal(&received), received.traps.len()), (Some(Refusal::Engine), 0));
    assert!(received.answer.is_some());
}

#[test]
fn two_devices_of_one_agent_both_hear_it() {
    let (engine, now) = engine();
    let link = signed();
    let members = [member(&link), member(&link)].concat();
    let received = engine.receive(&members, &message(&link, SENDER, 3, 100, TRAP), THEM, now);
    assert_eq!(received.traps.len(), 2);
}

proptest! {
    #[test]
    fn no_packet_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (engine, now) = engine();
        let members = vec![Arc::new(Member { user: User::nobody(b"u"), from: vec![THEM], clocks: Mutex::default() })];
        let _ = engine.receive(&members, &bytes, THEM, now);
    }

    #[test]
    fn no_damage_is_too_strange(at in 0usize..200, to in any::<u8>(), end in 0usize..200) {
        // Not signed, so that the damage gets through to the last reader.
        let (engine, now) = engine();
        let link = link("{}");
        let mut bytes = message(&link, SENDER, 3, 100, TRAP);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        bytes.truncate(end);
        let _ = engine.receive(&member(&link), &bytes, THEM, now);
    }
}

#[test]
fn no_flipped_bit_gets_past_the_digest() {
    let (engine, now) = engine();
    let link = protected("SHA", "AES");
    let (members, good) = (member(&link), message(&link, SENDER, 3, 100, TRAP));
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let received = engine.receive(&members, &bytes, THEM, now);
        assert!(received.traps.is_empty(), "bit {bit}");
    }
}
