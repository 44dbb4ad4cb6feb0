//! Virtual devices: values from a formula or a file.
//!
//! * [`config`]: a Device and its model, resolved.
//! * `driver`: the values, reading by reading.

mod config;
mod driver;

pub use config::{Config, Source, resolve};
