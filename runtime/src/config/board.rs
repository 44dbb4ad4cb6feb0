//! Boards: TOML data compiled in from `board-configs/`, chosen by name or by what the hardware says it is.

use std::path::Path;

use super::error::Problem;
use super::layer::{Layer, Origin, Value, nearest};

include!(concat!(env!("OUT_DIR"), "/boards.rs"));

/// A board as it was compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// Its name: the file's, without `.toml`.
    pub name: &'static str,
    /// Its text, one layer of the configuration.
    pub text: &'static str,
}

/// Every board, in order of name.
pub fn all() -> impl Iterator<Item = Board> {
    BOARDS.iter().map(|&(name, text)| Board { name, text })
}

/// The board with this name; `auto` looks at the hardware.
///
/// # Errors
/// An unknown name, with the nearest known one.
pub fn find(name: &str) -> Result<Board, Problem> {
    if name == "auto" {
        return Ok(detect(&Hardware::read(Path::new("/"))));
    }
    all().find(|b| b.name == name).ok_or_else(|| {
        let known: Vec<&str> = all().map(|b| b.name).collect();
        let hint = nearest(name, known.iter().copied());
        let message = format!("{name:?} is not a board{hint} (known: auto, {})", known.join(", "));
        Problem { origin: Origin::Flag("--board".to_owned()), path: String::new(), message }
    })
}

/// What the hardware says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hardware {
    /// The device tree's `compatible` strings, most specific first (Devicetree Specification 0.4, section 2.3.1).
    pub compatible: Vec<String>,
    /// DMI `product_name` (SMBIOS 3.7, section 7.2).
    pub product: String,
}

impl Hardware {
    /// Reads what there is below `root` (`/`, or a folder in tests). Absent files are no error: most machines have one of two.
    pub fn read(root: &Path) -> Hardware {
        let compatible = std::fs::read(root.join("proc/device-tree/compatible")).unwrap_or_default();
        let product = std::fs::read_to_string(root.join("sys/class/dmi/id/product_name")).unwrap_or_default();
        Hardware {
            compatible: compatible
                .split(|b| *b == 0)
                .filter_map(|s| std::str::from_utf8(s).ok())
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect(),
            product: product.trim().to_owned(),
        }
    }
}

/// The board that fits best: the earliest `compatible` string that a board names, then the DMI product, then the processor.
pub fn detect(hardware: &Hardware) -> Board {
    let names = |board: &Board, key: &str, word: &str| {
        let (layer, _) = Layer::parse(board.text, |_| Origin::Board(board.name.to_owned()));
        matches!(layer.values.get(key), Some((Value::List(list), _)) if list.iter().any(|w| w == word))
    };
    let by_tree = hardware.compatible.iter().find_map(|word| all().find(|b| names(b, "board.compatible", word)));
    let by_dmi = || all().find(|b| names(b, "board.dmi-products", &hardware.product));
    by_tree.or_else(by_dmi).unwrap_or_else(generic)
}

/// The board of last resort for this processor.
fn generic() -> Board {
    let name = if cfg!(target_arch = "aarch64") { "generic-arm64" } else { "generic-x86" };
    all().find(|b| b.name == name).unwrap_or(Board { name, text: "" })
}
