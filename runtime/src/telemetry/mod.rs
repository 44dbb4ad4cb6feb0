//! What is seen from outside: logs, and what systemd is told.

pub mod journal;
pub mod log;
pub mod notify;
