//! The edge runtime as a library: every part of the node, in data-flow order. `main` only calls [`cli`].

pub mod app;
pub mod api;
pub mod bus;
pub mod clock;
pub mod cloud;
pub mod command;
pub mod config;
pub mod engine;
pub mod exit;
pub mod liveness;
pub mod node;
pub mod images;
pub mod disk;
pub mod queue;
pub mod store;
pub mod supervisor;
pub mod sys;
pub mod telemetry;
