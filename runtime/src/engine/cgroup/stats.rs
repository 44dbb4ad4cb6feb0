//! What a container uses. libcontainer's own statistics fail on kernels without pressure information, so the files are read here.

use std::fs;
use std::path::{Path, PathBuf};

/// What a container uses now; `None` where the controller is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory in bytes without the page cache that could be given back: what counts against the limit for good.
    pub memory_bytes: Option<u64>,
    /// The memory limit in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Processor time since the start, microseconds.
    pub cpu_us: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Stats {
    /// Reads the directories of one container's cgroup.
    pub fn read(dirs: &[PathBuf]) -> Stats {
        let mut stats = Stats::default();
        for dir in dirs {
            let cache = |key| keyed(&text(dir, "memory.stat"), key).unwrap_or(0);
            if let Some(used) = number(dir, "memory.current") {
                stats.memory_bytes = Some(used.saturating_sub(cache("inactive_file")));
                stats.memory_limit_bytes = number(dir, "memory.max");
            } else if let Some(used) = number(dir, "memory.usage_in_bytes") {
                stats.memory_bytes = Some(used.saturating_sub(cache("total_inactive_file")));
                // Without a limit version 1 reports the largest number of whole pages.
                stats.memory_limit_bytes = number(dir, "memory.limit_in_bytes").filter(|limit| *limit < 1 << 62);
            }
            let cpu = keyed(&text(dir, "cpu.stat"), "usage_usec")
                .or_else(|| number(dir, "cpuacct.usage").map(|ns| ns / 1000));
            stats.cpu_us = stats.cpu_us.or(cpu);
            stats.pids = stats.pids.or_else(|| number(dir, "pids.current"));
        }
        stats
    }
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    text(dir, file).trim().parse().ok()
}

/// The number after a key in lines of `key number`.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
