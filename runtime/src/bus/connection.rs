//! One client's connection, from its CONNECT to its end.
//!
//! ```text
//!  accepted ─ CONNECT in time? ─ terms ─► session attached ─► loop: read · write · deliver · uploads ─► detached, will?
//!      └────────── no, or refused ──► answered, closed
//! ```
//!
//! Back-pressure: while what is to be written piles up, or too many uploads wait for the disk, nothing more is read. A client
//! that takes nothing for the write time-out is closed; meanwhile its outbox fills and then drops, for it alone.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use edge_model::envelope::SUBJECT_MAX;
use edge_model::topic::Topic;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use rumqttd::protocol::Unsubscribe;
use rumqttd::protocol::{
    Packet, PublishProperties, QoS, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::codec::{self, CodecError, Incoming, PublishOut, Version};
use super::connect::{self, Refusal, Terms};
use super::session::{Outgoing, RECEIVE_MAXIMUM};
use super::sessions::{Attached, Subscribed};
use super::{Bus, Publication, Settings, count, filter};
use crate::queue::{Message, Queue, QueueError, Stream};

/// Bytes to be written before nothing more is read or taken out of the outbox: a few packets, one or two segments.
const OUT_HIGH: usize = 16 << 10;
/// Uploads of one client on their way to the disk at the same time: they share commits.
const UPLOADS: usize = 64;
/// How long uploads may still take when their client has gone.
const UPLOADS_DRAIN: Duration = Duration::from_secs(2);
/// How long a connection that is over may still send before it is closed.
const LINGER: Duration = Duration::from_millis(500);
/// Room made for each read.
const READ: usize = 4 << 10;

/// What a connection needs from its listener.
pub struct Context {
    /// The bus.
    pub bus: Bus,
    /// Limits.
    pub settings: Settings,
    /// Where uploads go; without one they are ordinary messages.
    pub queue: Option<Queue>,
    /// A new client identifier for clients that bring none.
    pub fresh: Box<dyn Fn() -> String + Send + Sync>,
}

/// How a connection ended.
enum End {
    /// DISCONNECT: the will is forgotten.
    Clean,
    /// Anything else: the will is published. The reason code is for a last DISCONNECT, the text for the log.
    Lost(u8, String),
}

impl From<CodecError> for End {
    fn from(error: CodecError) -> End {
        let reason = if matches!(error, CodecError::TooLarge { .. }) { 0x95 } else { 0x81 };
        End::Lost(reason, error.to_string())
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Lost(0x80, error.to_string())
    }
}

/// Serves one client until it goes or is made to.
pub async fn serve(mut stream: TcpStream, context: Arc<Context>, stop: CancellationToken) {
    let peer = stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |a| a.to_string());
    let mut input = BytesMut::new();
    let first = timeout(context.settings.connect_timeout, welcome(&mut stream, &mut input, &context));
    let terms = tokio::select! {
        () = stop.cancelled() => return,
        first = first => match first {
            Ok(Ok(terms)) => terms,
            Ok(Err(refusal)) => {
                count(&context.bus.counters().refused, 1);
                tracing::info!(peer, why = refusal.why, "mqtt connection refused");
                let _ = timeout(Duration::from_secs(1), stream.write_all(&refusal.answer)).await;
                linger(&mut stream, &stop).await;
                return;
            }
            Err(_) => {
                count(&context.bus.counters().refused, 1);
                tracing::info!(peer, "mqtt connection refused: no CONNECT in time");
                return;
            }
        }
    };
    let attached = context.bus.attach(&terms.client, terms.clean, terms.expiry);
    let mut output = BytesMut::new();
    connect::write_accepted(&terms, attached.present, &context.settings, &mut output);
    tracing::debug!(peer, client = terms.client, "mqtt client connected");
    let (reader, writer) = stream.split();
    let mut connection = Connection {
        heard: Instant::now(),
        progress: Instant::now(),
        uploads: FuturesOrdered::new(),
        context: &context,
        terms,
        attached,
        input,
        output,
    };
    let end = connection.run(reader, writer, &stop).await;
    // What the client has handed over before it went is not lost with the connection.
    let _ = timeout(UPLOADS_DRAIN, connection.finish_uploads()).await;
    let Connection { mut terms, attached, mut output, .. } = connection;
    if let End::Lost(reason, why) = &end {
        tracing::info!(peer, client = terms.client, why, "mqtt client lost");
        codec::write_disconnect(terms.version, *reason, &mut output);
    }
    // The last words must not keep the unit from stopping; they are a courtesy.
    let _ = timeout(Duration::from_millis(200), stream.write_all_buf(&mut output)).await;
    drop(attached);
    if let (End::Lost(..), Some(will)) = (end, terms.will.take()) {
        context.bus.route(will.into_publication());
    }
    linger(&mut stream, &stop).await;
}

/// Lets the client read the last words: closing while it still sends would make the kernel throw them away (RFC 9293, section
/// 3.6: a reset).
async fn linger(stream: &mut TcpStream, stop: &CancellationToken) {
    let drain = async {
        let _ = stream.shutdown().await;
        let mut rest = [0; 512];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = timeout(LINGER, drain) => {}
    }
}

async fn welcome(stream: &mut TcpStream, input: &mut BytesMut, context: &Context) -> Result<Terms, Refusal> {
    loop {
        if let Some(frame) = codec::frame(input, context.settings.max_packet_bytes)? {
            return connect::terms(codec::hello(frame)?, &context.settings, &context.fresh);
        }
        input.reserve(READ);
        let closed = || Refusal { why: "closed before its CONNECT".to_owned(), answer: BytesMut::new() };
        if stream.read_buf(input).await.map_err(|_| closed())? == 0 {
            return Err(closed());
        }
    }
}

/// An upload that is on its way to the disk: what to acknowledge when it is there.
struct Upload {
    pkid: u16,
    publication: Publication,
    result: Result<u64, QueueError>,
}

struct Connection<'a> {
    context: &'a Context,
    terms: Terms,
    attached: Attached,
    input: BytesMut,
    output: BytesMut,
    /// In the order they came: acknowledged in that order, too.
    uploads: FuturesOrdered<BoxFuture<'static, Upload>>,
    /// When the client was last heard.
    heard: Instant,
    /// When the client last took a byte.
    progress: Instant,
}

impl Connection<'_> {
    async fn run(&mut self, mut reader: ReadHalf<'_>, mut writer: WriteHalf<'_>, stop: &CancellationToken) -> End {
        let far = Duration::from_secs(365 * 24 * 60 * 60);
        loop {
            if let Err(end) = self.work() {
                return end;
            }
            let pending = !self.output.is_empty();
            let may_read = self.may_read();
            let may_deliver = self.output.len() < OUT_HIGH;
            let silent = self.heard + self.terms.silence.unwrap_or(far);
            let stuck = self.progress + if pending { self.context.settings.write_timeout } else { far };
            if may_read {
                self.input.reserve(READ);
            }
            // Every branch is cancel safe; the work is done in the arms and in `work`.
            tokio::select! {
                () = stop.cancelled() => return End::Lost(0x8b, "the runtime stops".to_owned()),
                () = self.attached.kicked.cancelled() => return End::Lost(0x8e, "taken over".to_owned()),
                read = reader.read_buf(&mut self.input), if may_read => match read {
                    Ok(0) => return End::Lost(0x80, "closed by the client".to_owned()),
                    Ok(_) => self.heard = Instant::now(),
                    Err(error) => return error.into(),
                },
                written = writer.write_buf(&mut self.output), if pending => match written {
                    Ok(_) => self.progress = Instant::now(),
                    Err(error) => return error.into(),
                },
                () = self.attached.session.wake.notified(), if may_deliver => {}
                Some(upload) = self.uploads.next(), if !self.uploads.is_empty() => {
                    if let Err(end) = self.uploaded(upload) {
                        return end;
                    }
                }
                // While nothing is read, silence is not the client's fault.
                () = tokio::time::sleep_until(silent.into()), if may_read => {
                    return End::Lost(0x8d, "silent for longer than its keep-alive".to_owned());
                }
                () = tokio::time::sleep_until(stuck.into()), if pending => {
                    return End::Lost(0x97, "does not read".to_owned());
                }
            }
        }
    }

    fn may_read(&self) -> bool {
        self.output.len() < OUT_HIGH && self.uploads.len() < UPLOADS
    }

    /// Handles every whole packet received and writes what the client is owed, as far as there is room.
    fn work(&mut self) -> Result<(), End> {
        while self.may_read() {
            let Some(frame) = codec::frame(&mut self.input, self.context.settings.max_packet_bytes)? else { break };
            let packet = codec::incoming(self.terms.version, frame)?;
            self.handle(packet)?;
        }
        let was_empty = self.output.is_empty();
        while self.output.len() < OUT_HIGH {
            let next = self.attached.session.lock().next(self.attached.epoch(), self.terms.window);
            let Some(next) = next else { break };
            self.deliver(next);
        }
        if was_empty {
            self.progress = Instant::now();
        }
        Ok(())
    }

    fn handle(&mut self, packet: Incoming) -> Result<(), End> {
        match packet {
            Incoming::Publish { qos, retain, pkid, topic, payload, properties } => {
                self.published(qos, retain, pkid, topic, payload, properties)?;
            }
            Incoming::Acknowledged(pkid) => {
                self.attached.session.lock().acknowledged(pkid);
            }
            Incoming::Received(pkid, true) => {
                let known = self.attached.session.lock().received_by_client(pkid);
                self.ack(0x62, pkid, if known { 0 } else { 0x92 });
            }
            Incoming::Received(pkid, false) => self.attached.session.lock().acknowledged(pkid),
            Incoming::Release(pkid) => {
                let known = self.attached.session.lock().received.remove(&pkid);
                self.ack(0x70, pkid, if known { 0 } else { 0x92 });
            }
            Incoming::Subscribe(subscribe, identifier) => self.subscribe(&subscribe, identifier),
            Incoming::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe),
            Incoming::Ping => self.output.extend_from_slice(&[0xd0, 0]),
            Incoming::Disconnect { with_will, expiry } => {
                // A session that was to end with the connection cannot be kept afterwards (section 3.14.2.2.2).
                if let Some(seconds) = expiry.filter(|_| !self.attached.expiry.is_zero()) {
                    let wanted = Duration::from_secs(seconds.into());
                    self.attached.expiry = wanted.min(self.context.settings.session_expiry);
                }
                return Err(if with_will { End::Lost(0, "asked for its will".to_owned()) } else { End::Clean });
            }
        }
        Ok(())
    }

    fn published(
        &mut self,
        qos: QoS,
        retain: bool,
        pkid: u16,
        topic: String,
        payload: bytes::Bytes,
        properties: Option<PublishProperties>,
    ) -> Result<(), End> {
        if !filter::valid_topic(&topic) {
            return Err(End::Lost(0x90, format!("published to {topic:?}")));
        }
        if properties.as_ref().is_some_and(|p| p.topic_alias.is_some() || !p.subscription_identifiers.is_empty()) {
            return Err(End::Lost(0x94, "topic alias or subscription identifier in a PUBLISH".to_owned()));
        }
        if qos == QoS::ExactlyOnce {
            let outbox = self.attached.session.lock();
            if outbox.received.contains(&pkid) {
                drop(outbox);
                self.ack(0x50, pkid, 0);
                return Ok(());
            }
            if outbox.received.len() >= RECEIVE_MAXIMUM {
                return Err(End::Lost(0x93, "more QoS 2 messages than the receive maximum".to_owned()));
            }
        }
        let expiry = properties.as_ref().and_then(|p| p.message_expiry_interval);
        let publication = Publication {
            topic,
            payload: codec::compact(payload),
            qos,
            retain,
            properties: properties.map(Box::new),
            expires: expiry.map(|s| Instant::now() + Duration::from_secs(s.into())),
            from: Some(self.attached.session.id),
        };
        let upload = match publication.topic.parse() {
            Ok(Topic::Upload(rest)) => Some(format!("upload/{rest}")),
            Ok(Topic::UploadRecords) => Some("upload_records".to_owned()),
            _ => None,
        };
        // What is acknowledged has to fit through the link to the cloud (config::checked).
        if let Some(subject) = upload.as_ref().filter(|s| s.len() > SUBJECT_MAX) {
            count(&self.context.bus.counters().uploads_refused, 1);
            let bytes = subject.len();
            return Err(End::Lost(0x90, format!("an upload's topic of {bytes} bytes, at most {SUBJECT_MAX}")));
        }
        match (upload, &self.context.queue) {
            // Its identifier is remembered only with the commit: a client that comes back before has it repeated, not lost.
            (Some(subject), Some(queue)) => {
                let (queue, time_ms) = (queue.clone(), crate::clock::now_ms());
                let message = Message { time_ms, subject, payload: publication.payload.to_vec() };
                self.uploads.push_back(Box::pin(async move {
                    Upload { pkid, result: queue.push(Stream::Data, message).await, publication }
                }));
            }
            _ => {
                if qos == QoS::ExactlyOnce {
                    self.attached.session.lock().received.insert(pkid);
                }
                // `$SYS` is the broker's own (section 4.7.2): what clients say there is nobody's business.
                let receivers =
                    if publication.topic.starts_with("$SYS/") { 0 } else { self.context.bus.route(publication) };
                self.acknowledge(qos, pkid, if receivers == 0 { 0x10 } else { 0 });
            }
        }
        Ok(())
    }

    /// An upload is on disk, or it is not: what must not be lost is acknowledged only now.
    fn uploaded(&mut self, upload: Upload) -> Result<(), End> {
        let counters = self.context.bus.counters();
        let Upload { pkid, publication, result } = upload;
        let qos = publication.qos;
        match result {
            Ok(_) => {
                count(&counters.uploads, 1);
                if qos == QoS::ExactlyOnce {
                    self.attached.session.lock().received.insert(pkid);
                }
                // The bus gets a copy.
                self.context.bus.route(publication);
                self.acknowledge(qos, pkid, 0);
            }
            Err(error) => {
                count(&counters.uploads_refused, 1);
                tracing::warn!(client = self.terms.client, %error, "upload refused");
                match (qos, self.terms.version) {
                    (QoS::AtMostOnce, _) => {}
                    // 3.1.1 has no way to say no: without its acknowledgement the client will send it again.
                    (_, Version::V4) => return Err(End::Lost(0x97, "the queue is full".to_owned())),
                    (_, Version::V5) => self.acknowledge(qos, pkid, 0x97),
                }
            }
        }
        Ok(())
    }

    async fn finish_uploads(&mut self) {
        while let Some(upload) = self.uploads.next().await {
            // The end of the connection is decided already.
            let _ = self.uploaded(upload);
        }
    }

    fn acknowledge(&mut self, qos: QoS, pkid: u16, reason: u8) {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.ack(0x40, pkid, reason),
            QoS::ExactlyOnce => self.ack(0x50, pkid, reason),
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP: the reason code only where there is one to give (sections 3.4 to 3.7).
    fn ack(&mut self, first: u8, pkid: u16, reason: u8) {
        let [high, low] = pkid.to_be_bytes();
        if reason == 0 || self.terms.version == Version::V4 {
            self.output.extend_from_slice(&[first, 2, high, low]);
        } else {
            self.output.extend_from_slice(&[first, 3, high, low, reason]);
        }
    }

    fn subscribe(&mut self, subscribe: &Subscribe, identifier: Option<usize>) {
        let mut return_codes = Vec::with_capacity(subscribe.filters.len());
        for wanted in &subscribe.filters {
            let session = &self.attached.session;
            let done = self.context.bus.subscribe_client(session, wanted, identifier, &self.context.settings);
            return_codes.push(match (done, self.terms.version) {
                (Subscribed::Yes, _) => SubscribeReasonCode::Success(wanted.qos),
                (_, Version::V4) => SubscribeReasonCode::Failure,
                (Subscribed::Invalid, _) => SubscribeReasonCode::TopicFilterInvalid,
                (Subscribed::Shared, _) => SubscribeReasonCode::SharedSubscriptionsNotSupported,
                (Subscribed::TooMany, _) => SubscribeReasonCode::QuotaExceeded,
            });
        }
        let ack = SubAck { pkid: subscribe.pkid, return_codes };
        codec::write(self.terms.version, Packet::SubAck(ack, None), &mut self.output);
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let mut one = |filter: &String| match self.context.bus.unsubscribe_client(&self.attached.session, filter) {
            true => UnsubAckReason::Success,
            false => UnsubAckReason::NoSubscriptionExisted,
        };
        let ack = UnsubAck { pkid: unsubscribe.pkid, reasons: unsubscribe.filters.iter().map(&mut one).collect() };
        codec::write(self.terms.version, Packet::UnsubAck(ack, None), &mut self.output);
    }

    fn deliver(&mut self, outgoing: Outgoing) {
        let (publication, qos, dup, retain, pkid, identifiers) = match outgoing {
            Outgoing::Release(pkid) => return self.ack(0x62, pkid, 0),
            Outgoing::Publish { publication, qos, dup, retain, pkid, identifiers } => {
                (publication, qos, dup, retain, pkid, identifiers)
            }
        };
        let counters = self.context.bus.counters();
        let properties = match self.terms.version {
            Version::V4 => None,
            Version::V5 => {
                let left = publication.expires.map(|at| at.saturating_duration_since(Instant::now()).as_secs());
                let left = left.and_then(|s| u32::try_from(s).ok());
                codec::properties_out(publication.properties.as_deref(), left, identifiers)
            }
        };
        let (topic, payload) = (publication.topic.as_str(), &publication.payload[..]);
        let before = self.output.len();
        let publish = PublishOut { topic, payload, qos, dup, retain, pkid, properties };
        codec::write_publish(self.terms.version, &publish, &mut self.output);
        // Section 3.1.2.11.4: what is too large for the client is left out, as if it had been delivered.
        if self.terms.packet_max.is_some_and(|max| self.output.len() - before > max) {
            self.output.truncate(before);
            self.attached.session.lock().acknowledged(pkid);
            count(&counters.dropped_client, 1);
        } else {
            count(&counters.messages_out, 1);
        }
    }
}
