//! What is decided about a CONNECT, as values: refused with which answer, or accepted on which terms.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, LastWill, LastWillProperties, Packet, PublishProperties, QoS,
};

use super::codec::{self, CodecError, Hello, Version};
use super::session::RECEIVE_MAXIMUM;
use super::{Publication, Settings, filter};

/// The longest client identifier, in bytes: 3.1.1 asks for 23, and nobody needs more than this.
const CLIENT_ID_MAX: usize = 256;

/// The terms of a connection.
#[derive(Debug)]
pub struct Terms {
    /// The protocol.
    pub version: Version,
    /// The client's identifier, given or chosen here.
    pub client: String,
    /// Whether it was chosen here.
    pub assigned: bool,
    /// Forget what was there.
    pub clean: bool,
    /// How long the session stays afterwards.
    pub expiry: Duration,
    /// Silence after which the client is lost: one and a half times the keep-alive (section 3.1.2.10); `None` for never.
    pub silence: Option<Duration>,
    /// The keep-alive chosen here instead of the client's, in seconds.
    pub server_keep_alive: Option<u16>,
    /// Unacknowledged messages the client may be sent.
    pub window: u16,
    /// The largest packet the client takes, in bytes.
    pub packet_max: Option<usize>,
    /// What to publish when the client is lost.
    pub will: Option<Will>,
}

/// A will, ready to be published.
#[derive(Debug)]
pub struct Will {
    topic: String,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    properties: Option<LastWillProperties>,
}

impl Will {
    /// The message.
    pub fn into_publication(self) -> Publication {
        let properties = self.properties.map(|p| {
            Box::new(PublishProperties {
                payload_format_indicator: p.payload_format_indicator,
                content_type: p.content_type,
                response_topic: p.response_topic,
                correlation_data: p.correlation_data,
                user_properties: p.user_properties,
                ..PublishProperties::default()
            })
        });
        Publication { qos: self.qos, properties, ..Publication::new(self.topic, self.payload, self.retain) }
    }
}

/// A refusal: why, for the log, and the answer to the client.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub why: String,
    /// The CONNACK; empty when there is nobody to understand one.
    pub answer: BytesMut,
}

impl Refusal {
    /// Return codes: 3.1.1, section 3.2.2.3; reason codes: 5.0, section 3.2.2.2.
    fn new(version: Version, code_v4: u8, reason_v5: u8, why: impl Into<String>) -> Refusal {
        let mut answer = BytesMut::new();
        match version {
            Version::V4 => codec::write_refusal_v4(code_v4, &mut answer),
            Version::V5 => codec::write_refusal_v5(reason_v5, &mut answer),
        }
        Refusal { why: why.into(), answer }
    }
}

impl From<CodecError> for Refusal {
    fn from(error: CodecError) -> Refusal {
        let mut answer = BytesMut::new();
        if let CodecError::Protocol(_) = error {
            // "Unacceptable protocol version", in the form every version understands.
            codec::write_refusal_v4(1, &mut answer);
        }
        Refusal { why: error.to_string(), answer }
    }
}

/// Decides about a CONNECT. `fresh` names a client that brought no name.
///
/// # Errors
/// The refusal.
pub fn terms(hello: Hello, settings: &Settings, fresh: impl FnOnce() -> String) -> Result<Terms, Refusal> {
    let Hello { version, connect, properties, will } = hello;
    let properties = properties.as_ref();
    if properties.is_some_and(|p| p.authentication_method.is_some()) {
        return Err(Refusal::new(version, 5, 0x8c, "extended authentication is not supported"));
    }
    if properties.is_some_and(|p| p.receive_maximum == Some(0) || p.max_packet_size == Some(0)) {
        return Err(Refusal::new(version, 5, 0x82, "receive maximum or maximum packet size of 0"));
    }
    let assigned = connect.client_id.is_empty();
    if assigned && version == Version::V4 && !connect.clean_session {
        return Err(Refusal::new(version, 2, 0x85, "a session to keep needs a client identifier"));
    }
    if connect.client_id.len() > CLIENT_ID_MAX || connect.client_id.contains('\0') {
        return Err(Refusal::new(version, 2, 0x85, "client identifier is too long or contains NUL"));
    }
    let will = will.map(|(will, properties)| checked_will(version, will, properties)).transpose()?;
    let asked = match version {
        Version::V4 if connect.clean_session => Duration::ZERO,
        Version::V4 => settings.session_expiry,
        Version::V5 => Duration::from_secs(properties.and_then(|p| p.session_expiry_interval).unwrap_or(0).into()),
    };
    let bound = settings.max_keep_alive;
    let too_long = bound != 0 && (connect.keep_alive == 0 || connect.keep_alive > bound);
    let keep_alive = if too_long { bound } else { connect.keep_alive };
    Ok(Terms {
        version,
        client: if assigned { fresh() } else { connect.client_id },
        assigned,
        clean: connect.clean_session,
        expiry: asked.min(settings.session_expiry),
        silence: (keep_alive != 0).then(|| Duration::from_secs(keep_alive.into()) * 3 / 2),
        server_keep_alive: (too_long && version == Version::V5).then_some(bound),
        window: settings.in_flight.min(properties.and_then(|p| p.receive_maximum).unwrap_or(u16::MAX)).max(1),
        packet_max: properties.and_then(|p| p.max_packet_size).and_then(|n| usize::try_from(n).ok()),
        will,
    })
}

fn checked_will(version: Version, will: LastWill, properties: Option<LastWillProperties>) -> Result<Will, Refusal> {
    let topic = String::from_utf8(will.topic.to_vec()).ok().filter(|t| filter::valid_topic(t));
    let topic = topic.ok_or_else(|| Refusal::new(version, 5, 0x90, "the will's topic is not valid"))?;
    Ok(Will { topic, payload: codec::compact(will.message), qos: will.qos, retain: will.retain, properties })
}

/// Writes the CONNACK that accepts.
pub fn write_accepted(terms: &Terms, present: bool, settings: &Settings, out: &mut BytesMut) {
    let ack = ConnAck { session_present: present, code: ConnectReturnCode::Success };
    let properties = (terms.version == Version::V5).then(|| ConnAckProperties {
        session_expiry_interval: Some(u32::try_from(terms.expiry.as_secs()).unwrap_or(u32::MAX)),
        receive_max: u16::try_from(RECEIVE_MAXIMUM).ok(),
        max_packet_size: u32::try_from(settings.max_packet_bytes).ok(),
        assigned_client_identifier: terms.assigned.then(|| terms.client.clone()),
        topic_alias_max: Some(0),
        shared_subscription_available: Some(0),
        server_keep_alive: terms.server_keep_alive,
        ..ConnAckProperties::default()
    });
    codec::write(terms.version, Packet::ConnAck(ack, properties), out);
}
