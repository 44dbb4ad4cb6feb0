//! Field protocols to readings and writes. Knows no store, no board and nothing of the node's bus.
//!
//! One folder per protocol ([`modbus`], [`bluetooth`], [`mqtt`], [`http`], [`snmp`], [`onvif`], [`simulated`]); what they share is
//! here: a device's [`profile`] (names, types,
//! limits), how its objects are [`resolve`]d, the [`batch`] of samples they send, the [`port`] commands come through, the
//! [`error`]s of reading and writing, [`schedule`] and [`backoff`], and in [`device`] the task of a device that shares its
//! wire with nobody. [`mapper`] is the one place that names every protocol. [`plant`] is a small simulated plant for the
//! demonstration.
#![deny(unsafe_code)]

pub mod backoff;
pub mod batch;
pub mod bluetooth;
pub mod device;
pub mod error;
pub mod http;
pub mod mapper;
pub mod modbus;
pub mod mqtt;
pub mod onvif;
pub mod payload;
pub mod port;
pub mod profile;
pub mod resolve;
pub mod schedule;
pub mod simulated;
pub mod snmp;
mod tls;

pub use batch::{Batch, Link, Sample, Stats};
pub use error::AccessError;
pub use mapper::{Config, Mappers};
pub use modbus::plant;
pub use port::Port;
pub use profile::{Point, Profile};
pub use resolve::ConfigError;
