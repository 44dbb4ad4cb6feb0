//! ConfigMap and Secret: named data for pods, with its keys and values checked.
//!
//! Source: Kubernetes API reference, "ConfigMap v1", "Secret v1": keys of letters, digits, `-`, `_` and `.`, together at
//! most 1 MiB; a Secret's `data` is base64 and its `stringData` text, which wins.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::object::ObjectError;

/// The most that the keys and values of one object may take, in bytes (Kubernetes' limit).
pub const SIZE_MAX: usize = 1 << 20;
/// The longest key, in bytes.
const KEY_MAX: usize = 253;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigMapFields {
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    binary_data: BTreeMap<String, String>,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted: nothing here changes a ConfigMap but its owner")]
    immutable: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecretFields {
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    string_data: BTreeMap<String, String>,
    #[serde(default)]
    #[expect(dead_code, reason = "the type says what a Secret is for; pods get its data whatever it is")]
    r#type: Option<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted: nothing here changes a Secret but its owner")]
    immutable: Option<bool>,
}

/// The decoded data of a ConfigMap or a Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// The data of a ConfigMap, from [`crate::Object::fields`].
///
/// # Errors
/// Names the field that is unknown, of the wrong type, not base64 or too large.
pub fn config_map(fields: &Map<String, Value>) -> Result<Data, ObjectError> {
    let fields: ConfigMapFields = read(fields)?;
    let mut data = decode("binaryData", fields.binary_data)?;
    for (key, text) in fields.data {
        if data.contains_key(&key) {
            return Err(error(format!("binaryData.{key}"), "the key is in data, too"));
        }
        data.insert(key, text.into_bytes());
    }
    checked("data", data)
}

/// The data of a Secret, from [`crate::Object::fields`].
///
/// # Errors
/// Names the field that is unknown, of the wrong type, not base64 or too large. Never shows a value.
pub fn secret(fields: &Map<String, Value>) -> Result<Data, ObjectError> {
    let fields: SecretFields = read(fields)?;
    let mut data = decode("data", fields.data)?;
    for (key, text) in fields.string_data {
        data.insert(key, text.into_bytes());
    }
    checked("data", data)
}

fn read<T: for<'a> Deserialize<'a>>(fields: &Map<String, Value>) -> Result<T, ObjectError> {
    serde_path_to_error::deserialize(&Value::Object(fields.clone())).map_err(|e| {
        let message = match e.inner().to_string() {
            // serde quotes the value it did not expect, which may be the secret itself.
            text if text.starts_with("invalid") => "is of the wrong type: values are strings".to_owned(),
            text => text,
        };
        error(e.path().to_string(), message)
    })
}

fn error(path: impl Into<String>, message: impl Into<String>) -> ObjectError {
    ObjectError { path: path.into(), message: message.into() }
}

fn decode(field: &str, encoded: BTreeMap<String, String>) -> Result<Data, ObjectError> {
    let decoded = encoded.into_iter().map(|(key, text)| {
        let compact: String = text.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(compact).map_err(|_| error(format!("{field}.{key}"), "is not base64"))?;
        Ok((key, bytes))
    });
    decoded.collect()
}

fn checked(field: &str, data: Data) -> Result<Data, ObjectError> {
    if let Some(key) = data.keys().find(|k| !is_key(k)) {
        return Err(error(
            format!("{field}.{key}"),
            "is not a key: letters, digits, '-', '_' and '.', at most 253 characters, not '.' and not starting with '..'",
        ));
    }
    let size: usize = data.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > SIZE_MAX {
        return Err(error(field, format!("has {size} bytes; at most {SIZE_MAX} are kept")));
    }
    Ok(data)
}

/// Whether a key may name a file in a volume.
pub fn is_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= KEY_MAX
        && key != "."
        && !key.starts_with("..")
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn data_is_decoded() {
        let map = config_map(&fields(json!({"data": {"a": "x"}, "binaryData": {"b": "AAE="}})));
        assert_eq!(map, Ok(Data::from([("a".into(), b"x".to_vec()), ("b".into(), vec![0, 1])])));
        let secret =
            secret(&fields(json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ\n=="}, "stringData": {"b": "z"}})));
        assert_eq!(secret, Ok(Data::from([("a".into(), b"x".to_vec()), ("b".into(), b"z".to_vec())])));
    }

    #[test]
    fn errors_name_the_field_and_never_a_secret() {
        let cases = [
            (json!({"dta": {}}), "dta"),
            (json!({"data": {"a": 12345}}), "data.a"),
            (json!({"data": {"a": "12345"}}), "data.a"),
            (json!({"stringData": {"../a": "x"}}), "data.../a"),
            (json!({"stringData": {"..": "x"}}), "data..."),
            (json!({"stringData": {"": "x"}}), "data."),
            (json!({"stringData": {"a": "x".repeat(SIZE_MAX)}}), "data"),
        ];
        for (value, path) in cases {
            let error = secret(&fields(value.clone())).unwrap_err();
            assert_eq!(error.path, path);
            assert!(!error.message.contains("12345"), "{error}");
        }
        assert_eq!(
            config_map(&fields(json!({"data": {"a": "x"}, "binaryData": {"a": ""}}))).unwrap_err().path,
            "binaryData.a"
        );
    }
}
