//! Vectors for every type and order, the specification's examples, and the identity of writing and reading back.

use edge_model::device::modbus::Visitor;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::encode::{Encoded, merge};
use super::*;
use crate::AccessError;

/// The codec of visitor keys for a property type, with its length.
fn codec(keys: Json, as_type: PropertyType) -> Result<(Codec, u16), String> {
    let mut all = json!({"register": "HoldingRegister"});
    for (key, value) in keys.as_object().unwrap() {
        all[key] = value.clone();
    }
    let visitor: Visitor = serde_json::from_value(all).map_err(|e| e.to_string())?;
    Codec::resolve(&visitor, as_type)
}

fn decoded(keys: Json, as_type: PropertyType, registers: &[u16]) -> Value {
    let (codec, count) = codec(keys.clone(), as_type).unwrap_or_else(|e| panic!("{keys}: {e}"));
    assert_eq!(usize::from(count), registers.len(), "{keys}");
    codec.decode(registers).unwrap_or_else(|e| panic!("{keys}: {e}"))
}

#[test]
fn integers_of_every_width_and_sign() {
    use PropertyType::Int;
    let cases = [
        ("int16", vec![0xffff], Value::Int(-1)),
        ("int16", vec![0x8000], Value::Int(-32_768)),
        ("uint16", vec![0xffff], Value::Int(65_535)),
        ("int32", vec![0xffff, 0xfffe], Value::Int(-2)),
        ("uint32", vec![0xffff, 0xfffe], Value::Int(4_294_967_294)),
        ("int64", vec![0x8000, 0, 0, 0], Value::Int(i64::MIN)),
        ("uint64", vec![0xffff; 4], Value::UInt(u64::MAX)),
        ("uint64", vec![0, 0, 1, 2], Value::Int(65_538)),
    ];
    for (t, registers, value) in cases {
        assert_eq!(decoded(json!({"dataType": t}), Int, &registers), value, "{t}");
    }
}

#[test]
fn floats_are_the_shortest_decimal_that_is_the_same() {
    let bits = 21.3f32.to_bits();
    #[expect(clippy::cast_possible_truncation, reason = "the halves of 32 bits")]
    let registers = [(bits >> 16) as u16, bits as u16];
    assert_eq!(decoded(json!({"dataType": "float32"}), PropertyType::Float, &registers), Value::Float(21.3));
    // 123456.0 is 0x47F12000 (IEEE 754).
    assert_eq!(decoded(json!({"limit": 2}), PropertyType::Float, &[0x47f1, 0x2000]), Value::Float(123_456.0));
    // Pi in double precision is 0x400921FB54442D18.
    let pi = [0x4009, 0x21fb, 0x5444, 0x2d18];
    assert_eq!(decoded(json!({"limit": 4}), PropertyType::Double, &pi), Value::Float(std::f64::consts::PI));
    assert_eq!(decoded(json!({"dataType": "float32"}), PropertyType::Int, &[0x42f6, 0xe979]), Value::Int(123));
    for special in [[0x7fc0, 0], [0x7f80, 0], [0xff80, 0]] {
        let (codec, _) = codec(json!({"dataType": "float32"}), PropertyType::Float).unwrap();
        assert!(codec.decode(&special).is_err(), "{special:x?}");
    }
}

/// 0x0A0B0C0D and 0x0102030405060708, as makers put them on the wire.
#[test]
fn every_byte_and_word_order() {
    let two = [
        ("ABCD", [0x0a0b, 0x0c0d]),
        ("BADC", [0x0b0a, 0x0d0c]),
        ("CDAB", [0x0c0d, 0x0a0b]),
        ("DCBA", [0x0d0c, 0x0b0a]),
    ];
    for (order, registers) in two {
        let keys = json!({"dataType": "uint32", "byteOrder": order});
        assert_eq!(decoded(keys, PropertyType::Int, &registers), Value::Int(0x0a0b_0c0d), "{order}");
    }
    // Neuron's six: big and little endian words of 64 bits, with the 32-bit halves and the bytes swapped or not.
    let four = [
        ("ABCDEFGH", [0x0102, 0x0304, 0x0506, 0x0708]),
        ("GHEFCDAB", [0x0708, 0x0506, 0x0304, 0x0102]),
        ("BADCFEHG", [0x0201, 0x0403, 0x0605, 0x0807]),
        ("HGFEDCBA", [0x0807, 0x0605, 0x0403, 0x0201]),
        ("CDABGHEF", [0x0304, 0x0102, 0x0708, 0x0506]),
        ("EFGHABCD", [0x0506, 0x0708, 0x0102, 0x0304]),
        ("DCBAHGFE", [0x0403, 0x0201, 0x0807, 0x0605]),
    ];
    for (order, registers) in four {
        let keys = json!({"dataType": "uint64", "byteOrder": order});
        assert_eq!(decoded(keys, PropertyType::Int, &registers), Value::Int(0x0102_0304_0506_0708), "{order}");
    }
    assert_eq!(decoded(json!({"byteOrder": "BA"}), PropertyType::Int, &[0x0b0a]), Value::Int(0x0a0b));
}

#[test]
fn kubeedges_swaps_mean_what_its_mapper_does() {
    let cases = [
        (json!({"limit": 2}), [0x0a0b, 0x0c0d]),
        (json!({"limit": 2, "isSwap": true}), [0x0b0a, 0x0d0c]),
        (json!({"limit": 2, "isRegisterSwap": true}), [0x0c0d, 0x0a0b]),
        (json!({"limit": 2, "isSwap": true, "isRegisterSwap": true}), [0x0d0c, 0x0b0a]),
    ];
    for (keys, registers) in cases {
        assert_eq!(decoded(keys.clone(), PropertyType::Int, &registers), Value::Int(0x0a0b_0c0d), "{keys}");
    }
    let keys = json!({"limit": 4, "isRegisterSwap": true, "isSwap": true});
    let registers = [0x0807, 0x0605, 0x0403, 0x0201];
    assert_eq!(decoded(keys, PropertyType::Int, &registers), Value::Int(0x0102_0304_0506_0708));
}

#[test]
fn scale_and_bias() {
    use PropertyType::{Float, Int};
    let cases = [
        (json!({"limit": 1, "scale": 0.1}), Float, 3, Value::Float(0.3)),
        (json!({"scale": 0.1, "dataType": "int16"}), Float, 0xff85, Value::Float(-12.3)),
        (json!({"limit": 1, "scale": 0.01, "bias": -40}), Float, 6_150, Value::Float(21.5)),
        (json!({"scale": 10}), Int, 7, Value::Int(70)),
        (json!({"scale": 0.5}), Int, 5, Value::Int(3)),
        (json!({"limit": 1, "scale": 1.5}), Float, 2, Value::Float(3.0)),
    ];
    for (keys, t, raw, value) in cases {
        assert_eq!(decoded(keys.clone(), t, &[raw]), value, "{keys}");
    }
}

#[test]
fn bits_text_and_bytes() {
    use PropertyType::{Boolean, Bytes, Int, String as Text};
    assert_eq!(decoded(json!({"bit": 0}), Boolean, &[1]), Value::Bool(true));
    assert_eq!(decoded(json!({"bit": 15}), Boolean, &[0x8000]), Value::Bool(true));
    assert_eq!(decoded(json!({"bit": 8, "isSwap": true}), Boolean, &[0x0001]), Value::Bool(true));
    assert_eq!(decoded(json!({"bit": 3}), Int, &[0x0008]), Value::Int(1));
    assert_eq!(decoded(json!({}), Boolean, &[2]), Value::Bool(true));
    assert_eq!(decoded(json!({"limit": 3}), Text, &[0x6162, 0x6300, 0x7a7a]), Value::Text("abc".into()));
    assert_eq!(decoded(json!({"limit": 2, "isSwap": true}), Text, &[0x6261, 0x0063]), Value::Text("abc".into()));
    assert_eq!(
        decoded(json!({"limit": 2, "isRegisterSwap": true}), Text, &[0x6300, 0x6162]),
        Value::Text("abc".into())
    );
    assert_eq!(decoded(json!({"limit": 2}), Bytes, &[0x0102, 0x0304]), Value::Bytes(vec![1, 2, 3, 4]));
    let (text, _) = codec(json!({"limit": 1}), Text).unwrap();
    assert!(text.decode(&[0xff41]).is_err());
    let coil = |limit, t| codec(json!({"register": "CoilRegister", "limit": limit}), t).unwrap();
    assert_eq!(coil(1, Boolean).0.decode_bits(&[true]), Ok(Value::Bool(true)));
    assert_eq!(coil(1, Int).0.decode_bits(&[true]), Ok(Value::Int(1)));
    // Modbus Application Protocol V1.1b3, section 6.1: the coils 27–20 come as CD, 35–28 as 6B, 38–36 as 05.
    let (packed, count) = coil(19, Bytes);
    let on: Vec<bool> = (0..count).map(|i| [0xcdu8, 0x6b, 0x05][usize::from(i / 8)] >> (i % 8) & 1 == 1).collect();
    assert_eq!(packed.decode_bits(&on), Ok(Value::Bytes(vec![0xcd, 0x6b, 0x05])));
}

/// Examples of the Modbus Application Protocol Specification V1.1b3.
#[test]
fn the_specifications_examples() {
    // Section 6.3: holding registers 108–110 hold 555, 0 and 100.
    for (register, value) in [(0x022b, 555), (0x0000, 0), (0x0064, 100)] {
        assert_eq!(decoded(json!({}), PropertyType::Int, &[register]), Value::Int(value));
    }
    // Section 6.6: register 2 is written 0x0003; section 6.12: registers 2 and 3 are written 0x000A and 0x0102.
    let (one, n) = codec(json!({}), PropertyType::Int).unwrap();
    assert_eq!(one.encode(&Value::Int(3), n), Ok(Encoded::Registers(vec![0x0003])));
    let (two, n) = codec(json!({"limit": 2}), PropertyType::Int).unwrap();
    assert_eq!(two.encode(&Value::Int(0x000a_0102), n), Ok(Encoded::Registers(vec![0x000a, 0x0102])));
    // Section 6.11: ten coils from 20 are written CD 01.
    let (ten, n) = codec(json!({"register": "CoilRegister", "limit": 10}), PropertyType::Bytes).unwrap();
    let on = [true, false, true, true, false, false, true, true, true, false];
    assert_eq!(ten.encode(&Value::Bytes(vec![0xcd, 0x01]), n), Ok(Encoded::Bits(on.to_vec())));
}

#[test]
fn what_does_not_fit_is_refused_with_the_limits() {
    use PropertyType::{Boolean, Bytes, Float, Int, String as Text};
    let cases = [
        (json!({"dataType": "int16"}), Int, Value::Int(40_000), "32767"),
        (json!({"dataType": "uint16"}), Int, Value::Int(-1), "0"),
        (json!({"dataType": "int16", "scale": 0.1}), Float, Value::Float(3_276.8), "3276.7"),
        (json!({"dataType": "uint32"}), Int, Value::Int(1 << 32), "4294967295"),
        (json!({"dataType": "int64"}), Int, Value::UInt(u64::MAX), "9223372036854775807"),
        (json!({"dataType": "float32"}), Float, Value::Float(1e39), "3402823"),
        (json!({"limit": 1}), Text, Value::Text("abc".into()), "2 bytes"),
        (json!({"limit": 1}), Bytes, Value::Bytes(vec![1]), "2 bytes"),
    ];
    for (keys, t, value, limit) in cases {
        let (codec, count) = codec(keys.clone(), t).unwrap();
        let e = codec.encode(&value, count).unwrap_err();
        assert!(matches!(e, AccessError::Range { .. }) && e.to_string().contains(limit), "{keys} {e}");
    }
    let (flag, n) = codec(json!({"bit": 4}), Boolean).unwrap();
    assert_eq!(flag.encode(&Value::Bool(true), n), Ok(Encoded::Masked { masks: vec![0x0010], values: vec![0x0010] }));
    let (swapped, n) = codec(json!({"bit": 4, "isSwap": true}), Boolean).unwrap();
    assert_eq!(swapped.encode(&Value::Bool(false), n), Ok(Encoded::Masked { masks: vec![0x1000], values: vec![0] }));
    assert!(matches!(flag.encode(&Value::Text("x".into()), n), Err(AccessError::Type { .. })));
}

#[test]
fn keys_that_do_not_fit_together_are_refused() {
    use PropertyType::{Boolean, Bytes, Double, Float, Int, String as Text};
    let cases = [
        (json!({"scale": 0}), Int, "scale"),
        (json!({"limit": 3}), Int, "say dataType"),
        (json!({"dataType": "int32", "limit": 3}), Int, "takes 2"),
        (json!({"dataType": "float32", "limit": 4}), Double, "takes 2"),
        (json!({"byteOrder": "AB", "isSwap": true}), Int, "either"),
        (json!({"byteOrder": "ABCD"}), Int, "each of AB"),
        (json!({"byteOrder": "AACD", "limit": 2}), Int, "once"),
        (json!({"byteOrder": "abcd", "limit": 2}), Int, "each"),
        (json!({"byteOrder": "ABCD", "limit": 2}), Text, "AB or BA"),
        (json!({"bit": 16}), Boolean, "0 to 15"),
        (json!({"bit": 1, "dataType": "int16"}), Boolean, "without dataType"),
        (json!({"scale": 2}), Boolean, "only for numbers"),
        (json!({"dataType": "string"}), Int, "does not make"),
        (json!({"dataType": "int16"}), Bytes, "does not make"),
        (json!({"dataType": "float32"}), Boolean, "no BOOLEAN"),
        (json!({"register": "CoilRegister"}), Float, "bits"),
        (json!({"register": "CoilRegister", "bit": 1}), Boolean, "not for bits"),
        (json!({"register": "CoilRegister", "limit": 2}), Boolean, "takes 1"),
    ];
    for (keys, t, part) in cases {
        let e = codec(keys.clone(), t).unwrap_err();
        assert!(e.contains(part), "{keys}: {e}");
    }
}

/// Every numeric type, with a random order of its bytes.
fn numbers() -> impl Strategy<Value = (DataType, String)> {
    let types = prop_oneof![
        Just(DataType::Int8),
        Just(DataType::Uint8),
        Just(DataType::Int16),
        Just(DataType::Uint16),
        Just(DataType::Int32),
        Just(DataType::Uint32),
        Just(DataType::Int64),
        Just(DataType::Uint64),
        Just(DataType::Float16),
        Just(DataType::Bcd16),
        Just(DataType::Bcd32),
        Just(DataType::Bcd64),
        Just(DataType::Float32),
        Just(DataType::Float64),
    ];
    types.prop_flat_map(|t| {
        let letters: Vec<char> = ('A'..='H').take(usize::from(t.registers().unwrap_or(1)) * 2).collect();
        (Just(t), Just(letters).prop_shuffle().prop_map(|l| l.into_iter().collect()))
    })
}

fn visitor(data_type: DataType, byte_order: &str) -> Visitor {
    let keys = json!({"register": "HoldingRegister", "byteOrder": byte_order});
    let visitor: Visitor = serde_json::from_value(keys).unwrap();
    Visitor { data_type: Some(data_type), ..visitor }
}

proptest! {
    /// Whatever the registers hold, writing what was read gives the same registers: in every type and order.
    #[test]
    fn writing_what_was_read_changes_nothing((t, order) in numbers(), words in prop::array::uniform4(any::<u16>())) {
        let as_type = if t.is_float() { PropertyType::Double } else { PropertyType::Int };
        let (codec, count) = Codec::resolve(&visitor(t, &order), as_type).unwrap();
        let registers = &words[..usize::from(count)];
        // NaN and infinity are no values, and are never written.
        if let Ok(value) = codec.decode(registers) {
            let written = match codec.encode(&value, count).unwrap() {
                Encoded::Registers(r) => r,
                Encoded::Masked { masks, values } => merge(registers, &masks, &values),
                Encoded::Bits(_) => Vec::new(),
            };
            prop_assert_eq!(written, registers.to_vec());
        }
    }

    /// A scaled value written and read back is within half a step, and stays so.
    #[test]
    fn scaled_values_settle(value in -3_000.0f64..3_000.0, scale in prop_oneof![Just(0.1), Just(0.01), Just(0.5), Just(0.25)], bias in -50i32..50) {
        let keys = json!({"dataType": "int32", "scale": scale, "bias": bias});
        let (codec, count) = codec(keys, PropertyType::Double).unwrap();
        let once = codec.canonical(&Value::Float(value), count).unwrap();
        let difference = (once.as_f64().unwrap() - value).abs();
        prop_assert!(difference <= scale / 2.0 + 1e-9, "{difference}");
        prop_assert_eq!(codec.canonical(&once, count), Ok(once));
    }

    /// Text and bytes come back as they were written.
    #[test]
    fn text_and_bytes_come_back(text in "[a-zA-Z0-9 äöü]{0,8}", bytes in prop::array::uniform8(any::<u8>()), swap: bool, turn: bool) {
        let keys = json!({"limit": 8, "isSwap": swap, "isRegisterSwap": turn});
        let (codec_text, count) = codec(keys, PropertyType::String).unwrap();
        prop_assert_eq!(codec_text.canonical(&Value::Text(text.clone()), count), Ok(Value::Text(text)));
        let keys = json!({"limit": 4, "isSwap": swap, "isRegisterSwap": turn});
        let (codec_bytes, count) = codec(keys, PropertyType::Bytes).unwrap();
        prop_assert_eq!(codec_bytes.canonical(&Value::Bytes(bytes.to_vec()), count), Ok(Value::Bytes(bytes.to_vec())));
    }

    /// Nothing a device can send makes decoding panic.
    #[test]
    fn any_registers_decode_or_not(words in prop::collection::vec(any::<u16>(), 0..12), (t, order) in numbers()) {
        for as_type in [PropertyType::Int, PropertyType::Float, PropertyType::Double] {
            let (codec, _) = Codec::resolve(&visitor(t, &order), as_type).unwrap();
            let _ = codec.decode(&words);
        }
    }
}
