//! The bus's settings, with the embedded defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Settings of the bus and its listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where MQTT clients connect; loopback unless someone knows better. Default `127.0.0.1:1883`; port 0 picks one.
    pub listen: SocketAddr,
    /// Clients at the same time, 1 to 10,000. Default 200. One more is refused at once.
    pub max_connections: usize,
    /// The largest packet accepted, in bytes, 1,024 to 268,435,455. Default 262,144.
    pub max_packet_bytes: usize,
    /// How long a new connection may take to send its CONNECT, 1 s to 60 s. Default 5 s.
    pub connect_timeout: Duration,
    /// The longest keep-alive, in seconds; 0 (the default) leaves it to the client, whose 0 means none at all.
    pub max_keep_alive: u16,
    /// How long a client may refuse to take a byte, 1 s to 600 s. Default 30 s.
    pub write_timeout: Duration,
    /// Messages that may wait for one client, 1 to 100,000. Default 1,000; more are dropped and counted.
    pub queue_messages: usize,
    /// Payload bytes that may wait for one client. Default 1 MiB.
    pub queue_bytes: usize,
    /// QoS 1 and 2 messages that one client may have unacknowledged, 1 to 65,535. Default 32.
    pub in_flight: u16,
    /// Subscriptions of one client, 1 to 10,000. Default 100.
    pub max_subscriptions: usize,
    /// Sessions kept for clients that are away, 0 to 10,000. Default 50; the one away longest makes room.
    pub max_sessions: usize,
    /// How long such a session is kept at most, in memory. Default 24 h.
    pub session_expiry: Duration,
    /// Retained messages, 0 to 100,000. Default 2,000.
    pub retained_messages: usize,
    /// Bytes of retained messages. Default 2 MiB.
    pub retained_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            max_connections: 200,
            max_packet_bytes: 256 << 10,
            connect_timeout: Duration::from_secs(5),
            max_keep_alive: 0,
            write_timeout: Duration::from_secs(30),
            queue_messages: 1_000,
            queue_bytes: 1 << 20,
            in_flight: 32,
            max_subscriptions: 100,
            max_sessions: 50,
            session_expiry: Duration::from_secs(24 * 60 * 60),
            retained_messages: 2_000,
            retained_bytes: 2 << 20,
        }
    }
}
