//! The variables, command and arguments of a container. Pure: what is referred to is looked up by the caller's function.

use std::collections::BTreeMap;

use edge_model::configmap::Data;
use edge_model::pod::Container;
use edge_model::pod::container::{EnvVar, FieldPath};
use edge_model::pod::expand::expand;

/// Where values come from.
pub struct Sources<'a> {
    /// The data of a ConfigMap of the pod's namespace.
    pub config_map: &'a dyn Fn(&str) -> Lookup,
    /// The data of a Secret of the pod's namespace.
    pub secret: &'a dyn Fn(&str) -> Lookup,
    /// A field of the pod.
    pub field: &'a dyn Fn(FieldPath) -> String,
}

/// What a lookup found: the data, nothing, or an object that cannot be read.
pub type Lookup = Result<Option<Data>, String>;

/// Why there is no environment: what is missing, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// An object is not there.
    #[error("{kind} {name:?} not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An object has no such key.
    #[error("{kind} {name:?} has no key {key:?}")]
    Key {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// An object cannot be read.
    #[error("{kind} {name:?}: {message}")]
    Unreadable {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        message: String,
    },
    /// A value is not text.
    #[error("variable {0:?}: the value is not UTF-8 text without zero bytes")]
    NotText(String),
}

/// The variables that the pod sets, the last of each name, in the order in which they were first named.
///
/// # Errors
/// Names what is referred to and missing.
pub fn variables(container: &Container, sources: &Sources<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let mut vars = Variables::default();
    for from in &container.env_from {
        let (kind, selector, lookup) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => ("configmap", map, sources.config_map),
            (None, Some(secret)) => ("secret", secret, sources.secret),
            (None, None) => continue,
        };
        let Some(data) = find(kind, &selector.name, selector.optional, lookup)? else { continue };
        for (key, value) in data {
            let name = format!("{}{key}", from.prefix.as_deref().unwrap_or(""));
            vars.set(&name, text(&name, value)?);
        }
    }
    for var in &container.env {
        if let Some(value) = value(var, sources, &vars)? {
            vars.set(&var.name, value);
        }
    }
    Ok(vars.in_order())
}

/// Command and arguments as they are run: the pod's win over the image's, as in Kubernetes ("Define a Command and
/// Arguments for a Container"): a command of the pod also drops the image's arguments.
pub fn command(c: &Container, entrypoint: &[String], cmd: &[String], vars: &[(String, String)]) -> Vec<String> {
    let lookup = |name: &str| vars.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let ours = |text: &[String]| text.iter().map(|t| expand(t, lookup)).collect::<Vec<_>>();
    let (command, args) = (ours(&c.command), ours(&c.args));
    match (command.is_empty(), args.is_empty()) {
        (true, true) => [entrypoint, cmd].concat(),
        (true, false) => [entrypoint, &args].concat(),
        (false, _) => [command, args].concat(),
    }
}

/// The image's variables (`NAME=value`) with the pod's in their place.
pub fn over_image(image: &[String], pod: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut vars = Variables::default();
    for (name, value) in image.iter().filter_map(|line| line.split_once('=')) {
        vars.set(name, value.to_owned());
    }
    for (name, value) in pod {
        vars.set(&name, value);
    }
    vars.in_order()
}

fn find(
    kind: &'static str,
    name: &str,
    optional: Option<bool>,
    lookup: &dyn Fn(&str) -> Lookup,
) -> Result<Option<Data>, EnvError> {
    match lookup(name) {
        Ok(Some(data)) => Ok(Some(data)),
        Ok(None) if optional == Some(true) => Ok(None),
        Ok(None) => Err(EnvError::Missing { kind, name: name.to_owned() }),
        Err(message) => Err(EnvError::Unreadable { kind, name: name.to_owned(), message }),
    }
}

fn value(var: &EnvVar, sources: &Sources<'_>, before: &Variables) -> Result<Option<String>, EnvError> {
    let Some(from) = &var.value_from else {
        let text = var.value.as_deref().unwrap_or("");
        return Ok(Some(expand(text, |name| before.get(name))));
    };
    if let Some(field) = &from.field_ref {
        return Ok(Some((sources.field)(field.field_path)));
    }
    let (kind, key, lookup) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(key), _) => ("configmap", key, sources.config_map),
        (None, Some(key)) => ("secret", key, sources.secret),
        (None, None) => return Ok(None),
    };
    let Some(mut data) = find(kind, &key.name, key.optional, lookup)? else { return Ok(None) };
    match data.remove(&key.key) {
        Some(value) => Ok(Some(text(&var.name, value)?)),
        None if key.optional == Some(true) => Ok(None),
        None => Err(EnvError::Key { kind, name: key.name.clone(), key: key.key.clone() }),
    }
}

fn text(name: &str, value: Vec<u8>) -> Result<String, EnvError> {
    String::from_utf8(value).ok().filter(|t| !t.contains('\0')).ok_or_else(|| EnvError::NotText(name.to_owned()))
}

/// Variables that remember the order in which they came.
#[derive(Default)]
struct Variables {
    values: BTreeMap<String, (usize, String)>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        let next = self.values.len();
        self.values.entry(name.to_owned()).or_insert((next, String::new())).1 = value;
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    fn in_order(self) -> Vec<(String, String)> {
        let mut list: Vec<_> = self.values.into_iter().map(|(name, (order, value))| (order, name, value)).collect();
        list.sort();
        list.into_iter().map(|(_, name, value)| (name, value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(value: Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    fn resolve(value: Value) -> Result<Vec<(String, String)>, EnvError> {
        let map = |name: &str| match name {
            "m" => Ok(Some(Data::from([("k".into(), b"v".to_vec()), ("raw".into(), vec![0xff])]))),
            "bad" => Err("data.x: is not base64".to_owned()),
            _ => Ok(None),
        };
        let secret = |name: &str| Ok((name == "s").then(|| Data::from([("p".into(), b"geheim".to_vec())])));
        let field = |path: FieldPath| format!("{path:?}");
        variables(&container(value), &Sources { config_map: &map, secret: &secret, field: &field })
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn values_come_from_everywhere_and_the_last_wins() {
        let env = json!([
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)-$$(A)"}, {"name": "A", "value": "2"},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
            {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "F", "valueFrom": {"secretKeyRef": {"name": "none", "key": "p", "optional": true}}},
            {"name": "G"},
        ]);
        let expected =
            pairs(&[("A", "2"), ("B", "1-$(C)-$(A)"), ("C", "v"), ("D", "geheim"), ("E", "Name"), ("G", "")]);
        assert_eq!(resolve(json!({"env": env})), Ok(expected));
        let from =
            json!([{"secretRef": {"name": "s"}, "prefix": "X_"}, {"configMapRef": {"name": "none", "optional": true}}]);
        let env = json!([{"name": "Y", "value": "$(X_p)"}]);
        assert_eq!(resolve(json!({"envFrom": from, "env": env})), Ok(pairs(&[("X_p", "geheim"), ("Y", "geheim")])));
    }

    #[test]
    fn what_is_missing_is_named() {
        let from = |kind: &str, name: &str, key: &str| json!({"env": [{"name": "A", "valueFrom": {kind: {"name": name, "key": key}}}]});
        let cases = [
            (from("configMapKeyRef", "none", "k"), "configmap \"none\" not found"),
            (from("secretKeyRef", "s", "k"), "secret \"s\" has no key \"k\""),
            (from("configMapKeyRef", "m", "raw"), "variable \"A\": the value is not UTF-8 text without zero bytes"),
            (from("configMapKeyRef", "bad", "k"), "configmap \"bad\": data.x: is not base64"),
            (json!({"envFrom": [{"secretRef": {"name": "none"}}]}), "secret \"none\" not found"),
        ];
        for (value, message) in cases {
            assert_eq!(resolve(value).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn the_pod_wins_over_the_image() {
        let s = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let (entry, cmd) = (s(&["/entry"]), s(&["default"]));
        let cases = [
            (json!({}), s(&["/entry", "default"])),
            (json!({"args": ["$(A)"]}), s(&["/entry", "1"])),
            (json!({"command": ["/own"]}), s(&["/own"])),
            (json!({"command": ["/own"], "args": ["x", "$(B)"]}), s(&["/own", "x", "$(B)"])),
        ];
        for (value, expected) in cases {
            assert_eq!(command(&container(value.clone()), &entry, &cmd, &pairs(&[("A", "1")])), expected, "{value}");
        }
        let image = s(&["PATH=/bin", "A=image", "broken"]);
        assert_eq!(
            over_image(&image, pairs(&[("A", "pod"), ("B", "")])),
            pairs(&[("PATH", "/bin"), ("A", "pod"), ("B", "")])
        );
    }
}
