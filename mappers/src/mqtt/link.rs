//! The connection to the broker: a task that hears everything, and a way to publish.
//!
//! rumqttc is polled by a task of its own, never inside a `select!`: its `poll` loses a packet when it is dropped.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS, SubscribeFilter,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::config::{CommandTopic, Config};
use super::state::State;
use crate::{AccessError, tls};

/// The largest packet, in bytes, as on the node's own bus.
const MAX_PACKET: usize = 256 << 10;
/// Requests that wait for the connection: the subscriptions and the one write at a time.
const REQUESTS: usize = 8;
/// How often a silent connection is looked at.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A connection that has been subscribed. It ends with this.
pub(super) struct Link {
    client: AsyncClient,
    /// What has been heard. The task writes, the driver takes.
    pub(super) state: Arc<watch::Sender<State>>,
    pub(super) changes: watch::Receiver<State>,
    _task: JoinSet<()>,
}

impl Link {
    /// Connects and subscribes.
    ///
    /// # Errors
    /// [`AccessError::Disconnected`] and [`AccessError::Timeout`].
    pub(super) async fn open(config: &Arc<Config>) -> Result<Link, AccessError> {
        let options = options(config).await.map_err(AccessError::Disconnected)?;
        let (client, mut events) = AsyncClient::new(options, REQUESTS);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(config.broker.timeout.as_secs().max(1));
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let (state, changes) = watch::channel(State::new(Arc::clone(config)));
        let state = Arc::new(state);
        // Before the connection, so that it is the first thing said on it.
        let topics = topics(config);
        if topics.is_empty() {
            state.send_modify(|s| s.subscribed = true);
        } else if let Err(e) = client.try_subscribe_many(topics) {
            return Err(AccessError::Disconnected(e.to_string()));
        }
        let mut task = JoinSet::new();
        task.spawn(hear(events, Arc::clone(&state)));
        let mut link = Link { client, state, changes, _task: task };
        // What the broker retains of the device's availability comes right behind, if there is any.
        let ready = link.changes.wait_for(|s| s.is_settled() || s.lost.is_some());
        let _ = timeout(config.broker.timeout, ready).await.map(drop);
        let (subscribed, lost) = {
            let state = link.state.borrow();
            (state.subscribed, state.lost.clone())
        };
        match lost {
            Some(why) => Err(AccessError::Disconnected(why)),
            None if !subscribed => Err(too_late(config)),
            None => Ok(link),
        }
    }

    /// Publishes a command with QoS 1.
    ///
    /// # Errors
    /// [`AccessError::Busy`] while the connection takes nothing more.
    pub(super) fn publish(&self, to: &CommandTopic, payload: String) -> Result<(), AccessError> {
        let sent = self.client.try_publish(to.topic.as_str(), QoS::AtLeastOnce, to.retain, payload);
        sent.map_err(|_| AccessError::Busy)
    }
}

/// The error of what took longer than the device's time-out.
pub(super) fn too_late(config: &Config) -> AccessError {
    AccessError::Timeout(u32::try_from(config.broker.timeout.as_millis()).unwrap_or(u32::MAX))
}

/// What the device says anything on, each topic once.
fn topics(config: &Config) -> Vec<SubscribeFilter> {
    let availability = config.availability.as_ref().map(|a| a.topic.clone());
    let mut topics: Vec<String> = config.places.iter().filter_map(|p| p.topic.clone()).chain(availability).collect();
    topics.sort_unstable();
    topics.dedup();
    topics.into_iter().map(|topic| SubscribeFilter::new(topic, QoS::AtLeastOnce)).collect()
}

async fn options(config: &Config) -> Result<MqttOptions, String> {
    let broker = &config.broker;
    // A name nobody else has: two clients of one name would throw each other out.
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|e| e.to_string())?;
    let id = format!("edge-{:016x}", u64::from_be_bytes(random));
    let mut options = MqttOptions::new(id, broker.host.clone(), broker.port);
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_max_packet_size(MAX_PACKET, MAX_PACKET);
    if let Some((user, password)) = &broker.login {
        options.set_credentials(user, password);
    }
    if let Some(ca) = &broker.tls {
        let ca = ca.clone();
        let trusting = tokio::task::spawn_blocking(move || tls::client(ca.as_deref())).await;
        let tls = TlsConfiguration::Rustls(trusting.map_err(|e| e.to_string())??);
        options.set_transport(Transport::tls_with_config(tls));
    }
    Ok(options)
}

/// Hears until the connection ends, and says why.
async fn hear(mut events: EventLoop, state: Arc<watch::Sender<State>>) {
    let why = loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let now = Instant::now();
                state.send_modify(|s| s.take(&message.topic, &message.payload, now));
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                    break "the broker refused a subscription".to_owned();
                }
                state.send_modify(|s| s.subscribed = true);
            }
            Ok(_) => {}
            Err(error) => break explain(&error),
        }
    };
    state.send_modify(|s| s.lost = Some(why));
}

fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refused: {code:?}"),
        ConnectionError::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}
