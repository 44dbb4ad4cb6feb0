//! What a visitor says of its registers, resolved: what they hold, in which order, with which factor.

use edge_model::device::PropertyType;
use edge_model::device::modbus::{DataType, Visitor};

use super::decode::Codec;

/// What is in the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw {
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
pub(super) enum Order {
    /// Big-endian throughout: Modbus' own.
    Plain,
    /// For numbers: byte `i` on the wire is byte `0[i]` of the big-endian value.
    Permuted([u8; 8]),
    /// For text and bytes of any length.
    Swapped { bytes: bool, registers: bool },
}

/// A factor. Tenths are divided by ten, not multiplied by 0.1: 3 becomes 0.3 and not 0.30000000000000004.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    None,
    Multiply(f64),
    Divide(f64),
}

impl Scale {
    pub(super) fn new(factor: f64) -> Scale {
        let inverse = (1.0 / factor).round();
        if (factor - 1.0).abs() < f64::EPSILON {
            Scale::None
        } else if inverse.abs() > 1.0 && (factor * inverse - 1.0).abs() < 1e-12 {
            Scale::Divide(inverse)
        } else {
            Scale::Multiply(factor)
        }
    }

    pub(super) fn apply(self, x: f64) -> f64 {
        match self {
            Scale::None => x,
            Scale::Multiply(f) => x * f,
            Scale::Divide(d) => x / d,
        }
    }

    pub(super) fn undo(self, x: f64) -> f64 {
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
