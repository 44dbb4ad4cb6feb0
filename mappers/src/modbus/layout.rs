//! What a visitor says of its registers, resolved: what they hold, in which order, with which factor.

use edge_model::device::PropertyType;
use edge_model::device::modbus::{DataType, Table, Visitor};
use serde_json::Value as Json;

use super::decode::Codec;
use super::text::Text;

/// Structs are not nested.
const MAX_FIELDS: usize = 64;

/// What is in the registers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// Coils or discrete inputs.
    Bits,
    /// One bit of a register.
    Bit(u8),
    Number(DataType),
    Text(Text),
    Bytes(Text),
    Struct(Vec<Field>),
    /// A text of the identification.
    Object,
}

/// One value of a struct.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    /// The first of the struct's registers it takes.
    pub(super) at: u16,
    pub(super) count: u16,
    pub(super) codec: Codec,
}

/// The order of bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Big-endian throughout: Modbus' own.
    Plain,
    /// Byte `i` on the wire is byte `0[i]` of the big-endian value.
    Permuted([u8; 8]),
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
        let (natural, swappable) = match &raw {
            Raw::Number(t) => (t.registers(), true),
            Raw::Bit(_) => (Some(1), true),
            Raw::Text(_) | Raw::Bytes(_) => (None, false),
            Raw::Struct(fields) => (fields.iter().map(|f| f.at + f.count).max(), false),
            Raw::Bits if as_type == PropertyType::Bytes => (None, false),
            Raw::Bits | Raw::Object => (Some(1), false),
        };
        let count = match (natural, v.limit) {
            (Some(n), 0) => n,
            (Some(n), given) if n == given => n,
            // A struct may end in registers nobody looks at.
            (Some(n), given) if n < given && matches!(raw, Raw::Struct(_)) => given,
            (Some(n), given) => return Err(format!("limit {given} does not fit: the value takes {n}")),
            (None, given) => given.max(1),
        };
        if v.byte_order.is_some() && (v.is_swap || v.is_register_swap) {
            return Err("say either byteOrder or isSwap and isRegisterSwap".to_owned());
        }
        let order = if swappable { order(v, count)? } else { Order::Plain };
        let scale = Scale::new(v.scale);
        let numeric = matches!(raw, Raw::Number(_))
            && matches!(as_type, PropertyType::Int | PropertyType::Float | PropertyType::Double);
        if !numeric && (scale != Scale::None || v.bias != 0.0 || v.precision.is_some()) {
            return Err("scale, bias and precision are only for numbers".to_owned());
        }
        if v.precision.is_some_and(|p| p > 15) {
            return Err("precision is 0 to 15 decimals".to_owned());
        }
        let (mask, names) = (mask(v, &raw)?, names(v, &raw, as_type)?);
        let exact = scale == Scale::None && v.bias == 0.0 && v.precision.is_none() && mask.is_none();
        let plain = exact && order == Order::Plain && as_type == PropertyType::Int;
        Ok((Codec { raw, order, scale, bias: v.bias, as_type, plain, precision: v.precision, mask, names }, count))
    }
}

fn mask(v: &Visitor, raw: &Raw) -> Result<Option<u64>, String> {
    let Some(mask) = v.mask else { return Ok(None) };
    let width = match raw {
        Raw::Number(DataType::Uint8) => 8,
        Raw::Number(DataType::Uint16) => 16,
        Raw::Number(DataType::Uint32) => 32,
        Raw::Number(DataType::Uint64) => 64,
        _ => return Err("mask is for unsigned integers".to_owned()),
    };
    if mask == 0 || mask > u64::MAX >> (64 - width) {
        return Err(format!("mask is 1 to {}", u64::MAX >> (64 - width)));
    }
    Ok(Some(mask))
}

fn names(v: &Visitor, raw: &Raw, as_type: PropertyType) -> Result<Vec<(i128, String)>, String> {
    if v.names.is_empty() {
        return Ok(Vec::new());
    }
    let whole = match raw {
        Raw::Number(t) => !t.is_float(),
        Raw::Bit(_) | Raw::Bits => true,
        Raw::Text(_) | Raw::Bytes(_) | Raw::Struct(_) | Raw::Object => false,
    };
    if as_type != PropertyType::String || !whole {
        return Err("enum is for a STRING of whole numbers".to_owned());
    }
    let mut all = Vec::with_capacity(v.names.len());
    for (number, name) in &v.names {
        let number = number.parse().map_err(|_| format!("enum: {number:?} is not a whole number"))?;
        if all.iter().any(|(_, other)| other == name) {
            return Err(format!("enum: {name:?} is there twice"));
        }
        all.push((number, name.clone()));
    }
    Ok(all)
}

/// What is in the registers, from `dataType` or, as KubeEdge does, from the model's type and `limit`.
fn raw(v: &Visitor, as_type: PropertyType) -> Result<Raw, String> {
    use PropertyType as P;
    let named = as_type == P::String && !v.names.is_empty();
    if !v.fields.is_empty() && v.data_type != Some(DataType::Struct) {
        return Err("fields are for dataType struct".to_owned());
    }
    if v.register == Table::Identification {
        return match (as_type, v.data_type, v.bit) {
            _ if v.offset > 255 => Err(format!("offset {} is not an object, 0 to 255", v.offset)),
            (P::String, None, None) => Ok(Raw::Object),
            _ => Err("the identification holds STRING, without dataType and bit".to_owned()),
        };
    }
    if v.register.is_bits() {
        return match (as_type, v.data_type, v.bit) {
            (P::Boolean | P::Int | P::Bytes, None, None) => Ok(Raw::Bits),
            (P::String, None, None) if named => Ok(Raw::Bits),
            (_, None, None) => Err(format!("a table of bits holds BOOLEAN, INT or BYTES, not {as_type:?}")),
            _ => Err("dataType and bit are for registers, not for bits".to_owned()),
        };
    }
    if let Some(bit) = v.bit {
        let fits = bit < 16 && v.data_type.is_none() && (named || matches!(as_type, P::Boolean | P::Int));
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
        (None, P::String) if named => of_limit(DataType::Uint64)?,
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
        (DataType::String, P::String) => Text::new(v).map(Raw::Text),
        (DataType::Bytes, P::Bytes) => Text::new(v).map(Raw::Bytes),
        (DataType::Struct, P::String) => fields(v).map(Raw::Struct),
        (DataType::Struct, _) => Err("a struct is a STRING: its value is a JSON object".to_owned()),
        (t, P::Boolean) if t.is_float() => Err("a float is no BOOLEAN".to_owned()),
        (DataType::String | DataType::Bytes, _) | (_, P::Bytes) => {
            Err(format!("dataType {data_type:?} does not make {as_type:?}"))
        }
        (_, P::String) if !named => Err(format!("dataType {data_type:?} does not make STRING without enum")),
        (number, _) => Ok(Raw::Number(number)),
    }
}

/// The fields of a struct.
fn fields(v: &Visitor) -> Result<Vec<Field>, String> {
    if v.fields.is_empty() || v.fields.len() > MAX_FIELDS {
        return Err(format!("a struct has 1 to {MAX_FIELDS} fields"));
    }
    let mut all: Vec<Field> = Vec::with_capacity(v.fields.len());
    for (i, keys) in v.fields.iter().enumerate() {
        let fail = |what: String| format!("fields[{i}]: {what}");
        let mut keys = keys.clone();
        let name = match keys.remove("name") {
            Some(Json::String(name)) if !name.is_empty() => name,
            _ => return Err(fail("name is missing".to_owned())),
        };
        if all.iter().any(|f| f.name == name) {
            return Err(fail(format!("{name:?} is there twice")));
        }
        let kind: PropertyType = serde_json::from_value(keys.remove("type").unwrap_or_else(|| "INT".into()))
            .map_err(|e| fail(format!("type: {e}")))?;
        keys.insert("register".to_owned(), v.register.word().into());
        let inner: Visitor = serde_json::from_value(Json::Object(keys)).map_err(|e| fail(e.to_string()))?;
        if inner.data_type == Some(DataType::Struct) {
            return Err(fail("structs are not nested".to_owned()));
        }
        let (codec, count) = Codec::resolve(&inner, kind).map_err(fail)?;
        if inner.offset.checked_add(count).is_none() {
            return Err(format!("fields[{i}]: offset is too large"));
        }
        all.push(Field { name, at: inner.offset, count, codec });
    }
    Ok(all)
}

fn order(v: &Visitor, count: u16) -> Result<Order, String> {
    let (bytes, registers) = (v.is_swap, v.is_register_swap);
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
