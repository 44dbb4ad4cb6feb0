//! Containers outlive the runtime, and what does not outlive its shim is reported.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use edge_runtime::engine::containers::{Containers, End};
use edge_runtime::engine::shim::protocol::{Phase, Reason, Running, write_file};

use crate::bench::{Bench, PATIENCE, alive, exit, request, shim_of, until};

const DIR: &str = "ENGINE_TEST_DIR";

/// Not a test: the runtime that [`a_killed_runtime_is_succeeded`] kills.
#[tokio::test]
#[ignore = "run by a_killed_runtime_is_succeeded"]
async fn runtime_to_be_killed() {
    let dir = PathBuf::from(std::env::var_os(DIR).expect("run by a_killed_runtime_is_succeeded"));
    let containers = Containers::new(Bench::settings(&dir)).expect("containers");
    let script = "n=0; while true; do echo $n; n=$((n+1)); sleep 0.05; done";
    let running = containers.start(request(&dir, "running", &["sh", "-c", script])).await.expect("a container");
    let _short = containers.start(request(&dir, "short", &["sh", "-c", "sleep 1; exit 9"])).await.expect("a container");
    let _broken = containers.start(request(&dir, "orphan", &["sleep", "1000"])).await.expect("a container");
    let Running { pid, start_ticks, started_ms, .. } = running.running().expect("a process");
    println!("\nSTARTED {pid} {start_ticks} {started_ms}");
    tokio::time::sleep(PATIENCE * 10).await;
}

#[tokio::test]
async fn a_killed_runtime_is_succeeded() {
    let bench = Bench::new();
    let mut first = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "survival::runtime_to_be_killed", "--ignored", "--nocapture"])
        .env(DIR, bench.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(first.stdout.take().unwrap()).lines();
    let started =
        lines.map(Result::unwrap).find_map(|l| l.strip_prefix("STARTED ").map(str::to_owned)).expect("a start");
    first.kill().unwrap();
    first.wait().unwrap();
    let before: Vec<i64> = started.split(' ').map(|n| n.parse().unwrap()).collect();
    // One container ends, and one loses its shim, while there is no runtime.
    let state = |id: &str| bench.dir.path().join("run").join(id).join("state");
    let ended = || {
        edge_runtime::engine::shim::protocol::read_file(&state("short"))
            .is_ok_and(|p: Phase| matches!(p, Phase::Ended(..)))
    };
    until("the end of the short one", ended).await;
    let Phase::Running(orphan) = edge_runtime::engine::shim::protocol::read_file(&state("orphan")).unwrap() else {
        panic!()
    };
    kill(orphan.shim);
    until("the end of a shim", || !alive(orphan.shim)).await;

    let mut handles = bench.successor().adopt().await.unwrap();
    handles.sort_by_key(|h| h.id().to_owned());
    assert_eq!(handles.iter().map(|h| h.id()).collect::<Vec<_>>(), ["orphan", "running", "short"]);
    let now = handles[1].running().unwrap();
    assert_eq!([i64::from(now.pid), now.start_ticks.cast_signed(), now.started_ms], before[..]);
    assert!(handles[1].end().is_none() && alive(now.pid));
    // Its output is still taken.
    let said = bench.output("running").lines().count();
    until("more output", || bench.output("running").lines().count() > said + 2).await;
    assert_eq!(exit(&handles[2]).await.code, 9);
    let lost = exit(&handles[0]).await;
    assert_eq!((lost.reason, lost.code), (Reason::ShimLost, 137));
    until("the end of what lost its shim", || !alive(orphan.pid)).await;
    // A third runtime sees the same.
    let again = bench.successor().adopt().await.unwrap();
    assert_eq!(again.iter().find(|h| h.id() == "orphan").unwrap().end(), Some(End::Exited(lost)));
    for handle in handles {
        handle.delete().await;
    }
    assert!(!alive(now.pid));
    assert!(bench.successor().adopt().await.unwrap().is_empty());
}

fn kill(pid: i32) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_killed_shim_is_noticed_at_once() {
    let bench = Bench::new();
    let handle = bench.start("victim", &["sh", "-c", "sleep 1000 & sleep 1000"]).await;
    let pid = handle.running().unwrap().pid;
    kill(shim_of(&handle));
    let end = exit(&handle).await;
    assert_eq!((end.reason, end.code, end.signal), (Reason::ShimLost, 137, Some(9)));
    until("the end of the container", || !alive(pid)).await;
    handle.delete().await;
}

#[tokio::test]
async fn a_shim_that_does_not_answer_is_given_up() {
    let bench = Bench::new();
    let handle = bench.start("hung", &["sleep", "1000"]).await;
    let Running { pid, shim, .. } = handle.running().unwrap();
    drop(handle);
    rustix::process::kill_process(rustix::process::Pid::from_raw(shim).unwrap(), rustix::process::Signal::STOP)
        .unwrap();
    let handles = bench.successor().adopt().await.unwrap();
    assert_eq!(exit(&handles[0]).await.reason, Reason::ShimLost);
    until("its end, and the shim's", || !alive(pid) && !alive(shim)).await;
    handles[0].delete().await;
}

#[tokio::test]
async fn another_process_with_the_number_is_left_alone() {
    let bench = Bench::new();
    let mut innocent = Command::new("/bin/busybox").args(["sleep", "1000"]).spawn().unwrap();
    let pid = i32::try_from(innocent.id()).unwrap();
    // What a shim would have left that was killed long ago, its container's number since given to somebody else.
    let dir = bench.dir.path().join("run/old");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("start"), "").unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(dir.join("boot"), boot.trim()).unwrap();
    write_file(&dir.join("state"), &Phase::Running(Running { pid, start_ticks: 1, started_ms: 1, shim: pid })).unwrap();
    // And one of before a restart of the machine, on a run directory that is not in memory.
    let earlier = bench.dir.path().join("run/earlier");
    fs::create_dir(&earlier).unwrap();
    fs::write(earlier.join("start"), "").unwrap();
    fs::write(earlier.join("boot"), "another boot").unwrap();
    write_file(&earlier.join("state"), &Phase::Running(Running { pid, start_ticks: 1, started_ms: 1, shim: pid }))
        .unwrap();
    // And a directory of a start that never came to a shim.
    fs::create_dir(bench.dir.path().join("run/unborn")).unwrap();

    let mut handles = bench.containers.adopt().await.unwrap();
    handles.sort_by_key(|h| h.id().to_owned());
    assert_eq!(handles.iter().map(|h| h.id()).collect::<Vec<_>>(), ["earlier", "old"]);
    assert_eq!(exit(&handles[0]).await.reason, Reason::Rebooted);
    assert_eq!(exit(&handles[1]).await.reason, Reason::ShimLost);
    assert!(alive(pid), "the innocent process");
    assert!(!bench.dir.path().join("run/unborn").exists());
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    for handle in handles {
        handle.delete().await;
    }
}

#[tokio::test]
async fn a_container_nobody_can_speak_to_is_ended() {
    let bench = Bench::new();
    let handle = bench.start("forgotten", &["sleep", "1000"]).await;
    let pid = handle.running().unwrap().pid;
    fs::remove_dir_all(bench.dir.path().join("run/forgotten")).unwrap();
    assert!(bench.successor().adopt().await.unwrap().is_empty());
    until("its end", || !alive(pid)).await;
}
