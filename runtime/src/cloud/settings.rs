//! The cloud link's settings, with the embedded defaults, and what they have to be.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of the cloud link.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where the cloud is: `mqtt://host[:1883]` or `mqtts://host[:8883]`. Without one the node keeps everything to itself.
    pub address: Option<String>,
    /// The node's name in topics and envelopes.
    pub node: String,
    /// What topics start with: `<prefix>/<node>/…`. Default `edge`.
    pub prefix: String,
    /// The MQTT client identifier, the same over all restarts. Default: the node's name.
    pub client_id: Option<String>,
    /// User name for the broker.
    pub user: Option<String>,
    /// File with the password, a last line break left out; read at each connection.
    pub password_file: Option<PathBuf>,
    /// PEM file with the authorities the broker's certificate may come from. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the node's certificate, for mutual TLS.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with its private key.
    pub key_file: Option<PathBuf>,
    /// A sign of life when nothing else is said, 1 s to 1 h. A silent broker is noticed within twice that. Default 30 s.
    pub keep_alive: Duration,
    /// How long a connection may take to be accepted, 1 s to 120 s. Default 10 s.
    pub connect_timeout: Duration,
    /// How long the broker may leave messages unacknowledged before it counts as lost, 1 s to 1 h. Default 15 s.
    pub ack_timeout: Duration,
    /// Messages sent and not yet acknowledged, 2 to 1,000: what may be repeated after an interruption. Default 64.
    pub window: u16,
    /// The largest message, in bytes with its envelope; larger ones are left out and counted. Default 512 KiB.
    pub message_max_bytes: usize,
    /// Messages a second while old data is brought up (older than ten seconds); 0 for no limit. Default 2,000.
    pub drain_rate: u32,
    /// The first pause after a failure, 10 ms to 60 s; doubles each time, a random part of it is waited. Default 200 ms.
    pub back_off_first: Duration,
    /// The longest pause, up to 1 h. Default 15 s. In the first ten minutes, and while the node itself has no network, it is
    /// at most 2 s, so that what comes back is used within that.
    pub back_off_max: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            address: None,
            node: String::new(),
            prefix: "edge".to_owned(),
            client_id: None,
            user: None,
            password_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            keep_alive: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(15),
            window: 64,
            message_max_bytes: 512 << 10,
            drain_rate: 2_000,
            back_off_first: Duration::from_millis(200),
            back_off_max: Duration::from_secs(15),
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cloud.{key}: {rule}")]
pub struct SettingError {
    /// The key.
    pub key: &'static str,
    /// What it has to be, and what it is.
    pub rule: String,
}

/// Where the cloud is, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address (an IPv6 address without its brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl Settings {
    /// Checks everything that can be checked without opening a file.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<Option<Address>, SettingError> {
        let fail = |key, rule: String| Err(SettingError { key, rule });
        let Some(text) = &self.address else { return Ok(None) };
        let Some(address) = parse(text) else {
            return fail("address", format!("{text:?} is not mqtt://HOST[:PORT] or mqtts://HOST[:PORT]"));
        };
        let level = |s: &str| !s.is_empty() && !s.contains(['+', '#', '/', '\0']);
        if !level(&self.node) {
            return fail("node", format!("{:?} is not one level of a topic", self.node));
        }
        if !self.prefix.split('/').all(level) || self.prefix.starts_with('$') || self.prefix.len() > 256 {
            return fail("prefix", format!("{:?} is not the start of a topic of at most 256 bytes", self.prefix));
        }
        if self.client_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 256 || id.contains('\0')) {
            return fail("client-id", "must have 1 to 256 bytes and no NUL".to_owned());
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            return fail("certificate-file", "goes together with key-file".to_owned());
        }
        if !address.tls && (self.certificate_file.is_some() || self.ca_file.is_some()) {
            return fail("address", format!("{text:?} does not use TLS; with certificates it must be mqtts://"));
        }
        if self.password_file.is_some() && self.user.is_none() {
            return fail("password-file", "goes together with user".to_owned());
        }
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let times = [
            ("keep-alive", self.keep_alive, second, hour),
            ("connect-timeout", self.connect_timeout, second, 120 * second),
            ("ack-timeout", self.ack_timeout, second, hour),
            ("back-off-first", self.back_off_first, second / 100, 60 * second),
            ("back-off-max", self.back_off_max, self.back_off_first, hour),
        ];
        for (key, value, min, max) in times {
            if value < min || value > max {
                return fail(key, format!("{value:?} is not between {min:?} and {max:?}"));
            }
        }
        if !(2..=1000).contains(&self.window) {
            return fail("window", format!("{} is not between 2 and 1000", self.window));
        }
        if !(1024..=64 << 20).contains(&self.message_max_bytes) {
            return fail("message-max-bytes", format!("{} is not between 1 KiB and 64 MiB", self.message_max_bytes));
        }
        Ok(Some(address))
    }

    /// The least `message_max_bytes` with which everything fits that applications may upload with packets of so many bytes.
    pub fn needed_for_uploads(&self, max_packet_bytes: usize) -> usize {
        use edge_model::envelope::{SUBJECT_MAX, largest};
        let topic = self.base().len() + "/up/data/".len() + SUBJECT_MAX;
        largest(max_packet_bytes, SUBJECT_MAX, self.node.len()).saturating_add(topic)
    }

    /// What the node's topics start with.
    pub fn base(&self) -> String {
        format!("{}/{}", self.prefix, self.node)
    }
}

fn parse(text: &str) -> Option<Address> {
    let (tls, rest) = match text.split_once("://")? {
        ("mqtt", rest) => (false, rest),
        ("mqtts", rest) => (true, rest),
        _ => return None,
    };
    let default = if tls { 8883 } else { 1883 };
    // An IPv6 address stands in brackets (RFC 3986, section 3.2.2).
    let (host, port) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        Some((host, "")) => (host, default),
        Some((host, port)) => (host, port.strip_prefix(':')?.parse().ok()?),
        None => match rest.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (rest, default),
        },
    };
    let valid = !host.is_empty() && port != 0 && !host.contains(['/', '@', '?', '[', ']', ' ']);
    valid.then(|| Address { host: host.to_owned(), port, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, host, port, tls) in [
            ("mqtt://a", "a", 1883, false),
            ("mqtts://a.b.c", "a.b.c", 8883, true),
            ("mqtts://10.0.0.1:443", "10.0.0.1", 443, true),
            ("mqtt://[::1]:99", "::1", 99, false),
        ] {
            assert_eq!(parse(text), Some(Address { host: host.into(), port, tls }), "{text}");
        }
        for bad in ["a", "http://a", "mqtt://", "mqtt://a:0", "mqtt://a:x", "mqtt://u@a", "mqtt://a/b", "mqtt://[::1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = Settings { address: Some("mqtt://a".into()), node: "gw".into(), ..Settings::default() };
        assert!(good.check().unwrap().is_some());
        assert_eq!(Settings::default().check(), Ok(None));
        type Change = fn(&mut Settings);
        let wrong: [(&str, Change); 8] = [
            ("address", |s| s.address = Some("a".into())),
            ("node", |s| s.node = "a/b".into()),
            ("prefix", |s| s.prefix = "a//b".into()),
            ("certificate-file", |s| s.key_file = Some("k".into())),
            ("address", |s| s.ca_file = Some("ca".into())),
            ("password-file", |s| s.password_file = Some("p".into())),
            ("keep-alive", |s| s.keep_alive = Duration::ZERO),
            ("window", |s| s.window = 1),
        ];
        for (key, change) in wrong {
            let mut settings = good.clone();
            change(&mut settings);
            assert_eq!(settings.check().unwrap_err().key, key);
        }
    }
}
