//! The connections to brokers: one for all devices with the same broker and login.
//!
//! rumqttc is polled by a task of its own, never inside a `select!`: its `poll` loses a packet when it is dropped. A second
//! task sends what is to be subscribed and unsubscribed, because that may have to wait for the first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet, QoS,
    SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::config::{Broker, CommandTopic};
use super::state::State;
use super::topics::{Batch, Member, Topics};
use crate::tls;

/// The largest packet, in bytes, as on the node's own bus.
const MAX_PACKET: usize = 256 << 10;
/// Requests that wait for the connection: one write at a time of each of many devices. More are refused as busy.
const REQUESTS: usize = 64;
/// How often a silent connection is looked at.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long connecting may take, in seconds; devices wait for it no longer than each wants to.
const CONNECT_S: u64 = 60;

/// All connections of this node.
#[derive(Debug)]
pub struct Brokers {
    /// The broker of a device that names none.
    own: SocketAddr,
    open: tokio::sync::Mutex<HashMap<Broker, Weak<Connection>>>,
}

impl Brokers {
    /// `own` is where the broker of devices that name none listens.
    pub fn new(own: SocketAddr) -> Brokers {
        // Who listens on all addresses does so on loopback, too.
        let ip = match own.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Brokers { own: SocketAddr::new(ip, own.port()), open: tokio::sync::Mutex::default() }
    }

    /// The connection to a broker, begun if there is none or the last one was lost.
    pub(super) async fn connection(&self, broker: &Broker) -> Result<Arc<Connection>, String> {
        let mut open = self.open.lock().await;
        if let Some(there) = open.get(broker).and_then(Weak::upgrade).filter(|c| !c.shared.lock().is_lost()) {
            return Ok(there);
        }
        open.retain(|_, connection| connection.strong_count() > 0);
        let (host, port) = broker.at.clone().unwrap_or_else(|| (self.own.ip().to_string(), self.own.port()));
        let connection = Arc::new(Connection::begin(options(broker, host, port).await?));
        open.insert(broker.clone(), Arc::downgrade(&connection));
        Ok(connection)
    }
}

/// A connection and its devices. It ends with this.
#[derive(Debug)]
pub(super) struct Connection {
    client: AsyncClient,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// The topics have changed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    topics: Topics,
    members: BTreeMap<Member, Arc<watch::Sender<State>>>,
    last: Member,
    /// Sent to the client, and not yet seen on their way to the broker.
    sent: VecDeque<Batch>,
    /// On their way, by packet.
    asked: BTreeMap<u16, Batch>,
    /// The broker has let us in.
    connected: bool,
    /// Why the connection ended.
    lost: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn begin(options: MqttOptions) -> Connection {
        let (client, mut events) = AsyncClient::new(options, REQUESTS);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_S);
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(hear(events, Arc::clone(&shared)));
        tasks.spawn(ask(client.clone(), Arc::clone(&shared)));
        Connection { client, shared, _tasks: tasks }
    }

    /// A device that wants to hear what is said on these.
    pub(super) fn join(&self, topics: &[String], state: &Arc<watch::Sender<State>>) -> Member {
        let mut table = self.shared.lock();
        table.last += 1;
        let member = table.last;
        if let Some(why) = &table.lost {
            state.send_modify(|s| s.lost = Some(why.clone()));
        } else if topics.is_empty() && table.connected {
            state.send_modify(|s| s.subscribed = true);
        }
        table.members.insert(member, Arc::clone(state));
        table.topics.join(member, topics);
        self.shared.changed.notify_one();
        member
    }

    /// It is gone.
    pub(super) fn leave(&self, member: Member) {
        let mut table = self.shared.lock();
        table.members.remove(&member);
        table.topics.leave(member);
        self.shared.changed.notify_one();
    }

    pub(super) fn publish(&self, to: &CommandTopic, payload: String) -> Result<(), ()> {
        self.client.try_publish(to.topic.as_str(), QoS::AtLeastOnce, to.retain, payload).map_err(drop)
    }
}

impl Table {
    const fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    fn tell(&self, member: Member, what: impl FnOnce(&mut State)) {
        if let Some(state) = self.members.get(&member) {
            state.send_modify(what);
        }
    }

    fn acknowledged(&mut self, packet: u16, codes: &[SubscribeReasonCode]) {
        let Some(batch) = self.asked.remove(&packet) else { return };
        let refused: Vec<bool> = codes.iter().map(|c| *c == SubscribeReasonCode::Failure).collect();
        let (complete, denied) = self.topics.taken(&batch, &refused);
        for member in complete {
            self.tell(member, |s| s.subscribed = true);
        }
        for member in denied {
            self.tell(member, |s| s.lost = Some("the broker refused a subscription".to_owned()));
        }
    }
}

async fn options(broker: &Broker, host: String, port: u16) -> Result<MqttOptions, String> {
    // A name nobody else has: two clients of one name would throw each other out.
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|e| e.to_string())?;
    let id = format!("edge-{:016x}", u64::from_be_bytes(random));
    let mut options = MqttOptions::new(id, host, port);
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

/// Sends what is to be subscribed and unsubscribed.
async fn ask(client: AsyncClient, shared: Arc<Shared>) {
    loop {
        let next = {
            let mut table = shared.lock();
            let next = table.topics.next();
            // Before it is sent: the other task sees it on its way at once.
            if let Some((_, Some(batch))) = &next {
                table.sent.push_back(batch.clone());
            }
            next
        };
        let Some((change, _)) = next else {
            shared.changed.notified().await;
            continue;
        };
        let mut open = true;
        for topic in change.unsubscribe {
            open &= client.unsubscribe(topic).await.is_ok();
        }
        let filters = change.subscribe.into_iter().map(|topic| SubscribeFilter::new(topic, QoS::AtLeastOnce));
        let filters: Vec<SubscribeFilter> = filters.collect();
        if !filters.is_empty() {
            open &= client.subscribe_many(filters).await.is_ok();
        }
        if !open {
            // The connection has ended, and the other task says why.
            return;
        }
    }
}

/// Hears until the connection ends, and says why.
async fn hear(mut events: EventLoop, shared: Arc<Shared>) {
    let why = loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let (now, table) = (Instant::now(), shared.lock());
                for member in table.topics.members(&message.topic) {
                    table.tell(member, |s| s.take(&message.topic, &message.payload, now));
                }
            }
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                let mut table = shared.lock();
                table.connected = true;
                // Those that only write.
                let silent = table.members.iter().filter(|(member, _)| !table.topics.is_waiting(**member));
                for (_, state) in silent {
                    state.send_modify(|s| s.subscribed = true);
                }
            }
            Ok(Event::Outgoing(Outgoing::Subscribe(packet))) => {
                let mut table = shared.lock();
                if let Some(batch) = table.sent.pop_front() {
                    table.asked.insert(packet, batch);
                }
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                shared.lock().acknowledged(answer.pkid, &answer.return_codes);
            }
            Ok(_) => {}
            Err(error) => break explain(&error),
        }
    };
    let mut table = shared.lock();
    for state in table.members.values() {
        state.send_modify(|s| s.lost = Some(why.clone()));
    }
    table.lost = Some(why);
}

fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refused: {code:?}"),
        ConnectionError::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}
