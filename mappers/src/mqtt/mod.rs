//! Devices that speak MQTT with topics of their own: their payloads to readings, writes to their command topics.
//!
//! This is a field protocol like any other: it knows a broker as it would know a wire, and nothing of the node's bus but
//! that it is the broker when a device names none.
//!
//! * [`config`]: a Device and its model, resolved.
//! * `state`: what a connection has heard, purely.
//! * `link`: the connection to the broker.
//! * `driver`: reads, writes and what comes by itself.

mod config;
mod driver;
mod link;
mod state;

pub use config::{Config, resolve};
