//! What is on the wire to values of points, and back (RFC 2578, section 7.1).

use edge_model::device::PropertyType;
use edge_model::device::snmp::Syntax;
use edge_model::reading::{Quality, Value};
use serde_json::Value as Json;

use super::config::{Id, Object};
use crate::{AccessError, Point};

/// A value on the wire, as an agent says it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wire {
    /// INTEGER.
    Integer(i64),
    /// Counters, gauges, ticks.
    Unsigned(u64),
    /// A float in an Opaque, as net-snmp's agents have it.
    Float(f64),
    /// OCTET STRING.
    Octets(Vec<u8>),
    /// An identifier or an address, as text.
    Text(String),
    /// The agent has no such object.
    Missing,
    /// Anything else.
    Strange,
}

/// A value to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Set {
    Integer(i64),
    Unsigned(u32),
    Ticks(u32),
    Octets(Vec<u8>),
    Oid(Id),
    Ip([u8; 4]),
}

impl Wire {
    /// A float in an Opaque: a tag of two bytes, a length and big-endian bytes (net-snmp's `ASN_OPAQUE_FLOAT` and `DOUBLE`).
    pub(super) fn opaque(bytes: &[u8]) -> Wire {
        match bytes {
            [0x9f, 0x78, 4, a, b, c, d] => Wire::Float(f64::from(f32::from_be_bytes([*a, *b, *c, *d]))),
            [0x9f, 0x79, 8, rest @ ..] => {
                <[u8; 8]>::try_from(rest).map_or(Wire::Strange, |b| Wire::Float(f64::from_be_bytes(b)))
            }
            _ => Wire::Octets(bytes.to_vec()),
        }
    }

    /// As JSON, for subtrees and traps.
    pub(super) fn to_json(&self) -> Json {
        match self {
            Wire::Integer(i) => (*i).into(),
            Wire::Unsigned(u) => (*u).into(),
            Wire::Float(x) => (*x).into(),
            Wire::Octets(bytes) => text(bytes).into(),
            Wire::Text(text) => text.as_str().into(),
            Wire::Missing | Wire::Strange => Json::Null,
        }
    }
}

/// Text when it is text, and hexadecimal bytes with colons, as addresses are written, when not.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => text.to_owned(),
        _ => bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"),
    }
}

/// The value of a point.
pub(super) fn value(object: &Object, point: &Point, wire: &Wire) -> (Quality, Option<Value>) {
    let json = match (wire, point.value_type) {
        (Wire::Missing, _) => return (Quality::Refused, None),
        (Wire::Strange, _) => return (Quality::Invalid, None),
        (Wire::Octets(bytes), PropertyType::Bytes) => return (Quality::Good, Some(Value::Bytes(bytes.clone()))),
        // TruthValue of SNMPv2-TC (RFC 2579): true is 1 and false is 2.
        (Wire::Integer(2), PropertyType::Boolean) => Json::from(false),
        (_, PropertyType::String) => match wire.to_json() {
            Json::String(text) => text.into(),
            other => other.to_string().into(),
        },
        (Wire::Integer(_) | Wire::Unsigned(_) | Wire::Float(_), _) if object.scale != 1.0 => {
            let scaled = wire.to_json().as_f64().unwrap_or_default() * object.scale;
            Json::from(if point.value_type == PropertyType::Int { scaled.round() } else { scaled })
        }
        _ => wire.to_json(),
    };
    match point.parse(&json) {
        Ok(value) => (Quality::Good, Some(value)),
        Err(_) => (Quality::Invalid, None),
    }
}

/// What is written for a value.
///
/// # Errors
/// [`AccessError::Type`] and [`AccessError::Range`]: the object's type cannot carry it.
pub(super) fn set(object: &Object, value: &Value) -> Result<Set, AccessError> {
    let wrong = |expected| AccessError::Type { value: value.to_string(), expected };
    let number = || -> Result<f64, AccessError> {
        let truth = matches!(object.syntax, Syntax::Integer);
        let x = match value {
            Value::Bool(b) if truth => return Ok(if *b { 1.0 } else { 2.0 }),
            other => other.as_f64().ok_or_else(|| wrong("a number"))?,
        };
        Ok((x / object.scale).round())
    };
    let within = |low: f64, high: f64| {
        let x = number()?;
        if (low..=high).contains(&x) {
            return Ok(x);
        }
        Err(AccessError::Range { value: value.to_string(), low: low.to_string(), high: high.to_string() })
    };
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within the range just checked")]
    let signed = || within(f64::from(i32::MIN), f64::from(i32::MAX)).map(|x| x as i64);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, and within the range just checked"
    )]
    let unsigned = || within(0.0, f64::from(u32::MAX)).map(|x| x as u32);
    Ok(match object.syntax {
        Syntax::Integer => Set::Integer(signed()?),
        Syntax::Unsigned => Set::Unsigned(unsigned()?),
        Syntax::Ticks => Set::Ticks(unsigned()?),
        Syntax::Octets => Set::Octets(match value {
            Value::Bytes(bytes) => bytes.clone(),
            other => other.to_string().into_bytes(),
        }),
        Syntax::Oid => Set::Oid(Id::parse(&value.to_string()).ok_or_else(|| wrong("an object identifier"))?),
        Syntax::Ip => {
            let address: Result<std::net::Ipv4Addr, _> = value.to_string().parse();
            Set::Ip(address.map_err(|_| wrong("an IPv4 address"))?.octets())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::config::Source;
    use super::*;

    fn object(scale: f64, syntax: Syntax) -> Object {
        Object { oid: Id::parse("1.3.6").unwrap(), scale, source: Source::Get, syntax }
    }

    fn point(value_type: PropertyType) -> Point {
        let (minimum, maximum) = (None, None);
        Point { name: "p".into(), value_type, unit: String::new(), writable: true, minimum, maximum }
    }

    #[test]
    fn the_wire_to_values() {
        let one = object(1.0, Syntax::Integer);
        let good = |v: Value| (Quality::Good, Some(v));
        let cases = [
            (PropertyType::Int, Wire::Integer(-5), good(Value::Int(-5))),
            (PropertyType::Int, Wire::Unsigned(u64::MAX), good(Value::UInt(u64::MAX))),
            (PropertyType::Int, Wire::Octets(b" 42 ".to_vec()), good(Value::Int(42))),
            (PropertyType::Boolean, Wire::Integer(1), good(Value::Bool(true))),
            (PropertyType::Boolean, Wire::Integer(2), good(Value::Bool(false))),
            (PropertyType::Boolean, Wire::Integer(3), (Quality::Invalid, None)),
            (PropertyType::String, Wire::Octets(b"eth0".to_vec()), good(Value::Text("eth0".into()))),
            (PropertyType::String, Wire::Octets(vec![0, 0x1b, 0xff]), good(Value::Text("00:1b:ff".into()))),
            (PropertyType::String, Wire::Text("1.3.6".into()), good(Value::Text("1.3.6".into()))),
            (PropertyType::Bytes, Wire::Octets(vec![1]), good(Value::Bytes(vec![1]))),
            (PropertyType::Int, Wire::Missing, (Quality::Refused, None)),
            (PropertyType::Int, Wire::Strange, (Quality::Invalid, None)),
        ];
        for (kind, wire, found) in cases {
            assert_eq!(value(&one, &point(kind), &wire), found, "{wire:?}");
        }
        let tenths = object(0.1, Syntax::Integer);
        assert_eq!(value(&tenths, &point(PropertyType::Double), &Wire::Integer(215)), good(Value::Float(21.5)));
        assert_eq!(value(&tenths, &point(PropertyType::Int), &Wire::Integer(215)), good(Value::Int(22)));
        assert_eq!(Wire::opaque(&[0x9f, 0x78, 4, 0x3f, 0x80, 0, 0]), Wire::Float(1.0));
        assert_eq!(Wire::opaque(&[0x9f, 0x79, 8, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]), Wire::Float(1.0));
        assert_eq!(Wire::opaque(&[1]), Wire::Octets(vec![1]));
    }

    #[test]
    fn values_to_the_wire() {
        let cases = [
            (object(0.1, Syntax::Integer), Value::Float(21.5), Ok(Set::Integer(215))),
            (object(1.0, Syntax::Integer), Value::Bool(false), Ok(Set::Integer(2))),
            (object(1.0, Syntax::Unsigned), Value::Int(7), Ok(Set::Unsigned(7))),
            (object(1.0, Syntax::Octets), Value::Text("x".into()), Ok(Set::Octets(b"x".to_vec()))),
            (object(1.0, Syntax::Ip), Value::Text("10.0.0.1".into()), Ok(Set::Ip([10, 0, 0, 1]))),
        ];
        for (object, value, wire) in cases {
            assert_eq!(set(&object, &value), wire, "{value:?}");
        }
        assert!(matches!(set(&object(1.0, Syntax::Unsigned), &Value::Int(-1)), Err(AccessError::Range { .. })));
        assert!(matches!(set(&object(1.0, Syntax::Integer), &Value::UInt(u64::MAX)), Err(AccessError::Range { .. })));
        assert!(matches!(set(&object(1.0, Syntax::Ip), &Value::Text("x".into())), Err(AccessError::Type { .. })));
    }
}
