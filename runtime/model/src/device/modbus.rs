//! `configData` of Modbus devices: KubeEdge's keys, and ours where it has none.
//!
//! KubeEdge's Modbus mapper knows `ip`, `port`, `slaveID`, `communicateMode` for the device, and `register`, `offset`,
//! `limit`, `scale`, `isSwap`, `isRegisterSwap` for a property (kubeedge/mappers-go, `mappers/modbus`). They mean the same
//! here. The rest is ours and optional.
//!
//! Protocol facts: Modbus Application Protocol V1.1b3 (addresses from 0, at most 125 registers or 2000 bits a read, 123
//! registers or 1968 bits a write, section 6) and Modbus Messaging on TCP/IP V1.0b (port 502, unit identifier).

use serde::Deserialize;

/// `protocol.configData`: how to reach the device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// Host name or address.
    #[serde(default)]
    pub ip: String,
    /// TCP port; 502 when absent.
    #[serde(default = "defaults::port")]
    pub port: u16,
    /// Unit identifier, 0 to 255; 1 when absent.
    #[serde(default = "defaults::slave", rename = "slaveID")]
    pub slave_id: u8,
    /// `TCP`, the only mode so far.
    #[serde(default)]
    pub communicate_mode: Mode,
    /// Ours: how long an answer may take, in milliseconds, 1 to 60000; 1000 when absent.
    #[serde(default = "defaults::timeout")]
    pub timeout: u32,
    /// Ours: how long connecting may take, in milliseconds, 1 to 60000; 3000 when absent.
    #[serde(default = "defaults::connect_timeout")]
    pub connect_timeout: u32,
    /// Ours: the pause the device needs between two requests, in milliseconds, 0 to 10000; 0 when absent.
    #[serde(default)]
    pub request_interval: u32,
    /// Ours: the most registers nobody asked for that are read along to save a request; 16 when absent.
    #[serde(default = "defaults::gap")]
    pub max_gap: u16,
    /// Ours: the most registers the device gives in one request, 1 to 125.
    #[serde(default = "defaults::registers")]
    pub max_registers: u16,
    /// Ours: the most coils or discrete inputs the device gives in one request, 1 to 2000.
    #[serde(default = "defaults::bits")]
    pub max_bits: u16,
    /// Ours: write single values with functions 15 and 16 as well, for devices that lack 5 and 6.
    #[serde(default)]
    pub write_multiple: bool,
}

/// How a Modbus device is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// Modbus TCP.
    #[default]
    Tcp,
}

mod defaults {
    pub(super) const fn port() -> u16 {
        502
    }
    pub(super) const fn slave() -> u8 {
        1
    }
    pub(super) const fn timeout() -> u32 {
        1_000
    }
    pub(super) const fn connect_timeout() -> u32 {
        3_000
    }
    pub(super) const fn gap() -> u16 {
        16
    }
    pub(super) const fn registers() -> u16 {
        125
    }
    pub(super) const fn bits() -> u16 {
        2_000
    }
    pub(super) const fn scale() -> f64 {
        1.0
    }
    pub(super) const fn yes() -> bool {
        true
    }
}

/// `visitors.configData`: where a property is found and how its registers make a value.
///
/// Value = raw × `scale` + `bias`. Without `dataType` the model's type and `limit` say what the registers hold:
///
/// | type | limit 1 | limit 2 | limit 4 |
/// |---|---|---|---|
/// | INT, BOOLEAN | uint16 | uint32 | uint64 |
/// | FLOAT | uint16, to be scaled | float32 (also without limit) | float64 |
/// | DOUBLE | uint16, to be scaled | float32 | float64 (also without limit) |
///
/// STRING and BYTES take `limit` registers. A BOOLEAN register is true unless it is 0. An INT is rounded after scaling.
/// A table of bits makes a BOOLEAN or an INT of one bit, or BYTES of `limit` bits, the first in the lowest bit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Visitor {
    /// Which of the four tables.
    pub register: Table,
    /// The first address, from 0 (as on the wire, not 40001).
    #[serde(default)]
    pub offset: u16,
    /// How many registers (or bits) the value takes; 1 when absent. With `dataType` it may be left out.
    #[serde(default)]
    pub limit: u16,
    /// Factor from raw to value; 1 when absent, never 0.
    #[serde(default = "defaults::scale")]
    pub scale: f64,
    /// Swap the two bytes of each register.
    #[serde(default)]
    pub is_swap: bool,
    /// Reverse the order of the registers.
    #[serde(default)]
    pub is_register_swap: bool,
    /// Ours: what the registers hold. When absent, `limit` and the model's type say it, unsigned as in KubeEdge.
    #[serde(default)]
    pub data_type: Option<DataType>,
    /// Ours: for each byte on the wire, which byte of the big-endian value it is: `AB`, `BA`; `ABCD`, `BADC`, `CDAB`,
    /// `DCBA`; `ABCDEFGH`, `GHEFCDAB`, `BADCFEHG`, `HGFEDCBA`, or any other order. Instead of the two swaps.
    #[serde(default)]
    pub byte_order: Option<String>,
    /// Ours: added after scaling.
    #[serde(default)]
    pub bias: f64,
    /// Ours: one bit of a register, 0 (least significant) to 15, as a BOOLEAN.
    #[serde(default)]
    pub bit: Option<u8>,
    /// Ours: read what was written and compare; true when absent. For write-only registers say false.
    #[serde(default = "defaults::yes")]
    pub read_back: bool,
}

/// One of Modbus' four tables, by KubeEdge's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum Table {
    /// Coils: bits, read (1) and written (5, 15).
    #[serde(rename = "CoilRegister")]
    Coil,
    /// Discrete inputs: bits, read only (2).
    #[serde(rename = "DiscreteInputRegister")]
    Discrete,
    /// Holding registers: 16 bits, read (3) and written (6, 16).
    #[serde(rename = "HoldingRegister")]
    Holding,
    /// Input registers: 16 bits, read only (4).
    #[serde(rename = "InputRegister")]
    Input,
}

impl Table {
    /// Whether it holds single bits.
    pub const fn is_bits(self) -> bool {
        matches!(self, Table::Coil | Table::Discrete)
    }

    /// Whether it can be written.
    pub const fn is_writable(self) -> bool {
        matches!(self, Table::Coil | Table::Holding)
    }
}

/// What the registers of a value hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataType {
    /// Signed, one register.
    Int16,
    /// Unsigned, one register.
    Uint16,
    /// Signed, two registers.
    Int32,
    /// Unsigned, two registers.
    Uint32,
    /// Signed, four registers.
    Int64,
    /// Unsigned, four registers.
    Uint64,
    /// IEEE 754 single precision, two registers.
    Float32,
    /// IEEE 754 double precision, four registers.
    Float64,
    /// UTF-8 text, `limit` registers, ended by the first zero byte.
    String,
    /// Bytes, `limit` registers.
    Bytes,
}

impl DataType {
    /// How many registers it takes; `None` where `limit` says so.
    pub const fn registers(self) -> Option<u16> {
        match self {
            DataType::Int16 | DataType::Uint16 => Some(1),
            DataType::Int32 | DataType::Uint32 | DataType::Float32 => Some(2),
            DataType::Int64 | DataType::Uint64 | DataType::Float64 => Some(4),
            DataType::String | DataType::Bytes => None,
        }
    }
}
