//! Values to registers: what a write puts on the wire.

use edge_model::device::modbus::DataType;
use edge_model::reading::Value;

use super::decode::Codec;
use super::layout::{Order, Raw, Scale};
use crate::AccessError;

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
