//! Output for people: aligned tables, ages, and a writer that takes a closed pipe calmly.

use std::io::{self, IsTerminal, Write};

use super::error::CliError;

/// Where a verb writes to.
pub struct Out {
    to: Box<dyn Write + Send>,
    terminal: bool,
}

impl Out {
    /// Standard output.
    pub fn stdout() -> Out {
        let stdout = io::stdout();
        Out { terminal: stdout.is_terminal(), to: Box::new(stdout) }
    }

    /// Somewhere else.
    pub fn to(writer: impl Write + Send + 'static) -> Out {
        Out { to: Box::new(writer), terminal: false }
    }

    /// Whether a person looks at it live.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes text and makes sure it is seen.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Writes a line.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.to.write_all(bytes).and_then(|()| self.to.flush()).map_err(CliError::Output)
    }
}

/// A table, aligned like kubectl's: columns as wide as their widest cell, three spaces between them.
#[derive(Debug, Default)]
pub struct Table {
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

/// The space between columns.
const GAP: usize = 3;

impl Table {
    /// A table with a head.
    pub fn new(head: &[&str]) -> Table {
        let mut table = Table::default();
        table.row(head.iter().map(|h| (*h).to_owned()).collect());
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.widths.resize(self.widths.len().max(cells.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(cells);
    }

    /// Whether there is nothing below the head.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The text of the rows so far; they are forgotten, but not their widths: rows added later line up.
    pub fn take(&mut self) -> String {
        let mut text = String::new();
        for row in self.rows.drain(..) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&self.widths) {
                // Control characters of other people's text must not reach the terminal.
                let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                line.push_str(&format!("{cell:<width$}{:GAP$}", ""));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// How long ago, as kubectl says it: two units at most, coarser the longer.
pub fn age(ms: i64) -> String {
    let s = ms.max(0) / 1000;
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let two = |a: i64, unit: char, b: i64, small: char| match b {
        0 => format!("{a}{unit}"),
        _ => format!("{a}{unit}{b}{small}"),
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(m, 'm', s % 60, 's'),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => two(h, 'h', m % 60, 'm'),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => two(d, 'd', h % 24, 'h'),
        691_200..63_072_000 => format!("{d}d"),
        _ => two(d / 365, 'y', d % 365, 'd'),
    }
}

/// The age of an RFC 3339 time now; `<unknown>` when there is none.
pub fn age_of(time: &str) -> String {
    match edge_model::time::parse_rfc3339(time) {
        Some(then) => age(crate::clock::now_ms().saturating_sub(then)),
        None => "<unknown>".to_owned(),
    }
}

/// Bytes for people: `512 B`, `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut tenths, mut unit) = (u128::from(count) * 10 / 1024, UNITS[0]);
    for larger in UNITS.into_iter().skip(1) {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(&["NAME", "AGE"]);
        table.row(vec!["a-long-name".into(), "5s".into()]);
        assert_eq!(table.take(), "NAME          AGE\na-long-name   5s\n");
        table.row(vec!["b\u{1b}[1m".into(), "6s".into()]);
        assert_eq!(table.take(), "b [1m         6s\n");
    }

    #[test]
    fn ages_are_kubectls() {
        let cases = [
            (-5, "0s"),
            (119, "119s"),
            (125, "2m5s"),
            (600, "10m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (86_400, "24h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (70_000_000, "2y80d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(age(seconds * 1000), text);
        }
    }

    #[test]
    fn sizes_are_short() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB"), (u64::MAX, "16383.9 PiB")];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }
}
