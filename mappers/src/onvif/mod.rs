//! Cameras that speak ONVIF: what they are and the URIs of their pictures, as properties. The pictures are left to pods.
//!
//! * [`config`]: a Device and its model, resolved.
//! * [`decode`]: SOAP messages to values, and back, purely.
//! * [`scan`]: WS-Discovery, by which cameras are found.
//! * `link`: one SOAP request over HTTP, with HTTP's own `digest` where a camera wants it.
//! * `driver`: which requests a reading takes.

mod config;
pub mod decode;
mod digest;
mod driver;
mod link;
pub mod scan;

pub use config::{Config, resolve};
