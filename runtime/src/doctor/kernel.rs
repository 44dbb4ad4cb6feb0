//! What containers and the bus need of the kernel: features, cgroup controllers, rights, random numbers.

use std::io::Read as _;
use std::path::Path;

use super::{Check, Findings, Verdict};

/// The oldest kernel that everything works on: clone3, pidfd and all.
const OLDEST: (u32, u32) = (5, 4);
/// Since then the shims' executable can be sealed by a mount of its own (mount_setattr).
const SEALS: (u32, u32) = (5, 12);
/// The largest `/proc/config.gz` that is unpacked.
const CONFIG_MAX: u64 = 4 << 20;

/// What was looked at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The kernel's release, such as `6.1.21-v8+`.
    pub release: String,
    /// The kinds of namespaces in `/proc/self/ns`.
    pub namespaces: Vec<String>,
    /// `/proc/filesystems`.
    pub filesystems: String,
    /// The actions that seccomp filters may take.
    pub seccomp: String,
    /// `/proc/self/mountinfo`.
    pub mounts: String,
    /// `/proc/cgroups`.
    pub cgroups_v1: String,
    /// Controllers of the unified hierarchy.
    pub cgroups_v2: String,
    /// The kernel's command line.
    pub cmdline: String,
    /// The kernel's configuration; empty when it does not tell.
    pub config: String,
    /// Modules loaded or built in, and those that could be loaded.
    pub modules: String,
    /// Whether containers can be run with the rights at hand; why not.
    pub rights: Option<String>,
    /// How many user namespaces an ordinary user may have.
    pub user_namespaces: Option<u64>,
    /// Random bits at hand.
    pub entropy: Option<u64>,
}

impl Facts {
    /// Looks at this machine.
    pub fn look() -> Facts {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let names = |path: &str| -> Vec<String> {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
        };
        let folder = format!("/lib/modules/{release}");
        let modules = [
            names("/sys/module").join("\n"),
            read(&format!("{folder}/modules.builtin")),
            read(&format!("{folder}/modules.dep")),
        ];
        let unified = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];
        Facts {
            release,
            namespaces: names("/proc/self/ns"),
            filesystems: read("/proc/filesystems"),
            seccomp: read("/proc/sys/kernel/seccomp/actions_avail"),
            mounts: read("/proc/self/mountinfo"),
            cgroups_v1: read("/proc/cgroups"),
            cgroups_v2: unified.map(read).join(" "),
            cmdline: read("/proc/cmdline"),
            config: unpack(Path::new("/proc/config.gz")),
            modules: modules.join("\n"),
            rights: crate::engine::containers::probe().err().map(|e| e.to_string()),
            user_namespaces: read("/proc/sys/user/max_user_namespaces").trim().parse().ok(),
            entropy: read("/proc/sys/kernel/random/entropy_avail").trim().parse().ok(),
        }
    }

    /// Whether the kernel has a feature, by its option, its module or its file system; `None` when nothing tells.
    fn has(&self, option: &str, module: &str) -> Option<bool> {
        let set = |value| self.config.lines().any(|l| l == format!("CONFIG_{option}={value}"));
        let word = |line: &str| {
            let name = line.split(':').next().unwrap_or(line).rsplit('/').next().unwrap_or(line);
            name.split('.').next().unwrap_or(name).replace('-', "_") == module
        };
        let listed = self.modules.lines().any(word);
        if set('y') || listed || self.filesystems.lines().any(|l| l.trim_start_matches("nodev").trim() == module) {
            return Some(true);
        }
        // A module that is not listed anywhere is not on this disk.
        let told = !self.config.is_empty() || self.modules.contains(".ko");
        told.then_some(false)
    }
}

fn unpack(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What cannot be unpacked tells nothing.
        let _ = flate2::read::GzDecoder::new(file).take(CONFIG_MAX).read_to_string(&mut text);
    }
    text
}

/// All checks of the kernel.
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![kernel(facts), features(facts), pod_network(facts), cgroups(facts), rights(facts), entropy(facts)]
}

fn kernel(facts: &Facts) -> Check {
    let mut numbers = facts.release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (verdict, advice) = if version < OLDEST {
        (Verdict::Fail, "use a kernel from 5.4 on: older ones lack what containers are started with")
    } else if version < SEALS {
        (
            Verdict::Warn,
            "use a kernel from 5.12 on: before it, the runtime's executable cannot be sealed against containers",
        )
    } else {
        (Verdict::Ok, "it has all that containers are started with")
    };
    Check::new("kernel", verdict, facts.release.clone(), advice)
}

fn features(facts: &Facts) -> Check {
    let mut all = Findings::default();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let option = "enable CONFIG_NAMESPACES with all kinds in the kernel: containers need them";
        match facts.namespaces.iter().any(|n| n == kind) {
            true => {}
            false if kind == "cgroup" => all.bad(Verdict::Warn, "no cgroup namespaces", option),
            false => all.bad(Verdict::Fail, format!("no {kind} namespaces"), option),
        }
    }
    match facts.has("OVERLAY_FS", "overlay") {
        Some(false) => all.bad(
            Verdict::Fail,
            "no overlayfs",
            "enable CONFIG_OVERLAY_FS in the kernel, or install its module: images are mounted with it",
        ),
        Some(true) => all.good("overlayfs"),
        None => all.good("overlayfs not told"),
    }
    if facts.seccomp.split_whitespace().any(|a| a == "errno") {
        all.good("seccomp");
    } else {
        let advice = "enable CONFIG_SECCOMP_FILTER in the kernel: without it containers may make any system call";
        all.bad(Verdict::Warn, "no seccomp filters", advice);
    }
    if facts.user_namespaces.is_some_and(|n| n > 0) {
        all.good("user namespaces");
    }
    all.good("namespaces");
    all.check("kernel features", "containers are made of these", "nothing is told")
}

fn pod_network(facts: &Facts) -> Check {
    let mut all = Findings::default();
    let advice = "enable it in the kernel, or install its module: pods with hostNetwork: false need it (hostNetwork: true works)";
    for (option, module) in [("NF_TABLES", "nf_tables"), ("BRIDGE", "bridge"), ("VETH", "veth")] {
        match facts.has(option, module) {
            Some(true) => all.good(module),
            Some(false) => all.bad(Verdict::Warn, format!("no {module}"), advice),
            None => {}
        }
    }
    all.check("pod network", "pods with a network of their own need these", "the kernel does not tell its features")
}

fn cgroups(facts: &Facts) -> Check {
    let kinds = |kind: &str| facts.mounts.lines().filter(|l| l.contains(&format!(" - {kind} "))).count();
    // On version 1, one hierarchy is often systemd's own, without a controller.
    let (v1, v2) = (kinds("cgroup") > 1, kinds("cgroup2") > 0);
    let version = match (v1, v2) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => {
            let advice = "mount cgroups at /sys/fs/cgroup, as systemd does: containers are kept together by them";
            return Check::new("cgroups", Verdict::Fail, "no cgroup file system is mounted", advice);
        }
    };
    let mut all = Findings::default();
    all.good(version);
    for controller in ["memory", "cpu", "pids", "io"] {
        let on_v1 = if controller == "io" { "blkio" } else { controller };
        let enabled = facts.cgroups_v1.lines().any(|l| {
            let words: Vec<&str> = l.split_whitespace().collect();
            words.first() == Some(&on_v1) && words.last() == Some(&"1")
        });
        let unified = facts.cgroups_v2.split_whitespace().any(|c| c == controller);
        if unified || v1 && enabled {
            all.good(controller);
            continue;
        }
        match controller {
            "memory" => {
                let disabled = facts.cmdline.split_whitespace().any(|w| w == "cgroup_disable=memory");
                let advice = "add cgroup_enable=memory cgroup_memory=1 to the kernel's command line (on a Raspberry Pi in \
                              cmdline.txt): limits on memory are not enforced without";
                let why =
                    if disabled { "no memory controller (cgroup_disable=memory)" } else { "no memory controller" };
                all.bad(Verdict::Fail, why, advice);
            }
            "io" => {}
            _ => all.bad(
                Verdict::Warn,
                format!("no {controller} controller"),
                format!("enable the {controller} controller in the kernel: its limits are not enforced without"),
            ),
        }
    }
    all.check("cgroups", "limits of containers are enforced with these", "")
}

fn rights(facts: &Facts) -> Check {
    match &facts.rights {
        None => Check::new("rights", Verdict::Ok, "containers can be run", "everything works with these rights"),
        Some(why) => {
            let advice = "run as root, with all capabilities, to look at everything and to run containers";
            Check::new("rights", Verdict::Warn, why.clone(), advice)
        }
    }
}

fn entropy(facts: &Facts) -> Check {
    let purpose = "keys and TLS need random numbers";
    match facts.entropy {
        None => Check::new("entropy", Verdict::Skip, "the kernel does not tell", purpose),
        Some(bits) if bits < 128 => {
            let advice =
                "enable the hardware's random number generator (CONFIG_HW_RANDOM): TLS waits for random numbers";
            Check::new("entropy", Verdict::Warn, format!("{bits} bits"), advice)
        }
        Some(bits) => Check::new("entropy", Verdict::Ok, format!("{bits} bits"), purpose),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            release: "6.1.21-v8+".into(),
            namespaces: ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"].map(str::to_owned).to_vec(),
            filesystems: "nodev\toverlay\n\text4\n".into(),
            seccomp: "kill_process errno allow".into(),
            mounts: "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n".into(),
            cgroups_v2: "cpuset cpu io memory pids".into(),
            config: "CONFIG_NF_TABLES=m\nCONFIG_BRIDGE=y\nCONFIG_VETH=y\n".into(),
            modules: "kernel/net/netfilter/nf_tables.ko.xz: kernel/net/netfilter/nfnetlink.ko.xz\n".into(),
            entropy: Some(256),
            user_namespaces: Some(1),
            ..Facts::default()
        }
    }

    fn verdict(change: impl FnOnce(&mut Facts), name: &str) -> (Verdict, String) {
        let mut facts = good();
        change(&mut facts);
        let check = checks(&facts).into_iter().find(|c| c.name == name).unwrap();
        (check.verdict, check.found + " / " + &check.advice)
    }

    #[test]
    fn a_good_kernel_is_good() {
        for check in checks(&good()) {
            assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        type Change = fn(&mut Facts);
        let cases: [(Change, &str, Verdict, &str); 10] = [
            (|f| f.release = "4.19.0".into(), "kernel", Verdict::Fail, "5.4"),
            (|f| f.release = "5.10.103".into(), "kernel", Verdict::Warn, "5.12"),
            (|f| f.namespaces.retain(|n| n != "net"), "kernel features", Verdict::Fail, "no net namespaces"),
            (|f| f.filesystems.clear(), "kernel features", Verdict::Fail, "no overlayfs"),
            (|f| f.seccomp.clear(), "kernel features", Verdict::Warn, "seccomp"),
            (|f| f.modules.clear(), "pod network", Verdict::Warn, "no nf_tables"),
            (|f| f.cgroups_v2 = "cpu io pids".into(), "cgroups", Verdict::Fail, "cgroup_enable=memory"),
            (|f| f.mounts.clear(), "cgroups", Verdict::Fail, "no cgroup file system"),
            (|f| f.rights = Some("not root".into()), "rights", Verdict::Warn, "not root"),
            (|f| f.entropy = Some(3), "entropy", Verdict::Warn, "3 bits"),
        ];
        for (change, name, expected, words) in cases {
            let (verdict, text) = verdict(change, name);
            assert!(verdict == expected && text.contains(words), "{name}: {verdict:?} {text}");
        }
    }

    /// Version 1, as Raspberry Pi OS boots with its memory controller off.
    #[test]
    fn a_controller_that_was_turned_off_is_told_with_its_word() {
        let (verdict, text) = verdict(
            |f| {
                f.mounts = "1 2 0:1 / /a rw - cgroup cgroup rw,cpu\n1 2 0:1 / /b rw - cgroup cgroup rw,pids\n".into();
                f.cgroups_v2.clear();
                f.cgroups_v1 = "cpu 1 2 1\npids 2 2 1\nmemory 0 1 0\n".into();
                f.cmdline = "console=ttyS0 cgroup_disable=memory".into();
            },
            "cgroups",
        );
        assert!(verdict == Verdict::Fail && text.contains("(cgroup_disable=memory)"), "{text}");
    }
}
