//! The command line: verbs that talk to a running node over its socket. They are clients like any other.

mod apply;
pub mod client;
mod columns;
mod completion;
mod describe;
mod doctor;
mod error;
mod get;
mod image;
mod import;
mod modbus;
mod node;
mod onvif;
mod out;
mod update;
pub mod verbs;

pub use doctor::DoctorArgs;
pub use error::CliError;
pub use out::{Out, Table, age, bytes};
pub use verbs::{Machine, Verb, run};
