//! The rules of nftables: masquerade outwards, host ports inwards, loopback out of reach. One table of our own, replaced as a
//! whole in one transaction, so that nobody ever sees half of it.
//!
//! ```text
//! table ip edge-runtime-<bridge> {
//!   guard        filter, prerouting -300:  from the bridge to 127.0.0.0/8 → drop
//!   prerouting   nat, -100:                to this node, port P → pod; from the bridge to the gateway, port E → 127.0.0.1
//!   output       nat, -100:                to this node, port P → pod
//!   postrouting  nat, 100:                 from the subnet to elsewhere → masquerade; what was turned towards a pod and comes
//!                                          from a pod or from loopback → masquerade
//! }
//! ```
//!
//! Source: `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`; numbers are in network byte order.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use edge_model::pod::container::Protocol;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::{APPEND, Body, CREATE, message, transact};
use super::{Attachment, HostPort, Settings, Subnet};

const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = NFTABLES << 8;
const DELTABLE: u16 = NFTABLES << 8 | 2;
const NEWCHAIN: u16 = NFTABLES << 8 | 3;
const NEWRULE: u16 = NFTABLES << 8 | 6;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;

/// A base chain: its name, type, hook and priority.
struct Chain {
    name: &'static str,
    kind: &'static str,
    hook: u32,
    priority: i32,
}

const GUARD: Chain = Chain { name: "guard", kind: "filter", hook: 0, priority: -300 };
const PREROUTING: Chain = Chain { name: "prerouting", kind: "nat", hook: 0, priority: -100 };
const OUTPUT: Chain = Chain { name: "output", kind: "nat", hook: 3, priority: -100 };
const POSTROUTING: Chain = Chain { name: "postrouting", kind: "nat", hook: 4, priority: 100 };

/// The name of the table.
pub(super) fn table(bridge: &str) -> String {
    format!("edge-runtime-{bridge}")
}

/// One rule: its expressions, joined from left to right.
#[derive(Default)]
struct Rule(Body);

impl Rule {
    fn expression(self, name: &str, data: Body) -> Rule {
        Rule(self.0.nest(1, Body::default().text(1, name).nest(2, data)))
    }

    fn meta(self, key: u32) -> Rule {
        self.expression("meta", Body::default().network(2, key).network(1, 1))
    }

    fn is(self, value: &[u8]) -> Rule {
        self.compare(0, value)
    }

    fn differs_from(self, value: &[u8]) -> Rule {
        self.compare(1, value)
    }

    fn compare(self, operator: u32, value: &[u8]) -> Rule {
        let data = Body::default().bytes(1, value);
        self.expression("cmp", Body::default().network(1, 1).network(2, operator).nest(3, data))
    }

    /// The interface it came in by (key 6) or goes out by (key 7).
    fn interface(name: &str) -> [u8; 16] {
        let mut padded = [0; 16];
        for (to, from) in padded.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        padded
    }

    fn in_by(self, name: &str) -> Rule {
        self.meta(6).is(&Rule::interface(name))
    }

    fn out_by(self, name: &str) -> Rule {
        self.meta(7).is(&Rule::interface(name))
    }

    fn not_out_by(self, name: &str) -> Rule {
        self.meta(7).differs_from(&Rule::interface(name))
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Rule {
        let data = Body::default().network(1, 1).network(2, base).network(3, offset).network(4, length);
        self.expression("payload", data)
    }

    fn mask(self, mask: u32) -> Rule {
        let value = |n: u32| Body::default().bytes(1, &n.to_be_bytes());
        let data = Body::default().network(1, 1).network(2, 1).network(3, 4);
        self.expression("bitwise", data.nest(4, value(mask)).nest(5, value(0)))
    }

    /// The source address (offset 12 of the IPv4 header) is in a network.
    fn from(self, network: Ipv4Addr, mask: u32) -> Rule {
        self.payload(1, 12, 4).mask(mask).is(&network.octets())
    }

    /// The destination address (offset 16 of the IPv4 header) is in a network.
    fn to(self, network: Ipv4Addr, mask: u32) -> Rule {
        self.payload(1, 16, 4).mask(mask).is(&network.octets())
    }

    /// The destination is an address of this node (`fib daddr type local`).
    fn towards_this_node(self) -> Rule {
        let data = Body::default().network(1, 1).network(2, 3).network(3, 2);
        // The result is in the machine's byte order; RTN_LOCAL is 2.
        self.expression("fib", data).is(&2u32.to_ne_bytes())
    }

    fn port(self, protocol: Protocol, port: u16) -> Rule {
        let number = match protocol {
            Protocol::Tcp => 6u8,
            Protocol::Udp => 17,
        };
        self.meta(16).is(&[number]).payload(2, 2, 2).is(&port.to_be_bytes())
    }

    /// The destination has been changed before (`ct status dnat`).
    fn was_turned(self) -> Rule {
        const DST_NAT: u32 = 1 << 5;
        let value = |n: u32| Body::default().bytes(1, &n.to_ne_bytes());
        let mask = Body::default().network(1, 1).network(2, 1).network(3, 4);
        let rule = self.expression("ct", Body::default().network(1, 1).network(2, 2));
        rule.expression("bitwise", mask.nest(4, value(DST_NAT)).nest(5, value(0))).differs_from(&0u32.to_ne_bytes())
    }

    fn register(self, register: u32, value: &[u8]) -> Rule {
        let data = Body::default().network(1, register).nest(2, Body::default().bytes(1, value));
        self.expression("immediate", data)
    }

    fn turn_to(self, ip: Ipv4Addr, port: u16) -> Rule {
        let rule = self.register(1, &ip.octets()).register(2, &port.to_be_bytes());
        let nat = Body::default().network(1, 1).network(2, u32::from(IPV4)).network(3, 1).network(5, 2);
        rule.expression("nat", nat)
    }

    fn masquerade(self) -> Rule {
        self.expression("masq", Body::default())
    }

    fn drop(self) -> Rule {
        let verdict = Body::default().network(1, 0);
        self.expression("immediate", Body::default().network(1, 0).nest(2, Body::default().nest(2, verdict)))
    }
}

/// A transaction under construction.
struct Batch {
    table: String,
    bytes: Vec<u8>,
}

impl Batch {
    fn begin(table: &str) -> Batch {
        let mut batch = Batch { table: table.to_owned(), bytes: Vec::new() };
        batch.push(BATCH_BEGIN, 0, true, &edge(0));
        // A table that is not there cannot be deleted: it is made first.
        batch.table_message(NEWTABLE, CREATE);
        batch.table_message(DELTABLE, 0);
        batch
    }

    fn push(&mut self, kind: u16, flags: u16, quiet: bool, body: &Body) {
        self.bytes.extend(message(kind, flags, quiet, body));
    }

    fn table_message(&mut self, kind: u16, flags: u16) {
        let body = head().text(1, &self.table);
        self.push(kind, flags, false, &body);
    }

    fn chain(&mut self, chain: &Chain) {
        let hook = Body::default().network(1, chain.hook).bytes(2, &chain.priority.to_be_bytes());
        let body = head().text(1, &self.table).text(3, chain.name).nest(4, hook).text(7, chain.kind);
        self.push(NEWCHAIN, CREATE, false, &body);
    }

    fn rule(&mut self, chain: &Chain, rule: Rule) {
        let body = head().text(1, &self.table).text(2, chain.name).nest(4, rule.0);
        self.push(NEWRULE, CREATE | APPEND, false, &body);
    }

    fn end(mut self) -> Vec<u8> {
        self.push(BATCH_END, 0, true, &edge(0));
        self.bytes
    }
}

/// `struct nfgenmsg` of a message about IPv4.
fn head() -> Body {
    Body::new(&[IPV4, 0, 0, 0])
}

/// `struct nfgenmsg` of the begin and the end of a transaction: the subsystem in network byte order.
fn edge(family: u8) -> Body {
    let [high, low] = NFTABLES.to_be_bytes();
    Body::new(&[family, 0, high, low])
}

/// The transaction that makes the table what these pods need.
pub(super) fn batch(settings: &Settings, pods: &BTreeMap<String, Attachment>) -> Vec<u8> {
    let (bridge, subnet) = (settings.bridge.as_str(), settings.subnet);
    let mut batch = Batch::begin(&table(bridge));
    batch.table_message(NEWTABLE, CREATE);
    for chain in [GUARD, PREROUTING, OUTPUT, POSTROUTING] {
        batch.chain(&chain);
    }
    let (loopback, eight) = (Ipv4Addr::new(127, 0, 0, 0), 0xff00_0000);
    batch.rule(&GUARD, Rule::default().in_by(bridge).to(loopback, eight).drop());
    for port in &settings.expose {
        let rule = Rule::default().in_by(bridge).to(subnet.gateway(), u32::MAX).port(Protocol::Tcp, *port);
        batch.rule(&PREROUTING, rule.turn_to(Ipv4Addr::LOCALHOST, *port));
    }
    for (ip, port) in pods.values().flat_map(|a| a.ip.into_iter().flat_map(|ip| a.ports.iter().map(move |p| (ip, p)))) {
        for chain in [PREROUTING, OUTPUT] {
            batch.rule(&chain, towards(port, ip));
        }
    }
    for rule in outwards(bridge, subnet) {
        batch.rule(&POSTROUTING, rule);
    }
    batch.end()
}

fn towards(port: &HostPort, ip: Ipv4Addr) -> Rule {
    let rule = match port.host_ip {
        Some(address) if !address.is_unspecified() => Rule::default().to(address, u32::MAX),
        _ => Rule::default().towards_this_node(),
    };
    rule.port(port.protocol, port.host_port).turn_to(ip, port.pod_port)
}

fn outwards(bridge: &str, subnet: Subnet) -> [Rule; 3] {
    let (network, mask) = (subnet.network(), subnet.mask());
    [
        Rule::default().from(network, mask).not_out_by(bridge).masquerade(),
        // Answers must come back the way the question went, or the pod would answer a question nobody asked.
        Rule::default().from(network, mask).out_by(bridge).was_turned().masquerade(),
        Rule::default().from(Ipv4Addr::new(127, 0, 0, 0), 0xff00_0000).out_by(bridge).was_turned().masquerade(),
    ]
}

/// Hands a transaction to the kernel. Blocks.
pub(super) fn send(batch: &[u8]) -> io::Result<()> {
    transact(NETLINK_NETFILTER, batch)
}

/// Removes the table; fine when there is none.
pub(super) fn remove(table: &str) -> io::Result<()> {
    send(&Batch::begin(table).end())
}
