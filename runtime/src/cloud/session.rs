//! One connection to the broker, from CONNECT to its end.
//!
//! The client library's own state never outlives a connection: each one starts from the queue's last acknowledged message,
//! so order and completeness are the queue's, and what is repeated is at most what was on its way. (rumqttc 0.25 would resend
//! what was pending in an order of its own.)
//!
//! rumqttc is polled by one future that is never dropped half-way: its `poll` loses a packet when it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_model::topic::CloudTopic;
use futures_util::future::BoxFuture;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet, Publish, QoS,
    SubscribeReasonCode,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::downlink::{Downlink, DownlinkError};
use super::settings::Settings;
use super::transport;
use super::uplink::{Feed, Next};
use super::window::Window;
use super::{Counters, Links};
use crate::queue::{Queue, QueueError, Stream};

/// Events of the client library that may wait: its own batch is ten packets.
const EVENTS: usize = 64;
/// Commands that may wait for the one being carried out. When there are more, nothing is read from the broker.
const COMMANDS: usize = 64;
/// Bytes on their way before nothing more is handed over, so that large messages fill neither the memory nor a slow link.
const IN_FLIGHT_BYTES: usize = 256 << 10;
/// The slowest link that is waited for, in bytes a second: what is on its way gets so much more time to be acknowledged.
const SLOWEST: u64 = 4096;
/// The kernel's share of what is on its way (it doubles this), so that a sign of life is not stuck behind it for long.
const SEND_BUFFER: u32 = 32 << 10;
/// How long one packet may take to be written, once connected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// When a command is tried again that could not be recorded or answered, such as on a full disk.
const RETRY: Duration = Duration::from_secs(5);
/// How long the last acknowledgements may take when the node stops.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug)]
pub struct End {
    /// Why.
    pub reason: String,
    /// The failure never left the node.
    pub local: bool,
    /// How long it was accepted; `None` when it never was.
    pub online: Option<Duration>,
    /// The broker brought a command that is too large to be read, and will do so again.
    pub poisoned: bool,
}

/// What all connections of a link share.
pub struct Shared {
    pub settings: Settings,
    pub base: String,
    pub queue: Queue,
    pub downlink: Arc<Downlink>,
    pub counters: Arc<Counters>,
    pub links: Links,
    /// Up to where each stream has ever been sent: what comes again is a repeat.
    pub sent: [u64; 3],
    /// The command being carried out, one at a time. It goes on when the connection is lost.
    pub working: JoinSet<Result<(), DownlinkError>>,
}

/// The document on the link topic.
pub fn presence(node: &str, state: &str, time_ms: i64) -> String {
    json!({ "node": node, "state": state, "time": edge_model::time::rfc3339_millis(time_ms) }).to_string()
}

/// Why the connection is given up from this side.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Connection(Box<ConnectionError>),
    #[error("queue: cannot read")]
    Queue(#[from] QueueError),
    #[error("the broker has acknowledged nothing for {0:?}")]
    NoAcknowledgement(Duration),
    #[error("client library: {0}")]
    Client(String),
    #[error("commands that could not be read have been discarded")]
    Discarded,
}

/// Runs one connection until it ends or `stop`. To discard, it ends as soon as the broker has forgotten the old session.
pub async fn run(shared: &mut Shared, mut options: MqttOptions, discard: bool, stop: &CancellationToken) -> End {
    options.set_clean_session(discard);
    // Everything in flight, an acknowledgement for every command that waits, and the session's own few packets.
    let capacity = usize::from(shared.settings.window) + COMMANDS + 16;
    let (client, mut eventloop) = AsyncClient::new(options, capacity);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_tcp_send_buffer_size(SEND_BUFFER);
    network.set_connection_timeout(shared.settings.connect_timeout.as_secs());
    eventloop.set_network_options(network);
    let (events_in, events) = mpsc::channel(EVENTS);
    let pump: BoxFuture<'_, ConnectionError> = Box::pin(pump(eventloop, events_in));
    let queue = shared.queue.clone();
    let (base, settings) = (shared.base.clone(), shared.settings.clone());
    let mut session = Session {
        feed: Feed::new(&queue, &base, &settings),
        window: Window::default(),
        through: [None; 3],
        progress: Instant::now(),
        online: None,
        commands: VecDeque::new(),
        current: None,
        retry: None,
        discard,
        shared,
        client,
    };
    let fault = session.run(pump, events, stop).await;
    let online = session.online.map(|since| since.elapsed());
    // What was acknowledged just before the end need not come again.
    let _ = session.tell_queue().await;
    let end = |reason, local, poisoned| End { reason, local, online, poisoned };
    match fault {
        None => end("the runtime stops".to_owned(), false, false),
        Some(Fault::Connection(error)) => {
            let (reason, local) = transport::explain(&error);
            end(reason, local, transport::too_large(&error))
        }
        Some(fault) => end(crate::supervisor::chain(&fault), false, false),
    }
}

/// Polls the client library until it fails. Dropped only together with everything it knows.
async fn pump(mut eventloop: EventLoop, events: mpsc::Sender<Event>) -> ConnectionError {
    loop {
        match eventloop.poll().await {
            Ok(event) => {
                if matches!(event, Event::Incoming(Packet::ConnAck(_))) {
                    // The same time-out is for connecting and for writing.
                    eventloop.network_options.set_connection_timeout(WRITE_TIMEOUT.as_secs());
                }
                if events.send(event).await.is_err() {
                    return ConnectionError::RequestsDone;
                }
            }
            Err(error) => return error,
        }
    }
}

struct Session<'a> {
    shared: &'a mut Shared,
    client: AsyncClient,
    feed: Feed<'a>,
    window: Window,
    /// What the queue has not been told yet.
    through: [Option<u64>; 3],
    /// When something was last acknowledged, or first sent.
    progress: Instant,
    online: Option<Instant>,
    commands: VecDeque<Publish>,
    /// The command being carried out, if it came over this connection; else the broker will bring it again.
    current: Option<Publish>,
    /// When the first of the waiting commands may be tried again.
    retry: Option<Instant>,
    discard: bool,
}

impl Session<'_> {
    async fn run(
        &mut self,
        mut pump: BoxFuture<'_, ConnectionError>,
        mut events: mpsc::Receiver<Event>,
        stop: &CancellationToken,
    ) -> Option<Fault> {
        let mut changes = self.shared.queue.changes();
        let mut leaving: Option<Instant> = None;
        loop {
            if let Err(fault) = self.tell_queue().await {
                return Some(fault);
            }
            if self.discard && self.online.is_some() {
                let _ = self.leave(pump, events).await;
                return Some(Fault::Discarded);
            }
            let mut pause = None;
            if leaving.is_none() && self.online.is_some() {
                if changes.has_changed().unwrap_or(false) {
                    changes.mark_unchanged();
                    self.feed.changed();
                }
                match self.fill().await {
                    Ok(until) => pause = until,
                    Err(fault) => return Some(fault),
                }
            }
            self.retry = self.retry.filter(|at| *at > Instant::now());
            if self.shared.working.is_empty()
                && leaving.is_none()
                && self.retry.is_none()
                && let Some(publish) = self.commands.pop_front()
            {
                let downlink = Arc::clone(&self.shared.downlink);
                self.shared.working.spawn(downlink.handle(publish.payload.to_vec()));
                self.current = Some(publish);
            }
            let idle = self.window.is_empty() && self.shared.working.is_empty();
            if leaving.is_some_and(|until| idle || until <= Instant::now()) {
                return self.leave(pump, events).await;
            }
            let patience = self.shared.settings.ack_timeout + Duration::from_secs(self.window.bytes() as u64 / SLOWEST);
            let unacknowledged = (!self.window.is_empty()).then(|| self.progress + patience);
            let wake = [pause, unacknowledged, leaving, self.retry].into_iter().flatten().min();
            let wake_at = wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                () = stop.cancelled(), if leaving.is_none() => leaving = Some(Instant::now() + GOODBYE),
                error = &mut pump => {
                    // What came before the end still counts.
                    while let Ok(event) = events.try_recv() {
                        self.event(event);
                    }
                    return Some(Fault::Connection(Box::new(error)));
                }
                Some(event) = events.recv(), if self.commands.len() < COMMANDS => {
                    self.event(event);
                    while self.commands.len() < COMMANDS && let Ok(event) = events.try_recv() {
                        self.event(event);
                    }
                }
                _ = changes.changed(), if leaving.is_none() && self.online.is_some() => self.feed.changed(),
                Some(done) = self.shared.working.join_next() => {
                    if let Err(fault) = self.dealt_with(done) {
                        return Some(fault);
                    }
                }
                () = tokio::time::sleep_until(wake_at.into()) => {
                    if unacknowledged.is_some_and(|at| at <= Instant::now()) {
                        return Some(Fault::NoAcknowledgement(patience));
                    }
                }
            }
        }
    }

    /// Hands messages over until the window is full or there are none; returns when to look again.
    async fn fill(&mut self) -> Result<Option<Instant>, Fault> {
        loop {
            if self.window.bytes() >= IN_FLIGHT_BYTES {
                return Ok(None);
            }
            let ready = match self.feed.next(self.window.len(), &self.shared.counters).await? {
                Next::Send(ready) => ready,
                Next::Wait(until) => return Ok(until),
            };
            if self.window.is_empty() {
                self.progress = Instant::now();
            }
            let bytes = ready.topic.len() + ready.body.len();
            self.client
                .try_publish(ready.topic, QoS::AtLeastOnce, false, ready.body)
                .map_err(|error| Fault::Client(error.to_string()))?;
            self.window.sent(ready.stream, ready.seq, bytes);
            if let Some(sent) = self.shared.sent.get_mut(ready.stream as usize) {
                self.shared.counters.sent(ready.seq <= *sent);
                *sent = ready.seq.max(*sent);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => self.welcome(),
            Event::Incoming(Packet::PubAck(ack)) => {
                self.progress = Instant::now();
                self.shared.counters.acked();
                if let Some((stream, seq)) = self.window.acknowledged(ack.pkid)
                    && let Some(through) = self.through.get_mut(stream as usize)
                {
                    *through = Some(seq);
                }
            }
            Event::Incoming(Packet::Publish(publish)) => self.commands.push_back(publish),
            Event::Incoming(Packet::SubAck(ack)) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                tracing::error!("the broker refuses the node's commands topic: no commands will come");
            }
            // Identifier 0 is QoS 0: nothing of the queue.
            Event::Outgoing(Outgoing::Publish(pkid)) if pkid != 0 => {
                self.window.numbered(pkid);
            }
            _ => {}
        }
    }

    fn dealt_with(&mut self, done: Result<Result<(), DownlinkError>, JoinError>) -> Result<(), Fault> {
        let done = done.unwrap_or_else(|e| Err(DownlinkError::Stopped(e)));
        match (self.current.take(), done) {
            (Some(publish), Ok(())) => self.client.try_ack(&publish).map_err(|e| Fault::Client(e.to_string())),
            (Some(publish), Err(error)) => {
                tracing::warn!(error = crate::supervisor::chain(&error), "command not dealt with, tried again");
                self.commands.push_front(publish);
                self.retry = Some(Instant::now() + RETRY);
                Ok(())
            }
            // It was for a connection that is gone; the broker brings it again on this one.
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => {
                tracing::warn!(error = crate::supervisor::chain(&error), "command not dealt with");
                Ok(())
            }
        }
    }

    fn welcome(&mut self) {
        self.online = Some(Instant::now());
        if self.discard {
            return;
        }
        let shared = &mut *self.shared;
        shared.links.online();
        shared.counters.connected();
        let commands = format!("{}/{}", shared.base, CloudTopic::COMMANDS);
        let link = CloudTopic::Link.below(&shared.base);
        let here = presence(&shared.settings.node, "online", crate::clock::now_ms());
        // There is room: nothing has been handed over yet.
        let subscribed = self.client.try_subscribe(commands, QoS::AtLeastOnce);
        let published = self.client.try_publish(link, QoS::AtMostOnce, true, here);
        if subscribed.is_err() || published.is_err() {
            tracing::error!("client library has no room at the start of a connection");
        }
    }

    /// Tells the queue what it may forget.
    async fn tell_queue(&mut self) -> Result<(), Fault> {
        for stream in Stream::ALL {
            if let Some(seq) = self.through.get_mut(stream as usize).and_then(Option::take) {
                self.shared.queue.ack(stream, seq).await?;
            }
        }
        Ok(())
    }

    /// Says goodbye, so that the broker does not publish the will.
    async fn leave(
        &mut self,
        pump: BoxFuture<'_, ConnectionError>,
        mut events: mpsc::Receiver<Event>,
    ) -> Option<Fault> {
        // Without a connection there is nobody to say it to.
        self.online?;
        let link = CloudTopic::Link.below(&self.shared.base);
        let gone = presence(&self.shared.settings.node, "offline", crate::clock::now_ms());
        let _ = self.client.try_publish(link, QoS::AtMostOnce, true, gone);
        let _ = self.client.try_disconnect();
        let drain = async { while events.recv().await.is_some() {} };
        // The broker closes after a DISCONNECT, which ends the pump; it is a courtesy and gets no more time than this.
        let _ = tokio::time::timeout(GOODBYE / 4, futures_util::future::join(pump, drain)).await;
        None
    }
}
