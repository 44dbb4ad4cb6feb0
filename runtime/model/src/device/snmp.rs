//! `configData` of SNMP agents (`protocolName: snmp`): version 1 (RFC 1157), 2c (RFC 3416) and 3 with the user-based
//! security model (RFC 3414). KubeEdge has no word for them.
//!
//! ```yaml
//! # of the model
//! properties:
//!   - {name: uptime, type: INT, accessMode: ReadOnly, visitors: {protocolName: snmp, configData: {oid: 1.3.6.1.2.1.1.3.0}}}
//!   - {name: contact, type: STRING, accessMode: ReadWrite, visitors: {protocolName: snmp, configData: {oid: 1.3.6.1.2.1.1.4.0}}}
//!   - {name: ports, type: STRING, accessMode: ReadOnly, visitors: {protocolName: snmp, configData: {oid: 1.3.6.1.2.1.2.2.1.2, walk: true}}}
//!   - {name: restarts, type: INT, accessMode: ReadOnly, visitors: {protocolName: snmp, configData: {oid: 1.3.6.1.6.3.1.1.5.1, trap: true}}}
//! # of the device
//! protocol:
//!   protocolName: snmp
//!   configData: {host: 192.168.1.9, community: public, trapListen: "0.0.0.0:162"}
//! ```

use std::net::SocketAddr;

use serde::Deserialize;

/// `protocol.configData`: the agent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// The agent's host.
    pub host: String,
    /// Its port; 161 when absent.
    #[serde(default = "agent_port")]
    pub port: u16,
    /// The version; `v2c` when absent.
    #[serde(default)]
    pub version: Version,
    /// The community of versions 1 and 2c; `public` when absent.
    #[serde(default = "public")]
    pub community: String,
    /// The community of writes, when it is another.
    #[serde(default)]
    pub write_community: Option<String>,
    /// The user of version 3.
    #[serde(default)]
    pub user: String,
    /// How messages of version 3 are authenticated; without it they are not.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// The password of that, 8 characters or more (RFC 3414, section 11.2).
    #[serde(default)]
    pub auth_password: String,
    /// How they are encrypted, which needs `auth`; without it they are not.
    #[serde(default)]
    pub privacy: Option<Privacy>,
    /// The password of that, 8 characters or more.
    #[serde(default)]
    pub privacy_password: String,
    /// How long one request may take, in milliseconds, 100 to 60000; 2000 when absent.
    #[serde(default = "two_seconds")]
    pub timeout: u64,
    /// How often a request without an answer is repeated, 0 to 10; 1 when absent. Packets may be lost.
    #[serde(default = "once")]
    pub retries: u32,
    /// How many values one request asks for, 1 to 100; 20 when absent.
    #[serde(default = "twenty")]
    pub max_values: usize,
    /// Where the agent sends its traps and informs, such as `0.0.0.0:162`. Devices with the same address share it and are
    /// told apart by where a trap comes from and by its community; a device of version 3 by `user`, `auth` and `privacy`,
    /// exactly as protected as these say, and by no other version. No traps when absent.
    #[serde(default)]
    pub trap_listen: Option<SocketAddr>,
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// SNMPv1.
    V1,
    /// SNMPv2c.
    #[default]
    V2c,
    /// SNMPv3.
    V3,
}

/// How messages are authenticated (RFC 3414, RFC 7860).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Auth {
    /// HMAC-MD5-96.
    Md5,
    /// HMAC-SHA-96.
    Sha,
    /// HMAC-SHA-224.
    Sha224,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-384.
    Sha384,
    /// HMAC-SHA-512.
    Sha512,
}

/// How messages are encrypted (RFC 3414, RFC 3826).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Privacy {
    /// CBC-DES.
    Des,
    /// CFB-AES-128.
    Aes,
    /// CFB-AES-192.
    Aes192,
    /// CFB-AES-256.
    Aes256,
}

/// `visitors.configData`: the object.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Visitor {
    /// Its identifier in numbers, with the instance: `1.3.6.1.2.1.1.3.0`.
    pub oid: String,
    /// What numbers are multiplied by; 1 when absent. Many agents say tenths.
    #[serde(default = "one")]
    pub scale: f64,
    /// Everything below `oid`, as a JSON mapping from what comes after it to the value; for a STRING that is only read.
    #[serde(default)]
    pub walk: bool,
    /// Only from traps, never read. When `oid` is that of a kind of trap, an INT counts them, a BOOLEAN becomes true, and a
    /// STRING is what the last one carried, as JSON. Any other object changes with whatever trap carries it.
    #[serde(default)]
    pub trap: bool,
    /// The type on the wire of what is written; that of the property when absent.
    #[serde(default)]
    pub write_as: Option<Syntax>,
}

/// The type of an object on the wire (RFC 2578, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Syntax {
    /// INTEGER, Integer32.
    Integer,
    /// Unsigned32, Gauge32.
    Unsigned,
    /// TimeTicks.
    Ticks,
    /// OCTET STRING.
    Octets,
    /// OBJECT IDENTIFIER.
    Oid,
    /// IpAddress.
    Ip,
}

const fn agent_port() -> u16 {
    161
}
fn public() -> String {
    "public".to_owned()
}
const fn two_seconds() -> u64 {
    2_000
}
const fn once() -> u32 {
    1
}
const fn twenty() -> usize {
    20
}
const fn one() -> f64 {
    1.0
}
