//! One layer: values by dotted path, each with where it came from, checked against the schema as it is read.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml_edit::{Document, Item, TableLike};

use super::error::Problem;
use super::schema::{self, Rule};

/// A value of the kinds that configuration needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, a path, an address or a word of a choice.
    Text(String),
    /// A whole number, in the unit of its key.
    Integer(i64),
    /// Yes or no.
    Bool(bool),
    /// A list of texts.
    List(Vec<String>),
}

/// As TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Value::Integer(n) => write!(f, "{n}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::List(items) => {
                write!(f, "{}", toml::Value::Array(items.iter().cloned().map(toml::Value::String).collect()))
            }
        }
    }
}

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: it is the default.
    BuiltIn,
    /// The limits of a memory class.
    MemoryClass(String),
    /// A board file.
    Board(String),
    /// A configuration file.
    File {
        /// Its name.
        name: String,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built-in"),
            Origin::MemoryClass(class) => write!(f, "memory class {class}"),
            Origin::Board(name) => write!(f, "board {name}"),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// A layer's values.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// By dotted path.
    pub values: BTreeMap<String, (Value, Origin)>,
}

/// The prefix of environment variables that set keys.
pub const PREFIX: &str = "EDGE_RUNTIME_";

/// Variables with the prefix that are read elsewhere: the flags' own and the verbs' socket.
const NOT_KEYS: [&str; 4] = ["EDGE_RUNTIME_BOARD", "EDGE_RUNTIME_CONFIG", "EDGE_RUNTIME_SOCKET", "EDGE_RUNTIME_BIN"];

impl Layer {
    /// Reads TOML text; `origin` makes the origin of a line.
    pub fn parse(text: &str, origin: impl Fn(usize) -> Origin) -> (Layer, Vec<Problem>) {
        let line_of = |span: Option<Range<usize>>| {
            let start = span.map_or(0, |s| s.start);
            text.bytes().take(start).filter(|b| *b == b'\n').count() + 1
        };
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let message = format!("not TOML: {}", error.message());
                return (
                    Layer::default(),
                    vec![Problem { origin: origin(line_of(error.span())), path: String::new(), message }],
                );
            }
        };
        let mut found = Vec::new();
        flatten("", document.as_table(), &mut found);
        let mut layer = Layer::default();
        let mut problems = Vec::new();
        for (path, span, item) in found {
            let origin = origin(line_of(span));
            layer.set(&path, plain(item), origin, &mut problems);
        }
        (layer, problems)
    }

    /// Reads `EDGE_RUNTIME_BUS_LISTEN=…` and the like.
    pub fn environment(variables: &[(String, String)]) -> (Layer, Vec<Problem>) {
        let mut layer = Layer::default();
        let mut problems = Vec::new();
        for (name, text) in variables.iter().filter(|(n, _)| n.starts_with(PREFIX) && !NOT_KEYS.contains(&n.as_str())) {
            let origin = Origin::Environment(name.clone());
            match schema::KEYS.iter().find(|k| environment_name(k.path) == *name) {
                Some(key) => layer.set(key.path, Ok(key.rule.read(text)), origin, &mut problems),
                None => {
                    let names: Vec<String> = schema::KEYS.iter().map(|k| environment_name(k.path)).collect();
                    let message = format!("sets no key{}", nearest(name, names.iter().map(String::as_str)));
                    problems.push(Problem { origin, path: String::new(), message });
                }
            }
        }
        (layer, problems)
    }

    /// Reads keys set by flags: path, text, flag.
    pub fn flags(flags: &[(String, String, String)]) -> (Layer, Vec<Problem>) {
        let mut layer = Layer::default();
        let mut problems = Vec::new();
        for (path, text, flag) in flags {
            let value = schema::find(path).map_or(Value::Text(text.clone()), |key| key.rule.read(text));
            layer.set(path, Ok(value), Origin::Flag(flag.clone()), &mut problems);
        }
        (layer, problems)
    }

    fn set(&mut self, path: &str, value: Result<Value, String>, origin: Origin, problems: &mut Vec<Problem>) {
        let checked = match schema::find(path) {
            None => Err(format!("unknown key{}", nearest(path, schema::KEYS.iter().map(|k| k.path)))),
            Some(key) => value.and_then(|value| key.rule.check(value)),
        };
        match checked {
            Ok(value) => {
                self.values.insert(path.to_owned(), (value, origin));
            }
            Err(message) => problems.push(Problem { origin, path: path.to_owned(), message }),
        }
    }

    /// Values that are known to be right: built-in ones.
    pub(super) fn trusted(values: impl Iterator<Item = (String, Value)>, origin: &Origin) -> Layer {
        Layer { values: values.map(|(path, value)| (path, (value, origin.clone()))).collect() }
    }
}

/// `bus.listen` is set by `EDGE_RUNTIME_BUS_LISTEN`.
pub fn environment_name(path: &str) -> String {
    format!("{PREFIX}{}", path.replace(['.', '-'], "_").to_ascii_uppercase())
}

fn flatten<'a>(prefix: &str, table: &'a dyn TableLike, out: &mut Vec<(String, Option<Range<usize>>, &'a Item)>) {
    for (name, item) in table.iter() {
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        let span = table.key(name).and_then(|k| k.span()).or_else(|| item.span());
        match item.as_table_like() {
            Some(inner) if schema::is_table(&path) => flatten(&path, inner, out),
            _ => out.push((path, span, item)),
        }
    }
}

/// The value without its decoration; the error says what was found.
fn plain(item: &Item) -> Result<Value, String> {
    use toml_edit::Value as Toml;
    match item.as_value() {
        Some(Toml::String(text)) => Ok(Value::Text(text.value().clone())),
        Some(Toml::Integer(n)) => Ok(Value::Integer(*n.value())),
        Some(Toml::Boolean(b)) => Ok(Value::Bool(*b.value())),
        Some(Toml::Array(items)) => items
            .iter()
            .map(|v| {
                v.as_str().map(str::to_owned).ok_or_else(|| format!("{} is not text in quotes", v.to_string().trim()))
            })
            .collect::<Result<_, _>>()
            .map(Value::List),
        Some(other) => Err(format!("{} is a {}", other.to_string().trim(), other.type_name())),
        None => Err("is a table, not a value".to_owned()),
    }
}

/// `, did you mean "…"?` when something known is near enough.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let best = known.map(|k| (strsim::jaro_winkler(word, k), k)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, name)) if score > 0.8 => format!(", did you mean {name:?}?"),
        _ => String::new(),
    }
}

/// A rule's view of text from the environment or a flag.
impl Rule {
    pub(super) fn read(&self, text: &str) -> Value {
        match self {
            Rule::Integer { .. } => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer),
            Rule::Bool => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Bool),
            Rule::List => {
                Value::List(text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect())
            }
            _ => Value::Text(text.to_owned()),
        }
    }
}
