//! SNMP agents: objects by identifier, many to a request, whole subtrees, writes, and traps.
//!
//! * [`config`]: a Device and its model, resolved.
//! * `decode`: what is on the wire to values, and back, purely.
//! * `link`: requests with time-outs and repeats; the only place beside `traps` that knows the library.
//! * [`traps`]: the sockets traps come on, shared by devices.
//! * `v3`: whose message of version 3 it is, and whether it is true; `usm`: the keys, digests and ciphers of that.
//! * `driver`: reads, writes and what comes by itself.

mod config;
mod decode;
mod driver;
mod link;
pub mod traps;
mod usm;
mod v3;

pub use config::{Config, resolve};
