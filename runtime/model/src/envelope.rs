//! What travels between the node and its cloud: messages up, commands down, answers up. All of it is JSON, so that any MQTT
//! broker and any language can be at the other end.
//!
//! Up, on `<prefix>/<node>/up/<stream>/<subject>`:
//! ```json
//! {"v":1,"node":"gw1","stream":"data","seq":42,"time":"2026-11-30T17:34:27.123Z","subject":"devices/default/pump/data",
//!  "payload":{"temperature":21.5}}
//! ```
//! * `v` is the version of this document; fields may be added without changing it.
//! * `(node, stream, seq)` is the identity of a message, for good. `seq` counts from 1 in each stream and goes up by one;
//!   messages arrive in that order. A number seen before is a repeat: drop it. A number left out is a message the node had to
//!   drop (its queue was full or the message too old), which the node has counted.
//! * `payload` holds the payload when that is JSON; `payloadText` when it is other text, `payloadBase64` when it is
//!   neither, or text that would grow (mostly control characters).
//!
//! Down, on any topic below `<prefix>/<node>/down/`, a command:
//! ```json
//! {"id":"7f3a","command":"apply","object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{}}}
//! {"id":"7f3b","command":"delete","kind":"pod","namespace":"default","name":"web"}
//! {"id":"7f3c","command":"deviceWrite","namespace":"default","device":"pump","property":"setpoint","value":40}
//! ```
//! Up again, on stream `replies` with subject `commands`, its answer:
//! ```json
//! {"id":"7f3a","command":"apply","outcome":"ok","result":{"kind":"Pod","name":"web","applied":"created"}}
//! {"id":"7f3c","command":"deviceWrite","outcome":"error","error":{"reason":"Timeout","path":"","message":"no answer"}}
//! ```
//! A command with an `id` that was seen before is answered the same again and not carried out again.

use base64::Engine as _;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::object::ObjectError;
use crate::{Key, Kind};

/// The version of the documents.
pub const VERSION: u32 = 1;

/// The longest `id` of a command, in bytes.
pub const ID_MAX: usize = 128;

/// The longest subject that an application may give a message, in bytes: it is in the envelope and in the topic.
pub const SUBJECT_MAX: usize = 1024;

/// The most that [`Up::encode`] makes of a payload, a subject and a node's name of so many bytes. Every byte of a subject can
/// need six (a control character, RFC 8259, section 7); a payload never grows beyond four thirds.
pub const fn largest(payload: usize, subject: usize, node: usize) -> usize {
    /// What is around them: keys, stream, number, time.
    const FRAME: usize = 192;
    payload.saturating_add(payload / 3).saturating_add(6 * subject + node + FRAME)
}

/// A message on its way up.
#[derive(Debug, Clone, Copy)]
pub struct Up<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The stream's name.
    pub stream: &'a str,
    /// Its number in the stream.
    pub seq: u64,
    /// When it happened, UTC milliseconds.
    pub time_ms: i64,
    /// What it is about.
    pub subject: &'a str,
    /// The payload.
    pub payload: &'a [u8],
}

impl Up<'_> {
    /// The document. A payload that is JSON goes in as it is, without being taken apart.
    pub fn encode(&self) -> Vec<u8> {
        let time = crate::time::rfc3339_millis(self.time_ms);
        let (node, subject) = (json!(self.node), json!(self.subject));
        let mut out = format!(
            r#"{{"v":{VERSION},"node":{node},"stream":"{}","seq":{},"time":"{time}","subject":{subject},"#,
            self.stream, self.seq
        )
        .into_bytes();
        out.reserve(self.payload.len() + 32);
        if serde_json::from_slice::<IgnoredAny>(self.payload).is_ok() {
            out.extend_from_slice(br#""payload":"#);
            out.extend_from_slice(self.payload);
        } else {
            // Escaped control characters take six bytes each; base64 never takes more than four thirds, so that the size of
            // an envelope is bounded by the size of its payload.
            let text = std::str::from_utf8(self.payload).ok().map(|text| json!(text).to_string());
            match text.filter(|text| text.len() <= self.payload.len() / 3 * 4 + 8) {
                Some(text) => {
                    out.extend_from_slice(br#""payloadText":"#);
                    out.extend_from_slice(text.as_bytes());
                }
                None => {
                    out.extend_from_slice(br#""payloadBase64":""#);
                    out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(self.payload).as_bytes());
                    out.push(b'"');
                }
            }
        }
        out.push(b'}');
        out
    }
}

/// What the cloud asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Names the command, for its answer and for dropping repeats.
    pub id: String,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "command", rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// Create or replace an object.
    Apply {
        /// The object, as Kubernetes prints it.
        object: Value,
    },
    /// Remove an object.
    Delete {
        /// Kind, plural or short name.
        kind: String,
        /// Namespace; `default` when left out.
        #[serde(default)]
        namespace: String,
        /// Name.
        name: String,
    },
    /// Write a property of a device.
    DeviceWrite {
        /// Namespace; `default` when left out.
        #[serde(default)]
        namespace: String,
        /// The device.
        device: String,
        /// The property of its model.
        property: String,
        /// The value.
        value: Value,
    },
}

impl Action {
    /// The word on the wire.
    pub const fn word(&self) -> &'static str {
        match self {
            Action::Apply { .. } => "apply",
            Action::Delete { .. } => "delete",
            Action::DeviceWrite { .. } => "deviceWrite",
        }
    }

    /// Whether doing it twice ends in the same as doing it once.
    pub const fn idempotent(&self) -> bool {
        !matches!(self, Action::DeviceWrite { .. })
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failure {
    /// A word to decide by: `Malformed`, `Invalid`, `NotFound`, `Unavailable`, `Timeout`, `Failed`, `Interrupted`.
    pub reason: String,
    /// The field that is wrong, as a dotted path; empty when it is none.
    pub path: String,
    /// What happened, in a sentence.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(reason: &str, path: &str, message: impl Into<String>) -> Failure {
        Failure { reason: reason.to_owned(), path: path.to_owned(), message: message.into() }
    }
}

impl Command {
    /// Takes a command apart.
    ///
    /// # Errors
    /// What is wrong and in which field, with the `id` when there is a usable one.
    pub fn decode(bytes: &[u8]) -> Result<Command, (Option<String>, Failure)> {
        let malformed = |message: &str| (None, Failure::new("Malformed", "", message));
        let value: Value = serde_json::from_slice(bytes).map_err(|e| malformed(&format!("not JSON: {e}")))?;
        let Value::Object(mut map) = value else { return Err(malformed("a command is a JSON object")) };
        let id = match map.remove("id") {
            Some(Value::String(id)) if is_id(&id) => id,
            Some(_) => {
                let rule = format!("must be 1 to {ID_MAX} printable ASCII characters");
                return Err((None, Failure::new("Malformed", "id", rule)));
            }
            None => return Err((None, Failure::new("Malformed", "id", "is missing"))),
        };
        let action = serde_path_to_error::deserialize(Value::Object(map)).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { path };
            crate::check::polish(ObjectError { path, message: error.inner().to_string() })
        });
        match action {
            Ok(action) => Ok(Command { id, action }),
            Err(ObjectError { path, message }) => Err((Some(id), Failure::new("Malformed", &path, message))),
        }
    }
}

fn is_id(id: &str) -> bool {
    (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

/// The key a `delete` or a `deviceWrite` names.
///
/// # Errors
/// The kind is unknown.
pub fn key(kind: &str, namespace: &str, name: &str) -> Result<Key, Failure> {
    let kind: Kind = kind.parse().map_err(|e| Failure::new("Invalid", "kind", format!("{e}")))?;
    Ok(Key::new(kind, namespace, name))
}

/// The answer to a command, as a document.
pub fn reply(id: Option<&str>, command: Option<&str>, outcome: Result<&Value, &Failure>) -> Value {
    let mut map = Map::new();
    map.insert("id".to_owned(), id.map_or(Value::Null, Value::from));
    if let Some(command) = command {
        map.insert("command".to_owned(), command.into());
    }
    match outcome {
        Ok(result) => {
            map.insert("outcome".to_owned(), "ok".into());
            map.insert("result".to_owned(), result.clone());
        }
        Err(failure) => {
            map.insert("outcome".to_owned(), "error".into());
            map.insert("error".to_owned(), json!(failure));
        }
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn up(subject: &str, payload: &[u8]) -> Value {
        let up = Up { node: "gw\"1", stream: "data", seq: 7, time_ms: 1_796_060_067_123, subject, payload };
        serde_json::from_slice(&up.encode()).unwrap()
    }

    #[test]
    fn every_payload_is_carried() {
        let value = up("a", br#" {"t": 21.5} "#);
        assert_eq!(value["payload"], json!({"t": 21.5}));
        assert_eq!((&value["v"], &value["seq"], &value["node"]), (&json!(1), &json!(7), &json!("gw\"1")));
        assert_eq!(value["time"], "2026-11-30T17:34:27.123Z");
        assert_eq!(up("a", b"not \"json\"\n")["payloadText"], "not \"json\"\n");
        assert_eq!(up("a", b"")["payloadText"], "");
        assert_eq!(up("a", &[0xff, 0])["payloadBase64"], "/wA=");
        assert!(up("a", &[1; 100])["payloadBase64"].is_string());
    }

    proptest! {
        #[test]
        fn any_payload_makes_valid_json(subject in ".{0,20}", payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(&up(&subject, &payload)["subject"], &json!(subject));
        }

        /// What the configuration is checked with: nothing becomes larger than `largest` says.
        #[test]
        fn the_size_is_bounded(
            subject in proptest::collection::vec(prop_oneof!["[\\x00-\\x1f]", "[a-z\"/é]"], 0..40),
            payload in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                proptest::collection::vec(0u8..32, 0..200),
                "[a-z\"\\\\]{0,200}".prop_map(String::into_bytes),
            ],
        ) {
            let subject = subject.concat();
            let up = Up { node: "gw", stream: "replies", seq: u64::MAX, time_ms: i64::MAX, subject: &subject, payload: &payload };
            prop_assert!(up.encode().len() <= largest(payload.len(), subject.len(), 2));
        }

        #[test]
        fn any_bytes_are_a_command_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Command::decode(&bytes);
        }
    }

    #[test]
    fn commands_and_what_is_wrong_with_them() {
        let good = Command::decode(br#"{"id":"a","command":"delete","kind":"pod","name":"web"}"#).unwrap();
        let action = Action::Delete { kind: "pod".into(), namespace: String::new(), name: "web".into() };
        assert_eq!(good, Command { id: "a".into(), action });
        for (bytes, id, path) in [
            ("[]", None, ""),
            ("{", None, ""),
            (r#"{"command":"delete"}"#, None, "id"),
            (r#"{"id":"a b","command":"delete"}"#, None, "id"),
            (r#"{"id":7,"command":"delete"}"#, None, "id"),
            (r#"{"id":"a","command":"reboot"}"#, Some("a"), "command"),
            (r#"{"id":"a","command":"delete","kind":"pod"}"#, Some("a"), "name"),
            (r#"{"id":"a","command":"delete","kind":"pod","name":"x","force":true}"#, Some("a"), "force"),
        ] {
            let (got, failure) = Command::decode(bytes.as_bytes()).unwrap_err();
            assert_eq!((got.as_deref(), failure.reason.as_str()), (id, "Malformed"), "{bytes}");
            assert_eq!(failure.path, path, "{bytes} {failure}");
        }
        assert_eq!(key("deploy", "", "x").unwrap_err().path, "kind");
        assert_eq!(key("po", "", "x").unwrap().to_string(), "pods/default/x");
    }
}
