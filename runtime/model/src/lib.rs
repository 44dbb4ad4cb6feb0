//! Values of the edge runtime: objects, readings, topics, envelopes.
//!
//! No I/O, no async, no clock: everything here takes values and returns values, so that its tests are tables.
#![forbid(unsafe_code)]

pub mod check;
pub mod configmap;
pub mod device;
pub mod edgex;
pub mod envelope;
pub mod event;
pub mod kind;
pub mod manifest;
pub mod name;
pub mod node;
pub mod object;
pub mod patch;
pub mod percent;
pub mod pod;
pub mod quantity;
pub mod reading;
pub mod time;
pub mod topic;

pub use kind::Kind;
pub use object::{Key, Metadata, Object};
