//! `visitors.configData` of Modbus properties: where a property is found and how its registers make a value.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Where a property is found and how its registers make a value.
///
/// Value = (raw & `mask`, shifted down) × `scale` + `bias`, rounded to `precision`. Without `dataType` the model's type and
/// `limit` say what the registers hold:
///
/// | type | limit 1 | limit 2 | limit 4 |
/// |---|---|---|---|
/// | INT, BOOLEAN | uint16 | uint32 | uint64 |
/// | FLOAT | uint16, to be scaled | float32 (also without limit) | float64 |
/// | DOUBLE | uint16, to be scaled | float32 | float64 (also without limit) |
///
/// STRING and BYTES take `limit` registers. A BOOLEAN register is true unless it is 0. An INT is rounded after scaling.
/// A table of bits makes a BOOLEAN or an INT of one bit, or BYTES of `limit` bits, the first in the lowest bit.
///
/// Several values of one block that belong together are a `struct`: a STRING property with `fields`, whose value is a JSON
/// object, read and written in one request. Values that do not need that are properties of their own; they are read together
/// all the same.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Visitor {
    /// Which of the four tables, or the identification.
    pub register: Table,
    /// The first address, from 0 (as on the wire, not 40001).
    #[serde(default)]
    pub offset: u16,
    /// How many registers (or bits) the value takes; 1 when absent. With `dataType` it may be left out.
    #[serde(default)]
    pub limit: u16,
    /// Factor from raw to value; 1 when absent, never 0.
    #[serde(default = "one")]
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
    /// Ours: decimals the value is rounded to, 0 to 15; not rounded when absent.
    #[serde(default)]
    pub precision: Option<u8>,
    /// Ours: one bit of a register, 0 (least significant) to 15, as a BOOLEAN.
    #[serde(default)]
    pub bit: Option<u8>,
    /// Ours: the bits of an unsigned integer that are the value; the lowest of them becomes bit 0.
    #[serde(default)]
    pub mask: Option<u64>,
    /// Ours: numbers (in decimal) and the texts they mean, for a STRING of a number. A number that is not listed is its own
    /// text.
    #[serde(default, rename = "enum")]
    pub names: BTreeMap<String, String>,
    /// Ours: how text is packed into registers.
    #[serde(default)]
    pub packing: Packing,
    /// Ours: what fills text up that is shorter than its registers.
    #[serde(default)]
    pub padding: Padding,
    /// Ours: the characters of text.
    #[serde(default)]
    pub encoding: Encoding,
    /// Ours: the fields of a `struct`: each with `name`, `type` (as in a model) and the keys of a visitor, `offset` counted
    /// from the struct's own.
    #[serde(default)]
    pub fields: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Ours: read what was written and compare; true when absent. For write-only registers say false.
    #[serde(default = "yes")]
    pub read_back: bool,
}

const fn one() -> f64 {
    1.0
}

const fn yes() -> bool {
    true
}

/// One of Modbus' four tables, by KubeEdge's names, or what the device says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum Table {
    /// Coils: bits, read (1) and written (5, 15).
    #[serde(rename = "CoilRegister")]
    Coil,
    /// Discrete inputs: bits, read only (2).
    #[serde(rename = "DiscreteInputRegister")]
    Discrete,
    /// Holding registers: 16 bits, read (3) and written (6, 16, 22, 23).
    #[serde(rename = "HoldingRegister")]
    Holding,
    /// Input registers: 16 bits, read only (4).
    #[serde(rename = "InputRegister")]
    Input,
    /// Ours: the texts of the device identification, read only (43/14). `offset` is the object: 0 vendor name, 1 product code,
    /// 2 revision, 3 URL, 4 product name, 5 model name, 6 application name, from 128 on the device's own (Modbus Application
    /// Protocol V1.1b3, section 6.21).
    #[serde(rename = "DeviceIdentification")]
    Identification,
}

impl Table {
    /// KubeEdge's word.
    pub const fn word(self) -> &'static str {
        match self {
            Table::Coil => "CoilRegister",
            Table::Discrete => "DiscreteInputRegister",
            Table::Holding => "HoldingRegister",
            Table::Input => "InputRegister",
            Table::Identification => "DeviceIdentification",
        }
    }

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
    /// Signed, the low byte of one register; with `isSwap` the high one.
    Int8,
    /// Unsigned, the low byte of one register; with `isSwap` the high one.
    Uint8,
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
    /// IEEE 754 half precision, one register.
    Float16,
    /// IEEE 754 single precision, two registers.
    Float32,
    /// IEEE 754 double precision, four registers.
    Float64,
    /// Four decimal digits, one register.
    Bcd16,
    /// Eight decimal digits, two registers.
    Bcd32,
    /// Sixteen decimal digits, four registers.
    Bcd64,
    /// Text, `limit` registers, ended by the first zero byte.
    String,
    /// Bytes, `limit` registers.
    Bytes,
    /// Several values, `fields`.
    Struct,
}

impl DataType {
    /// How many registers it takes; `None` where `limit` says so.
    pub const fn registers(self) -> Option<u16> {
        match self {
            DataType::Int8
            | DataType::Uint8
            | DataType::Int16
            | DataType::Uint16
            | DataType::Float16
            | DataType::Bcd16 => Some(1),
            DataType::Int32 | DataType::Uint32 | DataType::Float32 | DataType::Bcd32 => Some(2),
            DataType::Int64 | DataType::Uint64 | DataType::Float64 | DataType::Bcd64 => Some(4),
            DataType::String | DataType::Bytes | DataType::Struct => None,
        }
    }

    /// Whether it is a float.
    pub const fn is_float(self) -> bool {
        matches!(self, DataType::Float16 | DataType::Float32 | DataType::Float64)
    }
}

/// How text is packed into registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Packing {
    /// Two characters in a register, the first in the high byte; with `isSwap` as `lowFirst`.
    #[default]
    HighFirst,
    /// Two characters in a register, the first in the low byte.
    LowFirst,
    /// One character in a register, in its low byte; with `isSwap` in its high byte.
    Single,
}

/// What fills text up that is shorter than its registers. Trailing spaces are never part of a text padded with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Zero bytes.
    #[default]
    Zero,
    /// Spaces.
    Space,
}

/// The characters of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// UTF-8, and so ASCII.
    #[default]
    Utf8,
    /// ISO 8859-1: a byte a character.
    Latin1,
}
