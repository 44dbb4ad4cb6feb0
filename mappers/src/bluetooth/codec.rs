//! Bytes of a characteristic or an advertisement ↔ a value, as the visitor says.
//!
//! ```text
//! bytes ─ those that count, in order ─► raw number ─ mask, shift ─► number ─ operations ─► value of the property's type
//! ```
//! Writing goes the other way round, and a `dataWrite` word is written as its bytes.

use edge_model::device::PropertyType;
use edge_model::device::bluetooth::{ByteOrder, DataConverter, DataType, OperationType, Visitor};
use edge_model::reading::Value;

use super::decode::{big, signed};
use crate::AccessError;

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unsigned,
    Signed,
    Float,
    Text,
    Bytes,
}

/// How bytes make a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Codec {
    form: Form,
    /// The first byte.
    first: usize,
    /// How many; `None` for all that follow.
    length: Option<usize>,
    /// The least significant byte comes first.
    little: bool,
    mask: Option<u64>,
    /// Bits to the left; negative to the right.
    shift: i32,
    operations: Vec<(OperationType, f64)>,
    /// Words and their bytes.
    words: Vec<(String, Vec<u8>)>,
    value_type: PropertyType,
}

impl Codec {
    /// Resolves a visitor.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn resolve(v: &Visitor, value_type: PropertyType) -> Result<Codec, (&'static str, String)> {
        let mut codec = match (&v.data_converter, v.data_type) {
            (Some(_), Some(_)) => {
                return Err(("dataType", "stands beside dataConverter; use one of them".to_owned()));
            }
            (Some(converter), None) => converted(converter, value_type)?,
            (None, data_type) => typed(v, data_type, value_type)?,
        };
        codec.words = v.data_write.iter().map(|(word, bytes)| (word.clone(), bytes.0.clone())).collect();
        Ok(codec)
    }

    /// Whether [`encode`](Codec::encode) can ever work; if not, why.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn writable(&self) -> Result<(), (&'static str, String)> {
        if !self.words.is_empty() {
            return Ok(());
        }
        if self.first != 0 {
            let why =
                "a part of a characteristic cannot be written; use offset 0, or dataWrite, or ReadOnly in the model";
            return Err(("offset", why.to_owned()));
        }
        if self.mask.is_some() {
            return Err(("mask", "masked bits cannot be written; use dataWrite, or ReadOnly in the model".to_owned()));
        }
        Ok(())
    }

    /// The value in some bytes.
    ///
    /// # Errors
    /// Why there is none.
    pub fn decode(&self, bytes: &[u8]) -> Result<Value, &'static str> {
        if self.value_type == PropertyType::String
            && let Some((word, _)) = self.words.iter().find(|(_, b)| b == bytes)
        {
            return Ok(Value::Text(word.clone()));
        }
        let part = match self.length {
            Some(length) => bytes.get(self.first..).and_then(|b| b.get(..length)),
            None => bytes.get(self.first..),
        };
        let part = part.ok_or("too few bytes")?;
        match self.form {
            Form::Bytes => return Ok(Value::Bytes(part.to_vec())),
            Form::Text => {
                let end = part.iter().position(|b| *b == 0).unwrap_or(part.len());
                let text = part.get(..end).unwrap_or_default();
                return String::from_utf8(text.to_vec()).map(Value::Text).map_err(|_| "no UTF-8 text");
            }
            Form::Unsigned | Form::Signed | Form::Float => {}
        }
        let mut part = part.to_vec();
        if self.little {
            part.reverse();
        }
        let raw = big(&part);
        if self.form == Form::Float {
            let x = match part.len() {
                4 => f64::from(f32::from_bits(u32::try_from(raw).unwrap_or_default())),
                _ => f64::from_bits(raw),
            };
            return self.finish(x).ok_or("no number");
        }
        let mut raw = raw;
        if let Some(mask) = self.mask {
            raw = (raw & mask) >> mask.trailing_zeros().min(63);
        }
        raw = match self.shift {
            0.. => raw.checked_shl(self.shift.unsigned_abs()).unwrap_or(0),
            _ => raw.checked_shr(self.shift.unsigned_abs()).unwrap_or(0),
        };
        let whole = match self.form {
            Form::Signed => i128::from(signed(raw, part.len())),
            _ => i128::from(raw),
        };
        // Without operations an integer keeps every bit.
        if self.operations.is_empty()
            && let Some(value) = integer(whole, self.value_type)
        {
            return Ok(value);
        }
        #[expect(clippy::cast_precision_loss, reason = "scaled integers beyond 2^53 are floats, as everywhere")]
        self.finish(whole as f64).ok_or("no number")
    }

    /// Operations, then the property's type. `None` when it is no number.
    fn finish(&self, mut x: f64) -> Option<Value> {
        for (operation, by) in &self.operations {
            x = match operation {
                OperationType::Add => x + by,
                OperationType::Subtract => x - by,
                OperationType::Multiply => x * by,
                OperationType::Divide => x / by,
            };
        }
        fit(Value::Float(x), self.value_type)
    }

    /// The bytes to write for a value.
    ///
    /// # Errors
    /// [`AccessError::Type`] and [`AccessError::Range`].
    pub fn encode(&self, value: &Value) -> Result<Vec<u8>, AccessError> {
        let text = value.to_string();
        if let Some((_, bytes)) = self.words.iter().find(|(word, _)| *word == text) {
            return Ok(bytes.clone());
        }
        let wrong = |expected| AccessError::Type { value: text.clone(), expected };
        if !self.words.is_empty() {
            return Err(wrong("a word of dataWrite"));
        }
        match (self.form, value) {
            (Form::Text, Value::Text(t)) => return self.filled(t.as_bytes()),
            (Form::Bytes, Value::Bytes(b)) => return self.filled(b),
            (Form::Text | Form::Bytes, _) => return Err(wrong("what the characteristic holds")),
            _ => {}
        }
        let length = self.length.unwrap_or(1);
        if self.operations.is_empty() && self.shift == 0 && self.form != Form::Float {
            let whole = match value {
                Value::Bool(b) => Some(i128::from(*b)),
                Value::Int(i) => Some(i128::from(*i)),
                Value::UInt(u) => Some(i128::from(*u)),
                _ => None,
            };
            if let Some(whole) = whole {
                return self.packed(whole, length, &text);
            }
        }
        let mut x = value.as_f64().ok_or_else(|| wrong("a number"))?;
        for (operation, by) in self.operations.iter().rev() {
            x = match operation {
                OperationType::Add => x - by,
                OperationType::Subtract => x + by,
                OperationType::Multiply => x / by,
                OperationType::Divide => x * by,
            };
        }
        if self.form == Form::Float {
            #[expect(clippy::cast_possible_truncation, reason = "single precision is what the characteristic holds")]
            let bits = if length == 4 { u64::from((x as f32).to_bits()) } else { x.to_bits() };
            return Ok(self.ordered(bits, length));
        }
        x = (x * 2f64.powi(-self.shift)).round();
        if !x.is_finite() || x.abs() > 1e19 {
            return Err(wrong("a number that fits"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
        self.packed(x as i128, length, &text)
    }

    /// Texts and bytes as they are, or filled up to the length with zeros.
    fn filled(&self, bytes: &[u8]) -> Result<Vec<u8>, AccessError> {
        let mut bytes = bytes.to_vec();
        if let Some(length) = self.length {
            if bytes.len() > length {
                let value = format!("{} bytes", bytes.len());
                return Err(AccessError::Range { value, low: "0".to_owned(), high: length.to_string() });
            }
            bytes.resize(length, 0);
        }
        Ok(bytes)
    }

    fn packed(&self, whole: i128, length: usize, text: &str) -> Result<Vec<u8>, AccessError> {
        let bits = 8 * u32::try_from(length.clamp(1, 8)).unwrap_or(8);
        let (low, high) = match self.form {
            Form::Signed => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
            _ => (0, (1i128 << bits) - 1),
        };
        if !(low..=high).contains(&whole) {
            let (value, low, high) = (text.to_owned(), low.to_string(), high.to_string());
            return Err(AccessError::Range { value, low, high });
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the lowest bits are what is sent")]
        Ok(self.ordered(whole as u64, length))
    }

    fn ordered(&self, bits: u64, length: usize) -> Vec<u8> {
        let bytes = bits.to_le_bytes();
        let mut bytes = bytes.get(..length.min(8)).unwrap_or_default().to_vec();
        if !self.little {
            bytes.reverse();
        }
        bytes
    }

    /// What a device would report after `value` was written: rounded to what its bytes can hold.
    ///
    /// # Errors
    /// As [`encode`](Codec::encode).
    pub fn canonical(&self, value: &Value) -> Result<Value, AccessError> {
        let bytes = self.encode(value)?;
        if !self.words.is_empty() {
            return Ok(value.clone());
        }
        self.decode(&bytes).map_err(|e| AccessError::Garbage(e.to_owned()))
    }
}

/// KubeEdge's converter.
fn converted(c: &DataConverter, value_type: PropertyType) -> Result<Codec, (&'static str, String)> {
    let at = |key| -> &'static str { key };
    if !matches!(value_type, PropertyType::Int | PropertyType::Float | PropertyType::Double | PropertyType::Boolean) {
        return Err((at("dataConverter"), "makes a number, but the property is none".to_owned()));
    }
    let (first, last) = (c.start_index.min(c.end_index), c.start_index.max(c.end_index));
    if last - first > 7 {
        return Err((at("dataConverter.endIndex"), "more than 8 bytes make no number".to_owned()));
    }
    if c.shift_left > 63 || c.shift_right > 63 || (c.shift_left != 0 && c.shift_right != 0) {
        let why = "shift by up to 63 bits, and in one direction only".to_owned();
        return Err((at("dataConverter.shiftLeft"), why));
    }
    let mut operations = Vec::with_capacity(c.order_of_operations.len());
    for o in &c.order_of_operations {
        let scale = matches!(o.operation_type, OperationType::Multiply | OperationType::Divide);
        if !o.operation_value.is_finite() || (scale && o.operation_value == 0.0) {
            let why = format!("{} is no number to calculate with", o.operation_value);
            return Err((at("dataConverter.orderOfOperations"), why));
        }
        operations.push((o.operation_type, o.operation_value));
    }
    Ok(Codec {
        form: Form::Unsigned,
        first: usize::from(first),
        length: Some(usize::from(last - first) + 1),
        // Backwards is what little-endian devices need.
        little: c.start_index > c.end_index,
        mask: None,
        shift: i32::from(c.shift_left) - i32::from(c.shift_right),
        operations,
        words: Vec::new(),
        value_type,
    })
}

/// Our keys, or the defaults.
fn typed(v: &Visitor, data_type: Option<DataType>, value_type: PropertyType) -> Result<Codec, (&'static str, String)> {
    let data_type = data_type.unwrap_or(match value_type {
        PropertyType::String => DataType::String,
        PropertyType::Bytes => DataType::Bytes,
        _ if v.length.is_some() => DataType::Uint,
        _ => DataType::Uint8,
    });
    let form = match data_type {
        DataType::Float32 | DataType::Float64 => Form::Float,
        DataType::String => Form::Text,
        DataType::Bytes => Form::Bytes,
        DataType::Int | DataType::Int8 | DataType::Int16 | DataType::Int24 | DataType::Int32 | DataType::Int64 => {
            Form::Signed
        }
        _ => Form::Unsigned,
    };
    let fits = match form {
        Form::Text => value_type == PropertyType::String,
        Form::Bytes => value_type == PropertyType::Bytes,
        _ => !matches!(value_type, PropertyType::String | PropertyType::Bytes),
    };
    if !fits {
        return Err(("dataType", format!("does not make the model's type, {}", value_type.word())));
    }
    let length = match (data_type.length(), v.length) {
        (Some(fixed), Some(said)) if fixed != said => {
            return Err(("length", format!("{said} is not the length of this dataType, {fixed}")));
        }
        (Some(fixed), _) => Some(fixed),
        (None, None) if matches!(form, Form::Text | Form::Bytes) => None,
        (None, Some(said)) if matches!(form, Form::Text | Form::Bytes) && (1..=512).contains(&said) => Some(said),
        (None, Some(said)) if (1..=8).contains(&said) => Some(said),
        (None, said) => {
            let most = if matches!(form, Form::Text | Form::Bytes) { 512 } else { 8 };
            return Err(("length", format!("{} is not between 1 and {most}", said.unwrap_or(0))));
        }
    };
    if v.mask.is_some() && form != Form::Unsigned || v.mask == Some(0) {
        return Err(("mask", "takes bits out of an unsigned integer, at least one".to_owned()));
    }
    if v.scale == 0.0 || !v.scale.is_finite() || !v.bias.is_finite() {
        return Err(("scale", "must be a number other than 0".to_owned()));
    }
    let mut operations = Vec::new();
    if v.scale != 1.0 {
        operations.push(scaling(v.scale));
    }
    if v.bias != 0.0 {
        operations.push((OperationType::Add, v.bias));
    }
    Ok(Codec {
        form,
        first: usize::from(v.offset),
        length: length.map(usize::from),
        little: v.byte_order == ByteOrder::Little,
        mask: v.mask,
        shift: 0,
        operations,
        words: Vec::new(),
        value_type,
    })
}

/// 0.01 is no binary number, but 100 is: dividing by it keeps decimals as people write them.
fn scaling(scale: f64) -> (OperationType, f64) {
    let inverse = (1.0 / scale).round();
    if scale.abs() < 1.0 && (1.0 / inverse - scale).abs() <= scale.abs() * f64::EPSILON {
        (OperationType::Divide, inverse)
    } else {
        (OperationType::Multiply, scale)
    }
}

/// An integer as the property's type; `None` when the type is none for integers.
fn integer(whole: i128, value_type: PropertyType) -> Option<Value> {
    match value_type {
        PropertyType::Int => {
            i64::try_from(whole).map(Value::Int).ok().or_else(|| u64::try_from(whole).map(Value::UInt).ok())
        }
        PropertyType::Boolean => Some(Value::Bool(whole != 0)),
        _ => None,
    }
}

/// A value as the property's type. `None` when it cannot be that, or is no finite number.
pub fn fit(value: Value, value_type: PropertyType) -> Option<Value> {
    match (value_type, value) {
        (PropertyType::Bytes, Value::Bytes(b)) => Some(Value::Bytes(b)),
        (PropertyType::Bytes, _) => None,
        (PropertyType::String, value) => Some(Value::Text(value.to_string())),
        (PropertyType::Boolean, value) => value.as_f64().filter(|x| !x.is_nan()).map(|x| Value::Bool(x != 0.0)),
        (PropertyType::Int, value @ (Value::Int(_) | Value::UInt(_))) => Some(value),
        (PropertyType::Int, Value::Bool(b)) => Some(Value::Int(i64::from(b))),
        (PropertyType::Int, value) => {
            let x = value.as_f64()?.round();
            #[expect(clippy::cast_possible_truncation, reason = "bounded by 2^63")]
            (x.abs() < 9.2e18).then_some(Value::Int(x as i64))
        }
        (PropertyType::Float | PropertyType::Double, value) => {
            value.as_f64().filter(|x| x.is_finite()).map(Value::Float)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn codec(data: serde_json::Value, value_type: PropertyType) -> Codec {
        Codec::resolve(&serde_json::from_value(data).unwrap(), value_type).unwrap()
    }

    #[test]
    fn kubeedges_converter() {
        // Texas Instruments' SensorTag, the example of KubeEdge's documentation: an infrared temperature.
        let tag = codec(
            json!({"dataConverter": {"startIndex": 2, "endIndex": 1, "shiftRight": 2,
                "orderOfOperations": [{"operationType": "Multiply", "operationValue": 0.03125}]}}),
            PropertyType::Float,
        );
        assert_eq!(tag.decode(&[0, 0x40, 0x0b]), Ok(Value::Float(22.5)));
        let humidity = codec(
            json!({"dataConverter": {"startIndex": 2, "endIndex": 2,
                "orderOfOperations": [{"operationType": "divide", "operationValue": 100}, {"operationType": "ADD", "operationValue": 1}]}}),
            PropertyType::Double,
        );
        assert_eq!(humidity.decode(&[1, 2, 50]), Ok(Value::Float(1.5)));
        assert_eq!(humidity.decode(&[1, 2]), Err("too few bytes"));
        let word = codec(json!({"dataConverter": {"startIndex": 0, "endIndex": 1}}), PropertyType::Int);
        assert_eq!(word.decode(&[1, 26]), Ok(Value::Int(0x011a)));
        // Without a converter the first byte counts.
        assert_eq!(codec(json!({}), PropertyType::Int).decode(&[7, 8]), Ok(Value::Int(7)));
    }

    #[test]
    fn words_are_written_as_their_bytes() {
        let led = codec(json!({"dataWrite": {"Red": [1, 0], "Off": [0, 0]}}), PropertyType::String);
        assert_eq!(led.encode(&Value::Text("Red".into())), Ok(vec![1, 0]));
        assert_eq!(led.decode(&[0, 0]), Ok(Value::Text("Off".into())));
        assert!(matches!(led.encode(&Value::Text("Blue".into())), Err(AccessError::Type { .. })));
        let switch = codec(json!({"dataWrite": {"true": [1], "false": [0]}}), PropertyType::Boolean);
        assert_eq!(switch.encode(&Value::Bool(true)), Ok(vec![1]));
        assert_eq!(switch.decode(&[1]), Ok(Value::Bool(true)));
    }

    #[test]
    fn our_types() {
        let cases = [
            (json!({"dataType": "int16", "scale": 0.01}), PropertyType::Float, "6608", Value::Float(21.5)),
            (json!({"dataType": "uint16", "byteOrder": "big"}), PropertyType::Int, "0102", Value::Int(258)),
            (json!({"dataType": "int24", "offset": 1}), PropertyType::Int, "00feffff", Value::Int(-2)),
            (json!({"dataType": "float32"}), PropertyType::Double, "0000ac41", Value::Float(21.5)),
            (json!({"dataType": "uint8", "mask": 0x70}), PropertyType::Int, "53", Value::Int(5)),
            (json!({"dataType": "uint8", "mask": 0x02}), PropertyType::Boolean, "02", Value::Bool(true)),
            (json!({"length": 3}), PropertyType::Int, "010000", Value::Int(1)),
            (json!({"dataType": "uint64"}), PropertyType::Int, "ffffffffffffffff", Value::UInt(u64::MAX)),
            (json!({}), PropertyType::String, "48690021", Value::Text("Hi".into())),
            (json!({"offset": 2, "length": 1}), PropertyType::Bytes, "48690021", Value::Bytes(vec![0])),
            (json!({"dataType": "int8", "scale": 2, "bias": -1}), PropertyType::Int, "ff", Value::Int(-3)),
        ];
        for (data, kind, bytes, value) in cases {
            let got = codec(data.clone(), kind).decode(&super::super::decode::hex(bytes).unwrap());
            assert_eq!(got, Ok(value), "{data}");
        }
        let nan = codec(json!({"dataType": "float32"}), PropertyType::Float);
        assert_eq!(nan.decode(&f32::NAN.to_le_bytes()), Err("no number"));
        assert_eq!(codec(json!({}), PropertyType::String).decode(&[0xff]), Err("no UTF-8 text"));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let cases = [
            (json!({"dataType": "uint8", "dataConverter": {}}), PropertyType::Int, "dataType"),
            (json!({"dataConverter": {}}), PropertyType::String, "dataConverter"),
            (json!({"dataConverter": {"endIndex": 8}}), PropertyType::Int, "dataConverter.endIndex"),
            (json!({"dataConverter": {"shiftLeft": 1, "shiftRight": 1}}), PropertyType::Int, "dataConverter.shiftLeft"),
            (
                json!({"dataConverter": {"orderOfOperations": [{"operationType": "Divide", "operationValue": 0}]}}),
                PropertyType::Int,
                "dataConverter.orderOfOperations",
            ),
            (json!({"dataType": "uint16", "length": 3}), PropertyType::Int, "length"),
            (json!({"dataType": "uint"}), PropertyType::Int, "length"),
            (json!({"length": 9}), PropertyType::Int, "length"),
            (json!({"dataType": "int8", "mask": 1}), PropertyType::Int, "mask"),
            (json!({"scale": 0}), PropertyType::Int, "scale"),
            (json!({"dataType": "string"}), PropertyType::Int, "dataType"),
            (json!({"dataType": "int8"}), PropertyType::Bytes, "dataType"),
        ];
        for (data, kind, key) in cases {
            let visitor: Visitor = serde_json::from_value(data.clone()).unwrap();
            assert_eq!(Codec::resolve(&visitor, kind).map_err(|e| e.0), Err(key), "{data}");
        }
        assert!(codec(json!({"offset": 1}), PropertyType::Int).writable().is_err());
        assert!(codec(json!({"mask": 2}), PropertyType::Int).writable().is_err());
    }

    #[test]
    fn values_that_do_not_fit_are_not_sent() {
        let byte = codec(json!({}), PropertyType::Int);
        assert!(matches!(byte.encode(&Value::Int(256)), Err(AccessError::Range { .. })));
        assert!(matches!(byte.encode(&Value::Int(-1)), Err(AccessError::Range { .. })));
        assert!(matches!(byte.encode(&Value::Text("x".into())), Err(AccessError::Type { .. })));
        let text = codec(json!({"length": 2}), PropertyType::String);
        assert_eq!(text.encode(&Value::Text("a".into())), Ok(vec![b'a', 0]));
        assert!(matches!(text.encode(&Value::Text("abc".into())), Err(AccessError::Range { .. })));
        let tenths = codec(json!({"dataType": "int16", "scale": 0.1}), PropertyType::Float);
        assert_eq!(tenths.encode(&Value::Float(-3.24)), Ok(vec![0xe0, 0xff]));
        assert_eq!(tenths.canonical(&Value::Float(-3.24)), Ok(Value::Float(-3.2)));
    }

    const TYPES: [&str; 12] = [
        "uint8", "uint16", "uint24", "uint32", "uint64", "int8", "int16", "int24", "int32", "int64", "float32",
        "float64",
    ];

    proptest! {
        /// Whatever a device sends, nothing panics; and what was decoded is encoded back to the same bytes.
        #[test]
        fn bytes_come_back(
            bytes in prop::collection::vec(any::<u8>(), 0..12),
            data_type in prop::sample::select(&TYPES[..]),
            big in any::<bool>(),
        ) {
            let order = if big { "big" } else { "little" };
            let float = data_type.starts_with("float");
            let kind = if float { PropertyType::Double } else { PropertyType::Int };
            let codec = codec(json!({"dataType": data_type, "byteOrder": order}), kind);
            if let Ok(value) = codec.decode(&bytes) {
                let length = codec.length.unwrap();
                prop_assert_eq!(codec.encode(&value).unwrap(), &bytes[..length]);
            }
        }

        #[test]
        fn converters_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..20),
            (start, end, left, right) in (0u16..16, 0u16..16, 0u8..64, 0u8..64),
            (by, value) in (any::<f64>(), any::<f64>()),
        ) {
            let mut visitor: Visitor = serde_json::from_value(json!({})).unwrap();
            visitor.data_converter = Some(DataConverter {
                start_index: start, end_index: end, shift_left: left, shift_right: right,
                order_of_operations: vec![edge_model::device::bluetooth::Operation {
                    operation_type: OperationType::Divide, operation_value: by,
                }],
            });
            if let Ok(codec) = Codec::resolve(&visitor, PropertyType::Double) {
                if let Ok(value) = codec.decode(&bytes) {
                    prop_assert!(value.as_f64().is_some_and(f64::is_finite));
                }
                let _ = codec.encode(&Value::Float(value));
            }
        }
    }
}
