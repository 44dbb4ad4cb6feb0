//! Registers to values and back, in every byte and word order.
//!
//! A register travels big-endian (Modbus Application Protocol V1.1b3, section 4.2); how several make a number is each maker's
//! own idea. An order says, for each byte on the wire, which byte of the big-endian value it is, so every idea fits.

use edge_model::device::PropertyType;
use edge_model::device::modbus::{DataType, Visitor};
use edge_model::reading::Value;

use crate::AccessError;

/// How the registers or bits of one point make a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Codec {
    raw: Raw,
    order: Order,
    scale: Scale,
    bias: f64,
    as_type: PropertyType,
}

/// What is in the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Raw {
    /// Coils or discrete inputs.
    Bits,
    /// One bit of a register.
    Bit(u8),
    Number(DataType),
    Text,
    Bytes,
}

/// The order of bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Big-endian throughout: Modbus' own.
    Plain,
    /// For numbers: byte `i` on the wire is byte `0[i]` of the big-endian value.
    Permuted([u8; 8]),
    /// For text and bytes of any length.
    Swapped { bytes: bool, registers: bool },
}

/// A factor. Tenths are divided by ten, not multiplied by 0.1: 3 becomes 0.3 and not 0.30000000000000004.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    None,
    Multiply(f64),
    Divide(f64),
}

impl Scale {
    fn new(factor: f64) -> Scale {
        let inverse = (1.0 / factor).round();
        if (factor - 1.0).abs() < f64::EPSILON {
            Scale::None
        } else if inverse.abs() > 1.0 && (factor * inverse - 1.0).abs() < 1e-12 {
            Scale::Divide(inverse)
        } else {
            Scale::Multiply(factor)
        }
    }

    fn apply(self, x: f64) -> f64 {
        match self {
            Scale::None => x,
            Scale::Multiply(f) => x * f,
            Scale::Divide(d) => x / d,
        }
    }

    fn undo(self, x: f64) -> f64 {
        match self {
            Scale::None => x,
            Scale::Multiply(f) => x / f,
            Scale::Divide(d) => x * d,
        }
    }
}

impl Codec {
    /// The codec a visitor asks for, and how many registers or bits it takes.
    ///
    /// # Errors
    /// What does not fit together, as a message.
    pub fn resolve(v: &Visitor, as_type: PropertyType) -> Result<(Codec, u16), String> {
        if v.scale == 0.0 || !v.scale.is_finite() || !v.bias.is_finite() {
            return Err("scale must be a number other than 0, and bias a number".to_owned());
        }
        let raw = raw(v, as_type)?;
        let (natural, swappable) = match raw {
            Raw::Number(t) => (t.registers(), true),
            Raw::Bit(_) => (Some(1), true),
            Raw::Text | Raw::Bytes => (None, true),
            Raw::Bits if as_type == PropertyType::Bytes => (None, false),
            Raw::Bits => (Some(1), false),
        };
        let count = match (natural, v.limit) {
            (Some(n), 0) => n,
            (Some(n), given) if n == given => n,
            (Some(n), given) => return Err(format!("limit {given} does not fit: the value takes {n}")),
            (None, given) => given.max(1),
        };
        let order = if swappable { order(v, raw, count)? } else { Order::Plain };
        let plain = Scale::new(v.scale) == Scale::None && v.bias == 0.0;
        if !plain
            && !matches!(
                (raw, as_type),
                (Raw::Number(_), PropertyType::Int | PropertyType::Float | PropertyType::Double)
            )
        {
            return Err("scale and bias are only for numbers".to_owned());
        }
        Ok((Codec { raw, order, scale: Scale::new(v.scale), bias: v.bias, as_type }, count))
    }

    /// A value from registers. The caller gives as many as the point takes.
    ///
    /// # Errors
    /// What makes no sense in them: NaN, infinity, text that is not UTF-8.
    pub fn decode(&self, registers: &[u16]) -> Result<Value, &'static str> {
        match self.raw {
            Raw::Number(t) => self.number(t, self.arranged(registers)),
            Raw::Bit(bit) => {
                let mask = 1u64 << bit;
                Ok(self.flag(self.arranged(registers) >> 48 & mask != 0))
            }
            Raw::Text => {
                let mut bytes = self.bytes(registers);
                if let Some(end) = bytes.iter().position(|b| *b == 0) {
                    bytes.truncate(end);
                }
                String::from_utf8(bytes).map(Value::Text).map_err(|_| "text is not UTF-8")
            }
            Raw::Bytes => Ok(Value::Bytes(self.bytes(registers))),
            Raw::Bits => Err("bits in registers"),
        }
    }

    /// A value from coils or discrete inputs. The caller gives as many as the point takes.
    ///
    /// # Errors
    /// Never for a codec resolved for a table of bits.
    pub fn decode_bits(&self, bits: &[bool]) -> Result<Value, &'static str> {
        match (self.raw, self.as_type, bits) {
            // Packed as on the wire: the first bit is the least significant of the first byte (section 6.1).
            (Raw::Bits, PropertyType::Bytes, bits) => {
                let pack = |chunk: &[bool]| chunk.iter().rev().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit));
                Ok(Value::Bytes(bits.chunks(8).map(pack).collect()))
            }
            (Raw::Bits, _, [bit]) => Ok(self.flag(*bit)),
            _ => Err("registers in bits"),
        }
    }

    fn flag(&self, on: bool) -> Value {
        match self.as_type {
            PropertyType::Int => Value::Int(i64::from(on)),
            _ => Value::Bool(on),
        }
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
            Order::Plain | Order::Swapped { .. } => wire,
        }
    }

    /// The registers of a left-aligned big-endian value: the inverse of `arranged`.
    fn scattered(&self, value: u64, count: u16) -> Vec<u16> {
        let wire = match self.order {
            Order::Permuted(order) => {
                let (from, mut to) = (value.to_be_bytes(), [0u8; 8]);
                for (byte, place) in to.iter_mut().zip(order) {
                    *byte = from[usize::from(place & 7)];
                }
                u64::from_be_bytes(to)
            }
            Order::Plain | Order::Swapped { .. } => value,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are meant")]
        (0..count.min(4)).map(|i| (wire >> (48 - 16 * i)) as u16).collect()
    }

    fn bytes(&self, registers: &[u16]) -> Vec<u8> {
        let (swap, reverse) = match self.order {
            Order::Swapped { bytes, registers } => (bytes, registers),
            Order::Plain | Order::Permuted(_) => (false, false),
        };
        let pair = |r: &u16| if swap { r.to_le_bytes() } else { r.to_be_bytes() };
        if reverse {
            registers.iter().rev().flat_map(pair).collect()
        } else {
            registers.iter().flat_map(pair).collect()
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the shift leaves the type's own bits"
    )]
    #[expect(clippy::cast_precision_loss, reason = "scaled values are floats")]
    fn number(&self, t: DataType, left: u64) -> Result<Value, &'static str> {
        let (signed, unsigned, float) = match t {
            DataType::Int16 => (Some((left >> 48) as i16 as i64), None, None),
            DataType::Int32 => (Some((left >> 32) as i32 as i64), None, None),
            DataType::Int64 => (Some(left as i64), None, None),
            DataType::Uint16 => (None, Some(left >> 48), None),
            DataType::Uint32 => (None, Some(left >> 32), None),
            DataType::Uint64 => (None, Some(left), None),
            DataType::Float32 => (None, None, Some(shortest(f32::from_bits((left >> 32) as u32)))),
            DataType::Float64 => (None, None, Some(f64::from_bits(left))),
            DataType::String | DataType::Bytes => return Err("text is not a number"),
        };
        let exact = self.scale == Scale::None && self.bias == 0.0;
        match (self.as_type, signed, unsigned) {
            (PropertyType::Boolean, Some(i), _) => return Ok(Value::Bool(i != 0)),
            (PropertyType::Boolean, _, Some(u)) => return Ok(Value::Bool(u != 0)),
            (PropertyType::Int, Some(i), _) if exact => return Ok(Value::Int(i)),
            (PropertyType::Int, _, Some(u)) if exact => {
                return Ok(i64::try_from(u).map_or(Value::UInt(u), Value::Int));
            }
            _ => {}
        }
        let raw = float.or(signed.map(|i| i as f64)).or(unsigned.map(|u| u as f64)).unwrap_or(f64::NAN);
        let value = self.scale.apply(raw) + self.bias;
        if !value.is_finite() {
            return Err("not a number");
        }
        match self.as_type {
            PropertyType::Int if value.abs() < 9.2e18 => Ok(Value::Int(value.round() as i64)),
            PropertyType::Int => Err("too large for an integer"),
            _ => Ok(Value::Float(value)),
        }
    }
}

/// What is in the registers, from `dataType` or, as KubeEdge does, from the model's type and `limit`.
fn raw(v: &Visitor, as_type: PropertyType) -> Result<Raw, String> {
    use PropertyType as P;
    if v.register.is_bits() {
        return match (as_type, v.data_type, v.bit) {
            (P::Boolean | P::Int | P::Bytes, None, None) => Ok(Raw::Bits),
            (_, None, None) => Err(format!("a table of bits holds BOOLEAN, INT or BYTES, not {as_type:?}")),
            _ => Err("dataType and bit are for registers, not for bits".to_owned()),
        };
    }
    if let Some(bit) = v.bit {
        let fits = bit < 16 && v.data_type.is_none() && matches!(as_type, P::Boolean | P::Int);
        return if fits {
            Ok(Raw::Bit(bit))
        } else {
            Err("bit is 0 to 15, for BOOLEAN or INT, without dataType".to_owned())
        };
    }
    let of_limit = |four| match v.limit {
        0 | 1 => Ok(DataType::Uint16),
        2 => Ok(DataType::Uint32),
        4 => Ok(four),
        n => Err(format!("limit {n} makes no {as_type:?}; say dataType")),
    };
    let data_type = match (v.data_type, as_type) {
        (Some(t), _) => t,
        (None, P::Int | P::Boolean) => of_limit(DataType::Uint64)?,
        // One register is no float of its own: it is an integer to be scaled.
        (None, P::Float | P::Double) => match v.limit {
            0 if as_type == P::Double => DataType::Float64,
            0 | 2 => DataType::Float32,
            _ => of_limit(DataType::Float64)?,
        },
        (None, P::String) => DataType::String,
        (None, P::Bytes) => DataType::Bytes,
    };
    match (data_type, as_type) {
        (DataType::String, P::String) => Ok(Raw::Text),
        (DataType::Bytes, P::Bytes) => Ok(Raw::Bytes),
        (DataType::Float32 | DataType::Float64, P::Boolean) => Err("a float is no BOOLEAN".to_owned()),
        (DataType::String | DataType::Bytes, _) | (_, P::String | P::Bytes) => {
            Err(format!("dataType {data_type:?} does not make {as_type:?}"))
        }
        (number, _) => Ok(Raw::Number(number)),
    }
}

fn order(v: &Visitor, raw: Raw, count: u16) -> Result<Order, String> {
    let (bytes, registers) = (v.is_swap, v.is_register_swap);
    if v.byte_order.is_some() && (bytes || registers) {
        return Err("say either byteOrder or isSwap and isRegisterSwap".to_owned());
    }
    if matches!(raw, Raw::Text | Raw::Bytes) {
        return match v.byte_order.as_deref() {
            None if bytes || registers => Ok(Order::Swapped { bytes, registers }),
            None | Some("AB") => Ok(Order::Plain),
            Some("BA") => Ok(Order::Swapped { bytes: true, registers: false }),
            Some(other) => Err(format!("byteOrder {other:?} of text is AB or BA")),
        };
    }
    let length = usize::from(count) * 2;
    let mut order = [0, 1, 2, 3, 4, 5, 6, 7];
    let places = order.iter_mut().zip(0u8..).take(length);
    if let Some(text) = &v.byte_order {
        let mut seen = [false; 8];
        let letters = text.bytes().map(|b| b.wrapping_sub(b'A'));
        for ((place, _), letter) in places.zip(letters) {
            *place = letter;
            if let Some(s) = seen.get_mut(usize::from(letter)) {
                *s = true;
            }
        }
        if text.len() != length || !seen.iter().take(length).all(|s| *s) {
            let all: String = ('A'..='H').take(length).collect();
            return Err(format!("byteOrder {text:?} must name each of {all} once"));
        }
    } else {
        // As KubeEdge: the registers change places first, then the bytes inside each.
        let last = u8::try_from(count - 1).unwrap_or(3);
        for (place, i) in places {
            let register = if registers { last - i / 2 } else { i / 2 };
            *place = register * 2 + if bytes { 1 - i % 2 } else { i % 2 };
        }
    }
    Ok(if order == [0, 1, 2, 3, 4, 5, 6, 7] { Order::Plain } else { Order::Permuted(order) })
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

/// What a write puts on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoded {
    /// Whole registers.
    Registers(Vec<u16>),
    /// Coils.
    Bits(Vec<bool>),
    /// One bit of a register, to be set or cleared leaving the others: `(mask, on)`.
    Bit(u16, bool),
}

impl Codec {
    /// The registers or bits of a value; the inverse of decoding, as near as the registers' resolution allows.
    ///
    /// # Errors
    /// [`AccessError::Range`] when the registers cannot hold it, [`AccessError::Type`] when it is another type.
    pub fn encode(&self, value: &Value, count: u16) -> Result<Encoded, AccessError> {
        let wrong = |expected| AccessError::Type { value: value.to_string(), expected };
        let on = || value.as_f64().map(|x| x != 0.0).ok_or_else(|| wrong("true or false"));
        match (self.raw, value) {
            (Raw::Bits, Value::Bytes(bytes)) => {
                let bit = |i: u16| bytes.get(usize::from(i / 8)).is_some_and(|b| b >> (i % 8) & 1 != 0);
                if bytes.len() != usize::from(count).div_ceil(8) {
                    return Err(length(value, usize::from(count).div_ceil(8)));
                }
                Ok(Encoded::Bits((0..count).map(bit).collect()))
            }
            (Raw::Bits, _) => Ok(Encoded::Bits(vec![on()?])),
            (Raw::Bit(bit), _) => {
                // Where bit `bit` of the arranged register is on the wire.
                let mask = self.scattered(1 << (48 + u32::from(bit)), 1).first().copied().unwrap_or(0);
                Ok(Encoded::Bit(mask, on()?))
            }
            (Raw::Text, Value::Text(text)) => self.pad(text.as_bytes(), count, value).map(Encoded::Registers),
            (Raw::Bytes, Value::Bytes(bytes)) if bytes.len() != usize::from(count) * 2 => {
                Err(length(value, usize::from(count) * 2))
            }
            (Raw::Bytes, Value::Bytes(bytes)) => self.pad(bytes, count, value).map(Encoded::Registers),
            (Raw::Number(t), _) => Ok(Encoded::Registers(self.scattered(self.bits_of(t, value)?, count))),
            (Raw::Text, _) => Err(wrong("text")),
            (Raw::Bytes, _) => Err(wrong("bytes")),
        }
    }

    /// What would be read back after writing the value: the value in the device's own resolution.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    pub fn canonical(&self, value: &Value, count: u16) -> Result<Value, AccessError> {
        let back = match self.encode(value, count)? {
            Encoded::Registers(r) => self.decode(&r),
            Encoded::Bits(b) => self.decode_bits(&b),
            Encoded::Bit(_, on) => Ok(self.flag(on)),
        };
        back.map_err(|e| AccessError::Garbage(e.to_owned()))
    }

    fn pad(&self, bytes: &[u8], count: u16, value: &Value) -> Result<Vec<u16>, AccessError> {
        let room = usize::from(count) * 2;
        if bytes.len() > room {
            return Err(length(value, room));
        }
        let (swap, reverse) = match self.order {
            Order::Swapped { bytes, registers } => (bytes, registers),
            Order::Plain | Order::Permuted(_) => (false, false),
        };
        let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
        let pair = |i: usize| {
            let pair = [at(2 * i), at(2 * i + 1)];
            if swap { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
        };
        let all = 0..usize::from(count);
        Ok(if reverse { all.rev().map(pair).collect() } else { all.map(pair).collect() })
    }

    /// The raw number, left-aligned in 64 bits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "every cast is behind its range check"
    )]
    fn bits_of(&self, t: DataType, value: &Value) -> Result<u64, AccessError> {
        let exact = self.scale == Scale::None && self.bias == 0.0;
        let float =
            value.as_f64().ok_or_else(|| AccessError::Type { value: value.to_string(), expected: "a number" })?;
        let raw = self.scale.undo(float - self.bias);
        // Integers that need no scaling keep all their 64 bits; the others go through a float, as they were read.
        let integer = match value {
            Value::Int(i) if exact => Some(i128::from(*i)),
            Value::UInt(u) if exact => Some(i128::from(*u)),
            _ if raw.is_finite() && raw.abs() < 1e19 => Some(raw.round() as i128),
            _ => None,
        };
        let (low, high, left): (i128, i128, u32) = match t {
            DataType::Int16 => (i16::MIN.into(), i16::MAX.into(), 48),
            DataType::Uint16 => (0, u16::MAX.into(), 48),
            DataType::Int32 => (i32::MIN.into(), i32::MAX.into(), 32),
            DataType::Uint32 => (0, u32::MAX.into(), 32),
            DataType::Int64 => (i64::MIN.into(), i64::MAX.into(), 0),
            DataType::Uint64 => (0, u64::MAX.into(), 0),
            DataType::Float32 => {
                let single = raw as f32;
                let (low, high) = (f32::MIN.to_string(), f32::MAX.to_string());
                let out = AccessError::Range { value: value.to_string(), low, high };
                return if single.is_finite() { Ok(u64::from(single.to_bits()) << 32) } else { Err(out) };
            }
            DataType::Float64 => return Ok(raw.to_bits()),
            DataType::String | DataType::Bytes => {
                return Err(AccessError::Type { value: value.to_string(), expected: "text" });
            }
        };
        match integer {
            Some(i) if (low..=high).contains(&i) => Ok((i as u64) << left),
            _ => {
                let show = |raw: i128| (self.scale.apply(raw as f64) + self.bias).to_string();
                let (a, b) = if exact { (low.to_string(), high.to_string()) } else { (show(low), show(high)) };
                Err(AccessError::Range { value: value.to_string(), low: a, high: b })
            }
        }
    }
}

fn length(value: &Value, room: usize) -> AccessError {
    let of = match value {
        Value::Text(t) => t.len(),
        Value::Bytes(b) => b.len(),
        _ => 0,
    };
    AccessError::Range { value: format!("{of} bytes"), low: "0".to_owned(), high: format!("{room} bytes") }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
