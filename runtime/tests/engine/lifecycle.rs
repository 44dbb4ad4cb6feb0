//! From start to removal: exit codes, signals, memory limits, logs, many at once.

use std::fs;
use std::time::Duration;

use edge_runtime::engine::containers::{EngineError, Settings};
use edge_runtime::engine::shim::protocol::{Phase, Reason};
use edge_runtime::engine::spec::{Limits, Mount, Namespace};

use crate::bench::{Bench, alive, exit, shim_of, until};

#[tokio::test]
async fn exit_codes_and_output() {
    let bench = Bench::new();
    for code in [0, 1, 7, 255] {
        let (got, said) = bench.shell(&format!("echo to stdout; echo to stderr >&2; exit {code}"), |_| {}).await;
        assert_eq!(got, code);
        assert!(said.contains("to stdout\n") && said.contains("to stderr\n"), "{said}");
    }
}

#[tokio::test]
async fn the_end_is_known_again_and_again_and_nothing_is_left_after_deletion() {
    let bench = Bench::new();
    // Looked for in all of /sys/fs/cgroup, where other runs of this test may be at work.
    let id = format!("one-{}", std::process::id());
    let handle = bench.start(&id, &["true"]).await;
    let first = exit(&handle).await;
    assert_eq!(exit(&handle.clone()).await, first);
    assert_eq!(first.reason, Reason::Ended);
    assert!(matches!(handle.phase(), Phase::Ended(..)));
    handle.delete().await;
    assert_eq!(fs::read_dir(bench.dir.path().join("run")).unwrap().count(), 0);
    assert_eq!(cgroups_of(&id), Vec::<String>::new());
    // The name is free again.
    bench.start(&id, &["true"]).await.delete().await;
}

/// Directories of a container's groups that exist.
fn cgroups_of(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = look.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
            let path = entry.path();
            if path.parent().is_some_and(|p| p.to_string_lossy().contains("edge-runtime-")) && path.ends_with(id) {
                found.push(path.display().to_string());
            }
            let depth = path.components().count();
            if depth < 7 {
                look.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn signals_reach_the_first_process() {
    let bench = Bench::new();
    let handle =
        bench.start("trap", &["sh", "-c", "trap 'exit 3' TERM; echo ready; while true; do sleep 0.1; done"]).await;
    bench.said("trap", "ready").await;
    handle.signal(15).await.unwrap();
    assert_eq!(exit(&handle).await.code, 3);
    assert!(matches!(handle.signal(15).await, Err(EngineError::Refused { .. } | EngineError::Shim { .. })));
    handle.delete().await;

    let handle = bench.start("stuck", &["sleep", "1000"]).await;
    assert!(matches!(handle.signal(4711).await, Err(EngineError::Refused { .. })));
    handle.kill().await;
    let end = exit(&handle).await;
    assert_eq!((end.code, end.signal, end.oom_killed), (137, Some(9), false));
    handle.delete().await;
}

#[tokio::test]
async fn too_much_memory_is_reported() {
    let bench = Bench::new();
    let limits = Limits { memory_bytes: Some(16 << 20), ..Limits::default() };
    let mut request = bench.request("hungry", &["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"]);
    request.spec.limits = limits;
    let handle = bench.containers.start(request).await.unwrap();
    assert!(
        !handle.conditions().iter().any(|c| c.to_string().contains("memory limits are not")),
        "{:?}",
        handle.conditions()
    );
    let end = exit(&handle).await;
    assert_eq!((end.code, end.oom_killed), (137, true), "{end:?}");
    handle.delete().await;
}

#[tokio::test]
async fn limits_hold_and_use_is_told() {
    let bench = Bench::new();
    let mut request = bench.request(
        "limited",
        &[
            "sh",
            "-c",
            "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; echo up; exec sleep 1000",
        ],
    );
    request.spec.limits = Limits {
        memory_bytes: Some(64 << 20),
        cpu_quota_us: Some(50_000),
        cpu_period_us: None,
        cpu_shares: Some(512),
        pids: Some(10),
    };
    let handle = bench.containers.start(request).await.unwrap();
    bench.said("limited", "up").await;
    // Programs size their heaps by what they see there.
    assert!(bench.output("limited").contains("67108864\n"), "{}", bench.output("limited"));
    let stats = handle.stats();
    assert_eq!(stats.memory_limit_bytes, Some(64 << 20), "{stats:?}");
    assert!(stats.memory_bytes.is_some_and(|bytes| bytes > 0 && bytes < 64 << 20), "{stats:?}");
    assert!(stats.cpu_us.is_some_and(|us| us > 0), "{stats:?}");
    // The kernel takes a process that has ended off the count a little later.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while handle.stats().pids != Some(1) {
        assert!(std::time::Instant::now() < deadline, "{:?}", handle.stats());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    handle.delete().await;

    let mut bomb = bench.request("bomb", &["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait"]);
    bomb.spec.limits.pids = Some(4);
    let handle = bench.containers.start(bomb).await.unwrap();
    bench.said("bomb", "can't fork").await;
    handle.delete().await;
}

#[tokio::test]
async fn logs_are_bounded_and_binary_safe() {
    let bench = Bench::with(|settings: &mut Settings| settings.log_max_bytes = 8192);
    let script = r"yes 'a line of some length to fill the log' | head -n 500; printf 'bin\000\377\n'; head -c 10000 /dev/zero | tr '\000' x; echo; echo end";
    let (code, _) = bench.shell(script, |_| {}).await;
    assert_eq!(code, 0);
    let names: Vec<_> = fs::read_dir(bench.dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_string_lossy().contains(".log"))
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for name in &names {
        let text = fs::read(name).unwrap();
        assert!(text.len() <= 8192, "{}", text.len());
        for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            assert_eq!(line.get(30..38), Some(&b" stdout "[..]), "{}", String::from_utf8_lossy(line));
        }
    }
    let newest = names.iter().find(|p| p.extension().is_some_and(|e| e == "log")).unwrap();
    assert!(fs::read(newest).unwrap().ends_with(b"stdout F end\n"));
}

#[tokio::test]
async fn a_log_moved_away_is_opened_anew() {
    let bench = Bench::new();
    let handle =
        bench.start("talker", &["sh", "-c", "n=0; while true; do echo $n; n=$((n+1)); sleep 0.05; done"]).await;
    bench.said("talker", "1\n").await;
    fs::rename(bench.log("talker"), bench.dir.path().join("moved")).unwrap();
    handle.reopen_log().await.unwrap();
    until("a new log", || !bench.output("talker").is_empty()).await;
    handle.delete().await;
}

#[tokio::test]
async fn twenty_start_at_once() {
    let bench = Bench::new();
    let starts = (0..20).map(|n| {
        let containers = bench.containers.clone();
        let request = bench.request(&format!("c{n}"), &["sh", "-c", &format!("exit {n}")]);
        tokio::spawn(async move { containers.start(request).await })
    });
    let tasks: Vec<_> = starts.collect();
    let mut handles = Vec::new();
    for task in tasks {
        handles.push(task.await.unwrap().unwrap());
    }
    for (n, handle) in (0..).zip(&handles) {
        assert_eq!(exit(handle).await.code, n);
    }
    for handle in handles {
        handle.delete().await;
    }
}

#[tokio::test]
async fn a_shim_is_detached_and_small() {
    let bench = Bench::new();
    let handle = bench.start("idle", &["sleep", "1000"]).await;
    let shim = shim_of(&handle);
    let read = |file: &str| fs::read_to_string(format!("/proc/{shim}/{file}")).unwrap();
    assert_eq!(read("environ"), "", "nothing of the runtime's environment");
    for fd in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{shim}/fd/{fd}")).unwrap().to_str(), Some("/dev/null"));
    }
    let stat = read("stat");
    let session: i32 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert_eq!(session, shim, "a session of its own");
    assert_eq!(fs::read_dir(format!("/proc/{shim}/task")).unwrap().count(), 1, "one thread");
    // A service manager ends everything in the group of the service, which is that of the hierarchies it watches.
    let watched = |text: String| {
        text.lines().filter(|l| l.starts_with("0::") || l.contains(":name=")).map(str::to_owned).collect::<Vec<_>>()
    };
    let ours = watched(fs::read_to_string("/proc/self/cgroup").unwrap());
    for (ours, shims) in ours.iter().zip(watched(read("cgroup"))) {
        assert!(ours.ends_with(":/") || (*ours != shims && shims.ends_with("/_shims")), "{ours} {shims}");
    }
    // Pages of the executable are everybody's; those it has written to are its own.
    let rollup = read("smaps_rollup");
    let own = rollup.lines().find_map(|l| l.strip_prefix("Anonymous:")).unwrap();
    let kib: u64 = own.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib <= 200, "{kib} KiB of its own");
    handle.delete().await;
    until("the end of the shim", || !alive(shim)).await;
}

#[tokio::test]
async fn dropping_handles_leaves_the_container_alone() {
    let bench = Bench::new();
    let handle = bench.start("left", &["sleep", "1000"]).await;
    let pid = handle.running().unwrap().pid;
    drop(handle);
    let again = bench.successor().adopt().await.unwrap();
    assert_eq!(again.len(), 1);
    assert!(alive(pid));
    again[0].delete().await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn processes_that_outlive_the_first_one_are_ended() {
    let bench = Bench::new();
    let script = "sleep 1000 & echo $!; exit 4";
    let (code, _) = bench.shell(script, |spec| spec.pid = Namespace::Host).await;
    assert_eq!(code, 4);
    // The same with the first container's process namespace joined by a second.
    let first = bench.start("first", &["sleep", "1000"]).await;
    let path = format!("/proc/{}/ns/pid", first.running().unwrap().pid);
    let mut request = bench.request("second", &["sh", "-c", "ps; sleep 1000 & exit 5"]);
    request.spec.pid = Namespace::Join(path.into());
    let second = bench.containers.start(request).await.unwrap();
    assert_eq!(exit(&second).await.code, 5);
    second.delete().await;
    assert!(bench.output("second").contains("sleep 1000"), "{}", bench.output("second"));
    assert!(first.end().is_none());
    first.delete().await;
}

#[tokio::test]
async fn mounts_users_and_names() {
    let bench = Bench::new();
    let shared = bench.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("given"), "from the host").unwrap();
    let script = "cat /data/given; echo back > /data/taken && echo wrote; echo x > /ro/y || echo refused; id -u; id -g; id -G; \
                  cat /proc/sys/kernel/hostname; pwd; echo $GREETING; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/1/oom_score_adj";
    std::os::unix::fs::chown(&shared, Some(1000), Some(1000)).unwrap();
    let mounts = vec![
        Mount::bind(&shared, "/data", false),
        Mount::bind(&shared, "/ro", true),
        Mount::tmpfs("/scratch", 1 << 20),
    ];
    let (code, said) = bench
        .shell(script, |spec| {
            spec.mounts = mounts;
            (spec.uid, spec.gid, spec.additional_gids) = (1000, 1000, vec![44]);
            spec.hostname = Some("edge-1".into());
            spec.cwd = "/tmp".into();
            spec.env = vec![("GREETING".into(), "hello = you".into())];
            spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
            spec.oom_score_adj = Some(500);
        })
        .await;
    assert_eq!(code, 0, "{said}");
    for expected in [
        "from the host",
        "wrote",
        "refused",
        "1000\n1000\n",
        "44",
        "edge-1\n",
        "/tmp\n",
        "hello = you\n",
        "\n80\n",
        "\n500\n",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing from:\n{said}");
    }
    assert_eq!(fs::read_to_string(shared.join("taken")).unwrap(), "back\n");
}

#[tokio::test]
async fn an_unread_control_connection_does_no_harm() {
    let bench = Bench::new();
    let handle = bench.start("patient", &["sleep", "1000"]).await;
    let socket = format!("{}/run/patient/ctl", bench.dir.path().display());
    // Neither silence nor garbage nor an early end.
    let open = || {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
        let fd = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        rustix::net::connect(&fd, &SocketAddrUnix::new(socket.as_str()).unwrap()).unwrap();
        fd
    };
    let silent = open();
    for garbage in [&b"\x01\xff\xff\xff\xff\xff"[..], b"\x02\x00", b"GET / HTTP/1.1\r\n\r\n", &[0; 3000]] {
        rustix::net::send(open(), garbage, rustix::net::SendFlags::NOSIGNAL).unwrap();
    }
    tokio::time::timeout(Duration::from_secs(60), handle.signal(0)).await.expect("an answer").unwrap_err();
    handle.signal(15).await.unwrap();
    // Signal 15 is ignored by a first process without a handler; the shim is well.
    assert!(handle.end().is_none());
    handle.delete().await;
    drop(silent);
}
