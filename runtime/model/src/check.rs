//! The one check every door puts a wanted object through before it reaches the store.
//!
//! The typed views of the kinds know what is right; here their findings are put into words: the field, the nearest known
//! name, the quotes that are missing.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::event::Event;
use crate::object::{Object, ObjectError};
use crate::{Kind, configmap, device, pod};

/// An object as a user writes it: nulls count as absent, as in Kubernetes; everything else is checked.
///
/// # Errors
/// The first field that is missing, unknown, of the wrong type or out of range.
pub fn wanted(mut value: Value) -> Result<Object, ObjectError> {
    drop_nulls(&mut value, 0);
    let object = Object::from_json(value).map_err(polish)?;
    self::object(&object)?;
    Ok(object)
}

/// Checks everything but type, metadata and status, through the typed view of the kind.
///
/// # Errors
/// The first field that is missing, unknown, of the wrong type or out of range.
pub fn object(object: &Object) -> Result<(), ObjectError> {
    let spec = object.spec();
    match object.kind {
        Kind::Pod => only(object, &["spec"]).and_then(|()| pod::check(spec).map(drop)),
        Kind::Device => only(object, &["spec"]).and_then(|()| device::check_device(spec)),
        Kind::DeviceModel => only(object, &["spec"]).and_then(|()| device::check_model(spec)),
        Kind::Node => only(object, &["spec"]),
        Kind::ConfigMap => configmap::config_map(&without_status(object)).map(drop),
        Kind::Secret => configmap::secret(&without_status(object)).map(drop),
        Kind::Event => Event::read(&without_status(object)).map(drop),
    }
    .map_err(polish)
}

/// Refuses top-level fields that the kind does not have.
fn only(object: &Object, known: &[&str]) -> Result<(), ObjectError> {
    let other = object.fields.keys().find(|field| *field != "status" && !known.contains(&field.as_str()));
    other.map_or(Ok(()), |field| Err(unknown(field, field, known)))
}

fn without_status(object: &Object) -> Map<String, Value> {
    let mut fields = object.fields.clone();
    fields.remove("status");
    fields
}

/// Deserialises a part of an object; errors name the field below `prefix` (such as `spec`).
///
/// # Errors
/// The first field that does not fit the type.
pub fn typed<T: DeserializeOwned>(prefix: &str, value: &Value) -> Result<T, ObjectError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string().as_str() {
            "." => prefix.to_owned(),
            inner if prefix.is_empty() => inner.to_owned(),
            inner if inner.starts_with('[') => format!("{prefix}{inner}"),
            inner => format!("{prefix}.{inner}"),
        };
        polish(ObjectError { path, message: error.inner().to_string() })
    })
}

/// Puts what serde says into words that help whoever wrote the manifest. Other messages pass unchanged.
pub fn polish(error: ObjectError) -> ObjectError {
    let ObjectError { path, message } = error;
    if let Some((field, rest)) = quoted(&message, "unknown field ") {
        let known = backticked(rest);
        return unknown(&child(&path, field), field, &known);
    }
    if let Some((field, _)) = quoted(&message, "missing field ") {
        return ObjectError { path: child(&path, field), message: "is missing".to_owned() };
    }
    if let Some((field, _)) = quoted(&message, "duplicate field ") {
        return ObjectError { path: child(&path, field), message: "is there twice".to_owned() };
    }
    if let Some((variant, rest)) = quoted(&message, "unknown variant ") {
        let known = backticked(rest);
        let guess = nearest(variant, &known).map_or_else(String::new, |g| format!(", did you mean {g}?"));
        return ObjectError { path, message: format!("{variant} is not one of {}{guess}", known.join(", ")) };
    }
    let message = wrong_type(&message).unwrap_or(message);
    ObjectError { path, message }
}

/// An unknown field, with the nearest of the known ones.
pub fn unknown(path: &str, field: &str, known: &[&str]) -> ObjectError {
    let message = match nearest(field, known) {
        Some(guess) => format!("unknown field, did you mean {guess}?"),
        None if known.is_empty() => "unknown field; none is known here".to_owned(),
        None => format!("unknown field; known: {}", known.join(", ")),
    };
    ObjectError { path: path.to_owned(), message }
}

/// The known word a typing mistake most likely meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), *k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k)
}

/// The path of a field below a path, which may already end with it.
fn child(path: &str, field: &str) -> String {
    let ends = path.strip_suffix(field).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    match path {
        "" | "." => field.to_owned(),
        _ if ends => path.to_owned(),
        _ => format!("{}.{field}", path.trim_end_matches(".?")),
    }
}

/// The word in backticks after a prefix, and the rest.
fn quoted<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    message.strip_prefix(prefix)?.strip_prefix('`')?.split_once('`')
}

fn backticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// "invalid type: integer `8080`, expected a string" in plain words.
fn wrong_type(message: &str) -> Option<String> {
    let (found, expected) = message.strip_prefix("invalid type: ")?.split_once(", expected ")?;
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    let value = value.trim_matches('`');
    let noun = match kind {
        "integer" => "number",
        "floating" => "number",
        "boolean" => "boolean",
        "string" => "text",
        "sequence" => "list",
        "map" => "mapping",
        "null" | "unit" => "null",
        other => other,
    };
    let value = value.strip_prefix("point `").unwrap_or(value);
    let expected = match expected {
        "a string" => "text",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a boolean" => "true or false",
        e if e.starts_with("struct ") || e.starts_with("internally tagged") => "a mapping",
        e if ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"].contains(&e) => "a whole number",
        "f64" | "f32" => "a number",
        other => other,
    };
    let article = if matches!(noun, "text" | "null") { "" } else { "a " };
    Some(match (noun, expected) {
        ("number" | "boolean", "text") => {
            format!("{value} is a {noun}, but text is needed here: write \"{value}\"")
        }
        ("text", "a whole number" | "a number" | "true or false") => {
            format!("{value} is text, but {expected} is needed here: write it without quotes")
        }
        ("number" | "boolean", _) => format!("{value} is a {noun}, but {expected} is needed here"),
        _ => format!("is {article}{noun}, but {expected} is needed here"),
    })
}

/// Fields whose keys are the user's own: a null there is a mistake, not an absent field.
const USER_KEYS: [&str; 5] = ["data", "stringData", "binaryData", "labels", "annotations"];

/// Nothing that passed a reader nests deeper; beyond it nulls simply stay.
const MAX_DEPTH: usize = 130;

fn drop_nulls(value: &mut Value, depth: usize) {
    match value {
        Value::Object(map) if depth < MAX_DEPTH => drop_null_fields(map, depth),
        Value::Array(items) if depth < MAX_DEPTH => items.iter_mut().for_each(|item| drop_nulls(item, depth + 1)),
        _ => {}
    }
}

fn drop_null_fields(map: &mut Map<String, Value>, depth: usize) {
    map.retain(|_, value| !value.is_null());
    for (_, value) in map.iter_mut().filter(|(key, _)| !USER_KEYS.contains(&key.as_str())) {
        drop_nulls(value, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[expect(dead_code, reason = "read by serde only")]
    struct Spec {
        containers: Vec<Container>,
        #[serde(default)]
        restart_policy: Option<Restart>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[expect(dead_code, reason = "read by serde only")]
    struct Container {
        image: String,
        #[serde(default)]
        working_dir: String,
        #[serde(default)]
        port: u16,
    }

    #[derive(Debug, Deserialize)]
    enum Restart {
        Always,
        OnFailure,
    }

    #[test]
    fn serde_errors_become_ours() {
        let cases = [
            (json!({"containers": [{"imge": "x"}]}), "spec.containers[0].imge: unknown field, did you mean image?"),
            (
                json!({"containers": [{"image": "x", "zzz": 1}]}),
                "spec.containers[0].zzz: unknown field; known: image, workingDir, port",
            ),
            (json!({"containers": [{}]}), "spec.containers[0].image: is missing"),
            (json!({}), "spec.containers: is missing"),
            (
                json!({"containers": [{"image": 5}]}),
                "spec.containers[0].image: 5 is a number, but text is needed here: write \"5\"",
            ),
            (
                json!({"containers": [{"image": "x", "port": "80"}]}),
                "spec.containers[0].port: \"80\" is text, but a whole number is needed here: write it without quotes",
            ),
            (json!({"containers": {}}), "spec.containers: is a mapping, but a list is needed here"),
            (
                json!({"containers": [], "restartPolicy": "always"}),
                "spec.restartPolicy: always is not one of Always, OnFailure, did you mean Always?",
            ),
            (
                json!({"containers": [{"image": "x", "port": 70000}]}),
                "spec.containers[0].port: invalid value: integer `70000`, expected u16",
            ),
            (json!([]), "spec: "),
        ];
        for (value, expected) in cases {
            let error = typed::<Spec>("spec", &value).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{value}\nwant {expected}\n got {error}");
        }
    }

    #[test]
    fn nulls_count_as_absent_but_not_among_the_users_own_keys() {
        let mut value = json!({"spec": {"a": null, "b": [{"c": null}]}, "data": {"x": null}, "status": null});
        drop_nulls(&mut value, 0);
        assert_eq!(value, json!({"spec": {"b": [{}]}, "data": {"x": null}}));
    }
}
