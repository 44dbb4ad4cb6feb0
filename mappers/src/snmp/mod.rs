//! SNMP agents: objects by identifier, many to a request, whole subtrees, writes, and traps.
//!
//! * [`config`]: a Device and its model, resolved.
//! * `decode`: what is on the wire to values, and back, purely.
//! * `link`: requests with time-outs and repeats; the only place beside `traps` that knows the library.
//! * [`traps`]: the sockets traps come on, shared by devices.
//! * `driver`: reads, writes and what comes by itself.

mod config;
mod decode;
mod driver;
mod link;
pub mod traps;

pub use config::{Config, resolve};
