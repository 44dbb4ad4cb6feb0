//! The addresses of pods.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network of `/16` to `/29`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    bits: u8,
}

/// Why a text is not a subnet for pods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subnet for pods: an IPv4 network of /16 to /29, such as 10.244.77.0/24")]
pub struct BadSubnet(String);

impl Subnet {
    /// `10.244.77.0/24`.
    pub const DEFAULT: Subnet = Subnet { base: 0x0af4_4d00, bits: 24 };

    /// The node's own address: the first.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// The last address, which reaches everybody.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base | !self.mask())
    }

    /// The network's own address.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    /// How many bits of an address name the network.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// The bits of an address that name the network.
    pub fn mask(self) -> u32 {
        u32::MAX << (32 - self.bits)
    }

    /// Whether an address can be a pod's.
    pub fn has(self, ip: Ipv4Addr) -> bool {
        let number = u32::from(ip);
        number & self.mask() == self.base && number > self.base + 1 && ip != self.broadcast()
    }

    /// The addresses pods can have.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.base + 2..u32::from(self.broadcast())).map(Ipv4Addr::from)
    }
}

impl FromStr for Subnet {
    type Err = BadSubnet;

    fn from_str(text: &str) -> Result<Subnet, BadSubnet> {
        let parse = || {
            let (ip, bits) = text.split_once('/')?;
            let (base, bits) = (u32::from(ip.parse::<Ipv4Addr>().ok()?), bits.parse::<u8>().ok()?);
            let subnet = Subnet { base, bits };
            ((16..=29).contains(&bits) && base & !subnet.mask() == 0 && base >> 24 != 127).then_some(subnet)
        };
        parse().ok_or_else(|| BadSubnet(text.to_owned()))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.bits)
    }
}
