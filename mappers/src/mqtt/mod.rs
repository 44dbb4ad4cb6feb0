//! Devices that speak MQTT with topics of their own: their payloads to readings, writes to their command topics.
//!
//! This is a field protocol like any other: it knows a broker as it would know a wire, and nothing of the node's bus but
//! that it is the broker when a device names none.
//!
//! * [`config`]: a Device and its model, resolved.
//! * `state`: what a connection has heard, purely.
//! * `broker`: the connections, one for all devices with the same broker and login; `topics`: what is subscribed on one and
//!   for whom, purely; `link`: a device's part of it.
//! * `driver`: reads, writes and what comes by itself.

pub mod broker;
mod config;
mod driver;
mod link;
mod state;
mod topics;

pub use config::{Config, resolve};
