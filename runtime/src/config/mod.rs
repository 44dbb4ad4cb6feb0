//! Configuration: layers of keys, merged and checked before anything is opened or bound.
//!
//! ```text
//! built-in < memory class < board < files < EDGE_RUNTIME_* < flags      (later wins)
//!     each layer: path = value, with where it came from
//!                    │ known key? right type? in range?   (all errors are collected, then shown together)
//!                    ▼
//!     merged map ──► checked::Config (typed, one struct per part of the runtime)
//! ```
//!
//! A board is one of the layers, so whatever a board sets a file can set, too.

pub mod board;
pub mod checked;
mod error;
pub mod files;
mod layer;
pub mod print;
pub mod schema;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use checked::{BoardFacts, Config, Paths};
pub use error::{ConfigError, Problem};
pub use layer::{Layer, Origin, Value};

/// Every key that has a value, with the layer that set it.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    values: BTreeMap<String, (Value, Origin)>,
}

impl Merged {
    /// Lays `layer` over what is there: its values win.
    pub fn lay(&mut self, layer: Layer) {
        for (path, entry) in layer.values {
            self.values.insert(path, entry);
        }
    }

    /// The value of a key and where it came from.
    pub fn get(&self, path: &str) -> Option<&(Value, Origin)> {
        self.values.get(path)
    }

    /// All keys in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value, &Origin)> {
        self.values.iter().map(|(path, (value, origin))| (path.as_str(), value, origin))
    }
}

/// Where configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The name after `--board`: `auto` or a board's.
    pub board: String,
    /// Texts of configuration files with their names, in the order in which they are laid.
    pub files: Vec<(String, String)>,
    /// `EDGE_RUNTIME_*` variables.
    pub environment: Vec<(String, String)>,
    /// Keys set by flags: path, value as TOML text, name of the flag.
    pub flags: Vec<(String, String, String)>,
}

/// The value of one key as far as it can be told, whatever else is wrong: for what must be known before the configuration is
/// checked, such as where a later version lies that may understand more of it.
pub fn glance(sources: &Sources, path: &str) -> Option<Value> {
    let board = board::find(&sources.board).ok();
    let board = board.map(|b| Layer::parse(b.text, |_| Origin::Board(b.name.to_owned())).0);
    let files = sources.files.iter().map(|(_, text)| Layer::parse(text, |_| Origin::BuiltIn).0);
    let layers = std::iter::once(schema::built_in()).chain(board).chain(files);
    let layers = layers.chain([Layer::environment(&sources.environment).0, Layer::flags(&sources.flags).0]);
    layers.filter_map(|mut layer| layer.values.remove(path)).next_back().map(|(value, _)| value)
}

/// Merges and checks all layers.
///
/// # Errors
/// All problems of all layers at once.
pub fn load(sources: &Sources) -> Result<(Config, Merged), ConfigError> {
    let mut problems = Vec::new();
    let mut merged = Merged::default();
    merged.lay(schema::built_in());
    let board = match board::find(&sources.board) {
        Ok(board) => Some(board),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let mut upper = Vec::new();
    if let Some(board) = &board {
        upper.push(Layer::parse(board.text, |_| Origin::Board(board.name.to_owned())));
    }
    for (name, text) in &sources.files {
        upper.push(Layer::parse(text, |line| Origin::File { name: name.clone(), line }));
    }
    upper.push(Layer::environment(&sources.environment));
    upper.push(Layer::flags(&sources.flags));
    // The memory class lies below the layers that choose it, so it is looked up before they are laid.
    let class = upper.iter().rev().find_map(|(layer, _)| layer.values.get("memory.class").map(|(v, _)| v.clone()));
    let class = match class {
        Some(Value::Text(class)) => class,
        _ => "medium".to_owned(),
    };
    merged.lay(schema::memory_class(&class));
    for (layer, found) in upper {
        problems.extend(found);
        merged.lay(layer);
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let board = board.map(|b| b.name.to_owned()).unwrap_or_default();
    let config = checked::check(&board, &merged).map_err(|problems| ConfigError { problems })?;
    Ok((config, merged))
}
