//! What is seen from outside: logs, metrics, and what systemd is told.

pub mod journal;
pub mod log;
pub mod metrics;
pub mod notify;
