//! Control groups of the containers: what this kernel offers (version 1, 2, or both side by side), where ours live, what they
//! count, and how everything in one is ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

mod devices;
mod layout;
mod stats;
#[cfg(test)]
mod tests;

pub use devices::{Rule, program};
pub use layout::{CgroupError, Condition, Controller, INNER_ROOT, Layout, Version};
pub use stats::Stats;

/// How often a cgroup's processes are listed and killed until none is left, where the kernel cannot kill them at once (before
/// Linux 5.14, and version 1 always). A process that forks faster than this is stopped by the freezer or the limit on processes.
const KILL_ROUNDS: usize = 100;

/// When a process started, in clock ticks since boot; `None` when it is gone or a zombie. With its number this names one process
/// for good, whoever gets the number later.
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; proc(5) numbers the fields from 1, and the one after `)` is the third.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let ticks = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(ticks)
}

/// The children of this process. By looking at all processes, because the kernel's own list is an option of its build.
pub fn children() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)) == Some(own.as_str())
    };
    pids.filter(is_ours).collect()
}

/// Kills every process in these directories of one container's cgroup.
pub fn kill(dirs: &[PathBuf]) {
    let mut dirs: Vec<&PathBuf> = dirs.iter().filter(|dir| !is_root(dir)).collect();
    // Frozen, a fork bomb cannot outrun the list; so the directory with the freezer comes first, and leaves the others empty.
    dirs.sort_by_key(|dir| !dir.join("freezer.state").exists());
    for dir in dirs {
        if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
            continue;
        }
        let _ = fs::write(dir.join("freezer.state"), "FROZEN");
        for round in 0..KILL_ROUNDS {
            let pids = processes(dir);
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                if pid != rustix::process::getpid() {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
            // What is frozen dies once it is thawed.
            let _ = fs::write(dir.join("freezer.state"), "THAWED");
            if pids.is_empty() {
                break;
            }
            // The killed need a moment to leave; the first rounds are for those that are quick.
            std::thread::sleep(std::time::Duration::from_millis(if round < 10 { 1 } else { 10 }));
        }
    }
}

/// The processes in a directory and those below it.
pub fn processes(dir: &Path) -> Vec<i32> {
    let mut all: Vec<i32> = fs::read_to_string(dir.join("cgroup.procs"))
        .map(|text| text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
        .unwrap_or_default();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(processes(&entry.path()));
        }
    }
    all
}

/// Removes these directories, and those below them, once nothing is in them.
///
/// # Errors
/// The first that could not be removed; the others are tried all the same.
pub fn remove(dirs: &[PathBuf]) -> io::Result<()> {
    let mut result = Ok(());
    for dir in dirs.iter().filter(|dir| !is_root(dir)) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let _ = remove(&[entry.path()]);
            }
        }
        match fs::remove_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => result = Err(e),
            _ => {}
        }
    }
    result
}

/// The root of a hierarchy holds the whole system: whatever led here, it is not a container. It alone has a release agent
/// (version 1), and alone has no events (version 2).
fn is_root(dir: &Path) -> bool {
    dir.join("release_agent").exists()
        || (dir.join("cgroup.controllers").exists() && !dir.join("cgroup.events").exists())
}

/// Whether the kernel killed a process in this cgroup because its memory limit was reached.
pub fn oom_killed(dirs: &[PathBuf]) -> bool {
    dirs.iter().flat_map(|dir| ["memory.events", "memory.oom_control"].map(|file| dir.join(file))).any(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        stats::keyed(&text, "oom_kill").is_some_and(|count| count > 0)
    })
}
