//! The test kit: real peers, started, watched and stopped.

pub mod field;
pub mod libmodbus;
pub mod pymodbus;
