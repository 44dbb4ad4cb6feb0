//! Registers to values, in every byte and word order.
//!
//! A register travels big-endian (Modbus Application Protocol V1.1b3, section 4.2); how several make a number is each maker's
//! own idea. An order says, for each byte on the wire, which byte of the big-endian value it is, so every idea fits.

use edge_model::device::PropertyType;
use edge_model::device::modbus::DataType;
use edge_model::reading::Value;

use super::layout::{Order, Raw, Scale};
use super::number::{from_bcd, from_half};

/// How the registers or bits of one point make a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Codec {
    pub(super) raw: Raw,
    pub(super) order: Order,
    pub(super) scale: Scale,
    pub(super) bias: f64,
    pub(super) as_type: PropertyType,
    /// An INT as it is on the wire: no order, factor or mask.
    pub(super) plain: bool,
    pub(super) precision: Option<u8>,
    /// The bits of the number that are the value.
    pub(super) mask: Option<u64>,
    /// What whole numbers mean.
    pub(super) names: Vec<(i128, String)>,
}

impl Codec {
    /// A value from registers. The caller gives as many as the point takes.
    ///
    /// # Errors
    /// What makes no sense in them: NaN, infinity, text that is not UTF-8, digits above 9.
    pub fn decode(&self, registers: &[u16]) -> Result<Value, &'static str> {
        match &self.raw {
            // What most registers are, by a short way.
            Raw::Number(DataType::Uint16) if self.plain => match registers.first() {
                Some(word) => Ok(Value::Int(i64::from(*word))),
                None => Err("too few registers"),
            },
            Raw::Number(t) => self.number(*t, self.arranged(registers)),
            Raw::Bit(bit) => {
                let mask = 1u64 << bit;
                Ok(self.flag(self.arranged(registers) >> 48 & mask != 0))
            }
            Raw::Text(text) => text.decode(registers).map(Value::Text),
            Raw::Bytes(text) => Ok(Value::Bytes(text.bytes(registers))),
            Raw::Struct(fields) => {
                let mut object = serde_json::Map::new();
                for f in fields {
                    let at = usize::from(f.at);
                    let own = registers.get(at..at + usize::from(f.count)).ok_or("too few registers")?;
                    object.insert(f.name.clone(), f.codec.decode(own)?.to_json());
                }
                Ok(Value::Text(serde_json::Value::Object(object).to_string()))
            }
            Raw::Bits | Raw::Object => Err("bits or texts in registers"),
        }
    }

    /// A value from coils or discrete inputs. The caller gives as many as the point takes.
    ///
    /// # Errors
    /// Never for a codec resolved for a table of bits.
    pub fn decode_bits(&self, bits: &[bool]) -> Result<Value, &'static str> {
        match (&self.raw, self.as_type, bits) {
            // Packed as on the wire: the first bit is the least significant of the first byte (section 6.1).
            (Raw::Bits, PropertyType::Bytes, bits) => {
                let pack = |chunk: &[bool]| chunk.iter().rev().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit));
                Ok(Value::Bytes(bits.chunks(8).map(pack).collect()))
            }
            (Raw::Bits, _, [bit]) => Ok(self.flag(*bit)),
            _ => Err("registers in bits"),
        }
    }

    pub(super) fn flag(&self, on: bool) -> Value {
        match self.as_type {
            PropertyType::Int => Value::Int(i64::from(on)),
            PropertyType::String => self.name(i128::from(on)),
            _ => Value::Bool(on),
        }
    }

    /// What a whole number means; a number nobody named is its own name.
    fn name(&self, number: i128) -> Value {
        let known = self.names.iter().find(|(n, _)| *n == number);
        Value::Text(known.map_or_else(|| number.to_string(), |(_, name)| name.clone()))
    }

    /// The bytes of up to four registers in big-endian order of the value, left-aligned in 64 bits.
    fn arranged(&self, registers: &[u16]) -> u64 {
        let wire = registers.iter().take(4).enumerate().fold(0u64, |w, (i, r)| w | u64::from(*r) << (48 - 16 * i));
        match self.order {
            Order::Permuted(order) => {
                let (from, mut to) = (wire.to_be_bytes(), [0u8; 8]);
                for (byte, place) in from.iter().zip(order) {
                    to[usize::from(place & 7)] = *byte;
                }
                u64::from_be_bytes(to)
            }
            Order::Plain => wire,
        }
    }

    /// The registers of a left-aligned big-endian value: the inverse of `arranged`.
    pub(super) fn scattered(&self, value: u64, count: u16) -> Vec<u16> {
        let wire = match self.order {
            Order::Permuted(order) => {
                let (from, mut to) = (value.to_be_bytes(), [0u8; 8]);
                for (byte, place) in to.iter_mut().zip(order) {
                    *byte = from[usize::from(place & 7)];
                }
                u64::from_be_bytes(to)
            }
            Order::Plain => value,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are meant")]
        (0..count.min(4)).map(|i| (wire >> (48 - 16 * i)) as u16).collect()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the shift leaves the type's own bits"
    )]
    #[expect(clippy::cast_precision_loss, reason = "scaled values are floats")]
    fn number(&self, t: DataType, left: u64) -> Result<Value, &'static str> {
        let digits = |shift: u32| from_bcd(left >> shift).ok_or("a digit above 9");
        let (signed, unsigned, float) = match t {
            DataType::Int8 => (Some((left >> 48) as i8 as i64), None, None),
            DataType::Int16 => (Some((left >> 48) as i16 as i64), None, None),
            DataType::Int32 => (Some((left >> 32) as i32 as i64), None, None),
            DataType::Int64 => (Some(left as i64), None, None),
            DataType::Uint8 => (None, Some(left >> 48 & 0xff), None),
            DataType::Uint16 => (None, Some(left >> 48), None),
            DataType::Uint32 => (None, Some(left >> 32), None),
            DataType::Uint64 => (None, Some(left), None),
            DataType::Bcd16 => (None, Some(digits(48)?), None),
            DataType::Bcd32 => (None, Some(digits(32)?), None),
            DataType::Bcd64 => (None, Some(digits(0)?), None),
            DataType::Float16 => (None, None, Some(from_half((left >> 48) as u16))),
            DataType::Float32 => (None, None, Some(shortest(f32::from_bits((left >> 32) as u32)))),
            DataType::Float64 => (None, None, Some(f64::from_bits(left))),
            DataType::String | DataType::Bytes | DataType::Struct => return Err("text is not a number"),
        };
        let unsigned = match (unsigned, self.mask) {
            (Some(u), Some(mask)) => Some((u & mask) >> mask.trailing_zeros()),
            (unsigned, _) => unsigned,
        };
        let exact = self.scale == Scale::None && self.bias == 0.0;
        match (self.as_type, signed, unsigned) {
            (PropertyType::Boolean, Some(i), _) => return Ok(Value::Bool(i != 0)),
            (PropertyType::Boolean, _, Some(u)) => return Ok(Value::Bool(u != 0)),
            (PropertyType::Int, Some(i), _) if exact => return Ok(Value::Int(i)),
            (PropertyType::Int, _, Some(u)) if exact => {
                return Ok(i64::try_from(u).map_or(Value::UInt(u), Value::Int));
            }
            (PropertyType::String, Some(i), _) => return Ok(self.name(i.into())),
            (PropertyType::String, _, Some(u)) => return Ok(self.name(u.into())),
            _ => {}
        }
        let raw = float.or(signed.map(|i| i as f64)).or(unsigned.map(|u| u as f64)).unwrap_or(f64::NAN);
        let value = self.rounded(self.scale.apply(raw) + self.bias);
        if !value.is_finite() {
            return Err("not a number");
        }
        match self.as_type {
            PropertyType::Int if value.abs() < 9.2e18 => Ok(Value::Int(value.round() as i64)),
            PropertyType::Int => Err("too large for an integer"),
            _ => Ok(Value::Float(value)),
        }
    }

    fn rounded(&self, x: f64) -> f64 {
        let Some(precision) = self.precision else { return x };
        let power = 10f64.powi(i32::from(precision));
        let rounded = (x * power).round() / power;
        // A number too large to be multiplied has no decimals.
        if rounded.is_finite() { rounded } else { x }
    }
}

/// A single-precision float as the shortest decimal that is still the same float: 21.3 and not 21.299999237060547.
fn shortest(x: f32) -> f64 {
    let exact = f64::from(x);
    let mut power = 1.0;
    for _ in 0..=8 {
        let rounded = (exact * power).round() / power;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::float_cmp,
            reason = "the question is whether it is the same float"
        )]
        if rounded as f32 == x {
            return rounded;
        }
        power *= 10.0;
    }
    exact
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "types_tests.rs"]
mod types_tests;
