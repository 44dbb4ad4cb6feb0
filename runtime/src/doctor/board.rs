//! The board: whether it is the one that was named, and whether its parts are where its file says.

use std::path::{Path, PathBuf};

use super::{Check, Findings, Verdict};
use crate::config::board::{self, Hardware};
use crate::config::{Config, Merged, Value};
use crate::update::manifest::own_target;

/// A device file: its path, and why it cannot be opened (nothing when it can).
pub type Device = (PathBuf, Option<String>);

/// What was looked at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The board that was asked for: a name or `auto`.
    pub asked: String,
    /// The board that is configured.
    pub name: String,
    /// Its target triple.
    pub target: String,
    /// Its `compatible` strings.
    pub compatible: Vec<String>,
    /// Its DMI products.
    pub products: Vec<String>,
    /// What the hardware says it is.
    pub hardware: Hardware,
    /// The board that fits the hardware best.
    pub detected: String,
    /// The target triple of this program.
    pub own_target: String,
    /// `memory.class`.
    pub class: String,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// The serial ports.
    pub serial: Vec<Device>,
    /// The Bluetooth adapter that is named, whether it is there, and whether bluetoothd runs.
    pub bluetooth: Option<(String, bool, bool)>,
    /// The watchdog's device, and whether it is ours to feed.
    pub watchdog: Option<Device>,
    /// Whether the runtime shall feed it.
    pub feeds: bool,
}

impl Facts {
    /// Looks at this machine.
    pub fn look(asked: &str, config: &Config, merged: &Merged) -> Facts {
        let value = |key: &str| merged.get(key).map(|(value, _)| value.clone());
        let list = |key| match value(key) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        };
        let text = |key| match value(key) {
            Some(Value::Text(text)) => text,
            _ => String::new(),
        };
        let hardware = Hardware::read(Path::new("/"));
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
        let open =
            |path: &Path| match rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK) {
                Ok(()) => None,
                Err(errno) => Some(std::io::Error::from(errno).to_string()),
            };
        let adapter = |name: &String| {
            let there = Path::new("/sys/class/bluetooth").join(name).exists();
            (name.clone(), there, is_running("bluetoothd"))
        };
        let watchdog = text("watchdog.device");
        Facts {
            asked: asked.to_owned(),
            name: config.board.name.clone(),
            target: config.board.target.clone(),
            compatible: list("board.compatible"),
            products: list("board.dmi-products"),
            detected: board::detect(&hardware).name.to_owned(),
            hardware,
            own_target: own_target().to_owned(),
            class: text("memory.class"),
            memory_kib: memory.and_then(|m| m.split_whitespace().next()?.parse().ok()).unwrap_or(0),
            serial: config.board.serial.iter().map(|port| (port.device.clone(), open(&port.device))).collect(),
            bluetooth: config.board.bluetooth.as_ref().map(adapter),
            // Opening it would start it: only its rights are looked at.
            watchdog: (!watchdog.is_empty()).then(|| (PathBuf::from(&watchdog), open(Path::new(&watchdog)))),
            feeds: config.watchdog.device.is_some(),
        }
    }
}

impl Facts {
    /// Whether the board's file is of no board in particular: what it names is what such machines often have.
    fn is_generic(&self) -> bool {
        self.compatible.is_empty() && self.products.is_empty()
    }
}

/// Whether a process of this name runs.
fn is_running(name: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let comm = |path: PathBuf| std::fs::read_to_string(path.join("comm")).unwrap_or_default();
    processes.filter(|e| e.file_name().to_string_lossy().parse::<i32>().is_ok()).any(|e| comm(e.path()).trim() == name)
}

/// All checks of the board.
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![matches(facts), memory(facts), serial(facts), bluetooth(facts), watchdog(facts)]
}

fn matches(facts: &Facts) -> Check {
    let (name, says) = (&facts.name, &facts.hardware);
    let told = match (says.compatible.first(), says.product.as_str()) {
        (Some(tree), _) => tree.clone(),
        (None, "") => "the hardware does not say what it is".to_owned(),
        (None, product) => product.to_owned(),
    };
    let found = format!("{name} ({told})");
    // Vendors leave the target open; what decides is the processor.
    let processor = |triple: &str| triple.split('-').next().unwrap_or_default().to_owned();
    if !facts.target.is_empty() && processor(&facts.target) != processor(&facts.own_target) {
        let advice = format!("start with --board auto, or --board {}: {name} has another processor", facts.detected);
        return Check::new("board", Verdict::Fail, found, advice);
    }
    let generic = facts.is_generic();
    let fits = says.compatible.iter().any(|c| facts.compatible.contains(c)) || facts.products.contains(&says.product);
    let silent = says.compatible.is_empty() && says.product.is_empty();
    if facts.asked == "auto" || fits {
        return Check::new("board", Verdict::Ok, found, "ports, watchdog and limits follow from it");
    }
    if generic && facts.detected == *name || silent {
        return Check::new("board", Verdict::Ok, found, "ports, watchdog and limits follow from it");
    }
    let advice = format!("start with --board auto, or --board {}, which fits this hardware", facts.detected);
    // A generic board works everywhere, without what the right one knows.
    Check::new("board", if generic { Verdict::Warn } else { Verdict::Fail }, found, advice)
}

fn memory(facts: &Facts) -> Check {
    const MIB: u64 = 1024;
    let found = format!("{} MiB, class {}", facts.memory_kib / MIB, facts.class);
    // The kernel keeps some for itself: a board of 2 GB shows 1.8.
    let (least, most) = match facts.class.as_str() {
        "small" => (0, 1536 * MIB),
        "large" => (1800 * MIB, u64::MAX),
        _ => (700 * MIB, u64::MAX),
    };
    if facts.memory_kib < least {
        let advice = "set memory.class to a smaller one: its limits are more than this memory holds";
        return Check::new("memory", Verdict::Warn, found, advice);
    }
    let advice = match facts.memory_kib > most {
        true => "memory.class may be larger here: more clients and a longer queue",
        false => "limits of clients and queue follow from the class",
    };
    Check::new("memory", Verdict::Ok, found, advice)
}

fn serial(facts: &Facts) -> Check {
    let mut all = Findings::default();
    for (path, trouble) in &facts.serial {
        let shown = path.display();
        match trouble {
            None => all.good(shown.to_string()),
            Some(why) if facts.is_generic() => {
                let advice = "name the ports this machine has in the configuration: [serial.NAME] device = \"/dev/…\"";
                all.bad(Verdict::Skip, format!("{shown}: {why}"), advice);
            }
            Some(why) => {
                let advice = "enable the port (device tree overlay, console off its line), join the group dialout, or correct \
                              serial.*.device";
                all.bad(Verdict::Warn, format!("{shown}: {why}"), advice);
            }
        }
    }
    all.check("serial ports", "devices on serial lines are reached there", "the board names none")
}

fn bluetooth(facts: &Facts) -> Check {
    let purpose = "Bluetooth devices are reached through it";
    match &facts.bluetooth {
        None => Check::new("bluetooth", Verdict::Skip, "the board has no adapter", purpose),
        Some((name, false, _)) if facts.is_generic() => {
            Check::new("bluetooth", Verdict::Skip, format!("{name} is not there"), purpose)
        }
        Some((name, false, _)) => {
            let advice =
                "enable the adapter (device tree, firmware, rfkill unblock bluetooth), or correct bluetooth.adapter";
            Check::new("bluetooth", Verdict::Warn, format!("{name} is not there"), advice)
        }
        Some((name, true, false)) => {
            let advice = "start bluetoothd (bluez): devices are reached through it";
            Check::new("bluetooth", Verdict::Warn, format!("{name}, bluetoothd does not run"), advice)
        }
        Some((name, true, true)) => Check::new("bluetooth", Verdict::Ok, name.clone(), purpose),
    }
}

fn watchdog(facts: &Facts) -> Check {
    match (&facts.watchdog, facts.feeds) {
        (None, _) => {
            let advice = "set watchdog.device if the board has one: it starts a machine again that hangs";
            Check::new("watchdog", Verdict::Skip, "the board names none", advice)
        }
        (Some((path, Some(why))), true) => {
            let advice = "load its driver, run as root, and let nobody else (systemd's RuntimeWatchdogSec) hold it";
            Check::new("watchdog", Verdict::Fail, format!("{}: {why}", path.display()), advice)
        }
        (Some((path, trouble)), false) => {
            let advice =
                "set watchdog.enabled, or systemd's RuntimeWatchdogSec, so that a machine that hangs starts again";
            let found =
                trouble.as_ref().map_or_else(|| path.display().to_string(), |w| format!("{}: {w}", path.display()));
            Check::new("watchdog", Verdict::Skip, format!("{found}; not fed by the runtime"), advice)
        }
        (Some((path, None)), true) => {
            Check::new("watchdog", Verdict::Ok, path.display().to_string(), "it starts a machine again that hangs")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pi() -> Facts {
        let tree = "raspberrypi,4-model-b".to_owned();
        Facts {
            asked: "rpi4".into(),
            name: "rpi4".into(),
            target: "aarch64-unknown-linux-gnu".into(),
            compatible: vec![tree.clone()],
            hardware: Hardware { compatible: vec![tree, "brcm,bcm2711".into()], product: String::new() },
            detected: "rpi4".into(),
            own_target: "aarch64-unknown-linux-gnu".into(),
            class: "medium".into(),
            memory_kib: 1900 << 10,
            serial: vec![("/dev/ttyS0".into(), None)],
            bluetooth: Some(("hci0".into(), true, true)),
            watchdog: Some(("/dev/watchdog0".into(), None)),
            feeds: true,
            ..Facts::default()
        }
    }

    #[test]
    fn the_right_board_is_right_and_others_are_told() {
        for check in checks(&pi()) {
            assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
        }
        type Change = fn(&mut Facts);
        let cases: [(Change, &str, Verdict); 14] = [
            (|f| f.own_target = "x86_64-unknown-linux-gnu".into(), "board", Verdict::Fail),
            (|f| f.hardware.compatible = vec!["raspberrypi,5-model-b".into()], "board", Verdict::Fail),
            (|f| f.hardware = Hardware::default(), "board", Verdict::Ok),
            (|f| f.compatible.clear(), "board", Verdict::Ok),
            (|f| (f.compatible, f.name) = (Vec::new(), "generic-arm64".into()), "board", Verdict::Warn),
            (|f| f.memory_kib = 480 << 10, "memory", Verdict::Warn),
            (|f| f.serial[0].1 = Some("not there".into()), "serial ports", Verdict::Warn),
            (|f| f.bluetooth = Some(("hci0".into(), false, true)), "bluetooth", Verdict::Warn),
            (|f| f.bluetooth = Some(("hci0".into(), true, false)), "bluetooth", Verdict::Warn),
            (
                |f| (f.bluetooth, f.compatible) = (Some(("hci0".into(), false, true)), vec![]),
                "bluetooth",
                Verdict::Skip,
            ),
            (|f| (f.serial[0].1, f.compatible) = (Some("not there".into()), vec![]), "serial ports", Verdict::Skip),
            (|f| f.watchdog = Some(("/w".into(), Some("denied".into()))), "watchdog", Verdict::Fail),
            (|f| f.feeds = false, "watchdog", Verdict::Skip),
            (|f| f.watchdog = None, "watchdog", Verdict::Skip),
        ];
        for (index, (change, name, expected)) in cases.into_iter().enumerate() {
            let mut facts = pi();
            change(&mut facts);
            let check = checks(&facts).into_iter().find(|c| c.name == name).unwrap();
            assert_eq!(check.verdict, expected, "{index}: {check:?}");
        }
    }
}
