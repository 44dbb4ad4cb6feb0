//! Tests of what can be told without a kernel: mount lists of the three layouts, counters, device programs.

use super::layout::{hierarchies, version};
use super::*;

const HYBRID: &str = "25 20 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
28 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
29 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";
const HYBRID_OWN: &str = "4:memory:/system.slice/x.service
3:cpu,cpuacct:/system.slice
1:name=systemd:/system.slice/x.service
0::/system.slice/x.service
";

#[test]
fn tells_the_layouts_apart() {
    let hybrid = hierarchies(HYBRID, HYBRID_OWN);
    assert_eq!(version(&hybrid), Some(Version::Hybrid));
    assert_eq!(hybrid.len(), 4);
    assert_eq!(hybrid[2].names, ["cpu", "cpuacct"]);
    assert_eq!(hybrid[2].own, "/system.slice");
    let legacy: String = HYBRID.lines().filter(|l| !l.contains("cgroup2")).map(|l| format!("{l}\n")).collect();
    assert_eq!(version(&hierarchies(&legacy, HYBRID_OWN)), Some(Version::V1));
    let unified = "26 20 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let found = hierarchies(unified, "0::/a/b\n");
    assert_eq!(version(&found), Some(Version::V2));
    assert_eq!(found[0].own, "/a/b");
    assert_eq!(version(&hierarchies("", "")), None);
}

#[test]
fn reads_counters() {
    assert_eq!(stats::keyed("oom 3\noom_kill 2\n", "oom_kill"), Some(2));
    assert_eq!(stats::keyed("oom_kill_disable 0\nunder_oom 0\n", "oom_kill"), None);
    let dir = tempfile::tempdir().unwrap();
    let file = |name, text| fs::write(dir.path().join(name), text).unwrap();
    file("memory.current", "5000\n");
    file("memory.max", "max\n");
    file("memory.stat", "anon 1\ninactive_file 1000\n");
    file("cpu.stat", "usage_usec 77\nuser_usec 1\n");
    file("memory.events", "oom 1\noom_kill 1\n");
    let dirs = [dir.path().to_owned()];
    let expected = Stats { memory_bytes: Some(4000), memory_limit_bytes: None, cpu_us: Some(77), pids: None };
    assert_eq!(Stats::read(&dirs), expected);
    assert!(oom_killed(&dirs));
}

/// Runs a device program as the kernel would.
fn allows(program: &[crate::engine::sys::BpfInstruction], block: bool, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | if block { 1 } else { 2 }, major, minor];
    let mut r = [0_u32; 11];
    let mut at = 0;
    loop {
        let i = program[at];
        let (d, s) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
        at += 1;
        match i.code {
            0x61 => r[d] = context[usize::try_from(i.offset / 4).unwrap()],
            0xbf => r[d] = r[s],
            0xb7 => r[d] = i.immediate.cast_unsigned(),
            0x57 => r[d] &= i.immediate.cast_unsigned(),
            0x77 => r[d] >>= i.immediate,
            0x55 if r[d] != i.immediate.cast_unsigned() => at = at.checked_add_signed(i.offset.into()).unwrap(),
            0x55 => {}
            0x95 => return r[0] == 1,
            other => panic!("instruction {other:#x}"),
        }
    }
}

#[test]
fn device_programs_allow_what_their_rules_say() {
    let mut rules = Rule::usual();
    rules.push(Rule::new(Some(false), Some(188), Some(0), "rw"));
    let program = program(&rules);
    let (make, read, write) = (1, 2, 4);
    assert!(allows(&program, false, read | write, 1, 3), "/dev/null");
    assert!(allows(&program, false, read | write, 188, 0), "/dev/ttyUSB0");
    assert!(allows(&program, false, make, 188, 0), "making any node is left to the capability");
    assert!(!allows(&program, false, make | read, 188, 0));
    assert!(!allows(&program, false, read, 188, 1));
    assert!(!allows(&program, true, read, 1, 3), "the same numbers of a block device");
    assert!(!allows(&program, false, read, 1, 1), "/dev/mem");
    assert!(!allows(&super::program(&[]), false, read, 1, 3));
    let all = super::program(&[Rule::new(None, None, None, "rwm")]);
    assert!(allows(&all, true, make | read | write, 8, 0));
}

#[test]
fn a_process_is_told_from_a_later_one_with_its_number() {
    let own = i32::try_from(std::process::id()).unwrap();
    assert!(start_ticks(own).is_some_and(|ticks| ticks > 0));
    assert_eq!(start_ticks(own), start_ticks(own));
    assert_eq!(start_ticks(i32::MAX), None);
}

/// Boards often boot with `cgroup_disable=memory`: a limit that cannot be kept fails no container, and is reported.
#[test]
fn limits_without_a_controller_are_left_out_and_reported() {
    use crate::engine::spec::{self, ContainerSpec, Limits};
    let limits = Limits {
        memory_bytes: Some(1 << 20),
        cpu_quota_us: Some(1),
        cpu_period_us: None,
        cpu_shares: None,
        pids: Some(1),
    };
    let wanted = ContainerSpec { args: vec!["true".into()], rootfs: "/r".into(), limits, ..ContainerSpec::default() };
    let pruned = |usable: &[Controller], swap| {
        let mut spec = spec::build(&wanted).unwrap();
        let conditions = Layout::with(usable, swap).prune(&mut spec);
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        (conditions, resources)
    };
    let all = [Controller::Memory, Controller::Cpu, Controller::Pids, Controller::Devices];
    let (conditions, resources) = pruned(&all, true);
    assert_eq!(conditions, []);
    assert!(resources.memory().is_some() && resources.cpu().is_some() && resources.pids().is_some());
    let (conditions, resources) = pruned(&all, false);
    assert_eq!(conditions, [Condition::SwapUnlimited]);
    assert_eq!(resources.memory().unwrap().swap(), None);
    let (conditions, resources) = pruned(&[], false);
    assert_eq!(
        conditions,
        [Condition::MemoryUnlimited, Condition::CpuUnlimited, Condition::PidsUnlimited, Condition::DevicesUnguarded]
    );
    assert!(resources.memory().is_none() && resources.cpu().is_none() && resources.pids().is_none());
}
