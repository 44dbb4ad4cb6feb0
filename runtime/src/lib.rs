//! The edge runtime as a library: every part of the node, in data-flow order. `main` only calls [`cli`].

pub mod api;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod queue;
pub mod store;
pub mod supervisor;
pub mod telemetry;
