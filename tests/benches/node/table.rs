//! Printing results, and the two figures that describe a series.

use std::time::Duration;

/// A table in Markdown, printed when complete.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading above it.
    pub fn new(heading: &str, columns: &[&str]) -> Table {
        println!("## {heading}\n");
        let head = columns.iter().map(|column| (*column).to_owned()).collect();
        let rule = columns.iter().map(|_| "---".to_owned()).collect();
        Table { rows: vec![head, rule] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|cell| (*cell).to_owned()).collect());
    }

    /// Prints all of it.
    pub fn print(self) {
        for row in self.rows {
            println!("| {} |", row.join(" | "));
        }
        println!();
    }
}

/// `median (95th percentile)` in milliseconds.
pub fn millis(series: &mut [Duration]) -> String {
    series.sort_unstable();
    let at =
        |share: usize| series.get((series.len().saturating_sub(1)) * share / 100).map_or(0.0, Duration::as_secs_f64);
    format!("{:.1} ({:.1})", at(50) * 1000.0, at(95) * 1000.0)
}

/// Kibibytes as mebibytes.
pub fn mebibytes(kib: u64) -> String {
    format!("{:.2}", kib as f64 / 1024.0)
}
