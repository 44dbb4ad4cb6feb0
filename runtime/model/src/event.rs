//! Event: something that happened to an object, counted rather than repeated.
//!
//! Source: Kubernetes API reference, "Event v1 core": `involvedObject`, `reason` (a word in CamelCase), `message`, `type`
//! (`Normal` or `Warning`), `count`, `firstTimestamp`, `lastTimestamp`, `source`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::object::ObjectError;
use crate::{Kind, Object};

/// Whether somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// For the record.
    Normal,
    /// Something is not as wanted.
    Warning,
}

/// What an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// The `apiVersion` of the object.
    pub api_version: String,
    /// The `kind` of the object.
    pub kind: String,
    /// The namespace; empty for cluster-scoped kinds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The uid, so that a recreated object starts a history of its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Which part, such as `spec.containers{web}`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

impl Reference {
    /// A reference to a whole object.
    pub fn to(object: &Object) -> Reference {
        Reference {
            api_version: object.kind.api_version().to_owned(),
            kind: object.kind.name().to_owned(),
            namespace: object.metadata.namespace.clone(),
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.clone(),
            field_path: String::new(),
        }
    }

    /// The same object, narrowed to one of its containers.
    #[must_use]
    pub fn container(mut self, name: &str) -> Reference {
        self.field_path = format!("spec.containers{{{name}}}");
        self
    }
}

/// Who saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// The part of the runtime.
    pub component: String,
    /// The node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// The fields of an Event beside its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event {
    /// What it is about.
    pub involved_object: Reference,
    /// One word in CamelCase, such as `Pulled` or `BackOff`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Normal or a warning.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// How often it happened.
    pub count: u32,
    /// When it was first seen, RFC 3339.
    pub first_timestamp: String,
    /// When it was last seen, RFC 3339.
    pub last_timestamp: String,
    /// Who saw it.
    pub source: Source,
}

impl Event {
    /// Reads an Event from [`Object::fields`].
    ///
    /// # Errors
    /// Names the field that is missing, unknown or of the wrong type.
    pub fn read(fields: &Map<String, Value>) -> Result<Event, ObjectError> {
        serde_path_to_error::deserialize(&Value::Object(fields.clone()))
            .map_err(|e| ObjectError { path: e.path().to_string(), message: e.inner().to_string() })
    }

    /// The object that keeps it, in the namespace of what it is about (`default` for cluster-scoped kinds).
    pub fn to_object(&self, name: &str) -> Object {
        let mut object = Object::new(Kind::Event, &self.involved_object.namespace, name, Value::Null);
        object.fields.remove("spec");
        if let Ok(Value::Object(fields)) = serde_json::to_value(self) {
            object.fields.extend(fields);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_comes_back_whole() {
        let pod = Object::new(Kind::Pod, "", "web", json!({}));
        let event = Event {
            involved_object: Reference::to(&pod).container("a"),
            reason: "BackOff".into(),
            message: "waits".into(),
            kind: EventType::Warning,
            count: 3,
            first_timestamp: "2026-11-30T17:34:27Z".into(),
            last_timestamp: "2026-11-30T17:35:27Z".into(),
            source: Source { component: "pods".into(), host: "gw".into() },
        };
        let object = event.to_object("web.1");
        assert_eq!(object.to_json()["involvedObject"]["fieldPath"], "spec.containers{a}");
        assert_eq!(object.to_json()["type"], "Warning");
        assert_eq!(Event::read(&object.fields), Ok(event));
    }
}
