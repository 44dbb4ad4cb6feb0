//! What is rarer in registers: bytes, halves, decimals, masks, named numbers, packed text, structs.

use edge_model::device::modbus::Visitor;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::encode::{Encoded, merge};
use super::*;
use crate::AccessError;

fn codec(keys: Json, as_type: PropertyType) -> Result<(Codec, u16), String> {
    let mut all = json!({"register": "HoldingRegister"});
    for (key, value) in keys.as_object().unwrap() {
        all[key] = value.clone();
    }
    let visitor: Visitor = serde_json::from_value(all).map_err(|e| e.to_string())?;
    Codec::resolve(&visitor, as_type)
}

/// What registers mean, and what writing that does to the registers.
fn both(keys: Json, as_type: PropertyType, registers: &[u16]) -> (Value, Vec<u16>) {
    let (codec, count) = codec(keys.clone(), as_type).unwrap_or_else(|e| panic!("{keys}: {e}"));
    assert_eq!(usize::from(count), registers.len(), "{keys}");
    let value = codec.decode(registers).unwrap_or_else(|e| panic!("{keys}: {e}"));
    let written = match codec.encode(&value, count).unwrap_or_else(|e| panic!("{keys}: {e}")) {
        Encoded::Registers(r) => r,
        Encoded::Masked { masks, values } => merge(registers, &masks, &values),
        Encoded::Bits(_) => panic!("bits"),
    };
    (value, written)
}

#[test]
fn numbers_of_every_kind() {
    use PropertyType::{Double, Float, Int, String as Text};
    let cases = [
        (json!({"dataType": "int8"}), Int, vec![0x12fe], Value::Int(-2)),
        (json!({"dataType": "int8", "isSwap": true}), Int, vec![0xfe12], Value::Int(-2)),
        (json!({"dataType": "uint8"}), Int, vec![0x12fe], Value::Int(254)),
        (json!({"dataType": "float16"}), Float, vec![0x3e00], Value::Float(1.5)),
        (json!({"dataType": "bcd16"}), Int, vec![0x1234], Value::Int(1_234)),
        (json!({"dataType": "bcd32", "isRegisterSwap": true}), Int, vec![0x5678, 0x1234], Value::Int(12_345_678)),
        (json!({"dataType": "bcd16", "scale": 0.1}), Double, vec![0x0215], Value::Float(21.5)),
        (json!({"dataType": "uint16", "mask": 0x0ff0}), Int, vec![0xabcd], Value::Int(0xbc)),
        (json!({"dataType": "uint32", "mask": 0x00ff_ff00}), Int, vec![0x1122, 0x3344], Value::Int(0x2233)),
        (json!({"dataType": "uint8", "mask": 0xf0}), Int, vec![0x12fe], Value::Int(15)),
        (json!({"dataType": "uint16", "mask": 6, "enum": {"2": "on"}}), Text, vec![0xff05], Value::Text("on".into())),
    ];
    for (keys, t, registers, expected) in cases {
        let (value, written) = both(keys.clone(), t, &registers);
        assert_eq!(value, expected, "{keys}");
        assert_eq!(written, registers, "{keys}: writing what was read changes nothing");
    }
    let (bcd, _) = codec(json!({"dataType": "bcd16"}), Int).unwrap();
    assert_eq!(bcd.decode(&[0x12a4]), Err("a digit above 9"));
}

#[test]
fn precision_rounds_and_names_name() {
    let float = codec(json!({"dataType": "int16", "scale": 0.333, "precision": 1}), PropertyType::Float).unwrap().0;
    assert_eq!(float.decode(&[10]), Ok(Value::Float(3.3)));
    let keys = json!({"enum": {"0": "stop", "1": "run", "-1": "back"}, "dataType": "int16"});
    let (mode, n) = codec(keys, PropertyType::String).unwrap();
    let cases = [(0u16, "stop"), (1, "run"), (0xffff, "back"), (7, "7")];
    for (register, text) in cases {
        assert_eq!(mode.decode(&[register]), Ok(Value::Text(text.into())));
        assert_eq!(mode.encode(&Value::Text(text.into()), n), Ok(Encoded::Registers(vec![register])));
    }
    assert!(matches!(mode.encode(&Value::Text("walk".into()), n), Err(AccessError::Type { .. })));
    assert!(matches!(mode.encode(&Value::Text("70000".into()), n), Err(AccessError::Range { .. })));
    let (coil, n) =
        codec(json!({"register": "CoilRegister", "enum": {"0": "shut", "1": "open"}}), PropertyType::String).unwrap();
    assert_eq!(coil.decode_bits(&[true]), Ok(Value::Text("open".into())));
    assert_eq!(coil.encode(&Value::Text("shut".into()), n), Ok(Encoded::Bits(vec![false])));
}

#[test]
fn text_in_every_packing() {
    let cases = [
        (json!({"limit": 2}), vec![0x4162, 0x6300]),
        (json!({"limit": 2, "packing": "lowFirst"}), vec![0x6241, 0x0063]),
        (json!({"limit": 2, "byteOrder": "BA"}), vec![0x6241, 0x0063]),
        (json!({"limit": 3, "packing": "single"}), vec![0x41, 0x62, 0x63]),
        (json!({"limit": 3, "packing": "single", "isSwap": true}), vec![0x4100, 0x6200, 0x6300]),
        (json!({"limit": 2, "padding": "space"}), vec![0x4162, 0x6320]),
        (json!({"limit": 2, "isRegisterSwap": true}), vec![0x6300, 0x4162]),
        (json!({"limit": 2, "encoding": "latin1"}), vec![0x4162, 0x6300]),
    ];
    for (keys, registers) in cases {
        let (value, written) = both(keys.clone(), PropertyType::String, &registers);
        assert_eq!((value, written), (Value::Text("Abc".into()), registers), "{keys}");
    }
    let (latin, n) = codec(json!({"limit": 2, "encoding": "latin1"}), PropertyType::String).unwrap();
    assert_eq!(latin.decode(&[0xe4f6, 0]), Ok(Value::Text("äö".into())));
    assert!(matches!(latin.encode(&Value::Text("€".into()), n), Err(AccessError::Type { .. })));
    let (single, n) = codec(json!({"limit": 2, "packing": "single"}), PropertyType::String).unwrap();
    assert!(matches!(single.encode(&Value::Text("abc".into()), n), Err(AccessError::Range { .. })));
}

#[test]
fn a_struct_is_one_object() {
    let keys = json!({"dataType": "struct", "fields": [
        {"name": "speed", "type": "FLOAT", "dataType": "int16", "scale": 0.1},
        {"name": "run", "type": "BOOLEAN", "offset": 1, "bit": 3},
        {"name": "mode", "type": "STRING", "offset": 1, "dataType": "uint8", "isSwap": true, "enum": {"2": "auto"}},
        {"name": "total", "offset": 3, "dataType": "uint32"},
    ]});
    let (block, count) = codec(keys, PropertyType::String).unwrap();
    assert_eq!(count, 5);
    let registers = [215, 0x0208, 77, 1, 2];
    let Value::Text(text) = block.decode(&registers).unwrap() else { panic!("no text") };
    let object: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(object, json!({"speed": 21.5, "run": true, "mode": "auto", "total": 65_538}));
    let some = Value::Text(json!({"speed": -1, "run": false}).to_string());
    let Encoded::Masked { masks, values } = block.encode(&some, count).unwrap() else { panic!("not masked") };
    assert_eq!(merge(&registers, &masks, &values), [0xfff6, 0x0200, 77, 1, 2], "the other fields stay");
    for bad in ["1", "{\"x\": 1}", "{\"speed\": \"fast\"}", "{\"speed\": 9999}"] {
        assert!(block.encode(&Value::Text(bad.into()), count).is_err(), "{bad}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    use PropertyType::{Boolean, Float, Int, String as Text};
    let field = |keys: Json| json!({"dataType": "struct", "fields": [keys]});
    let cases = [
        (json!({"dataType": "uint16", "mask": 0}), Int, "mask is 1 to"),
        (json!({"dataType": "uint16", "mask": 65_536}), Int, "mask is 1 to 65535"),
        (json!({"dataType": "int16", "mask": 1}), Int, "unsigned"),
        (json!({"precision": 16}), Float, "0 to 15"),
        (json!({"precision": 1}), Boolean, "only for numbers"),
        (json!({"enum": {"a": "b"}}), Text, "whole number"),
        (json!({"enum": {"1": "a", "2": "a"}}), Text, "twice"),
        (json!({"enum": {"1": "a"}}), Int, "STRING"),
        (json!({"dataType": "float32", "enum": {"1": "a"}}), Text, "whole numbers"),
        (json!({"dataType": "uint16"}), Text, "without enum"),
        (json!({"dataType": "struct"}), Text, "1 to 64 fields"),
        (field(json!({"name": "a"})), Int, "JSON object"),
        (field(json!({"type": "INT"})), Text, "fields[0]: name is missing"),
        (field(json!({"name": "a", "dataType": "struct"})), Text, "not nested"),
        (field(json!({"name": "a", "wrong": 1})), Text, "fields[0]: unknown field"),
        (field(json!({"name": "a", "offset": 65_535})), Text, "too large"),
        (json!({"fields": [{"name": "a"}]}), Int, "for dataType struct"),
    ];
    for (keys, t, part) in cases {
        let e = codec(keys.clone(), t).unwrap_err();
        assert!(e.contains(part), "{keys}: {e}");
    }
    let over = [
        (json!({"dataType": "int8"}), Value::Int(128)),
        (json!({"dataType": "bcd16"}), Value::Int(10_000)),
        (json!({"dataType": "bcd16"}), Value::Int(-1)),
        (json!({"dataType": "uint16", "mask": 0xf0}), Value::Int(16)),
        (json!({"dataType": "uint16", "mask": 0x50}), Value::Int(2)),
    ];
    for (keys, value) in over {
        let (codec, n) = codec(keys.clone(), Int).unwrap();
        assert!(matches!(codec.encode(&value, n), Err(AccessError::Range { .. })), "{keys}");
    }
    let (half, n) = codec(json!({"dataType": "float16"}), Float).unwrap();
    assert!(matches!(half.encode(&Value::Float(70_000.0), n), Err(AccessError::Range { .. })));
}

proptest! {
    /// A masked value comes back, and nothing outside its mask changes.
    #[test]
    fn a_mask_keeps_to_itself(old in prop::array::uniform2(any::<u16>()), first in 0u32..32, width in 1u32..33, value: u32) {
        let width = width.min(32 - first);
        let mask = u64::from(u32::MAX >> (32 - width)) << first;
        let (codec, n) = codec(json!({"dataType": "uint32", "mask": mask}), PropertyType::Int).unwrap();
        let value = Value::Int(i64::from(value & u32::MAX >> (32 - width)));
        let Ok(Encoded::Masked { masks, values }) = codec.encode(&value, n) else { panic!("not masked") };
        let new = merge(&old, &masks, &values);
        prop_assert_eq!(codec.decode(&new), Ok(value));
        for i in 0..2 {
            prop_assert_eq!(new[i] & !masks[i], old[i] & !masks[i]);
        }
    }

    /// Text comes back in every packing.
    #[test]
    fn packed_text_comes_back(text in "[a-zA-Z0-9]{0,8}", packing in prop_oneof![Just("highFirst"), Just("lowFirst"), Just("single")], padding in prop_oneof![Just("zero"), Just("space")], swap: bool, turn: bool) {
        let keys = json!({"limit": 8, "packing": packing, "padding": padding, "isSwap": swap, "isRegisterSwap": turn});
        let (codec, count) = codec(keys, PropertyType::String).unwrap();
        prop_assert_eq!(codec.canonical(&Value::Text(text.clone()), count), Ok(Value::Text(text)));
    }
}
