//! The values of a virtual device, reading by reading.

use std::path::Path;
use std::sync::Arc;

use edge_model::device::PropertyType;
use edge_model::reading::{Quality, Value};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::config::{Config, Source};
use crate::device;
use crate::{AccessError, Point, Sample};

/// The most bytes of a replayed file.
const MAX_FILE: u64 = 4 << 20;

/// See the module.
pub struct Driver {
    config: Arc<Config>,
    files: Arc<Path>,
    start: Instant,
    /// One per point.
    sources: Vec<Source>,
    /// How often each point has been read.
    turns: Vec<u64>,
    random: u64,
}

impl Driver {
    pub(super) fn new(config: Arc<Config>, files: Arc<Path>) -> Driver {
        let (sources, turns, random) = (config.sources.clone(), vec![0; config.sources.len()], config.seed);
        Driver { config, files, start: Instant::now(), sources, turns, random }
    }

    /// The next number in 0..1: SplitMix64 (Steele, Lea and Flood, 2014), which is plenty for make-believe.
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let top = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or_default();
        f64::from(top) / (f64::from(u32::MAX) + 1.0)
    }

    async fn value(&mut self, index: usize) -> Result<Value, String> {
        let config = Arc::clone(&self.config);
        let Some(point) = device::Settings::profile(&*config).points.get(index) else {
            return Err("no such point".to_owned());
        };
        if let Some(Source::File { name, column }) = self.sources.get(index) {
            let values = read(&self.files.join(name), column.as_deref(), point).await?;
            if let Some(source) = self.sources.get_mut(index) {
                *source = Source::Values(values);
            }
        }
        let turn = self.turns.get_mut(index).map_or(0, |t| std::mem::replace(t, *t + 1));
        Ok(match self.sources.get(index) {
            Some(Source::Constant(value)) => value.clone(),
            Some(Source::Sine { range: (low, high), turn }) => {
                let angle = self.start.elapsed().as_secs_f64() / turn * std::f64::consts::TAU;
                number(point, low + (high - low) * (angle.sin() + 1.0) / 2.0)
            }
            Some(&Source::Random((low, high))) => number(point, low + (high - low) * self.random()),
            Some(&Source::Counter(low, high, step)) => {
                #[expect(clippy::cast_precision_loss, reason = "a counter of more than 2^53 readings would take ages")]
                let grown = step.abs() * turn as f64;
                let offset = grown % (high - low + step.abs());
                number(point, if step > 0.0 { low + offset } else { high - offset })
            }
            Some(Source::Values(values)) => {
                let count = u64::try_from(values.len()).unwrap_or(1).max(1);
                let at = usize::try_from(turn % count).unwrap_or_default();
                values.get(at).cloned().ok_or("nothing to replay")?
            }
            Some(Source::File { .. }) | None => return Err("nothing to replay".to_owned()),
        })
    }
}

/// A number as the point's type has it.
fn number(point: &Point, x: f64) -> Value {
    match point.value_type {
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and a model's limits are far below")]
        PropertyType::Int => Value::Int(x.round() as i64),
        PropertyType::Boolean => Value::Bool(x.round() != 0.0),
        #[expect(clippy::cast_possible_truncation, reason = "single precision is what the model asks for")]
        PropertyType::Float => Value::Float(f64::from(x as f32)),
        _ => Value::Float(x),
    }
}

async fn read(path: &Path, column: Option<&str>, point: &Point) -> Result<Vec<Value>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(MAX_FILE).read_to_string(&mut text).await.map_err(failed)?;
    parse(&text, column, point).map_err(|e| format!("{}{e}", path.display()))
}

/// The values of one column. Errors begin with `:LINE: ` or `: `.
fn parse(text: &str, column: Option<&str>, point: &Point) -> Result<Vec<Value>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    let at = match column {
        None => 0,
        Some(name) => {
            let (_, head) = lines.next().ok_or(": is empty")?;
            let mut names = head.split(',').map(str::trim);
            names.position(|n| n == name).ok_or_else(|| format!(":1: there is no column {name:?}"))?
        }
    };
    let mut values = Vec::new();
    for (number, line) in lines {
        let cell = line.split(',').nth(at).unwrap_or_default().trim();
        let value = point.parse(&serde_json::Value::from(cell)).map_err(|e| format!(":{}: {e}", number + 1))?;
        values.push(value);
    }
    if values.is_empty() { Err(": has no values".to_owned()) } else { Ok(values) }
}

impl device::Driver for Driver {
    async fn read(&mut self, points: &[usize]) -> Result<Vec<Sample>, AccessError> {
        let mut samples = Vec::with_capacity(points.len());
        for index in points {
            let point = u16::try_from(*index).unwrap_or(u16::MAX);
            let value = self.value(*index).await.map_err(AccessError::Disconnected)?;
            samples.push(Sample { point, quality: Quality::Good, value: Some(value) });
        }
        Ok(samples)
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<Value, AccessError> {
        if let Some(source) = self.sources.get_mut(point) {
            *source = Source::Constant(value.clone());
        }
        Ok(value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(value_type: PropertyType) -> Point {
        let (minimum, maximum) = (None, None);
        Point { name: "p".into(), value_type, unit: String::new(), writable: true, minimum, maximum }
    }

    #[test]
    fn a_column_of_a_file_is_read_and_errors_have_lines() {
        let p = point(PropertyType::Float);
        let text = "time,level\n0, 1.5\n\n1,2\n";
        assert_eq!(parse(text, Some("level"), &p), Ok(vec![Value::Float(1.5), Value::Float(2.0)]));
        assert_eq!(parse("3\n4\n", None, &p), Ok(vec![Value::Float(3.0), Value::Float(4.0)]));
        assert_eq!(parse(text, Some("x"), &p), Err(":1: there is no column \"x\"".into()));
        assert!(parse("level\n1\nabc\n", Some("level"), &p).unwrap_err().starts_with(":3: "));
        assert_eq!(parse("level\n", Some("level"), &p), Err(": has no values".into()));
    }

    #[test]
    fn numbers_take_the_type_of_the_point() {
        assert_eq!(number(&point(PropertyType::Int), 2.6), Value::Int(3));
        assert_eq!(number(&point(PropertyType::Boolean), 0.4), Value::Bool(false));
        assert_eq!(number(&point(PropertyType::Float), 0.1), Value::Float(f64::from(0.1_f32)));
    }
}
