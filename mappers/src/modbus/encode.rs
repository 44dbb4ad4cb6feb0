//! Values to registers: what a write puts on the wire.

use edge_model::device::PropertyType;
use edge_model::device::modbus::DataType;
use edge_model::reading::Value;

use super::decode::Codec;
use super::layout::{Field, Raw, Scale};
use super::number::{to_bcd, to_half};
use crate::{AccessError, Point};

/// What a write puts on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoded {
    /// Whole registers.
    Registers(Vec<u16>),
    /// Coils.
    Bits(Vec<bool>),
    /// Some bits of registers, leaving the others.
    Masked {
        /// The bits to change.
        masks: Vec<u16>,
        /// What to change them to; other bits are 0.
        values: Vec<u16>,
    },
}

/// Registers with some of their bits changed.
pub fn merge(old: &[u16], masks: &[u16], values: &[u16]) -> Vec<u16> {
    old.iter().zip(masks).zip(values).map(|((old, mask), value)| old & !mask | value & mask).collect()
}

impl Codec {
    /// The registers or bits of a value; the inverse of decoding, as near as the registers' resolution allows.
    ///
    /// # Errors
    /// [`AccessError::Range`] when the registers cannot hold it, [`AccessError::Type`] when it is another type.
    pub fn encode(&self, value: &Value, count: u16) -> Result<Encoded, AccessError> {
        let wrong = |expected| AccessError::Type { value: value.to_string(), expected };
        match (&self.raw, value) {
            (Raw::Bits, Value::Bytes(bytes)) => {
                let bit = |i: u16| bytes.get(usize::from(i / 8)).is_some_and(|b| b >> (i % 8) & 1 != 0);
                if bytes.len() != usize::from(count).div_ceil(8) {
                    return Err(length(value, usize::from(count).div_ceil(8)));
                }
                Ok(Encoded::Bits((0..count).map(bit).collect()))
            }
            (Raw::Bits, _) => Ok(Encoded::Bits(vec![self.on(value)?])),
            (Raw::Bit(bit), _) => {
                // Where bit `bit` of the arranged register is on the wire.
                let masks = self.scattered(1 << (48 + u32::from(*bit)), 1);
                let values = if self.on(value)? { masks.clone() } else { vec![0] };
                Ok(Encoded::Masked { masks, values })
            }
            (Raw::Text(text), Value::Text(characters)) => {
                let bytes = text.encode(characters).ok_or_else(|| wrong("text in ISO 8859-1"))?;
                if bytes.len() > text.room(count) {
                    return Err(length(value, text.room(count)));
                }
                Ok(Encoded::Registers(text.registers(&bytes, count)))
            }
            (Raw::Bytes(text), Value::Bytes(bytes)) if bytes.len() != text.room(count) => {
                Err(length(value, text.room(count)))
            }
            (Raw::Bytes(text), Value::Bytes(bytes)) => Ok(Encoded::Registers(text.registers(bytes, count))),
            (Raw::Number(t), _) => {
                let values = self.scattered(self.bits_of(*t, value)?, count);
                let mask = match (t, self.mask) {
                    (DataType::Uint8, Some(mask)) | (DataType::Uint16, Some(mask)) => mask << 48,
                    (DataType::Uint32, Some(mask)) => mask << 32,
                    (_, Some(mask)) => mask,
                    (DataType::Int8 | DataType::Uint8, None) => 0xff << 48,
                    (_, None) => return Ok(Encoded::Registers(values)),
                };
                Ok(Encoded::Masked { masks: self.scattered(mask, count), values })
            }
            (Raw::Struct(fields), Value::Text(text)) => structure(fields, text, count),
            (Raw::Text(_) | Raw::Struct(_) | Raw::Object, _) => Err(wrong("text")),
            (Raw::Bytes(_), _) => Err(wrong("bytes")),
        }
    }

    fn on(&self, value: &Value) -> Result<bool, AccessError> {
        let wrong = |expected| AccessError::Type { value: value.to_string(), expected };
        if self.as_type == PropertyType::String {
            return Ok(self.named(value)? != 0);
        }
        value.as_f64().map(|x| x != 0.0).ok_or_else(|| wrong("true or false"))
    }

    /// The whole number a text means.
    fn named(&self, value: &Value) -> Result<i128, AccessError> {
        let wrong = || AccessError::Type { value: value.to_string(), expected: "one of the texts of enum" };
        let Value::Text(text) = value else { return Err(wrong()) };
        let known = self.names.iter().find(|(_, name)| name == text).map(|(number, _)| *number);
        known.or_else(|| text.parse().ok()).ok_or_else(wrong)
    }

    /// What would be read back after writing the value: the value in the device's own resolution.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    pub fn canonical(&self, value: &Value, count: u16) -> Result<Value, AccessError> {
        let back = match (&self.raw, self.encode(value, count)?) {
            // Fields that are not written are not known.
            (Raw::Struct(_), _) => return Ok(value.clone()),
            (_, Encoded::Registers(r) | Encoded::Masked { values: r, .. }) => self.decode(&r),
            (_, Encoded::Bits(b)) => self.decode_bits(&b),
        };
        back.map_err(|e| AccessError::Garbage(e.to_owned()))
    }

    /// The raw number, left-aligned in 64 bits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "every cast is behind its range check"
    )]
    fn bits_of(&self, t: DataType, value: &Value) -> Result<u64, AccessError> {
        let named = self.as_type == PropertyType::String;
        let exact = self.scale == Scale::None && self.bias == 0.0;
        let float = match value {
            _ if named => self.named(value)? as f64,
            _ => value.as_f64().ok_or_else(|| AccessError::Type { value: value.to_string(), expected: "a number" })?,
        };
        let raw = self.scale.undo(float - self.bias);
        // Integers that need no scaling keep all their 64 bits; the others go through a float, as they were read.
        let integer = match value {
            Value::Int(i) if exact => Some(i128::from(*i)),
            Value::UInt(u) if exact => Some(i128::from(*u)),
            _ if named => Some(self.named(value)?),
            _ if raw.is_finite() && raw.abs() < 1e19 => Some(raw.round() as i128),
            _ => None,
        };
        let out_of = |low: f64, high: f64| AccessError::Range {
            value: value.to_string(),
            low: low.to_string(),
            high: high.to_string(),
        };
        let (low, high, left): (i128, i128, u32) = match t {
            DataType::Int8 => (i8::MIN.into(), i8::MAX.into(), 48),
            DataType::Uint8 => (0, u8::MAX.into(), 48),
            DataType::Int16 => (i16::MIN.into(), i16::MAX.into(), 48),
            DataType::Uint16 => (0, u16::MAX.into(), 48),
            DataType::Int32 => (i32::MIN.into(), i32::MAX.into(), 32),
            DataType::Uint32 => (0, u32::MAX.into(), 32),
            DataType::Int64 => (i64::MIN.into(), i64::MAX.into(), 0),
            DataType::Uint64 => (0, u64::MAX.into(), 0),
            DataType::Bcd16 => (0, 9_999, 48),
            DataType::Bcd32 => (0, 99_999_999, 32),
            DataType::Bcd64 => (0, 9_999_999_999_999_999, 0),
            DataType::Float16 => {
                return to_half(raw).map(|h| u64::from(h) << 48).ok_or_else(|| out_of(-65_504.0, 65_504.0));
            }
            DataType::Float32 => {
                let single = raw as f32;
                let out = || out_of(f32::MIN.into(), f32::MAX.into());
                return if single.is_finite() { Ok(u64::from(single.to_bits()) << 32) } else { Err(out()) };
            }
            DataType::Float64 => return Ok(raw.to_bits()),
            DataType::String | DataType::Bytes | DataType::Struct => {
                return Err(AccessError::Type { value: value.to_string(), expected: "text" });
            }
        };
        let shift = self.mask.map_or(0, u64::trailing_zeros);
        let high = self.mask.map_or(high, |mask| i128::from(mask >> shift));
        match integer.filter(|i| (low..=high).contains(i)) {
            Some(i) if matches!(t, DataType::Bcd16 | DataType::Bcd32 | DataType::Bcd64) => Ok(to_bcd(i as u64) << left),
            // A mask may have holes: what would fall into them is not kept.
            Some(i) if self.mask.is_some_and(|mask| (i as u64) << shift & !mask != 0) => {
                Err(out_of(low as f64, high as f64))
            }
            Some(i) if matches!(t, DataType::Int8 | DataType::Uint8) => Ok((i as u64 & 0xff) << shift << left),
            Some(i) => Ok((i as u64) << shift << left),
            None => {
                let show = |raw: i128| (self.scale.apply(raw as f64) + self.bias).to_string();
                let (a, b) = if exact { (low.to_string(), high.to_string()) } else { (show(low), show(high)) };
                Err(AccessError::Range { value: value.to_string(), low: a, high: b })
            }
        }
    }
}

/// The registers of a struct: those of the fields that are named, the others left as they are.
fn structure(fields: &[Field], text: &str, count: u16) -> Result<Encoded, AccessError> {
    let wrong = |expected| AccessError::Type { value: text.to_owned(), expected };
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|_| wrong("a JSON object"))?;
    if let Some(other) = object.keys().find(|k| fields.iter().all(|f| f.name != **k)) {
        return Err(AccessError::Unknown(other.clone()));
    }
    let (mut masks, mut values) = (vec![0u16; usize::from(count)], vec![0u16; usize::from(count)]);
    for f in fields {
        let Some(json) = object.get(&f.name) else { continue };
        let point = Point {
            name: f.name.clone(),
            value_type: f.codec.as_type,
            unit: String::new(),
            writable: true,
            minimum: None,
            maximum: None,
        };
        let (own_masks, own) = match f.codec.encode(&point.parse(json)?, f.count)? {
            Encoded::Registers(r) => (vec![u16::MAX; r.len()], r),
            Encoded::Masked { masks, values } => (masks, values),
            Encoded::Bits(_) => return Err(wrong("registers")),
        };
        let from = usize::from(f.at);
        for (i, (mask, value)) in own_masks.into_iter().zip(own).enumerate() {
            if let (Some(m), Some(v)) = (masks.get_mut(from + i), values.get_mut(from + i)) {
                *v = *v & !mask | value & mask;
                *m |= mask;
            }
        }
    }
    let whole = masks.iter().all(|m| *m == u16::MAX);
    Ok(if whole { Encoded::Registers(values) } else { Encoded::Masked { masks, values } })
}

fn length(value: &Value, room: usize) -> AccessError {
    let of = match value {
        Value::Text(t) => t.len(),
        Value::Bytes(b) => b.len(),
        _ => 0,
    };
    AccessError::Range { value: format!("{of} bytes"), low: "0".to_owned(), high: format!("{room} bytes") }
}
