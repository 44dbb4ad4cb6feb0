//! What is seen of the node from outside.

pub mod metrics;
