//! Taking away everything a node started, found by the node's folder and not by the node's own account of it: a test must
//! leave nothing behind also when the runtime under test is the one that lost track.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kills every process that belongs to `folder`, unmounts everything below it, and removes the cgroups they left.
///
/// A process belongs when its command line or environment names the folder, when its root file system lies there, or when
/// its parent belongs. The test itself and what started it only look like it, and are spared, as is init.
pub fn sweep(folder: &Path) {
    let mut cgroups = HashSet::new();
    let start = Instant::now();
    loop {
        let found = processes(folder);
        if found.is_empty() || start.elapsed() > PATIENCE {
            break;
        }
        for pid in found {
            cgroups.extend(cgroups_of(pid));
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    unmount(folder);
    remove_cgroups(&cgroups);
}

/// The processes that belong to `folder`, zombies left out: they hold nothing, and their parent reaps them.
pub fn processes(folder: &Path) -> Vec<i32> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let mut parents = HashMap::new();
    let mut found = HashSet::new();
    for pid in all() {
        let Some((state, parent)) = stat(pid) else { continue };
        if state == 'Z' || state == 'X' {
            continue;
        }
        parents.insert(pid, parent);
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let names = |file: &str| std::fs::read(proc.join(file)).is_ok_and(|bytes| contains(&bytes, needle));
        if names("cmdline") || names("environ") || has_root_in(&proc, needle) {
            found.insert(pid);
        }
    }
    // The test and what started it may name the folder as well; they go before their children are looked at.
    let mut own = i32::try_from(std::process::id()).unwrap_or(0);
    while own > 0 {
        found.remove(&own);
        own = parents.get(&own).copied().unwrap_or(0);
    }
    // Whatever init looks like, everything on the machine is its child.
    found.remove(&1);
    // Children of what belongs belong too: a container's processes know nothing of the folder.
    loop {
        let more: Vec<i32> = parents
            .iter()
            .filter(|(pid, ppid)| found.contains(*ppid) && !found.contains(*pid))
            .map(|(p, _)| *p)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.remove(&i32::try_from(std::process::id()).unwrap_or(0));
    found.into_iter().collect()
}

/// Whether a process has its root file system there, as a container has: an overlay whose layers name the folder. Other
/// mounts tell nothing: every service with a mount namespace of its own sees all of the machine's.
fn has_root_in(proc: &Path, needle: &[u8]) -> bool {
    let mounts = std::fs::read(proc.join("mountinfo")).unwrap_or_default();
    mounts.split(|b| *b == b'\n').any(|line| line.split(|b| *b == b' ').nth(4) == Some(b"/") && contains(line, needle))
}

/// Those of [`processes`] that run in containers: not the daemon, not shims.
pub fn containers(folder: &Path) -> Vec<i32> {
    // A shim's executable is seen under another name, so its arguments tell.
    let ours = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = line.split(|b| *b == 0);
        let program = arguments.next().unwrap_or_default();
        contains(program, b"edge-runtime") || arguments.next() == Some(b"shim")
    };
    processes(folder).into_iter().filter(|pid| !ours(pid)).collect()
}

fn all() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// State and parent of a process; its name may contain spaces and brackets, so the fields are counted from the last `)`.
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// A cgroup: where its hierarchy is mounted, and its path in there.
type Cgroup = (PathBuf, PathBuf);

/// The cgroups of a process, except those this test is in or below.
fn cgroups_of(pid: i32) -> HashSet<Cgroup> {
    let of = |who: &str| -> HashSet<Cgroup> {
        let text = std::fs::read_to_string(format!("/proc/{who}/cgroup")).unwrap_or_default();
        text.lines().filter_map(cgroup).collect()
    };
    let own = of("self");
    let shared = |group: &Cgroup| own.iter().any(|mine| mine.0 == group.0 && mine.1.starts_with(&group.1));
    of(&pid.to_string()).into_iter().filter(|group| !shared(group)).collect()
}

/// `4:memory:/a/b` is `a/b` below `/sys/fs/cgroup/memory`; `0::/a/b` is the unified hierarchy, wherever it is mounted.
fn cgroup(line: &str) -> Option<Cgroup> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    if path.is_empty() {
        return None;
    }
    let root = Path::new("/sys/fs/cgroup");
    let mount = match controllers {
        "" if root.join("unified").is_dir() => root.join("unified"),
        "" => root.to_owned(),
        named => root.join(named.trim_start_matches("name=")),
    };
    Some((mount, PathBuf::from(path)))
}

/// Removes emptied cgroups and their emptied parents; one that is still in use refuses, and stays. The topmost folder is
/// shared by all runtimes of the machine and always stays: another one may be about to make a cgroup in it.
fn remove_cgroups(groups: &HashSet<Cgroup>) {
    for (mount, path) in groups {
        let parents = path.ancestors().skip(1).filter(|parent| parent.components().count() > 1);
        for path in std::iter::once(path.as_path()).chain(parents) {
            if std::fs::remove_dir(mount.join(path)).is_err() {
                break;
            }
        }
    }
}

/// Unmounts everything at or below `folder`, the latest mount first.
pub fn unmount(folder: &Path) {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)));
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    points.reverse();
    for point in points {
        let _ = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
    }
}

/// mountinfo writes a space as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn a_process_that_names_the_folder_goes_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let script = "sleep 1000 & echo $! > \"$HOME_DIR/pid\"; wait";
        let mut shell = Command::new("sh").args(["-c", script]).env("HOME_DIR", folder.path()).spawn().unwrap();
        let pid: i32 = crate::wait::until("the child has told its pid", || {
            std::fs::read_to_string(folder.path().join("pid")).ok()?.trim().parse().ok()
        });
        sweep(folder.path());
        shell.wait().unwrap();
        assert!(!processes(folder.path()).contains(&pid));
        assert!(stat(pid).is_none_or(|(state, _)| state == 'Z'), "the grandchild still runs");
    }

    #[test]
    fn a_process_with_another_folder_stays() {
        let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut child = Command::new("sleep").arg("1000").arg0(other.path()).spawn().unwrap();
        sweep(mine.path());
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The first version killed whatever had a mount namespace of its own: on a machine with services, those.
    #[test]
    fn a_service_that_merely_sees_the_mounts_stays() {
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(folder.path()).status().unwrap();
        assert!(status.success(), "this test needs root");
        let mut service = Command::new("unshare").args(["--mount", "sleep", "1000"]).spawn().unwrap();
        let pid = i32::try_from(service.id()).unwrap();
        let sees = || std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let name = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        crate::wait::until_true("the service runs", || name(pid).trim() == "sleep");
        assert!(sees().contains(&*folder.path().to_string_lossy()));
        sweep(folder.path());
        assert!(service.try_wait().unwrap().is_none(), "it was killed");
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&*folder.path().to_string_lossy()));
        service.kill().unwrap();
        service.wait().unwrap();
    }

    #[test]
    fn cgroup_lines_become_folders() {
        let folder = |mount: &str, path: &str| Some((PathBuf::from(mount), PathBuf::from(path)));
        assert_eq!(cgroup("4:memory:/a/b"), folder("/sys/fs/cgroup/memory", "a/b"));
        assert_eq!(cgroup("1:name=systemd:/a"), folder("/sys/fs/cgroup/systemd", "a"));
        assert_eq!(cgroup("7:blkio:/"), None);
    }
}
