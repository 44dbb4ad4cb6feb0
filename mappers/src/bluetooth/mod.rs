//! Bluetooth Low Energy.
pub mod address;
mod crypto;
pub mod decode;
pub mod uuid;
