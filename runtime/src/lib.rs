//! The edge runtime as a library: every part of the node, in data-flow order. `main` only calls [`command`].

pub mod api;
pub mod app;
pub mod backends;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod command;
pub mod config;
pub mod demo;
pub mod disk;
pub mod engine;
pub mod events;
pub mod exit;
pub mod field;
pub mod images;
pub mod liveness;
pub mod manifests;
pub mod node;
pub mod queue;
pub mod seen;
pub mod store;
pub mod supervisor;
pub mod sys;
pub mod telemetry;
pub mod twin;
