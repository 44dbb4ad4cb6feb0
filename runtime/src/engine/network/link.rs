//! Bridge, links, addresses and routes. Everything here can be repeated: what is there already is fine.
//!
//! Source: rtnetlink(7), `linux/if_link.h`, `linux/if_addr.h`, `linux/rtnetlink.h`, `linux/veth.h`.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Subnet;
use super::netlink::{Body, CREATE, EXCLUSIVE, message, transact};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;

const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const BRPORT_MODE: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const IFF_UP: u32 = 1;
/// The link inside a pod.
const INSIDE: &str = "eth0";

/// `struct ifinfomsg`: family, type, index, flags and which of them are meant.
fn ifinfo(index: u32, up: bool) -> Body {
    let mut fixed = vec![0u8; 4];
    fixed.extend_from_slice(&index.to_ne_bytes());
    fixed.extend_from_slice(&if up { IFF_UP } else { 0 }.to_ne_bytes());
    fixed.extend_from_slice(&if up { IFF_UP } else { 0 }.to_ne_bytes());
    Body::new(&fixed)
}

fn send(kind: u16, flags: u16, body: &Body) -> io::Result<()> {
    transact(NETLINK_ROUTE, &message(kind, flags, false, body))
}

/// As [`send`], for making what may be there.
fn make(kind: u16, body: &Body) -> io::Result<()> {
    match send(kind, CREATE | EXCLUSIVE, body) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The index of a link in this thread's namespace.
fn index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

/// Switches a link on.
pub(super) fn up(name: &str) -> io::Result<()> {
    send(NEWLINK, 0, &ifinfo(index(name)?, true))
}

fn address(link: u32, ip: Ipv4Addr, subnet: Subnet) -> io::Result<()> {
    // `struct ifaddrmsg`: IPv4, prefix, no flags, everywhere.
    let mut fixed = vec![AF_INET, subnet.bits(), 0, 0];
    fixed.extend_from_slice(&link.to_ne_bytes());
    let body = Body::new(&fixed).bytes(IFA_LOCAL, &ip.octets()).bytes(IFA_ADDRESS, &ip.octets());
    make(NEWADDR, &body.bytes(IFA_BROADCAST, &subnet.broadcast().octets()))
}

/// The bridge with the node's own address, and the node as a router for it.
pub(super) fn bridge(name: &str, subnet: Subnet) -> io::Result<()> {
    let info = Body::default().text(INFO_KIND, "bridge");
    make(NEWLINK, &ifinfo(0, false).text(IFLA_IFNAME, name).nest(IFLA_LINKINFO, info))?;
    address(index(name)?, subnet.gateway(), subnet)?;
    up(name)?;
    set("net/ipv4/ip_forward")?;
    // Lets ports of the node's loopback lead to pods and back; `rules` keeps everything else on loopback out of reach.
    set(&format!("net/ipv4/conf/{name}/route_localnet"))
}

fn set(sysctl: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys").join(sysctl);
    if fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
        return Ok(());
    }
    fs::write(path, "1")
}

/// A pair of links: one on the bridge, the other inside the namespace.
pub(super) fn veth(name: &str, bridge: &str, namespace: &Path) -> io::Result<()> {
    let namespace = File::open(namespace)?;
    let fd = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    let peer = ifinfo(0, false).text(IFLA_IFNAME, INSIDE).native(IFLA_NET_NS_FD, fd);
    let data = Body::default().nest(VETH_PEER, peer);
    let info = Body::default().text(INFO_KIND, "veth").nest(INFO_DATA, data);
    let body = ifinfo(0, false).text(IFLA_IFNAME, name).native(IFLA_MASTER, index(bridge)?).nest(IFLA_LINKINFO, info);
    make(NEWLINK, &body)?;
    up(name)?;
    // A pod that speaks to its own host port gets its packets back through the bridge's port they came from.
    let mut fixed = vec![AF_BRIDGE, 0, 0, 0];
    fixed.extend_from_slice(&index(name)?.to_ne_bytes());
    fixed.extend_from_slice(&[0; 8]);
    send(SETLINK, 0, &Body::new(&fixed).nest(IFLA_PROTINFO, Body::default().bytes(BRPORT_MODE, &[1])))
}

/// Inside a pod's namespace: loopback, its address, its way out.
pub(super) fn configure(ip: Ipv4Addr, subnet: Subnet) -> io::Result<()> {
    up("lo")?;
    let link = index(INSIDE)?;
    address(link, ip, subnet)?;
    up(INSIDE)?;
    // `struct rtmsg`: IPv4, whole address space, main table (254), made by boot scripts (3), everywhere (0), unicast (1).
    let route = Body::new(&[AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]);
    make(NEWROUTE, &route.native(RTA_OIF, link).bytes(RTA_GATEWAY, &subnet.gateway().octets()))
}

/// Removes a link; fine when there is none.
pub(super) fn remove(name: &str) -> io::Result<()> {
    match send(DELLINK, 0, &ifinfo(0, false).text(IFLA_IFNAME, name)) {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}
