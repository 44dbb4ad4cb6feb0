//! How long a container takes from the request until it runs, until it has ended and is removed, and what its shim costs in
//! memory: beside `crun` and `runc` in the same run, one after the other.
//!
//! `cargo run --profile bench --example engine_start -- target/…/edge-runtime [count]`; needs root and `busybox-static`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use edge_runtime::engine::containers::{Containers, Request, Settings};
use edge_runtime::engine::spec::{self, ContainerSpec};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let exe = args.next().unwrap_or_else(|| "target/x86_64-unknown-linux-gnu/bench/edge-runtime".into());
    let count: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(50);
    let dir = std::env::temp_dir().join(format!("engine-start-{}", std::process::id()));
    let root = dir.join("root");
    for sub in ["bin", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["true", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let settings = Settings { run_dir: dir.join("run"), shim_exe: exe.into(), ..Settings::default() };
    let containers = Containers::new(settings).unwrap();
    let request = |id: &str, args: &[&str]| {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let spec = ContainerSpec { args, rootfs: root.clone(), ..ContainerSpec::default() };
        Request { id: id.into(), spec, log_path: Some(dir.join("log")), log_max_bytes: None, start_timeout: None }
    };
    let bundle = dir.join("bundle");
    fs::create_dir_all(&bundle).unwrap();
    let mut peer_spec = request("peer", &["true"]).spec;
    peer_spec.cgroup_path = "/engine-start/peer".into();
    fs::write(bundle.join("config.json"), serde_json::to_vec(&spec::build(&peer_spec).unwrap()).unwrap()).unwrap();

    let (mut started, mut whole, mut crun, mut runc) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut cpu = [0; 3];
    for round in 0..count {
        let before = ticks();
        let begin = Instant::now();
        let handle = containers.start(request(&format!("run-{round}"), &["true"])).await.unwrap();
        started.push(Some(begin.elapsed()));
        handle.wait().await;
        handle.delete().await;
        whole.push(Some(begin.elapsed()));
        let ours = ticks();
        crun.push(peer("crun", &bundle, round));
        let theirs = ticks();
        runc.push(peer("runc", &bundle, round));
        for (sum, (from, to)) in cpu.iter_mut().zip([(before, ours), (ours, theirs), (theirs, ticks())]) {
            *sum += to - from;
        }
    }
    println!("n = {count}, milliseconds: median, 90th percentile");
    for (name, times) in
        [("ours, until it runs", started), ("ours, run and removed", whole), ("crun run", crun), ("runc run", runc)]
    {
        print(name, times);
    }

    let per_run = |ticks: u64| ticks as f64 * 10.0 / count as f64;
    println!(
        "processor time per run: ours {:.1}, crun {:.1}, runc {:.1} ms (peers with unshare and umount, twice)",
        per_run(cpu[0]),
        per_run(cpu[1]),
        per_run(cpu[2])
    );

    let mut handles = Vec::new();
    for n in 0..10 {
        handles.push(containers.start(request(&format!("idle-{n}"), &["sleep", "1000"])).await.unwrap());
    }
    let mut private: Vec<u64> = handles.iter().map(|h| shim_private(h.running().unwrap().shim)).collect();
    private.sort_unstable();
    println!("10 idle containers: private memory of a shim {} KiB (median), {} KiB (most)", private[5], private[9]);
    for handle in handles {
        handle.delete().await;
    }
    fs::remove_dir_all(&dir).unwrap();
}

/// Processor time of this process and of those it has waited for, in hundredths of a second.
fn ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
    fields.skip(11).take(4).map(|n| n.parse::<u64>().unwrap()).sum()
}

fn print(name: &str, times: Vec<Option<Duration>>) {
    let mut times: Vec<f64> = times.into_iter().flatten().map(|t| t.as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    match times.get(times.len() * 9 / 10) {
        Some(high) => println!("{name:24} {:6.1} {high:6.1}", times[times.len() / 2]),
        None => println!("{name:24} failed"),
    }
}

/// One `run` of an OCI runtime. crun 1.8 refuses a hybrid layout: it runs without sight of the unified hierarchy, and the time of
/// `unshare` and `umount` alone is taken off.
fn peer(runtime: &str, bundle: &Path, round: usize) -> Option<Duration> {
    let run = format!("exec {runtime} run -b {} peer-{round}", bundle.display());
    let time = |script: &str| {
        let script = format!("umount /sys/fs/cgroup/unified 2>/dev/null; {script}");
        let begin = Instant::now();
        let status = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.ok()?.success().then(|| begin.elapsed())
    };
    Some(time(&run)?.saturating_sub(time("exec true")?))
}

/// Private KiB of a process.
fn shim_private(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = rollup.lines().filter(|l| l.starts_with("Private_"));
    lines.filter_map(|l| l.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}
