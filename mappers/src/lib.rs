//! Field protocols to readings and writes. Knows no MQTT, no store and no board.
//!
//! One folder per protocol ([`modbus`]); what they share is here: a device's [`profile`] (names, types, limits), the
//! [`batch`] of samples they send, the [`error`]s of reading and writing, [`schedule`] and [`backoff`]. [`plant`] is a small
//! simulated plant for the demonstration.
#![deny(unsafe_code)]

pub mod backoff;
pub mod batch;
pub mod error;
pub mod modbus;
pub mod profile;
pub mod schedule;

pub use batch::{Batch, Link, Sample, Stats};
pub use error::AccessError;
pub use modbus::plant;
pub use profile::{Point, Profile};
