//! Bytes and values, both ways; KubeEdge's own examples first.

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

const TYPES: [&str; 12] =
    ["uint8", "uint16", "uint24", "uint32", "uint64", "int8", "int16", "int24", "int32", "int64", "float32", "float64"];

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
