//! What every protocol knows of a device: its name and its points with their types, units and limits.

use edge_model::device::PropertyType;
use edge_model::reading::Value;

use crate::AccessError;

/// A device as its readings name it.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Namespace of the device.
    pub namespace: String,
    /// Name of the device.
    pub name: String,
    /// Its points, in the order of the device's properties. At most [`edge_model::device::MAX_PROPERTIES`].
    pub points: Vec<Point>,
}

impl Profile {
    /// The index of the point with this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.points.iter().position(|p| p.name == name)
    }
}

/// A property of a device: what its values are, wherever they come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The property's name.
    pub name: String,
    /// The type of its values.
    pub value_type: PropertyType,
    /// The unit of its values; may be empty.
    pub unit: String,
    /// Whether it can be written.
    pub writable: bool,
    /// The smallest value allowed.
    pub minimum: Option<f64>,
    /// The largest value allowed.
    pub maximum: Option<f64>,
}

impl Point {
    /// The value a JSON value means for this point. Text is taken for every type, as KubeEdge's twins are text.
    ///
    /// # Errors
    /// [`AccessError::Type`] and [`AccessError::Range`].
    pub fn parse(&self, json: &serde_json::Value) -> Result<Value, AccessError> {
        let wrong = |expected| AccessError::Type { value: json.to_string(), expected };
        let text = json.as_str().map(str::trim);
        let float = || json.as_f64().or_else(|| text.and_then(|t| t.parse().ok())).filter(|x: &f64| x.is_finite());
        let value = match self.value_type {
            PropertyType::Boolean => {
                let flag = match (json, text) {
                    (serde_json::Value::Bool(b), _) => Some(*b),
                    (_, Some("true" | "1")) => Some(true),
                    (_, Some("false" | "0")) => Some(false),
                    _ if json.as_u64() == Some(1) => Some(true),
                    _ if json.as_u64() == Some(0) => Some(false),
                    _ => None,
                };
                Value::Bool(flag.ok_or_else(|| wrong("true or false"))?)
            }
            PropertyType::Int => {
                let signed = json.as_i64().or_else(|| text.and_then(|t| t.parse().ok()));
                let unsigned = json.as_u64().or_else(|| text.and_then(|t| t.parse().ok()));
                match (signed, unsigned, float()) {
                    (Some(i), ..) => Value::Int(i),
                    (None, Some(u), _) => Value::UInt(u),
                    (None, None, Some(x)) => whole(x).map(Value::Int).ok_or_else(|| wrong("an integer"))?,
                    (None, None, None) => return Err(wrong("an integer")),
                }
            }
            PropertyType::Float | PropertyType::Double => Value::Float(float().ok_or_else(|| wrong("a number"))?),
            PropertyType::String => Value::Text(json.as_str().ok_or_else(|| wrong("text"))?.to_owned()),
            PropertyType::Bytes => {
                Value::from_base64(text.unwrap_or("!")).ok_or_else(|| wrong("bytes in base64 (RFC 4648)"))?
            }
        };
        if !self.allows(&value) {
            let limit = |x: Option<f64>, none: &str| x.map_or_else(|| none.to_owned(), |x| x.to_string());
            let (low, high) = (limit(self.minimum, "-∞"), limit(self.maximum, "∞"));
            return Err(AccessError::Range { value: value.to_string(), low, high });
        }
        Ok(value)
    }

    /// Whether the value is within the model's limits.
    pub fn allows(&self, value: &Value) -> bool {
        (self.minimum.is_none() && self.maximum.is_none())
            || value.as_f64().is_none_or(|x| self.minimum.is_none_or(|m| x >= m) && self.maximum.is_none_or(|m| x <= m))
    }
}

/// A float without fraction as an integer; 2^53 is where floats stop naming every integer.
#[expect(clippy::cast_possible_truncation, reason = "bounded by 2^53")]
fn whole(x: f64) -> Option<i64> {
    (x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0).then_some(x as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn point(value_type: PropertyType) -> Point {
        let (minimum, maximum) = (Some(-10.0), Some(100.0));
        Point { name: "p".into(), value_type, unit: String::new(), writable: true, minimum, maximum }
    }

    #[test]
    fn text_and_json_mean_the_same() {
        let cases = [
            (PropertyType::Int, json!(30), Value::Int(30)),
            (PropertyType::Int, json!("30"), Value::Int(30)),
            (PropertyType::Int, json!(30.0), Value::Int(30)),
            (PropertyType::Float, json!("21.5"), Value::Float(21.5)),
            (PropertyType::Double, json!(-3), Value::Float(-3.0)),
            (PropertyType::Boolean, json!("true"), Value::Bool(true)),
            (PropertyType::Boolean, json!(0), Value::Bool(false)),
            (PropertyType::String, json!("a"), Value::Text("a".into())),
            (PropertyType::Bytes, json!("AQI="), Value::Bytes(vec![1, 2])),
        ];
        for (t, json, value) in cases {
            assert_eq!(point(t).parse(&json), Ok(value), "{json}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let typed = [
            (PropertyType::Int, json!(1.5)),
            (PropertyType::Int, json!("x")),
            (PropertyType::Int, json!(null)),
            (PropertyType::Float, json!("NaN")),
            (PropertyType::Float, json!([])),
            (PropertyType::Boolean, json!(2)),
            (PropertyType::String, json!(1)),
            (PropertyType::Bytes, json!("%")),
        ];
        for (t, json) in typed {
            assert!(matches!(point(t).parse(&json), Err(AccessError::Type { .. })), "{json}");
        }
        for json in [json!(101), json!(-11), json!(u64::MAX)] {
            assert!(matches!(point(PropertyType::Int).parse(&json), Err(AccessError::Range { .. })), "{json}");
        }
    }
}
