//! Manifests: YAML (or JSON) text with one or many objects in it, read so that every error names file, line and field.
//!
//! A field the product does not know is refused, never ignored. `kind: List` is taken apart. Scalars mean what they mean to
//! kubectl.

mod json;
mod node;
mod print;
mod scalar;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

pub use json::parse_json;
pub use node::Position;
pub use print::to_yaml;

use crate::check;
use crate::object::{Object, ObjectError};
use node::{Data, Documents, Node, SyntaxError};

/// The largest manifest file, in bytes. Kubernetes' own limit for one object is about the same (etcd's 1.5 MiB).
pub const MAX_BYTES: usize = 1 << 20;

/// What is wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The file, as the caller named it.
    pub file: String,
    /// The place of the field, or of the nearest of its parents that is there.
    pub position: Position,
    /// The field, as a dotted path; empty when it is not about a field.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// `web.yaml:12:9: spec.containers[0].imge: unknown field, did you mean image?`
impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.position.line, self.position.column)?;
        if !matches!(self.path.as_str(), "" | ".") {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ManifestError {}

/// One object of a manifest, checked.
#[derive(Debug, Clone)]
pub struct Document {
    /// The object.
    pub object: Object,
    file: String,
    /// `items[3].` for the fourth item of a list; empty otherwise.
    prefix: String,
    node: Node,
}

impl Document {
    /// Where the object begins.
    pub fn position(&self) -> Position {
        self.node.position
    }

    /// Whether the manifest itself names a namespace.
    pub fn names_namespace(&self) -> bool {
        self.node.get("metadata").and_then(|m| m.get("namespace")).is_some()
    }

    /// An error about a field of this object (also one that only the server could find) with its place in the file.
    pub fn error(&self, error: &ObjectError) -> ManifestError {
        let path = if error.path == "." { "" } else { error.path.as_str() };
        ManifestError {
            file: self.file.clone(),
            position: self.node.find(path),
            path: format!("{}{path}", self.prefix),
            message: error.message.clone(),
        }
    }
}

/// The objects of a manifest, in the order they are written, each checked.
///
/// # Errors
/// Every object that is wrong gives one error; text that is not YAML gives one and ends the reading. Nothing of a file with
/// an error should be used.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Document>, Vec<ManifestError>> {
    let fail = |position, path: &str, message: String| {
        vec![ManifestError { file: file.to_owned(), position, path: path.to_owned(), message }]
    };
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_BYTES} are read", bytes.len());
        return Err(fail(Position::START, "", message));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = good.iter().filter(|b| **b == b'\n').count() + 1;
            let column = good.rsplit(|b| *b == b'\n').next().map_or(0, <[u8]>::len) + 1;
            return Err(fail(Position { line, column }, "", "the text is not UTF-8".to_owned()));
        }
    };
    let roots = match read(text) {
        Ok(roots) => roots,
        Err(error) => return Err(fail(error.position, &error.path, explain(text, error.position, error.message))),
    };
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for root in roots {
        for (prefix, node) in items(root) {
            match object(file, prefix, node) {
                Ok(document) => documents.push(document),
                Err(mut error) => {
                    error.message = add_spelling(text, &error);
                    errors.push(error);
                }
            }
        }
    }
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

/// A file of somebody else's with one document, whose parts know their places.
#[derive(Debug, Clone)]
pub struct Tree {
    file: String,
    node: Node,
    value: Value,
}

impl Tree {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Tree, ManifestError> {
        let fail = |position, message: String| {
            Err(ManifestError { file: file.to_owned(), position, path: String::new(), message })
        };
        let Some(text) = std::str::from_utf8(bytes).ok().filter(|t| t.len() <= MAX_BYTES) else {
            return fail(Position::START, format!("is not text of at most {MAX_BYTES} bytes"));
        };
        let mut roots = match read(text) {
            Ok(roots) => roots,
            Err(error) => return fail(error.position, error.message),
        };
        match (roots.pop(), roots.is_empty()) {
            (Some(node), true) => Ok(Tree { file: file.to_owned(), value: node.value(), node }),
            (None, _) => fail(Position::START, "there is nothing in it".to_owned()),
            (Some(node), false) => fail(node.position, "there is more than one document in it".to_owned()),
        }
    }

    /// A document of a format that is read without places.
    pub fn unplaced(file: &str, value: Value) -> Tree {
        Tree { file: file.to_owned(), node: unplaced(value.clone()), value }
    }

    /// What is in it.
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// An error about the field at a path, with its place.
    pub fn error(&self, path: &str, message: String) -> ManifestError {
        ManifestError { file: self.file.clone(), position: self.node.find(path), path: path.to_owned(), message }
    }
}

/// The value of a YAML text with one document, for doors that have no file.
///
/// # Errors
/// A sentence with line and column.
pub fn parse_value(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the text is not UTF-8".to_owned())?;
    let mut roots = read(text).map_err(|e| {
        let path = if e.path.is_empty() { String::new() } else { format!("{}: ", e.path) };
        format!("line {} column {}: {path}{}", e.position.line, e.position.column, e.message)
    })?;
    match (roots.pop(), roots.is_empty()) {
        (Some(node), true) => Ok(node.value()),
        (None, _) => Err("there is nothing in it".to_owned()),
        (Some(_), false) => Err("there is more than one document in it".to_owned()),
    }
}

/// The documents of a text that hold something. JSON escapes that YAML does not have (surrogate pairs) get a second chance.
fn read(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let mut roots = Vec::new();
    let mut documents = Documents::new(text);
    loop {
        match documents.next() {
            Ok(None) => return Ok(roots),
            Ok(Some(Node { data: Data::Scalar(Value::Null), .. })) => {}
            Ok(Some(node)) => roots.push(node),
            Err(error) => {
                let json = text.trim_start().starts_with('{').then(|| parse_json(text.as_bytes()).ok()).flatten();
                return json.map(|value| vec![unplaced(value)]).ok_or(error);
            }
        }
    }
}

/// A tree whose parts all claim to be at the start of the file. The JSON reader has already bounded its depth.
fn unplaced(value: Value) -> Node {
    let position = Position::START;
    let data = match value {
        Value::Array(items) => Data::List(items.into_iter().map(unplaced).collect()),
        Value::Object(map) => Data::Map(map.into_iter().map(|(k, v)| (k, (position, unplaced(v)))).collect()),
        scalar => Data::Scalar(scalar),
    };
    Node { position, data }
}

/// A list's items, or the object itself.
fn items(root: Node) -> Vec<(String, Node)> {
    let is_list = root.get("kind").and_then(Node::text).is_some_and(|kind| kind.ends_with("List"));
    if let (true, Some(Node { data: Data::List(items), .. })) = (is_list, root.get("items")) {
        return items.iter().enumerate().map(|(i, item)| (format!("items[{i}]."), item.clone())).collect();
    }
    vec![(String::new(), root)]
}

fn object(file: &str, prefix: String, node: Node) -> Result<Document, ManifestError> {
    let located = |error: ObjectError, prefix: &str, node: &Node| {
        let path = if error.path == "." { String::new() } else { error.path };
        let position = node.find(&path);
        ManifestError { file: file.to_owned(), position, path: format!("{prefix}{path}"), message: error.message }
    };
    match check::wanted(node.value()) {
        Ok(object) => Ok(Document { object, file: file.to_owned(), prefix, node }),
        Err(error) => Err(located(error, &prefix, &node)),
    }
}

/// The line a position names.
fn line_at(text: &str, position: Position) -> &str {
    text.lines().nth(position.line.saturating_sub(1)).unwrap_or_default()
}

/// Adds what people most often did wrong to what the parser says.
fn explain(text: &str, position: Position, message: String) -> String {
    let tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    let before = Position { line: position.line.saturating_sub(1).max(1), ..position };
    if tab(line_at(text, position)) || tab(line_at(text, before)) {
        return format!("{message} (YAML is indented with spaces: there is a tab)");
    }
    message
}

/// `yes` reads as true: an error about a boolean or a number where text is needed shows what was written.
fn add_spelling(text: &str, error: &ManifestError) -> String {
    let line = line_at(text, error.position);
    let written = line.split_once(": ").map_or("", |(_, rest)| rest.split(" #").next().unwrap_or(rest).trim());
    let changed = error.message.starts_with("true is") || error.message.starts_with("false is");
    if changed && !written.is_empty() && !error.message.starts_with(written) && scalar::is_special(written) {
        return format!("{} (YAML reads {written} so)", error.message);
    }
    error.message.clone()
}
