//! The engine: containers without Docker. Each container has a shim, a small process of its own that started it with
//! libcontainer, keeps its log and knows its exit code, so that containers outlive this runtime.

pub mod cgroup;
pub mod containers;
pub mod logs;
pub mod network;
pub mod pods;
pub mod seccomp;
pub mod shim;
pub mod spec;
mod sys;
pub mod volumes;
