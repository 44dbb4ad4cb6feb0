//! A Modbus server: values of ours as registers for other people's clients (SCADA, panels, PLCs).
//!
//! ```text
//! set(entry, value) ──► image ◄── read requests        client
//!                         │
//!                         └── writes ──► decoded, checked ──► channel ──► whoever owns the value ──► answer
//! ```
//! [`image`] is pure: registers, and what a request means for them. [`doors`] listens, on tokio-modbus' TCP and RTU servers.
//! A write is acknowledged when the owner of the value has said yes; then the image holds it at once, so that a client that
//! reads back what it wrote finds it.
//!
//! | request | answer |
//! |---|---|
//! | an address nobody exposed | exception 2 |
//! | a value that is not known or bad just now | exception 4 |
//! | a write to something read-only | exception 2 |
//! | a write outside type or limits | exception 3 |
//! | a write that was refused, or not answered in time | exceptions 4, 6 |
//! | another unit | TCP: exception 11; serial: silence |
//!
//! Functions 1 to 6, 15, 16, 22, 23 and 43/14 (basic identification). A value of several registers should be written in one
//! request; written one by one, each write makes a value of its own.

mod doors;
mod image;

pub use doors::{Door, Exposed, Refusal, Server, Settings, Write};
pub use image::{Entry, Identity};
