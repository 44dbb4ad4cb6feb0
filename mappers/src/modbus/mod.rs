//! Modbus over everything it travels on, on tokio-modbus.
//!
//! * [`config`]: a Device and its model, resolved: where each point is and how its registers make a value; [`endpoint`]:
//!   where the device is.
//! * `layout`, [`decode`], [`encode`], `number`, `text`: registers ↔ values, every byte and word order.
//! * [`plan`]: many points → few requests, and what is learnt when a device refuses one.
//! * [`link`]: one connection or line with its time-outs; every way an answer can be wrong becomes a [`link::Fault`].
//! * `transport` opens it: `serial` (with `rs485`), `ascii` (with [`frame`]), `udp`, `tls`, `inbound` for devices that call in.
//! * [`server`]: the other side: values of ours as registers. [`csv`]: a maker's register list as a model. [`sniff`]: frames
//!   in what a serial line carries.
//! * [`unit`]: one device behind a connection: what is due, back-off, what it says.
//! * [`poll`]: one task per endpoint, which owns the wire; [`endpoints`] is the handle to all of them.
//!
//! tokio-modbus frames requests and answers (TCP and RTU; ASCII and UDP, which it lacks, are streams of ours below its TCP
//! client). It has no time-outs, reconnect or answer checks beyond the header; they are here. Only `Client::call` of it is
//! used: its typed readers assert on lengths, which a device can get wrong.

mod ascii;
pub mod config;
pub mod csv;
pub mod decode;
pub mod encode;
pub mod endpoint;
pub mod endpoints;
pub mod frame;
mod inbound;
mod layout;
pub mod link;
mod number;
pub mod plan;
pub mod plant;
mod poll;
mod rs485;
pub mod serial;
pub mod server;
pub mod sniff;
mod text;
mod tls;
mod transport;
mod udp;
pub mod unit;

pub use config::{Config, resolve};
pub use endpoints::{Modbus, Pauses};
