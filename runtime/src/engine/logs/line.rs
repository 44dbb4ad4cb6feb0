//! One line of a log file, and which lines are asked for.
//!
//! `2026-11-30T17:34:27.123456789Z stdout F the line`; `P` instead of `F` marks a piece of a line that goes on.

use super::Options;

/// A line, or a piece of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The time as written.
    pub(super) time: &'a str,
    /// Whether the line ends here.
    pub(super) whole: bool,
    /// The text.
    pub(super) text: &'a [u8],
}

impl Line<'_> {
    /// Takes a line apart, without its newline; `None` for what is damaged (a power cut leaves zeros).
    pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (time, _stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let whole = match tag {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Line { time: std::str::from_utf8(time).ok()?, whole, text })
    }

    /// UTC milliseconds.
    fn at(&self) -> Option<i64> {
        edge_model::time::parse_rfc3339(self.time)
    }
}

/// Which lines are shown, and how.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    since_ms: Option<i64>,
    timestamps: bool,
    /// Whether the next piece begins a line.
    fresh: bool,
}

impl Filter {
    pub(super) fn new(options: &Options) -> Filter {
        Filter { since_ms: options.since_ms, timestamps: options.timestamps, fresh: true }
    }

    /// Whether a line is recent enough. Lines are in order of time unless the clock was set; each is judged by itself.
    pub(super) fn wants(&self, line: &Line<'_>) -> bool {
        self.since_ms.is_none_or(|since| line.at().is_some_and(|at| at >= since))
    }

    /// Adds what is shown of a line.
    pub(super) fn show(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        if !self.wants(line) {
            return;
        }
        if self.timestamps && self.fresh {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if line.whole {
            out.push(b'\n');
        }
        self.fresh = line.whole;
    }
}
