//! The same tests on cgroup version 2, whatever this machine has: in a user-mode Linux (Debian's `user-mode-linux`) that sees the
//! files of this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the tests inside are told by.
const INSIDE: &str = "ENGINE_TEST_INSIDE";

#[test]
fn the_same_on_cgroup_version_2() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let init = dir.path().join("init");
    let exe = std::env::current_exe().unwrap();
    // The first process of that system. Its output is the console; it ends by switching the machine off.
    let script = format!(
        "#!/bin/busybox sh\n\
         export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root {INSIDE}=1 RUST_BACKTRACE=0 TMPDIR=/run\n\
         busybox mount -t proc proc /proc && busybox mount -t sysfs sysfs /sys\n\
         busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup && busybox mount -t tmpfs tmpfs /run\n\
         busybox mount -t devtmpfs devtmpfs /dev || busybox mount -t tmpfs tmpfs /dev\n\
         busybox ip link set lo up\n\
         cd /run\n\
         {exe} --test-threads 4\n\
         echo engine tests ended with $?\n\
         busybox poweroff -f\n",
        exe = exe.display()
    );
    fs::write(&init, script).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let uml = Path::new("/usr/bin/linux.uml");
    assert!(uml.exists(), "{}: install user-mode-linux", uml.display());
    let output = Command::new("timeout")
        .args(["--kill-after=10", "600"])
        .arg(uml)
        .args([
            "mem=768M",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "rw",
            "quiet",
            "con=null",
            "con0=null,fd:1",
        ])
        .arg(format!("init={}", init.display()))
        .env_clear()
        .env("TMPDIR", dir.path())
        .env("HOME", dir.path())
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    println!("{console}");
    assert!(console.contains("engine tests ended with 0\n"), "see the console above");
    let ran = console.lines().filter(|line| line.starts_with("test ") && line.ends_with(" ok")).count();
    assert!(ran >= 30, "{ran} tests ran");
}
