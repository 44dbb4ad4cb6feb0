//! Advertisements → named fields. Pure: bytes in, values out; whatever the bytes are, nothing panics.
//!
//! Each format is known by its company or its service, so `auto` may try them all:
//!
//! | module | found in | company or service |
//! |---|---|---|
//! | [`bthome`] | service data | 0xFCD2 |
//! | [`xiaomi`] | service data | 0xFE95 |
//! | [`atc`] | service data | 0x181A |
//! | [`eddystone`] | service data | 0xFEAA |
//! | [`ruuvi`] | manufacturer data | 0x0499 |
//! | [`ibeacon`] | manufacturer data | 0x004C |

pub mod atc;
pub mod bthome;
pub mod eddystone;
pub mod ibeacon;
pub mod ruuvi;
#[cfg(test)]
mod tests;
pub mod xiaomi;

use edge_model::device::bluetooth::Decoder;
use edge_model::reading::Value;

use super::address::Address;
use super::uuid::Uuid;

/// The part of an advertisement a decoder looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Section {
    /// Manufacturer data: the company (Bluetooth assigned numbers, section 7.1) and its bytes.
    Manufacturer(u16, Vec<u8>),
    /// Service data: the service and its bytes.
    Service(Uuid, Vec<u8>),
}

/// What an advertisement says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decoded {
    /// Name and value, in the order they came.
    pub fields: Vec<(String, Value)>,
    /// The packet's number, if it has one: the same number means the same packet, heard again.
    pub packet: Option<u32>,
    /// Whether it was encrypted; then the numbers only grow, or the packet is somebody else's old one.
    pub sealed: bool,
}

impl Decoded {
    fn new() -> Decoded {
        Decoded::default()
    }

    /// Adds a field. Of several with the same name the second becomes `name_2`, and so on.
    fn push(&mut self, name: &str, value: Value) {
        let numbered = |n: &str| n.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        let before = self
            .fields
            .iter()
            .filter(|(n, _)| numbered(n) && n[name.len()..].chars().skip(1).all(|c| c.is_ascii_digit()))
            .count();
        let name = if before == 0 { name.to_owned() } else { format!("{name}_{}", before + 1) };
        self.fields.push((name, value));
    }

    /// Adds `raw × factor ÷ divisor`; an integer when both are 1. Dividing keeps decimals as people write them.
    fn number(&mut self, name: &str, raw: i64, factor: u32, divisor: u32) {
        let value = match (factor, divisor) {
            (1, 1) => Value::Int(raw),
            #[expect(clippy::cast_precision_loss, reason = "no format has numbers of more than 32 bits")]
            _ => Value::Float(raw as f64 * f64::from(factor) / f64::from(divisor)),
        };
        self.push(name, value);
    }
}

/// Decodes a section. `None` when it is not of a format that is asked for.
///
/// # Errors
/// It is of that format, and why it cannot be used.
pub fn decode(
    decoder: Decoder,
    address: Address,
    key: &[u8],
    section: &Section,
) -> Option<Result<Decoded, &'static str>> {
    let wanted = |format| decoder == Decoder::Auto || decoder == format;
    match section {
        Section::Manufacturer(ruuvi::COMPANY, bytes) if wanted(Decoder::Ruuvi) => Some(ruuvi::decode(bytes)),
        Section::Manufacturer(ibeacon::COMPANY, bytes) if wanted(Decoder::Ibeacon) => ibeacon::decode(bytes).map(Ok),
        Section::Service(bthome::SERVICE, bytes) if wanted(Decoder::Bthome) => {
            Some(bthome::decode(address, key, bytes))
        }
        Section::Service(xiaomi::SERVICE, bytes) if wanted(Decoder::Xiaomi) => {
            Some(xiaomi::decode(address, key, bytes))
        }
        Section::Service(atc::SERVICE, bytes) if wanted(Decoder::Atc) => Some(atc::decode(bytes)),
        Section::Service(eddystone::SERVICE, bytes) if wanted(Decoder::Eddystone) => Some(eddystone::decode(bytes)),
        _ => None,
    }
}

/// An unsigned integer of up to 8 bytes, least significant first.
pub(super) fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// An unsigned integer of up to 8 bytes, most significant first.
pub(super) fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// The two's complement meaning of the lowest `length` bytes (1 to 8).
pub(super) const fn signed(raw: u64, length: usize) -> i64 {
    let unused = match length {
        1..=8 => 64 - 8 * length,
        _ => 0,
    };
    (raw << unused).cast_signed() >> unused
}

/// Bytes in hexadecimal digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Bytes out of hexadecimal digits; `None` when it is not that.
pub fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}
