//! The most telling of these tests on cgroup version 2, whatever this machine has: in a user-mode Linux (Debian's `user-mode-linux`) that sees the
//! files of this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What runs inside, by the beginnings of names: a container takes a second to start there.
const INSIDE: &str = "confinement:: exec::output lifecycle::exit_codes lifecycle::the_end lifecycle::too_much \
                      lifecycle::limits lifecycle::a_shim failures::a_start survival::a_killed";

#[test]
fn the_same_on_cgroup_version_2() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let init = dir.path().join("init");
    let exe = std::env::current_exe().unwrap();
    // The first process of that system. Not busybox, whose shell starts its own commands through /proc/self/exe: before /proc is
    // mounted that is this machine's, and the kernel itself. /dev is mounted by the kernel. The tests run in a group of their own,
    // as a service does.
    let script = format!(
        "#!/bin/sh\n\
         export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=0 TMPDIR=/run\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
         mount -t tmpfs tmpfs /run\n\
         mkdir /sys/fs/cgroup/service\n\
         echo $$ > /sys/fs/cgroup/service/cgroup.procs\n\
         cd /run\n\
         {exe} --test-threads 2 --color never {INSIDE}\n\
         echo engine tests ended with $?\n\
         busybox poweroff -f\n",
        exe = exe.display()
    );
    fs::write(&init, script).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let uml = Path::new("/usr/bin/linux.uml");
    assert!(uml.exists(), "{}: install user-mode-linux", uml.display());
    let output = Command::new("timeout")
        .args(["--kill-after=10", "1200"])
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
    assert!(ran >= 16, "{ran} tests ran");
}
