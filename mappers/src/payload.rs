//! What is inside a payload: values in JSON or plain text to points, and values to payloads by a template.
//!
//! For protocols that carry text of somebody else's making: MQTT devices and HTTP.

use edge_model::device::PropertyType;
use edge_model::reading::Value;
use serde_json::Value as Json;

use crate::Point;

/// Steps of a path at most; deeper payloads are nobody's.
const MAX_STEPS: usize = 16;

/// A place in a JSON document: keys with dots between them and indices in brackets, such as `sensors[0].temperature`. A key
/// with other characters is quoted in brackets: `["a.b"]`. A leading `$`, as JSONPath has it, is taken as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    /// Takes a path apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Path, String> {
        let wrong = |what: &str| Err(format!("{text:?} is not a path such as sensors[0].temperature: {what}"));
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if steps.len() == MAX_STEPS {
                return wrong("it is too deep");
            }
            if let Some(inside) = rest.strip_prefix('[') {
                let (step, after) = match inside.strip_prefix('"') {
                    Some(quoted) => match quoted.split_once("\"]") {
                        Some((key, after)) => (Step::Key(key.to_owned()), after),
                        None => return wrong("a quotation is not closed"),
                    },
                    None => match inside.split_once(']').map(|(index, after)| (index.parse(), after)) {
                        Some((Ok(index), after)) => (Step::Index(index), after),
                        _ => return wrong("an index is a number in brackets"),
                    },
                };
                steps.push(step);
                rest = after;
                continue;
            }
            let key = match (rest.strip_prefix('.'), steps.is_empty()) {
                (Some(key), _) => key,
                (None, true) => rest,
                (None, false) => return wrong("a dot is missing"),
            };
            let end = key.find(['.', '[']).unwrap_or(key.len());
            let (name, after) = key.split_at(end);
            if name.is_empty() {
                return wrong("a key is empty");
            }
            steps.push(Step::Key(name.to_owned()));
            rest = after;
        }
        if steps.is_empty() { wrong("it is empty") } else { Ok(Path(steps)) }
    }

    /// What is at this place.
    pub fn find<'a>(&self, document: &'a Json) -> Option<&'a Json> {
        self.0.iter().try_fold(document, |at, step| match step {
            Step::Key(key) => at.get(key),
            Step::Index(index) => at.get(index),
        })
    }
}

/// How the value of a point is found in a payload, and how it is spelled there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Format {
    /// Where; the whole payload when `None`.
    pub path: Option<Path>,
    /// The text of true.
    pub on: Option<String>,
    /// The text of false.
    pub off: Option<String>,
}

/// What a payload has for a point.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A value.
    Value(Value),
    /// Nothing: the document has no such place, as when a device tells only what has changed.
    Nothing,
    /// Something that is no value of the point, in words.
    Wrong(String),
}

impl Format {
    /// The value of `point` in a payload. `document` is the payload as JSON, if it is JSON: many points share one payload.
    pub fn read(&self, point: &Point, payload: &[u8], document: Option<&Json>) -> Found {
        let Some(path) = &self.path else {
            if point.value_type == PropertyType::Bytes {
                return Found::Value(Value::Bytes(payload.to_vec()));
            }
            return match std::str::from_utf8(payload) {
                Ok(text) => self.value(point, &Json::from(text)),
                Err(_) => Found::Wrong("the payload is not text".to_owned()),
            };
        };
        match document {
            None => Found::Wrong("the payload is not JSON".to_owned()),
            Some(document) => path.find(document).map_or(Found::Nothing, |json| self.value(point, json)),
        }
    }

    fn value(&self, point: &Point, json: &Json) -> Found {
        let text = match json {
            Json::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        let spelled = match point.value_type {
            PropertyType::Boolean if self.on.as_ref() == Some(&text) => Json::from(true),
            PropertyType::Boolean if self.off.as_ref() == Some(&text) => Json::from(false),
            // An object or a number is text, too, when text is what the model asks for.
            PropertyType::String if !json.is_string() => Json::from(text),
            _ => json.clone(),
        };
        match point.parse(&spelled) {
            Ok(value) => Found::Value(value),
            Err(error) => Found::Wrong(error.to_string()),
        }
    }

    /// The payload that writes a value: `{{value}}` in the template is the value as text, `{{json}}` as JSON.
    pub fn write(&self, template: &str, value: &Value) -> String {
        let spelled = match (value, &self.on, &self.off) {
            (Value::Bool(true), Some(on), _) => Json::from(on.as_str()),
            (Value::Bool(false), _, Some(off)) => Json::from(off.as_str()),
            _ => value.to_json(),
        };
        let text = spelled.as_str().map_or_else(|| spelled.to_string(), str::to_owned);
        // One pass, so that a value that contains a placeholder is not filled in again.
        let (mut out, mut rest) = (String::with_capacity(template.len() + text.len()), template);
        while let Some(at) = rest.find("{{") {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            if let Some(after) = from.strip_prefix("{{value}}") {
                out.push_str(&text);
                rest = after;
            } else if let Some(after) = from.strip_prefix("{{json}}") {
                out.push_str(&spelled.to_string());
                rest = after;
            } else {
                out.push('{');
                rest = from.get(1..).unwrap_or_default();
            }
        }
        out + rest
    }
}

/// Whether what was read back is what was written; numbers may have been rounded to single precision on the way.
pub fn same(wrote: &Value, found: &Value) -> bool {
    wrote == found
        || matches!((wrote.as_f64(), found.as_f64()), (Some(a), Some(b)) if (a - b).abs() <= a.abs().max(b.abs()) * 1e-6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn point(value_type: PropertyType) -> Point {
        let (minimum, maximum) = (None, Some(1000.0));
        Point { name: "p".into(), value_type, unit: String::new(), writable: true, minimum, maximum }
    }

    #[test]
    fn places_in_a_document() {
        let document = json!({"a": {"b": [1, {"c": 2}]}, "x.y": 3, "list": [[4]]});
        let cases = [
            ("a.b[0]", Some(json!(1))),
            ("$.a.b[1].c", Some(json!(2))),
            ("[\"x.y\"]", Some(json!(3))),
            ("list[0][0]", Some(json!(4))),
            ("a.b[2]", None),
            ("a.z.c", None),
            ("a[0]", None),
        ];
        for (path, found) in cases {
            assert_eq!(Path::parse(path).unwrap().find(&document), found.as_ref(), "{path}");
        }
        for path in ["", "$", ".", "a..b", "a[", "a[x]", "a[1", "a[0]b", "[\"a", &"a.".repeat(20)] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn values_in_payloads() {
        let at = |path: &str| Format { path: Some(Path::parse(path).unwrap()), ..Format::default() };
        let switch = Format { path: None, on: Some("ON".into()), off: Some("OFF".into()) };
        let whole = Format::default();
        let read = |format: &Format, t: PropertyType, payload: &str| {
            format.read(&point(t), payload.as_bytes(), serde_json::from_str(payload).ok().as_ref())
        };
        let value = Found::Value;
        assert_eq!(read(&at("t"), PropertyType::Float, r#"{"t": 21.5}"#), value(Value::Float(21.5)));
        assert_eq!(read(&at("t"), PropertyType::Float, r#"{"h": 21.5}"#), Found::Nothing);
        assert!(matches!(read(&at("t"), PropertyType::Float, "21.5x"), Found::Wrong(_)));
        assert_eq!(read(&whole, PropertyType::Int, " 7\n"), value(Value::Int(7)));
        assert!(matches!(read(&whole, PropertyType::Int, "1001"), Found::Wrong(_)));
        assert_eq!(read(&switch, PropertyType::Boolean, "ON"), value(Value::Bool(true)));
        assert_eq!(read(&switch, PropertyType::Boolean, "OFF"), value(Value::Bool(false)));
        assert_eq!(read(&at("a"), PropertyType::String, r#"{"a": {"b": 1}}"#), value(Value::Text(r#"{"b":1}"#.into())));
        assert_eq!(read(&whole, PropertyType::Bytes, "\u{1}"), value(Value::Bytes(vec![1])));
        assert!(matches!(whole.read(&point(PropertyType::String), &[0xff], None), Found::Wrong(_)));
    }

    #[test]
    fn templates_are_filled_in_once() {
        let switch = Format { path: None, on: Some("ON".into()), off: None };
        let cases = [
            ("{{value}}", Value::Float(21.5), "21.5"),
            (r#"{"state": {{json}}}"#, Value::Bool(true), r#"{"state": "ON"}"#),
            (r#"{"state": {{json}}}"#, Value::Bool(false), r#"{"state": false}"#),
            ("{{{value}}}", Value::Int(1), "{1}"),
            ("{{x}} {{", Value::Int(1), "{{x}} {{"),
            ("{{json}}", Value::Text("a\"{{value}}".into()), r#""a\"{{value}}""#),
        ];
        for (template, value, payload) in cases {
            assert_eq!(switch.write(template, &value), payload, "{template}");
        }
        assert!(same(&Value::Float(0.1), &Value::Float(f64::from(0.1_f32))) && !same(&Value::Int(1), &Value::Int(2)));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(path in ".{0,40}", payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let path = Path::parse(&path).ok();
            let document = serde_json::from_slice(&payload).ok();
            let format = Format { path, on: Some("1".into()), off: None };
            let _ = format.read(&point(PropertyType::Double), &payload, document.as_ref());
            let text = String::from_utf8_lossy(&payload).into_owned();
            let _ = format.write(&text, &Value::Bool(true));
        }
    }
}
