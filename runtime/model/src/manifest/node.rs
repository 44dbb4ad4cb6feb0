//! YAML documents as trees whose every part knows its place in the file.
//!
//! Bounded in depth and in size after aliases are followed, so that no file costs more than a few times its own length
//! ("billion laughs").

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::scalar;

/// How deep mappings and lists may nest, aliases followed. A pod needs about 12.
pub(super) const MAX_DEPTH: usize = 64;
/// The most a file may weigh with its aliases followed: a node weighs [`NODE_WEIGHT`] plus its text in bytes.
const MAX_WEIGHT: usize = 8 << 20;
/// What one node costs in memory, roughly, beside its text.
const NODE_WEIGHT: usize = 16;

/// A place in a file, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    /// The start of a file.
    pub const START: Position = Position { line: 1, column: 1 };
}

impl From<Marker> for Position {
    fn from(mark: Marker) -> Position {
        Position { line: mark.line(), column: mark.col() + 1 }
    }
}

/// What is wrong with the text itself.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub position: Position,
    pub path: String,
    pub message: String,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub position: Position,
    pub data: Data,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Scalar(Value),
    List(Vec<Node>),
    /// With the place of each key.
    Map(BTreeMap<String, (Position, Node)>),
}

impl Node {
    /// The tree as JSON, places left out.
    pub fn value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => Value::Array(items.iter().map(Node::value).collect()),
            Data::Map(map) => {
                Value::Object(map.iter().map(|(k, (_, node))| (k.clone(), node.value())).collect::<Map<_, _>>())
            }
        }
    }

    /// The child with this key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.data {
            Data::Map(map) => map.get(key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text, when it is a string.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The place of the field a dotted path names, or of the nearest of its parents that is there. For a field it is the
    /// place of its key.
    pub fn find(&self, path: &str) -> Position {
        let mut at = self.position;
        let (mut node, mut rest) = (self, path);
        loop {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let next = match &node.data {
                _ if rest.is_empty() => return at,
                Data::Scalar(_) => None,
                Data::List(items) => {
                    rest.strip_prefix('[').and_then(|r| r.split_once(']')).and_then(|(index, rest)| {
                        let item = items.get(index.parse::<usize>().ok()?)?;
                        Some((item.position, item, rest))
                    })
                }
                // Keys may hold dots (annotations, file names): the longest that fits is meant.
                Data::Map(map) => map
                    .iter()
                    .filter_map(|(key, (position, node))| {
                        let rest = rest.strip_prefix(key.as_str())?;
                        let ends = rest.is_empty() || rest.starts_with(['.', '[']);
                        ends.then_some((*position, node, rest))
                    })
                    .min_by_key(|(_, _, rest)| rest.len()),
            };
            match next {
                Some((position, child, remaining)) => (at, node, rest) = (position, child, remaining),
                None => return at,
            }
        }
    }
}

/// How much a finished node adds to whatever holds it.
#[derive(Clone, Copy)]
struct Size {
    weight: usize,
    height: usize,
}

/// Reads documents one after the other.
pub(super) struct Documents<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, (Node, Size)>,
    weight: usize,
    path: Vec<String>,
}

type Spanned<'a> = (Event<'a>, Span);

impl<'a> Documents<'a> {
    pub fn new(text: &'a str) -> Documents<'a> {
        Documents { events: Parser::new_from_str(text), anchors: BTreeMap::new(), weight: 0, path: Vec::new() }
    }

    /// The next document; `None` at the end. After an error nothing more can be read.
    pub fn next(&mut self) -> Result<Option<Node>, SyntaxError> {
        loop {
            let (event, span) = self.event()?;
            match event {
                Event::StreamEnd => return Ok(None),
                Event::DocumentStart(_) => {
                    self.anchors.clear();
                    self.path.clear();
                    let first = self.event()?;
                    let (node, _) = self.node(first, 0)?;
                    return Ok(Some(node));
                }
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                _ => return Err(self.fail(span, "something stands between two documents")),
            }
        }
    }

    fn fail(&self, span: Span, message: impl Into<String>) -> SyntaxError {
        SyntaxError { position: span.start.into(), path: self.path.concat(), message: message.into() }
    }

    fn event(&mut self) -> Result<Spanned<'a>, SyntaxError> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let position = Position::from(*error.marker());
                Err(SyntaxError { position, path: self.path.concat(), message: error.info().to_owned() })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn weigh(&mut self, span: Span, weight: usize) -> Result<(), SyntaxError> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > MAX_WEIGHT {
            return Err(self.fail(span, "the file is too large once its aliases are followed"));
        }
        Ok(())
    }

    fn node(&mut self, (event, span): Spanned<'a>, depth: usize) -> Result<(Node, Size), SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(self.fail(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let position = Position::from(span.start);
        let (data, size, anchor) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return Err(self.fail(span, "the alias names no anchor before it, or the anchor it stands in"));
                };
                self.weigh(span, size.weight)?;
                if depth + size.height > MAX_DEPTH {
                    return Err(self.fail(span, format!("nested deeper than {MAX_DEPTH} levels")));
                }
                return Ok((node, size));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let weight = NODE_WEIGHT + text.len();
                self.weigh(span, weight)?;
                let value = self.scalar(&text, style, tag.as_deref(), span)?;
                (Data::Scalar(value), Size { weight, height: 0 }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "seq", span)?;
                let (items, size) = self.list(span, depth)?;
                (Data::List(items), size, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "map", span)?;
                let (map, size) = self.map(span, depth)?;
                (Data::Map(map), size, anchor)
            }
            _ => return Err(self.fail(span, "a value is expected here")),
        };
        let node = Node { position, data };
        if anchor != 0 {
            // The copy kept for aliases is memory too.
            self.weigh(span, size.weight)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok((node, size))
    }

    fn list(&mut self, start: Span, depth: usize) -> Result<(Vec<Node>, Size), SyntaxError> {
        let mut items = Vec::new();
        let mut size = Size { weight: NODE_WEIGHT, height: 0 };
        self.weigh(start, NODE_WEIGHT)?;
        loop {
            let event = self.event()?;
            if matches!(event.0, Event::SequenceEnd) {
                return Ok((items, size));
            }
            self.path.push(format!("[{}]", items.len()));
            let (node, inner) = self.node(event, depth + 1)?;
            self.path.pop();
            size = Size { weight: size.weight + inner.weight, height: size.height.max(inner.height + 1) };
            items.push(node);
        }
    }

    #[expect(clippy::type_complexity, reason = "the map of one variant, named once")]
    fn map(&mut self, start: Span, depth: usize) -> Result<(BTreeMap<String, (Position, Node)>, Size), SyntaxError> {
        let mut map = BTreeMap::new();
        let mut merged = Vec::new();
        let mut size = Size { weight: NODE_WEIGHT, height: 0 };
        self.weigh(start, NODE_WEIGHT)?;
        loop {
            let (event, span) = self.event()?;
            let (key, is_merge) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, _, tag) => {
                    let is_merge = style == ScalarStyle::Plain && text == "<<";
                    (self.key(&text, style, tag.as_deref(), span)?, is_merge)
                }
                _ => return Err(self.fail(span, "a key must be plain text")),
            };
            self.weigh(span, key.len())?;
            self.path.push(if self.path.is_empty() { key.clone() } else { format!(".{key}") });
            let event = self.event()?;
            let (node, inner) = self.node(event, depth + 1)?;
            size = Size { weight: size.weight + inner.weight + key.len(), height: size.height.max(inner.height + 1) };
            if is_merge {
                self.merge(&mut merged, node, span)?;
            } else {
                match map.entry(key) {
                    Entry::Vacant(free) => free.insert((Position::from(span.start), node)),
                    Entry::Occupied(taken) => {
                        let line = taken.get().0.line;
                        return Err(self.fail(span, format!("is there twice; first in line {line}")));
                    }
                };
            }
            self.path.pop();
        }
        // YAML's merge key: what is spelled out wins over what is merged in, the first merge over later ones.
        for (key, place) in merged {
            map.entry(key).or_insert(place);
        }
        Ok((map, size))
    }

    fn merge(&self, into: &mut Vec<(String, (Position, Node))>, node: Node, span: Span) -> Result<(), SyntaxError> {
        let sources = match node.data {
            Data::List(items) => items,
            data => vec![Node { position: node.position, data }],
        };
        for source in sources {
            let Data::Map(map) = source.data else {
                return Err(self.fail(span, "only mappings can be merged"));
            };
            into.extend(map);
        }
        Ok(())
    }

    fn key(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<String, SyntaxError> {
        match self.scalar(text, style, tag, span)? {
            Value::String(text) => Ok(text),
            Value::Number(number) if number.to_string() == text => Ok(text.to_owned()),
            _ => Err(self.fail(span, format!("the key {text:?} is not text in YAML: put it in quotes"))),
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Value, SyntaxError> {
        let string = || Value::String(text.to_owned());
        let Some(tag) = tag else {
            return match style {
                ScalarStyle::Plain => scalar::resolve(text).map_err(|e| self.fail(span, e.to_string())),
                _ => Ok(string()),
            };
        };
        let name = if tag.is_yaml_core_schema() { tag.suffix.as_str() } else { "" };
        let plain = scalar::resolve(text).map_err(|e| self.fail(span, e.to_string()))?;
        match (name, &plain) {
            ("str", _) => Ok(string()),
            ("int", Value::Number(n)) if !n.is_f64() => Ok(plain),
            ("float", Value::Number(_)) | ("bool", Value::Bool(_)) | ("null", Value::Null) => Ok(plain),
            ("int" | "float" | "bool" | "null", _) => Err(self.fail(span, format!("{text:?} is not of type !!{name}"))),
            _ => Err(self.fail(span, format!("the tag {tag} is not supported"))),
        }
    }

    fn refuse_tag(&self, tag: Option<&Tag>, usual: &str, span: Span) -> Result<(), SyntaxError> {
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == usual) => {
                Err(self.fail(span, format!("the tag {tag} is not supported")))
            }
            _ => Ok(()),
        }
    }
}
