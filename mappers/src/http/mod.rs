//! Devices with an HTTP interface: polled by requests that many properties share, written by others.
//!
//! * [`config`]: a Device and its model, resolved.
//! * `link`: one HTTP/1.1 connection, plain or TLS, kept open between requests.
//! * `driver`: reads and writes.

mod config;
mod driver;
mod link;

pub use config::{Config, resolve};
