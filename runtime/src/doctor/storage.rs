//! Where the state lies: room, the kind of file system, wear of the flash, and what is written to it.

use std::path::{Path, PathBuf};

use super::{Check, Findings, Verdict};
use crate::cli::bytes;

/// Less free than that and the databases refuse to write, in bytes; see `disk::Settings`.
const LEAST: u64 = 16 << 20;
/// Less free than this share is little, in percent.
const LITTLE_PERCENT: u64 = 10;

/// What was looked at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The state directory, or the nearest folder above it that is there.
    pub path: PathBuf,
    /// The kind of its file system.
    pub kind: String,
    /// Its mount options.
    pub options: String,
    /// The block device, such as `mmcblk0`; empty when there is none.
    pub device: String,
    /// Its size and what is free, in bytes.
    pub space: Option<(u64, u64)>,
    /// The eMMC's own estimate of its wear (JEDEC 84-B51, `DEVICE_LIFE_TIME_EST`): two numbers, each in tenths.
    pub life_time: String,
    /// The eMMC's use of its spare blocks (`PRE_EOL_INFO`): 1 normal, 2 80 %, 3 90 %.
    pub pre_eol: String,
    /// `MMC` or `SD`.
    pub card: String,
    /// Bytes written to the device since the start of the machine, and seconds since then.
    pub written: Option<(u64, u64)>,
}

impl Facts {
    /// Looks at the file system of the state directory.
    pub fn look(state_dir: &Path) -> Facts {
        let path = state_dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).to_owned();
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let (kind, options, source, number) = mount(&mounts, &real).unwrap_or_default();
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        // A partition's folder lies in its disk's.
        let block = Path::new("/sys/dev/block").join(&number).canonicalize().ok();
        let disk = block.map(|b| if b.join("partition").exists() { b.parent().map(Path::to_owned) } else { Some(b) });
        let disk = disk.flatten().unwrap_or_default();
        let at = |name: &str| if disk.as_os_str().is_empty() { String::new() } else { read(disk.join(name)) };
        let sectors = at("stat").split_whitespace().nth(6).and_then(|n| n.parse::<u64>().ok());
        let uptime = read("/proc/uptime".into());
        let uptime = uptime.split('.').next().and_then(|s| s.parse::<u64>().ok());
        let name = disk.file_name().map(|n| n.to_string_lossy().into_owned());
        Facts {
            space: crate::disk::space_of(&path).ok().map(|s| (s.total, s.free)),
            path,
            kind,
            options,
            device: name.unwrap_or_else(|| if source.starts_with("/dev/") { source } else { String::new() }),
            life_time: at("device/life_time"),
            pre_eol: at("device/pre_eol_info"),
            card: at("device/type"),
            written: sectors.zip(uptime).map(|(s, t)| (s.saturating_mul(512), t)),
        }
    }
}

/// Kind, options, source and device number of the file system that a path lies on (proc_pid_mountinfo(5)).
fn mount(mounts: &str, path: &Path) -> Option<(String, String, String, String)> {
    let mut best: Option<(usize, (String, String, String, String))> = None;
    for line in mounts.lines() {
        let (left, right) = line.split_once(" - ")?;
        let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        let (Some(number), Some(point), Some(options)) = (left.get(2), left.get(4), left.get(5)) else { continue };
        let point = point.replace("\\040", " ");
        let depth = Path::new(&point).components().count();
        if path.starts_with(&point) && best.as_ref().is_none_or(|(d, _)| *d <= depth) {
            let word = |i: usize| right.get(i).map_or_else(String::new, |w| (*w).to_owned());
            let options = format!("{options},{}", word(2));
            best = Some((depth, (word(0), options, word(1), (*number).to_owned())));
        }
    }
    best.map(|(_, found)| found)
}

/// All checks of the storage.
pub fn checks(facts: &Facts, write_budget: u64) -> Vec<Check> {
    vec![storage(facts), wear(facts), budget(facts, write_budget)]
}

fn storage(facts: &Facts) -> Check {
    let mut all = Findings::default();
    let path = facts.path.display();
    let on = if facts.device.is_empty() { String::new() } else { format!(" on {}", facts.device) };
    all.good(format!("{path}: {}{on}", facts.kind));
    let has = |option: &str| facts.options.split(',').any(|o| o == option);
    match facts.space {
        None => all.bad(Verdict::Warn, format!("{path} does not tell its size"), "look at the disk with `df`"),
        Some((total, free)) => {
            let found = format!("{} of {} free", bytes(free), bytes(total));
            if free < LEAST {
                let advice = "make room, or move paths.state-dir to a larger disk: nothing can be written any more";
                all.bad(Verdict::Fail, found, advice);
            } else if free < total / 100 * LITTLE_PERCENT {
                all.bad(Verdict::Warn, found, "make room soon: remove images (`edge-runtime image rm`) or old files");
            } else {
                all.good(found);
            }
        }
    }
    if has("ro") {
        let advice = "mount it writable, or set paths.state-dir to where it can be written";
        all.bad(Verdict::Fail, format!("{path} is mounted read-only"), advice);
    }
    if matches!(facts.kind.as_str(), "tmpfs" | "ramfs") {
        let advice = "set paths.state-dir to a disk: what is in memory is lost at every power cut";
        all.bad(Verdict::Warn, format!("{path} is in memory ({})", facts.kind), advice);
    }
    if matches!(facts.kind.as_str(), "vfat" | "exfat" | "msdos" | "nfs" | "nfs4" | "cifs") {
        let advice = "use ext4, f2fs or btrfs: this kind keeps no rights, or loses files at a power cut";
        all.bad(Verdict::Warn, format!("{path} is {}", facts.kind), advice);
    }
    if has("noexec") {
        let advice = "mount it with exec: updates of the runtime are started from there";
        all.bad(Verdict::Warn, format!("{path} is mounted noexec"), advice);
    }
    all.check("storage", "objects, images and the queue to the cloud are kept there", "")
}

fn wear(facts: &Facts) -> Check {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let tenths = facts.life_time.split_whitespace().filter_map(number).max();
    let (Some(tenths), eol) = (tenths.filter(|t| *t > 0), number(&facts.pre_eol)) else {
        let found = match facts.card.as_str() {
            "SD" => "an SD card does not tell",
            _ => "the device does not tell",
        };
        return Check::new("storage wear", Verdict::Skip, found, "use eMMC or an industrial card for what must last");
    };
    let found = format!("{} to {} % of its life used", (tenths - 1) * 10, tenths * 10);
    let (verdict, advice) = match (tenths, eol) {
        (11.., _) | (_, Some(3..)) => (Verdict::Fail, "replace the device now: it has outlived what it was made for"),
        (9.., _) | (_, Some(2)) => (Verdict::Warn, "plan to replace the device: most of its life is used"),
        _ => (Verdict::Ok, "the flash has life left"),
    };
    Check::new("storage wear", verdict, found, advice)
}

fn budget(facts: &Facts, budget: u64) -> Check {
    /// The start of a machine writes more than its day.
    const TOO_SOON: u64 = 3600;
    const DAY: u64 = 86_400;
    let purpose = "what is written a day wears the flash; see flash.write-budget-mib-per-day";
    match facts.written {
        Some((written, seconds)) if seconds >= TOO_SOON => {
            let a_day = written / seconds * DAY;
            let found = format!("{} a day of {}", bytes(a_day), bytes(budget));
            match a_day > budget {
                true => {
                    Check::new("write budget", Verdict::Warn, found, "find what writes (`iotop`, journald's Storage=)")
                }
                false => Check::new("write budget", Verdict::Ok, found, purpose),
            }
        }
        Some(_) => Check::new("write budget", Verdict::Skip, "the machine has run for less than an hour", purpose),
        None => Check::new("write budget", Verdict::Skip, "no block device tells what is written", purpose),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            path: "/var/lib".into(),
            kind: "ext4".into(),
            options: "rw,noatime".into(),
            device: "mmcblk0".into(),
            space: Some((1 << 30, 1 << 29)),
            life_time: "0x01 0x02".into(),
            pre_eol: "0x01".into(),
            card: "MMC".into(),
            written: Some((100 << 20, 86_400)),
        }
    }

    #[test]
    fn what_is_not_right_is_named() {
        type Change = fn(&mut Facts);
        let cases: [(Change, &str, Verdict); 14] = [
            (|_| (), "storage", Verdict::Ok),
            (|_| (), "storage wear", Verdict::Ok),
            (|_| (), "write budget", Verdict::Ok),
            (|f| f.space = Some((1 << 30, 1 << 20)), "storage", Verdict::Fail),
            (|f| f.space = Some((1 << 30, 50 << 20)), "storage", Verdict::Warn),
            (|f| f.options = "ro,noatime".into(), "storage", Verdict::Fail),
            (|f| f.kind = "tmpfs".into(), "storage", Verdict::Warn),
            (|f| f.options = "rw,noexec".into(), "storage", Verdict::Warn),
            (|f| f.life_time = "0x0a 0x01".into(), "storage wear", Verdict::Warn),
            (|f| f.life_time = "0x0b 0x01".into(), "storage wear", Verdict::Fail),
            (|f| f.pre_eol = "0x03".into(), "storage wear", Verdict::Fail),
            (|f| f.life_time = String::new(), "storage wear", Verdict::Skip),
            (|f| f.written = Some((100 << 30, 86_400)), "write budget", Verdict::Warn),
            (|f| f.written = Some((100 << 30, 60)), "write budget", Verdict::Skip),
        ];
        for (index, (change, name, expected)) in cases.into_iter().enumerate() {
            let mut facts = good();
            change(&mut facts);
            let check = checks(&facts, 1 << 30).into_iter().find(|c| c.name == name).unwrap();
            assert_eq!(check.verdict, expected, "{index}: {check:?}");
        }
    }

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "21 1 179:2 / / ro - ext4 /dev/root ro\n\
                      25 21 179:3 / /var/lib rw,noatime shared:1 - f2fs /dev/mmcblk0p3 rw\n\
                      26 21 0:5 / /var/lib2 rw - tmpfs tmpfs rw\n";
        let (kind, options, source, number) = mount(mounts, Path::new("/var/lib/edge-runtime")).unwrap();
        assert_eq!((kind.as_str(), source.as_str(), number.as_str()), ("f2fs", "/dev/mmcblk0p3", "179:3"));
        assert!(options.split(',').any(|o| o == "rw"));
        assert!(Facts::look(Path::new("/nowhere/at/all")).space.is_some());
    }
}
