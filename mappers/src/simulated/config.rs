//! A virtual device, resolved.

use std::sync::Arc;
use std::time::Duration;

use edge_model::device::simulated::{Generator, Link, Visitor};
use edge_model::device::{Device, DeviceModel, PropertyType, VIRTUAL};
use edge_model::reading::Value;

use super::driver::Driver;
use crate::device::{Outlet, Settings};
use crate::resolve::{self, ConfigError, fail, within};
use crate::{Point, Profile};

/// The longest turn of a sine, in milliseconds: one day.
const MAX_TURN_MS: u64 = 86_400_000;

/// One virtual device.
#[derive(Debug, PartialEq)]
pub struct Config {
    profile: Arc<Profile>,
    periods: Vec<Duration>,
    pub(super) seed: u64,
    pub(super) sources: Vec<Source>,
}

/// Where the values of a point come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Always this.
    Constant(Value),
    /// A sine.
    Sine {
        /// Its smallest and its largest value.
        range: (f64, f64),
        /// Seconds of one turn.
        turn: f64,
    },
    /// Evenly distributed in the range.
    Random((f64, f64)),
    /// From the first to the second by the third.
    Counter(f64, f64, f64),
    /// One after the other, over and over; at least one.
    Values(Vec<Value>),
    /// The same from a file's column; it is read when the device is first read.
    File {
        /// The file's name.
        name: String,
        /// The column's name, if the first line has names.
        column: Option<String>,
    },
}

impl Settings for Config {
    type Driver = Driver;

    fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    fn periods(&self) -> Vec<Duration> {
        self.periods.clone()
    }

    fn driver(self: Arc<Self>, outlet: &Outlet) -> Driver {
        Driver::new(self, Arc::clone(&outlet.files))
    }
}

/// Resolves a device against its model.
///
/// # Errors
/// Names the field that does not fit.
pub fn resolve(namespace: &str, name: &str, device: &Device, model: &DeviceModel) -> Result<Config, ConfigError> {
    resolve::speaks(VIRTUAL, device, model)?;
    let link: Link = resolve::link(device, model)?;
    let (mut points, mut periods, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for property in resolve::properties::<Visitor>(device, model) {
        let (property, point) = property?;
        sources.push(source(&property.path, property.visitor, &point)?);
        periods.push(Duration::from_millis(property.own.collect_ms()));
        points.push(point);
    }
    let profile = Arc::new(Profile { namespace: namespace.to_owned(), name: name.to_owned(), points });
    Ok(Config { profile, periods, seed: link.seed, sources })
}

fn source(path: &str, v: Visitor, point: &Point) -> Result<Source, ConfigError> {
    if !(v.low.is_finite() && v.high.is_finite() && v.low <= v.high) {
        return fail(format!("{path}.low"), format!("{} is not below high, {}", v.low, v.high));
    }
    let number = matches!(
        point.value_type,
        PropertyType::Int | PropertyType::Float | PropertyType::Double | PropertyType::Boolean
    );
    if matches!(v.generator, Generator::Sine | Generator::Random | Generator::Counter) && !number {
        return fail(format!("{path}.generator"), "makes numbers, and the property is none");
    }
    let parse = |key: &str, json: &serde_json::Value| {
        point.parse(json).map_err(|e| ConfigError { path: format!("{path}.{key}"), message: e.to_string() })
    };
    Ok(match v.generator {
        Generator::Constant => Source::Constant(match v.value {
            Some(json) => parse("value", &json)?,
            None => zero(point.value_type),
        }),
        Generator::Sine => {
            within(path, "turn", v.turn, 1, MAX_TURN_MS)?;
            Source::Sine { range: (v.low, v.high), turn: Duration::from_millis(v.turn).as_secs_f64() }
        }
        Generator::Random => Source::Random((v.low, v.high)),
        Generator::Counter if v.step.is_finite() && v.step != 0.0 => Source::Counter(v.low, v.high, v.step),
        Generator::Counter => return fail(format!("{path}.step"), "must not be 0"),
        Generator::Replay => match v.file {
            Some(name) if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') => {
                return fail(
                    format!("{path}.file"),
                    format!("{name:?} is not the name of a file in the replay folder"),
                );
            }
            Some(name) => Source::File { name, column: v.column },
            None if v.values.is_empty() => return fail(format!("{path}.values"), "give values, or a file"),
            None => Source::Values(v.values.iter().map(|json| parse("values", json)).collect::<Result<_, _>>()?),
        },
    })
}

const fn zero(value_type: PropertyType) -> Value {
    match value_type {
        PropertyType::Boolean => Value::Bool(false),
        PropertyType::Int => Value::Int(0),
        PropertyType::Float | PropertyType::Double => Value::Float(0.0),
        PropertyType::String => Value::Text(String::new()),
        PropertyType::Bytes => Value::Bytes(Vec::new()),
    }
}
