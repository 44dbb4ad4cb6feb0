//! Bluetooth Low Energy, on btleplug and BlueZ.
//!
//! * [`config`]: a Device and its model, resolved; [`codec`]: bytes ↔ values as a visitor says.
//! * [`decode`]: advertisements of known formats → fields; `crypto` opens encrypted ones.
//! * [`link`]: what is needed of a Bluetooth stack; [`bluez`] and `bus` are the one that ships.
//! * [`adapter`]: one task per adapter, which scans and shares out connections.
//! * [`state`]: what is known of a device from the air; [`driver`]: one device with its connection; [`endpoints`] is the
//!   handle to all of them.

pub mod adapter;
pub mod address;
pub mod bluez;
mod bus;
pub mod codec;
pub mod config;
mod crypto;
pub mod decode;
pub mod driver;
pub mod endpoints;
#[cfg(test)]
mod fake;
pub mod link;
pub mod state;
#[cfg(test)]
mod supervisor_tests;
pub mod uuid;

pub use config::{Config, resolve};
pub use endpoints::Bluetooth;
