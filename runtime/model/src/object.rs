//! An object of the store: `apiVersion`, `kind`, `metadata`, and the rest of its top-level fields.
//!
//! Whoever wants a typed view (`pod::PodSpec`, `device::Device`, …) deserialises [`Object::spec`] or [`Object::fields`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Kind;

/// The namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What identifies an object: kind, namespace (empty for cluster-scoped kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty exactly when the kind is cluster scoped.
    pub namespace: String,
    /// The name, a DNS subdomain name.
    pub name: String,
}

impl Key {
    /// A key; an empty namespace becomes `default` for namespaced kinds and any namespace is dropped for the others.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Key {
        let namespace = match (kind.namespaced(), namespace) {
            (false, _) => "",
            (true, "") => DEFAULT_NAMESPACE,
            (true, given) => given,
        };
        Key { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// `pods/default/web` or `nodes/gw`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.plural())?;
        if !self.namespace.is_empty() {
            write!(f, "/{}", self.namespace)?;
        }
        write!(f, "/{}", self.name)
    }
}

/// Object metadata: the subset of Kubernetes' `ObjectMeta` that the edge keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name, a DNS subdomain name.
    pub name: String,
    /// The namespace; empty for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Unique over time: a deleted and recreated object has another. Set by the store.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Grows with every change in the store; a decimal number in a string, as in Kubernetes. Set by the store.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Grows with every change of anything but `metadata` and `status`. Set by the store.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// When the store first saw it, RFC 3339. Set by the store.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub creation_timestamp: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Metadata {
    /// The resource version as a number; 0 when there is none.
    pub fn version(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }
}

/// One object, as any door brings it and the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The kind, which gives `apiVersion` and `kind`.
    pub kind: Kind,
    /// Name, namespace, versions, labels, annotations.
    pub metadata: Metadata,
    /// Every other top-level field: `spec`, `status`, `data`, `reason`, …
    pub fields: Map<String, Value>,
}

/// Why a JSON value is not an object of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ObjectError {
    /// The field, as a dotted path (`metadata.name`); `.` for the whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Object {
    /// A new object with a spec and nothing else.
    pub fn new(kind: Kind, namespace: &str, name: &str, spec: Value) -> Object {
        let key = Key::new(kind, namespace, name);
        let metadata = Metadata { name: key.name, namespace: key.namespace, ..Metadata::default() };
        let mut fields = Map::new();
        fields.insert("spec".to_owned(), spec);
        Object { kind, metadata, fields }
    }

    /// The key of this object.
    pub fn key(&self) -> Key {
        Key::new(self.kind, &self.metadata.namespace, &self.metadata.name)
    }

    /// `spec`, or null.
    pub fn spec(&self) -> &Value {
        self.fields.get("spec").unwrap_or(&Value::Null)
    }

    /// `status`, or null.
    pub fn status(&self) -> &Value {
        self.fields.get("status").unwrap_or(&Value::Null)
    }

    /// Replaces `status`; null removes it.
    pub fn set_status(&mut self, status: Value) {
        if status.is_null() {
            self.fields.remove("status");
        } else {
            self.fields.insert("status".to_owned(), status);
        }
    }

    /// Whether anything but metadata and status differs.
    pub fn spec_differs(&self, other: &Object) -> bool {
        let wanted = |o: &Object| o.fields.iter().filter(|(k, _)| *k != "status").count();
        wanted(self) != wanted(other)
            || self.fields.iter().any(|(k, v)| k != "status" && other.fields.get(k) != Some(v))
    }

    /// The object as Kubernetes prints it.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("apiVersion".to_owned(), json!(self.kind.api_version()));
        map.insert("kind".to_owned(), json!(self.kind.name()));
        map.insert("metadata".to_owned(), serde_json::to_value(&self.metadata).unwrap_or(Value::Null));
        for (key, value) in &self.fields {
            map.insert(key.clone(), value.clone());
        }
        Value::Object(map)
    }

    /// Takes apart what Kubernetes would print. Checks type and metadata; the spec is checked by its kind.
    ///
    /// # Errors
    /// Names the field that is missing, of the wrong type or unknown.
    pub fn from_json(value: Value) -> Result<Object, ObjectError> {
        let fail = |path: &str, message: String| ObjectError { path: path.to_owned(), message };
        let Value::Object(mut map) = value else {
            return Err(fail(".", "an object must be a mapping with apiVersion, kind and metadata".to_owned()));
        };
        let mut text = |field: &str| match map.remove(field) {
            Some(Value::String(s)) => Ok(s),
            Some(other) => Err(fail(field, format!("{other} is not a string"))),
            None => Err(fail(field, "is missing".to_owned())),
        };
        let (api_version, kind_name) = (text("apiVersion")?, text("kind")?);
        let kind = Kind::from_type(&api_version, &kind_name).ok_or_else(|| {
            let known = Kind::ALL.map(|k| format!("{} {}", k.api_version(), k.name())).join(", ");
            fail("kind", format!("{api_version} {kind_name} is not supported; known: {known}"))
        })?;
        let metadata = map.remove("metadata").ok_or_else(|| fail("metadata", "is missing".to_owned()))?;
        let mut metadata: Metadata = serde_path_to_error::deserialize(metadata)
            .map_err(|e| fail(&format!("metadata.{}", e.path()), e.inner().to_string()))?;
        if !crate::name::is_subdomain(&metadata.name) {
            let rule = "lower-case letters, digits, '-' and '.', at most 253 characters";
            return Err(fail("metadata.name", format!("{:?} is not a name: {rule}", metadata.name)));
        }
        let key = Key::new(kind, &metadata.namespace, &metadata.name);
        if kind.namespaced() && !crate::name::is_label(&key.namespace) {
            let rule = "lower-case letters, digits and '-', at most 63 characters";
            return Err(fail("metadata.namespace", format!("{:?} is not a namespace: {rule}", key.namespace)));
        }
        metadata.namespace = key.namespace;
        Ok(Object { kind, metadata, fields: map })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_whole() {
        let mut pod = Object::new(Kind::Pod, "", "web", json!({"containers": []}));
        pod.metadata.labels.insert("a".into(), "b".into());
        pod.set_status(json!({"phase": "Running"}));
        assert_eq!(pod.metadata.namespace, "default");
        assert_eq!(Object::from_json(pod.to_json()), Ok(pod));
    }

    #[test]
    fn errors_name_the_field() {
        let cases = [
            (json!([]), "."),
            (json!({"kind": "Pod"}), "apiVersion"),
            (json!({"apiVersion": "v1", "kind": "Deployment", "metadata": {"name": "a"}}), "kind"),
            (json!({"apiVersion": "v1", "kind": "Pod"}), "metadata"),
            (json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "A"}}), "metadata.name"),
            (json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 1}}), "metadata.name"),
            (
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "a.b"}}),
                "metadata.namespace",
            ),
        ];
        for (value, path) in cases {
            assert_eq!(Object::from_json(value.clone()).unwrap_err().path, path, "{value}");
        }
    }

    #[test]
    fn status_is_no_difference_of_the_spec() {
        let a = Object::new(Kind::Pod, "", "a", json!({"x": 1}));
        let mut b = a.clone();
        b.set_status(json!({"phase": "Running"}));
        assert!(!a.spec_differs(&b) && !b.spec_differs(&a));
        b.fields.insert("spec".into(), json!({"x": 2}));
        assert!(a.spec_differs(&b));
    }
}
