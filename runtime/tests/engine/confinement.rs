//! Looks from inside at what a container may do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use edge_runtime::engine::containers::ExecRequest;
use edge_runtime::engine::spec::{Device, Namespace, Rlimit, Seccomp};
use rustix::fs::StatVfsMountFlags;

use crate::bench::{Bench, PATIENCE, shim_of};

/// The status of a process by key.
fn field<'a>(status: &'a str, key: &str) -> &'a str {
    status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
}

fn assert_confined(status: &str) {
    assert_eq!(field(status, "Seccomp"), "2", "{status}");
    assert_eq!(field(status, "NoNewPrivs"), "1", "{status}");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let bits = u64::from_str_radix(field(status, set), 16).unwrap();
        assert_eq!(bits & !expected_capabilities(), 0, "{set} {bits:x}");
        assert_eq!(bits, expected_capabilities(), "{set} {bits:x}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(u64::from_str_radix(field(status, set), 16).unwrap(), 0, "{set}");
    }
    // Signals as a program expects them: Rust's ignored SIGPIPE and the shim's blocked SIGCHLD are not inherited.
    for set in ["SigIgn", "SigBlk"] {
        assert_eq!(u64::from_str_radix(field(status, set), 16).unwrap(), 0, "{set} in {status}");
    }
}

fn expected_capabilities() -> u64 {
    let spec = edge_runtime::engine::spec::ContainerSpec::default();
    let names = spec.capability_set().unwrap();
    let all = edge_runtime::engine::spec::ALL_CAPABILITIES;
    let bits = all.iter().enumerate().filter(|(_, n)| names.contains(*n)).fold(0, |bits, (n, _)| bits | 1 << n);
    // Docker's default, 0xa80425fb, without MKNOD.
    assert_eq!(bits, 0xa004_25fb_u64);
    bits
}

#[tokio::test]
async fn the_first_process_and_commands_are_confined_alike() {
    let bench = Bench::new();
    let handle =
        bench.start("box", &["sh", "-c", "cat /proc/self/status; ls -l /proc/self/fd; env; exec sleep 1000"]).await;
    bench.said("box", "PATH=").await;
    assert_confined(&bench.output("box"));
    let request = ExecRequest { args: vec!["cat".into(), "/proc/self/status".into()], ..ExecRequest::default() };
    let result = handle.exec(&request, b"", 1 << 16, PATIENCE).await.unwrap();
    assert_confined(&String::from_utf8_lossy(&result.stdout));
    let pid = handle.running().unwrap().pid;
    let fds: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(fds.len(), 3, "{fds:?}");
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(!environment.contains("CARGO"), "{environment}");
    handle.delete().await;
}

#[tokio::test]
async fn without_no_new_privileges_the_filter_is_there_all_the_same() {
    let bench = Bench::new();
    let mut request = bench.request("box", &["sh", "-c", "cat /proc/self/status; echo done; exec sleep 1000"]);
    request.spec.no_new_privileges = false;
    let handle = bench.containers.start(request).await.unwrap();
    bench.said("box", "done").await;
    let request = ExecRequest { args: vec!["cat".into(), "/proc/self/status".into()], ..ExecRequest::default() };
    let result = handle.exec(&request, b"", 1 << 16, PATIENCE).await.unwrap();
    for status in [bench.output("box"), String::from_utf8_lossy(&result.stdout).into_owned()] {
        assert_eq!((field(&status, "Seccomp"), field(&status, "NoNewPrivs")), ("2", "0"));
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(u64::from_str_radix(field(&status, set), 16).unwrap(), expected_capabilities(), "{set}");
        }
    }
    handle.delete().await;
}

#[tokio::test]
async fn system_calls_off_the_list_are_refused() {
    let bench = Bench::new();
    for attempt in
        ["mount -t tmpfs none /tmp", "unshare -U true", "unshare -m true", "chroot /proc/1/root/../.. ls /work"]
    {
        let (code, said) = bench.shell(attempt, |_| {}).await;
        assert_ne!(code, 0, "{attempt}: {said}");
    }
    // Unfiltered and with the capability the same works: it is the confinement that refuses.
    let (code, said) = bench
        .shell("mount -t tmpfs none /tmp && echo mounted", |spec| {
            spec.seccomp = Seccomp::Unconfined;
            spec.capabilities.add = vec!["SYS_ADMIN".into()];
        })
        .await;
    assert_eq!((code, said.as_str()), (0, "mounted\n"));
}

#[tokio::test]
async fn devices_are_refused_but_for_those_given() {
    let bench = Bench::new();
    let read_kmsg = "mknod /tmp/kmsg c 1 11 && dd if=/tmp/kmsg of=/dev/null bs=8192 count=1 && echo read";
    let (code, said) = bench.shell(read_kmsg, |_| {}).await;
    assert!(code != 0 && !said.contains("read\n"), "without the capability no node can be made: {said}");
    let (code, said) =
        bench.shell(read_kmsg, |spec| spec.capabilities.add = vec!["MKNOD".into(), "SYSLOG".into()]).await;
    assert!(code != 0 && said.contains("Operation not permitted"), "with it the node cannot be opened: {said}");
    fs::remove_file(bench.root().join("tmp/kmsg")).unwrap();
    let kmsg = Device {
        path: "/dev/kmsg".into(),
        block: false,
        major: 1,
        minor: 11,
        access: "r".into(),
        mode: 0o600,
        uid: 0,
        gid: 0,
    };
    let script = "dd if=/dev/kmsg of=/dev/null bs=8192 count=1 && echo read; echo x > /dev/kmsg || echo no writing; \
                  head -c 1 /dev/zero > /dev/null && head -c 4 /dev/urandom > /dev/null && echo usual ones";
    let (_, said) = bench
        .shell(script, |spec| {
            spec.devices = vec![kmsg];
            spec.capabilities.add = vec!["SYSLOG".into()];
        })
        .await;
    assert!(said.contains("read\n") && said.contains("no writing\n") && said.contains("usual ones\n"), "{said}");
}

#[tokio::test]
async fn a_privileged_container_may() {
    let bench = Bench::new();
    let script =
        "mount -t tmpfs none /tmp && mknod /tmp/kmsg c 1 11 && head -c 0 /tmp/kmsg && echo may; cat /proc/self/status";
    let (_, said) = bench.shell(script, |spec| spec.privileged = true).await;
    assert!(said.starts_with("may\n"), "{said}");
    assert_eq!(field(&said, "Seccomp"), "0");
}

#[tokio::test]
async fn the_host_is_out_of_sight_and_reach() {
    let bench = Bench::new();
    let script = "head -c 16 /proc/interrupts; echo interrupts $?; echo 1 > /proc/sys/kernel/panic || echo sysctl refused; \
                  echo b > /proc/sysrq-trigger || echo sysrq refused; echo x > /file || echo root refused; \
                  ls /sys/firmware | head -1; ps; ls /sys/class/net; mkdir /sys/fs/cgroup/x || echo cgroup refused; \
                  mkdir /sys/fs/cgroup/memory/x || echo controller refused";
    let (_, said) = bench.shell(script, |spec| spec.readonly_rootfs = true).await;
    for expected in ["sysctl refused", "sysrq refused", "root refused", "cgroup refused", "controller refused"] {
        assert!(said.contains(expected), "{expected} is missing from {said}");
    }
    assert!(said.starts_with("interrupts 0\n") || said.contains("\ninterrupts 0\n"), "masked, so empty: {said}");
    assert!(!said.contains("eth0") && !said.contains("CPU0"), "{said}");
    assert!(said.lines().filter(|l| l.contains("sh -c")).count() <= 2, "only its own processes: {said}");
    let (_, said) = bench.shell("ls /sys/class/net", |spec| spec.network = Namespace::Host).await;
    let host = fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(said.split_whitespace().count(), host, "{said}");
}

#[tokio::test]
async fn resource_limits_are_set() {
    let bench = Bench::new();
    let limit = Rlimit { name: "RLIMIT_NOFILE".into(), soft: 77, hard: 88 };
    let (_, said) = bench.shell("ulimit -Sn; ulimit -Hn", |spec| spec.rlimits = vec![limit]).await;
    assert_eq!(said, "77\n88\n");
}

/// CVE-2019-5736: a container that gets hold of `/proc/PID/exe` of a process of the runtime overwrites the runtime.
#[tokio::test]
async fn the_executable_cannot_be_written_from_inside() {
    let copied = tempfile::tempdir().unwrap();
    let exe = copied.path().join("edge-runtime");
    fs::copy(env!("CARGO_BIN_EXE_edge-runtime"), &exe).unwrap();
    let bench = Bench::with(|settings| settings.shim_exe = exe.clone());
    let before = fs::read(&exe).unwrap();
    // The attack: the program of the container is the runtime's own executable, whose descriptor a second process keeps and
    // writes to once nothing executes it any more.
    symlink("/proc/self/exe", bench.root().join("bin/self")).unwrap();
    let mut request = bench.request("self", &["/bin/self", "shim", "/nowhere"]);
    request.spec.pid = Namespace::New;
    match bench.containers.start(request).await {
        Ok(handle) => handle.delete().await,
        Err(error) => println!("refused: {error}"),
    }
    let handle = bench
        .start(
            "watcher",
            &["sh", "-c", "while true; do for p in /proc/[0-9]*; do echo boo > $p/exe; done 2>/dev/null; done"],
        )
        .await;
    for _ in 0..10 {
        let request = ExecRequest { args: vec!["true".into()], ..ExecRequest::default() };
        handle.exec(&request, b"", 10, PATIENCE).await.unwrap();
    }
    // As root of the host, whom no permission stops: the mount does.
    let path = format!("/proc/{}/exe", shim_of(&handle));
    assert!(Path::new(&path).exists());
    assert!(
        rustix::fs::statvfs(path.as_str()).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY),
        "a read-only mount"
    );
    handle.delete().await;
    assert!(before == fs::read(&exe).unwrap(), "the executable has changed");
}
