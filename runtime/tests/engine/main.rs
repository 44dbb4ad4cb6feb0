//! Real containers, started through the real shim, on whatever cgroups this machine has – and once more on cgroup version 2 in a
//! user-mode Linux. Needs root, Debian's `busybox-static` and `user-mode-linux`; fails loudly without.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod bench;
mod confinement;
mod exec;
mod failures;
mod lifecycle;
mod survival;
mod unified;
