//! WS-Discovery (April 2005, as ONVIF Core, section 7, uses it): cameras are asked for in the network, and say when they come.
//!
//! Whoever answers is believed: there is no authentication in it. A camera is talked to with a digest, never with a password.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::select_all;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::decode::{escape, found, is, parse};

/// Where everybody who can be found listens (section 2.4).
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const PORT: u16 = 3702;
/// The longest message, which is that of a datagram.
const MAX_MESSAGE: usize = 64 << 10;
/// Cameras one search finds at most: a network that is full of answers is no use.
const MAX_FOUND: usize = 1_024;
/// A question may get lost: it is asked again after this time.
const AGAIN: Duration = Duration::from_millis(500);

/// A camera as it announces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name that stays with it, such as `urn:uuid:…`.
    pub endpoint: String,
    /// Where its device service is; several when it has several addresses.
    pub addresses: Vec<String>,
    /// What it says of itself, as URIs.
    pub scopes: Vec<String>,
    /// Whom the message came from.
    pub from: Option<IpAddr>,
}

impl Found {
    /// The address that is of use: that of the sender, if it is among them.
    pub fn address(&self) -> Option<&str> {
        let own = |a: &&String| self.from.is_some_and(|from| a.contains(&format!("//{from}")));
        let plain = |a: &&String| a.starts_with("http://");
        self.addresses.iter().filter(plain).find(own).or_else(|| self.addresses.iter().find(plain)).map(String::as_str)
    }

    /// What it says of itself under a heading: `name`, `hardware`, `location`. Still percent-encoded.
    pub fn scope(&self, heading: &str) -> Option<&str> {
        let begin = format!("onvif://www.onvif.org/{heading}/");
        self.scopes.iter().find_map(|s| s.strip_prefix(&begin))
    }
}

/// Every camera a message tells of: an answer to a question, or a greeting. What is no such message tells of none.
pub fn matches(text: &str) -> Vec<Found> {
    let Ok(document) = parse(text) else { return Vec::new() };
    let words = |n, name| found(n, name).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let told =
        document.descendants().filter(|n| ["ProbeMatch", "ResolveMatch", "Hello"].iter().any(|name| is(*n, name)));
    let one = |n| {
        let reference = roxmltree::Node::descendants(&n).find(|e| is(*e, "EndpointReference"))?;
        let endpoint = found(reference, "Address")?.to_owned();
        Some(Found { endpoint, addresses: words(n, "XAddrs"), scopes: words(n, "Scopes"), from: None })
    };
    told.filter_map(one).collect()
}

/// The identifier of the question a message answers.
fn answers(text: &str) -> Option<String> {
    let document = parse(text).ok()?;
    found(document.root_element(), "RelatesTo").map(str::to_owned)
}

/// A question: for a camera of this name, or for all that transmit video.
fn question(id: &str, endpoint: Option<&str>) -> String {
    const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
    const DISCOVERY: &str = "http://schemas.xmlsoap.org/ws/2005/04/discovery";
    let (action, body) = match endpoint {
        Some(name) => {
            let name = escape(name);
            ("Resolve", format!("<a:EndpointReference><a:Address>{name}</a:Address></a:EndpointReference>"))
        }
        None => (
            "Probe",
            "<d:Types xmlns:dn=\"http://www.onvif.org/ver10/network/wsdl\">dn:NetworkVideoTransmitter</d:Types>"
                .to_owned(),
        ),
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"{ADDRESSING}\" xmlns:d=\"{DISCOVERY}\"><s:Header><a:Action>{DISCOVERY}/{action}</a:Action>\
         <a:MessageID>{id}</a:MessageID><a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To></s:Header>\
         <s:Body><d:{action}>{body}</d:{action}></s:Body></s:Envelope>"
    )
}

/// A UUID of version 4 as a URN (RFC 9562).
fn identifier() -> io::Result<String> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
    let mut number = u128::from_be_bytes(random);
    number = number & !(0xf << 76) | 4 << 76;
    number = number & !(0x3 << 62) | 2 << 62;
    let hex = format!("{number:032x}");
    let mut id = String::from("urn:uuid:");
    for (i, c) in hex.chars().enumerate() {
        let dash = if matches!(i, 8 | 12 | 16 | 20) { "-" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(id, "{dash}{c}");
    }
    Ok(id)
}

/// Our own IPv4 addresses, one for each network a question goes to.
fn local_addresses() -> Vec<Ipv4Addr> {
    let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let found = local(&trie);
    if found.is_empty() { vec![Ipv4Addr::UNSPECIFIED] } else { found }
}

/// The local addresses in the kernel's forwarding table.
fn local(trie: &str) -> Vec<Ipv4Addr> {
    let (mut found, mut last) = (Vec::new(), None);
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// Asks in every network, twice; hands over whatever answers until `done` or the time is over.
async fn search(
    endpoint: Option<&str>,
    interface: Option<Ipv4Addr>,
    limit: Duration,
    mut done: impl FnMut(Found) -> bool,
) -> io::Result<()> {
    let end = Instant::now() + limit;
    let id = identifier()?;
    let mut questions = vec![question(&id, None)];
    questions.extend(endpoint.map(|name| question(&id, Some(name))));
    let (mut sockets, mut failure) = (Vec::new(), None);
    for address in interface.map_or_else(local_addresses, |i| vec![i]) {
        // On Linux the address a socket is bound to says which network multicasts go to.
        match UdpSocket::bind((address, 0)).await {
            Ok(socket) => sockets.push(socket),
            Err(e) => failure = Some(e),
        }
    }
    let mut buffer = vec![0; MAX_MESSAGE];
    for round in [AGAIN.min(limit / 2), limit] {
        let mut sent = false;
        for socket in &sockets {
            for question in &questions {
                match socket.send_to(question.as_bytes(), (GROUP, PORT)).await {
                    Ok(_) => sent = true,
                    Err(e) => failure = Some(e),
                }
            }
        }
        if !sent {
            return Err(failure.unwrap_or_else(|| io::Error::other("no IPv4 address to ask from")));
        }
        let until = if round == limit { end } else { Instant::now() + round };
        loop {
            let readable = select_all(sockets.iter().map(|s| Box::pin(s.readable())));
            let Ok((_, at, _)) = timeout_at(until, readable).await else { break };
            let Some(Ok((length, from))) = sockets.get(at).map(|s| s.try_recv_from(&mut buffer)) else { continue };
            for found in heard(buffer.get(..length).unwrap_or_default(), from, Some(&id)) {
                if done(found) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// What a datagram tells of; with an identifier, only as an answer to that question.
fn heard(datagram: &[u8], from: SocketAddr, id: Option<&str>) -> Vec<Found> {
    let text = String::from_utf8_lossy(datagram);
    if id.is_some() && answers(&text).as_deref() != id {
        return Vec::new();
    }
    let mut told = matches(&text);
    for found in &mut told {
        found.from = Some(from.ip());
    }
    told
}

/// Every camera that answers within the time, each once, in the order they came.
///
/// # Errors
/// No network can be asked.
pub async fn discover(interface: Option<Ipv4Addr>, limit: Duration) -> io::Result<Vec<Found>> {
    let mut all: Vec<Found> = Vec::new();
    search(None, interface, limit, |found| {
        if !all.iter().any(|f| f.endpoint == found.endpoint) {
            all.push(found);
        }
        all.len() >= MAX_FOUND
    })
    .await?;
    Ok(all)
}

/// The camera with this endpoint reference, if it answers within the time and says where it is.
///
/// # Errors
/// No network can be asked.
pub(super) async fn find(endpoint: &str, interface: Option<Ipv4Addr>, limit: Duration) -> io::Result<Option<Found>> {
    let mut it = None;
    search(Some(endpoint), interface, limit, |found| {
        let right = same(&found.endpoint, endpoint) && found.address().is_some();
        if right {
            it = Some(found);
        }
        right
    })
    .await?;
    Ok(it)
}

/// Whether two references are the same: hexadecimal digits are written either way.
fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// Waits until the camera with this endpoint reference greets everybody. For ever, when nobody can be heard.
pub async fn hello(endpoint: &str, interface: Option<Ipv4Addr>) {
    let Ok(socket) = ear(interface) else { return std::future::pending().await };
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let told = heard(buffer.get(..length).unwrap_or_default(), from, None);
                if told.iter().any(|found| same(&found.endpoint, endpoint)) {
                    return;
                }
            }
            // A socket that is broken for good must not spin.
            Err(_) => drop(timeout(AGAIN, std::future::pending::<()>()).await),
        }
    }
}

/// A socket on the port of greetings, which others on this machine may have as well.
fn ear(interface: Option<Ipv4Addr>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Bound to the group, so that nothing is taken that was sent to somebody else's socket on this port.
    socket.bind(&SocketAddr::from((GROUP, PORT)).into())?;
    for address in interface.map_or_else(local_addresses, |i| vec![i]) {
        // A network without multicast has nobody to hear.
        let _ = socket.join_multicast_v4(&GROUP, &address);
    }
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_is_answered_by_its_identifier() {
        let id = identifier().unwrap();
        assert!(id.len() == 45 && id.as_bytes()[23] == b'4' && b"89ab".contains(&id.as_bytes()[28]), "{id}");
        let text = question(&id, Some("urn:<x>"));
        assert!(parse(&text).is_ok() && parse(&question(&id, None)).is_ok());
        let answer = format!(
            "<s:E xmlns:s='s'><h><RelatesTo>{id}</RelatesTo></h><ProbeMatch><EndpointReference><Address>urn:1</Address>\
            </EndpointReference><Types>a</Types><Scopes>onvif://www.onvif.org/name/A%20B  x</Scopes>\
            <XAddrs>http://10.0.0.1/a http://10.0.0.2/b</XAddrs></ProbeMatch><ProbeMatch/></s:E>"
        );
        let from: SocketAddr = "10.0.0.2:1".parse().unwrap();
        let found = heard(answer.as_bytes(), from, Some(&id));
        assert_eq!((found.len(), found[0].endpoint.as_str()), (1, "urn:1"));
        assert_eq!((found[0].address(), found[0].scope("name")), (Some("http://10.0.0.2/b"), Some("A%20B")));
        assert_eq!(heard(answer.as_bytes(), from, Some("urn:uuid:other")), []);
        assert_eq!(heard(b"\xff", from, None), []);
    }

    #[test]
    fn our_addresses_are_those_of_the_kernel() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.0.0.7\n        \
            /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n";
        assert_eq!(local(trie), [Ipv4Addr::new(10, 0, 0, 7)]);
    }

    proptest! {
        #[test]
        fn foreign_datagrams_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = heard(&bytes, "10.0.0.2:1".parse().unwrap(), None);
        }
    }
}
