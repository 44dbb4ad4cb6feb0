//! Pods: from the Pod objects of the store to running containers, and back to their status.

pub mod backoff;
pub mod env;
pub mod plan;
pub mod report;
