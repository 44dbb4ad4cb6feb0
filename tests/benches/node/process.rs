//! What the kernel knows of a process: memory, time, bytes written.

use std::path::PathBuf;

use edge_tests::cleanup;
use edge_tests::daemon::Node;

/// A line for the report's head.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1)).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} × {}, Linux {}", model.trim(), read("/proc/sys/kernel/osrelease").trim())
}

/// Our processes of a node: the daemon and its helpers, without what runs in the containers.
pub fn ours(node: &Node) -> Vec<i32> {
    let all = cleanup::processes(node.folder());
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = namespace(node.pid());
    // A helper stays in the mount namespace of the daemon, or its root stays the machine's.
    all.into_iter().filter(|pid| namespace(*pid) == own || is_helper(*pid)).collect()
}

/// The helpers of a node: its processes except the daemon.
pub fn helpers(node: &Node) -> Vec<i32> {
    let daemon = node.pid();
    ours(node).into_iter().filter(|pid| *pid != daemon).collect()
}

fn is_helper(pid: i32) -> bool {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    exe.file_name() == edge_tests::binary::edge_runtime().file_name()
}

/// Proportional set size of the processes together, in KiB: shared pages count once, shared out among their users.
pub fn pss(pids: &[i32]) -> u64 {
    pids.iter().map(|pid| rollup(*pid, &["Pss:"])).sum()
}

/// Memory that a process shares with nobody, in KiB.
pub fn private(pid: i32) -> u64 {
    rollup(pid, &["Private_Clean:", "Private_Dirty:"])
}

fn rollup(pid: i32, fields: &[&str]) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    fields.iter().map(|field| line(field).unwrap_or(0)).sum()
}

/// Processor time of the processes together, in ticks of 10 ms.
pub fn ticks(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    pids.iter().filter_map(of).sum()
}

/// Bytes that the processes together caused to be written to disk.
pub fn written(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let text = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/io"))).ok()?;
        text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok())
    };
    pids.iter().filter_map(of).sum()
}

/// How often the processes together left the processor of their own will: what wakes an idle board.
pub fn wakeups(pids: &[i32]) -> u64 {
    let tasks = |pid: &i32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let of = |entry: std::fs::DirEntry| {
            let text = std::fs::read_to_string(entry.path().join("status")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        };
        entries.filter_map(of).sum::<u64>()
    };
    pids.iter().map(tasks).sum()
}
