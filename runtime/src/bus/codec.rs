//! MQTT packets: rumqttd's codec behind a front that frames, bounds and checks what reaches it.
//!
//! rumqttd 0.20 alone would panic on packet types only a server sends, takes the wrong length for a DISCONNECT of MQTT 5 and
//! keeps QoS and packet identifier of a PUBLISH to itself; those parts are read and written here. Sections are those of the
//! MQTT 5.0 standard where not said otherwise.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{
    Connect, ConnectProperties, LastWill, LastWillProperties, Packet, Protocol, Publish, PublishProperties, QoS,
    Subscribe, Unsubscribe,
};

use super::session::qos;

/// The protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.0.
    V5,
}

/// Why a packet cannot be accepted; the connection ends with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It is longer than allowed.
    #[error("packet of {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its length, in bytes, without the fixed header.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// It is no MQTT packet, or not one a client may send now.
    #[error("malformed packet: {0}")]
    Malformed(String),
    /// The CONNECT is for a protocol we do not speak; the number is its level.
    #[error("protocol level {0} is not supported; 4 (MQTT 3.1.1) and 5 (MQTT 5.0) are")]
    Protocol(u8),
}

fn malformed(why: impl ToString) -> CodecError {
    CodecError::Malformed(why.to_string())
}

/// A whole packet: its first byte, where its body starts, and all of its bytes.
#[derive(Debug)]
pub struct Frame {
    first: u8,
    header: usize,
    bytes: BytesMut,
}

/// Takes the next whole packet out of what has been received; `None` until it is there. A length over `limit` is refused as
/// soon as it is announced, before anything is kept for it.
///
/// # Errors
/// [`CodecError::TooLarge`], or [`CodecError::Malformed`] for a length of more than four bytes (section 1.5.5).
pub fn frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<Frame>, CodecError> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let mut length = 0usize;
    for (at, byte) in buffer.iter().enumerate().skip(1) {
        if at > 4 {
            return Err(malformed("remaining length of more than four bytes"));
        }
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            if length > limit {
                return Err(CodecError::TooLarge { length, limit });
            }
            let header = at + 1;
            if buffer.len() < header + length {
                return Ok(None);
            }
            return Ok(Some(Frame { first, header, bytes: buffer.split_to(header + length) }));
        }
    }
    if buffer.len() > 4 { Err(malformed("remaining length of more than four bytes")) } else { Ok(None) }
}

/// A CONNECT, taken apart.
#[derive(Debug)]
pub struct Hello {
    /// The protocol spoken from here on.
    pub version: Version,
    /// Client identifier, keep-alive, clean start.
    pub connect: Connect,
    /// MQTT 5 only.
    pub properties: Option<ConnectProperties>,
    /// What to publish when the client is lost.
    pub will: Option<(LastWill, Option<LastWillProperties>)>,
}

/// Reads the first packet of a connection (section 3.1).
///
/// # Errors
/// [`CodecError::Protocol`] for other versions, else [`CodecError::Malformed`].
pub fn hello(frame: Frame) -> Result<Hello, CodecError> {
    if frame.first != 0x10 {
        return Err(malformed("the first packet is not a CONNECT"));
    }
    let body = frame.body();
    let name_length = usize::from(u16_at(body, 0)?);
    let name = body.get(2..2 + name_length).ok_or_else(|| malformed("protocol name cut short"))?;
    let level = *body.get(2 + name_length).ok_or_else(|| malformed("protocol level is missing"))?;
    let version = match (name, level) {
        (b"MQTT", 4) => Version::V4,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | b"MQIsdp", level) => return Err(CodecError::Protocol(level)),
        _ => return Err(malformed("the protocol is not MQTT")),
    };
    if body.get(3 + name_length).is_none_or(|flags| flags & 1 != 0) {
        return Err(malformed("reserved connect flag is set"));
    }
    match decode(version, frame)? {
        Packet::Connect(connect, properties, will, will_properties, _login) => {
            Ok(Hello { version, connect, properties, will: will.map(|w| (w, will_properties)) })
        }
        _ => Err(malformed("not a CONNECT")),
    }
}

/// A packet a connected client may send.
#[derive(Debug)]
pub enum Incoming {
    /// PUBLISH.
    Publish {
        /// Quality of service.
        qos: QoS,
        /// Whether to keep it.
        retain: bool,
        /// Packet identifier; 0 with QoS 0.
        pkid: u16,
        /// Topic, not yet checked.
        topic: String,
        /// Payload.
        payload: Bytes,
        /// MQTT 5 only.
        properties: Option<PublishProperties>,
    },
    /// PUBACK or PUBCOMP of this identifier.
    Acknowledged(u16),
    /// PUBREC; false when the client says it failed.
    Received(u16, bool),
    /// PUBREL.
    Release(u16),
    /// SUBSCRIBE and its subscription identifier.
    Subscribe(Subscribe, Option<usize>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe),
    /// PINGREQ.
    Ping,
    /// DISCONNECT.
    Disconnect {
        /// The will is to be published all the same (reason code 4).
        with_will: bool,
        /// How long the session is to be kept instead, in seconds.
        expiry: Option<u32>,
    },
}

/// Reads a packet after the CONNECT.
///
/// # Errors
/// [`CodecError::Malformed`].
pub fn incoming(version: Version, frame: Frame) -> Result<Incoming, CodecError> {
    let (kind, flags) = (frame.first >> 4, frame.first & 0x0f);
    // Section 2.1.3: the flags of these packets are fixed.
    let expected = match kind {
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags != expected {
        return Err(malformed(format!("flags {flags:#x} on packet type {kind}")));
    }
    // A reason code of 0x80 or more says that it failed; only MQTT 5 has one.
    let failed = frame.body().get(2).is_some_and(|reason| *reason >= 0x80);
    match kind {
        3 => publish_in(version, frame),
        4 | 7 => Ok(Incoming::Acknowledged(frame.pkid()?)),
        5 => Ok(Incoming::Received(frame.pkid()?, !failed)),
        6 => Ok(Incoming::Release(frame.pkid()?)),
        8 | 10 => {
            frame.pkid()?;
            match decode(version, frame)? {
                Packet::Subscribe(_, Some(p)) if p.id == Some(0) => Err(malformed("subscription identifier 0")),
                Packet::Subscribe(subscribe, properties) => {
                    Ok(Incoming::Subscribe(subscribe, properties.and_then(|p| p.id)))
                }
                Packet::Unsubscribe(unsubscribe, _) if unsubscribe.filters.is_empty() => {
                    Err(malformed("UNSUBSCRIBE without a filter"))
                }
                Packet::Unsubscribe(unsubscribe, _) => Ok(Incoming::Unsubscribe(unsubscribe)),
                _ => Err(malformed("not a SUBSCRIBE")),
            }
        }
        12 => Ok(Incoming::Ping),
        14 => {
            let with_will = frame.body().first() == Some(&4);
            // Without properties rumqttd's codec takes the packet for cut short.
            let expiry = if version == Version::V5 && frame.body().len() > 1 {
                match decode(version, frame)? {
                    Packet::Disconnect(_, properties) => properties.and_then(|p| p.session_expiry_interval),
                    _ => return Err(malformed("not a DISCONNECT")),
                }
            } else {
                None
            };
            Ok(Incoming::Disconnect { with_will, expiry })
        }
        _ => Err(malformed(format!("packet type {kind} from a client"))),
    }
}

fn publish_in(version: Version, frame: Frame) -> Result<Incoming, CodecError> {
    let level = (frame.first >> 1) & 3;
    let (retain, dup) = (frame.first & 1 != 0, frame.first & 8 != 0);
    if level == 3 || (level == 0 && dup) {
        return Err(malformed("QoS and DUP do not go together"));
    }
    let topic_length = usize::from(u16_at(frame.body(), 0)?);
    let pkid = if level == 0 { 0 } else { u16_at(frame.body(), 2 + topic_length)? };
    let Packet::Publish(publish, properties) = decode(version, frame)? else {
        return Err(malformed("not a PUBLISH"));
    };
    let topic = std::str::from_utf8(&publish.topic).map_err(|_| malformed("topic is not UTF-8"))?.to_owned();
    Ok(Incoming::Publish { qos: qos(level), retain, pkid, topic, payload: publish.payload, properties })
}

impl Frame {
    fn body(&self) -> &[u8] {
        self.bytes.get(self.header..).unwrap_or_default()
    }

    fn pkid(&self) -> Result<u16, CodecError> {
        match u16_at(self.body(), 0)? {
            0 => Err(malformed("packet identifier 0")),
            pkid => Ok(pkid),
        }
    }
}

fn u16_at(body: &[u8], at: usize) -> Result<u16, CodecError> {
    match body.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(malformed("cut short")),
    }
}

fn decode(version: Version, frame: Frame) -> Result<Packet, CodecError> {
    let mut bytes = frame.bytes;
    let limit = bytes.len();
    match version {
        Version::V4 => V4.read_mut(&mut bytes, limit),
        Version::V5 => V5.read_mut(&mut bytes, limit),
    }
    .map_err(malformed)
}

/// Writes any packet but PUBLISH and DISCONNECT. One that does not fit its version is left out: it would be a bug of ours,
/// and the client's time-out is the better end of it.
pub fn write(version: Version, packet: Packet, out: &mut BytesMut) {
    let result = match version {
        Version::V4 => V4.write(packet, out),
        Version::V5 => V5.write(packet, out),
    };
    if let Err(error) = result {
        tracing::error!(%error, "packet not written");
    }
}

/// A PUBLISH to write.
#[derive(Debug)]
pub struct PublishOut<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// Whether it may be a repeat.
    pub dup: bool,
    /// The retain flag.
    pub retain: bool,
    /// Packet identifier; 0 with QoS 0.
    pub pkid: u16,
    /// MQTT 5 only.
    pub properties: Option<PublishProperties>,
}

/// Writes a PUBLISH (section 3.3).
pub fn write_publish(version: Version, publish: &PublishOut<'_>, out: &mut BytesMut) {
    let first = 0x30 | u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain);
    // Topics on the bus are at most 65,535 bytes: filter::valid_topic.
    let topic_length = u16::try_from(publish.topic.len()).unwrap_or(u16::MAX);
    let head = 2 + publish.topic.len() + if publish.qos == QoS::AtMostOnce { 0 } else { 2 };
    match version {
        Version::V4 => {
            out.reserve(5 + head + publish.payload.len());
            out.put_u8(first);
            write_length(head + publish.payload.len(), out);
            out.put_u16(topic_length);
            out.put_slice(publish.topic.as_bytes());
            if publish.qos != QoS::AtMostOnce {
                out.put_u16(publish.pkid);
            }
            out.put_slice(publish.payload);
        }
        Version::V5 => {
            // The only public way to a Publish with QoS and identifier is rumqttd's own serialised form.
            let mut own = BytesMut::with_capacity(5 + publish.topic.len() + publish.payload.len());
            own.put_u8(first);
            own.put_u16(publish.pkid);
            own.put_u16(topic_length);
            own.put_slice(publish.topic.as_bytes());
            own.put_slice(publish.payload);
            let packet = Publish::deserialize(own.freeze());
            write(version, Packet::Publish(packet, publish.properties.clone()), out);
        }
    }
}

fn write_length(mut length: usize, out: &mut BytesMut) {
    loop {
        let byte = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        if length == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}

/// Writes a DISCONNECT with a reason code (section 3.14), which only MQTT 5 has from a server.
pub fn write_disconnect(version: Version, reason: u8, out: &mut BytesMut) {
    if version == Version::V5 {
        out.put_slice(&[0xe0, 2, reason, 0]);
    }
}

/// Writes the CONNACK of MQTT 3.1.1 that refuses a connection (3.1.1, section 3.2.2.3).
pub fn write_refusal_v4(code: u8, out: &mut BytesMut) {
    out.put_slice(&[0x20, 2, 0, code]);
}

/// Writes the CONNACK of MQTT 5 that refuses a connection (section 3.2.2.2).
pub fn write_refusal_v5(reason: u8, out: &mut BytesMut) {
    out.put_slice(&[0x20, 3, 0, reason, 0]);
}

/// The properties of a message as one subscriber gets them: what is left of its time, and the subscriptions it matched.
pub fn properties_out(
    published: Option<&PublishProperties>,
    remaining: Option<u32>,
    identifiers: Vec<usize>,
) -> Option<PublishProperties> {
    if published.is_none() && identifiers.is_empty() {
        return None;
    }
    let mut properties = published.cloned().unwrap_or_default();
    properties.topic_alias = None;
    properties.message_expiry_interval = remaining;
    properties.subscription_identifiers = identifiers;
    Some(properties)
}

/// Drops what was read but is not needed: the bytes of a frame keep their whole read buffer alive otherwise.
pub fn compact(payload: Bytes) -> Bytes {
    /// Up to here a copy is cheaper than what a slice may hold.
    const COPY_MAX: usize = 32 << 10;
    if payload.remaining() <= COPY_MAX { Bytes::copy_from_slice(&payload) } else { payload }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes, the answer is a packet or an error, never a panic; framing never keeps more than it was given.
        #[test]
        fn any_bytes(first in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..60), v5 in any::<bool>()) {
            let version = if v5 { Version::V5 } else { Version::V4 };
            let mut bytes = BytesMut::from(&[first][..]);
            write_length(body.len(), &mut bytes);
            bytes.put_slice(&body);
            let framed = frame(&mut bytes, 1000);
            if let Ok(Some(f)) = framed {
                prop_assert!(bytes.is_empty());
                let _ = incoming(version, f);
            }
            let mut connect = BytesMut::from(&[0x10][..]);
            let mut inner = b"\0\x04MQTT".to_vec();
            inner.push(if v5 { 5 } else { 4 });
            inner.extend(&body);
            write_length(inner.len(), &mut connect);
            connect.put_slice(&inner);
            if let Ok(Some(f)) = frame(&mut connect, 1000) {
                let _ = hello(f);
            }
            let _ = frame(&mut BytesMut::from(&body[..]), 1000);
        }
    }

    #[test]
    fn huge_lengths_are_refused_when_announced() {
        let length = |bytes: &[u8]| frame(&mut BytesMut::from(bytes), 1000).map(|f| f.is_some());
        assert_eq!(
            length(&[0x30, 0xff, 0xff, 0xff, 0x7f]),
            Err(CodecError::TooLarge { length: 268_435_455, limit: 1000 })
        );
        assert!(matches!(length(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(CodecError::Malformed(_))));
        assert!(matches!(length(&[0x30, 0xff, 0xff, 0xff, 0xff]), Err(CodecError::Malformed(_))));
        assert_eq!(length(&[0x30, 0xff, 0xff]), Ok(false));
        assert_eq!(length(&[0xc0, 0]), Ok(true));
    }

    #[test]
    fn a_publish_written_is_read_back() {
        for (version, q) in [(Version::V4, 0), (Version::V4, 1), (Version::V5, 0), (Version::V5, 2)] {
            let mut out = BytesMut::new();
            let pkid = if q == 0 { 0 } else { 77 };
            let payload = [b'x'; 300];
            let properties = (version == Version::V5).then(|| PublishProperties {
                content_type: Some("text".into()),
                subscription_identifiers: vec![300],
                ..PublishProperties::default()
            });
            let publish = PublishOut {
                topic: "é/b",
                payload: &payload,
                qos: qos(q),
                dup: false,
                retain: true,
                pkid,
                properties: properties.clone(),
            };
            write_publish(version, &publish, &mut out);
            let read = incoming(version, frame(&mut out, 1000).unwrap().unwrap()).unwrap();
            let Incoming::Publish { qos: q2, retain, pkid: p2, topic, payload: pay2, properties: props2 } = read else {
                panic!("{read:?}");
            };
            assert_eq!((q2 as u8, retain, p2, topic.as_str()), (q, true, pkid, "é/b"));
            assert_eq!(pay2, payload[..]);
            assert_eq!(props2, properties);
            assert!(out.is_empty());
        }
    }
}
