//! The test kit: real peers, started, watched and stopped.

pub mod mosquitto;
pub mod wait;
