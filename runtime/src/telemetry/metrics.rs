//! Figures for Prometheus: pulled from their owners when somebody asks, kept nowhere.
//!
//! Source: Prometheus, "Text-based format", version 0.0.4. Names are `edge_…_total` for what only grows, `_seconds` and
//! `_bytes` for units.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

/// How the value of a figure moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The text of one answer, as it grows.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: String,
}

impl Exposition {
    /// A counter without labels.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only doubles")]
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.sample(Shape::Counter, name, help, &[], value as f64);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.sample(Shape::Gauge, name, help, &[], value);
    }

    /// One sample. All samples of one name must follow each other; the head is written before the first.
    pub fn sample(&mut self, shape: Shape, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        if self.family != name {
            name.clone_into(&mut self.family);
            let kind = match shape {
                Shape::Counter => "counter",
                Shape::Gauge => "gauge",
            };
            let help = Escaped(help, false);
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{}\"", Escaped(text, true));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = match value {
            v if v.is_nan() => writeln!(self.text, " NaN"),
            v if v.is_infinite() => writeln!(self.text, " {}Inf", if v > 0.0 { '+' } else { '-' }),
            v => writeln!(self.text, " {v}"),
        };
    }
}

/// Text with backslashes, line ends and (in labels) quotes escaped.
struct Escaped<'a>(&'a str, bool);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' if self.1 => f.write_str("\\\"")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

type Source = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// Everybody who has figures. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    sources: Arc<Mutex<Vec<Source>>>,
}

impl Registry {
    /// Adds a part of the node, which is asked at every scrape and must answer at once.
    pub fn add(&self, source: impl Fn(&mut Exposition) + Send + Sync + 'static) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// The whole text.
    pub fn render(&self) -> String {
        let mut exposition = Exposition::default();
        for source in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // A name that comes again from another source needs no second head, but must not be torn apart; sources own
            // their names, so a new source starts a new family.
            exposition.family.clear();
            source(&mut exposition);
        }
        exposition.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_prometheus_reads() {
        let registry = Registry::default();
        registry.add(|e| {
            e.counter("edge_queue_pushed_total", "Messages pushed.", 3);
            e.sample(Shape::Gauge, "edge_unit_up", "Whether\na unit runs.", &[("unit", "a\"b\\c\nd")], 1.0);
            e.sample(Shape::Gauge, "edge_unit_up", "", &[("unit", "bus"), ("x", "y")], 0.5);
        });
        registry.add(|e| e.gauge("edge_up_seconds", "Time.", f64::INFINITY));
        let expected = "\
# HELP edge_queue_pushed_total Messages pushed.
# TYPE edge_queue_pushed_total counter
edge_queue_pushed_total 3
# HELP edge_unit_up Whether\\na unit runs.
# TYPE edge_unit_up gauge
edge_unit_up{unit=\"a\\\"b\\\\c\\nd\"} 1
edge_unit_up{unit=\"bus\",x=\"y\"} 0.5
# HELP edge_up_seconds Time.
# TYPE edge_up_seconds gauge
edge_up_seconds +Inf
";
        assert_eq!(registry.render(), expected);
    }
}
