//! The test kit: real peers, started, watched and stopped.

pub mod image;
