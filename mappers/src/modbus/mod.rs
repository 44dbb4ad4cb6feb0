//! Modbus TCP, on tokio-modbus.
//!
//! * [`config`]: a Device and its model, resolved: where each point is and how its registers make a value.
//! * `layout`, [`decode`], [`encode`]: registers ↔ values, every byte and word order.
//! * [`plan`]: many points → few requests, and what is learnt when a device refuses one.
//! * [`link`]: one connection with its time-outs; every way an answer can be wrong becomes a [`link::Fault`].
//! * [`unit`]: one device behind a connection: what is due, back-off, what it says.
//! * [`poll`]: one task per endpoint, which owns the wire; [`endpoints`] is the handle to all of them.
//!
//! tokio-modbus has no time-outs, reconnect or answer checks beyond the header; they are here. Only `Client::call` of it is
//! used: its typed readers assert on lengths, which a device can get wrong.

pub mod config;
pub mod decode;
pub mod encode;
pub mod endpoints;
mod layout;
pub mod link;
pub mod plan;
pub mod plant;
mod poll;
pub mod unit;

pub use config::{Config, resolve};
pub use endpoints::{Modbus, Pauses};
