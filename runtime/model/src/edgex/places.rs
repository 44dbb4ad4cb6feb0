//! Values with their places, and keys in any case.

use serde_json::Value;

use crate::manifest::{ManifestError, Tree};

/// A value of a file, and where it is.
#[derive(Clone)]
pub(super) struct At<'a> {
    tree: &'a Tree,
    value: &'a Value,
    path: String,
}

impl<'a> At<'a> {
    pub(super) fn root(tree: &'a Tree) -> At<'a> {
        At { tree, value: tree.value(), path: String::new() }
    }

    /// The child with this key, in whatever case.
    pub(super) fn get(&self, key: &str) -> Option<At<'a>> {
        self.entries().into_iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, at)| at)
    }

    /// The children of a mapping.
    pub(super) fn entries(&self) -> Vec<(&'a str, At<'a>)> {
        let child = |(name, value): (&'a String, &'a Value)| {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            (name.as_str(), At { tree: self.tree, value, path })
        };
        self.value.as_object().into_iter().flatten().map(child).collect()
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Vec<At<'a>> {
        let item = |(i, value)| At { tree: self.tree, value, path: format!("{}[{i}]", self.path) };
        self.value.as_array().into_iter().flatten().enumerate().map(item).collect()
    }

    /// The child's text; a number or a flag is written out.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key)?.said()
    }

    /// The child's number, also when it is in quotes.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.text(key)?.trim().parse().ok()
    }

    /// The child's flag, also when it is in quotes.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.text(key).is_some_and(|t| t.eq_ignore_ascii_case("true"))
    }

    /// Its own text.
    pub(super) fn said(&self) -> Option<String> {
        match self.value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    /// Whether it is text in the file, where a number would have lost its zeros.
    pub(super) fn is_text(&self) -> bool {
        self.value.is_string()
    }

    pub(super) fn error(&self, message: String) -> ManifestError {
        self.tree.error(&self.path, message)
    }
}
