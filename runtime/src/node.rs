//! The Node object: what this gateway is, what it can hold, and whether it is well.

use std::path::Path;

use edge_model::{Key, Kind, Object};
use serde_json::{Value, json};

use crate::config::BoardFacts;
use crate::store::{Durability, Store, StoreError};
use crate::supervisor::{Context, Outcome, Units};

/// How often facts that change slowly (memory, disk) are looked at. The object is written only when a condition turns.
const LOOK: std::time::Duration = std::time::Duration::from_secs(60);

/// Less free space than this share of the state directory's file system is disk pressure, in percent.
const DISK_PRESSURE_PERCENT: u64 = 5;
/// Less available memory than this share is memory pressure, in percent.
const MEMORY_PRESSURE_PERCENT: u64 = 5;

/// A condition that a part of the runtime reports: a type, whether it holds, a reason word and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Such as `ContainersReady`.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word in upper camel case.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Facts {
    memory_total_kib: u64,
    memory_available_kib: u64,
    disk_total: u64,
    disk_free: u64,
}

/// Writes the Node object at the start and whenever a condition turns.
///
/// # Errors
/// The store refuses.
pub async fn run(
    node: &str,
    board: &BoardFacts,
    state_dir: &Path,
    fixed: &[Condition],
    units: &Units,
    store: &Store,
    context: Context,
) -> Outcome {
    let key = Key::new(Kind::Node, "", node);
    let mut object = Object::new(Kind::Node, "", node, json!({}));
    object.metadata.labels.insert("kubernetes.io/arch".into(), architecture().into());
    object.metadata.labels.insert("kubernetes.io/os".into(), "linux".into());
    object.metadata.labels.insert("kubernetes.io/hostname".into(), node.into());
    object.metadata.labels.insert("node-role.kubernetes.io/edge".into(), String::new());
    object.metadata.labels.insert("edge-runtime.io/board".into(), board.name.clone());
    let (object, _) = store.apply(object).await?;
    let mut changes = units.changes();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    context.ready();
    let mut last: Option<Vec<Condition>> = None;
    loop {
        let facts = Facts::look(state_dir);
        let conditions = conditions(&facts, fixed, units);
        if last.as_ref() != Some(&conditions) {
            let old = store.get(&key).map(|o| o.status().clone()).unwrap_or_default();
            let status = status(&facts, &conditions, board, &old);
            match store.set_status(&key, &object.metadata.uid, status, Durability::Lazy).await {
                // Somebody deleted the node: the next start makes it again.
                Ok(_) | Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
            last = Some(conditions);
        }
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = changes.changed() => {}
            () = context.stop.cancelled() => return Ok(()),
        }
    }
}

fn conditions(facts: &Facts, fixed: &[Condition], units: &Units) -> Vec<Condition> {
    let below = |free: u64, total: u64, percent: u64| total > 0 && free < total / 100 * percent;
    let pressure = |kind, holds: bool, good: &str, bad: &str| Condition {
        kind,
        holds,
        reason: if holds { bad.to_owned() } else { good.to_owned() },
        message: String::new(),
    };
    let unwell: Vec<String> = units
        .all()
        .iter()
        .filter(|u| !matches!(u.state, crate::supervisor::State::Running | crate::supervisor::State::Stopped))
        .map(|u| format!("{} is {}{}{}", u.name, u.state.name(), if u.reason.is_empty() { "" } else { ": " }, u.reason))
        .collect();
    let ready = Condition {
        kind: "Ready",
        holds: unwell.is_empty(),
        reason: if unwell.is_empty() { "RuntimeReady".to_owned() } else { "UnitsNotRunning".to_owned() },
        message: unwell.join("; "),
    };
    let memory = below(facts.memory_available_kib, facts.memory_total_kib, MEMORY_PRESSURE_PERCENT);
    let disk = below(facts.disk_free, facts.disk_total, DISK_PRESSURE_PERCENT);
    let mut all = vec![
        ready,
        pressure("MemoryPressure", memory, "MemorySufficient", "LittleMemoryLeft"),
        pressure("DiskPressure", disk, "DiskSufficient", "LittleDiskLeft"),
    ];
    all.extend(fixed.iter().cloned());
    all
}

fn status(facts: &Facts, conditions: &[Condition], board: &BoardFacts, old: &Value) -> Value {
    let now = edge_model::time::rfc3339(crate::clock::now_ms());
    let word = |holds: bool| if holds { "True" } else { "False" };
    let since = |c: &Condition| {
        let same = old["conditions"].as_array().and_then(|list| {
            list.iter()
                .find(|o| o["type"] == c.kind && o["status"] == word(c.holds))
                .map(|o| o["lastTransitionTime"].clone())
        });
        same.unwrap_or_else(|| json!(now))
    };
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|c| {
            json!({"type": c.kind, "status": word(c.holds), "reason": c.reason, "message": c.message,
                   "lastTransitionTime": since(c)})
        })
        .collect();
    let uname = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let host = uname.nodename().to_string_lossy().into_owned();
    json!({
        "capacity": {"cpu": cores.to_string(), "memory": format!("{}Ki", facts.memory_total_kib)},
        "conditions": conditions,
        "addresses": [{"type": "Hostname", "address": host}],
        "nodeInfo": {
            "architecture": architecture(),
            "operatingSystem": "linux",
            "kernelVersion": uname.release().to_string_lossy(),
            "osImage": os_image(),
            "containerRuntimeVersion": concat!("edge-runtime://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": concat!("edge-runtime-", env!("CARGO_PKG_VERSION")),
            "bootID": read("/proc/sys/kernel/random/boot_id").trim(),
            "machineID": read("/etc/machine-id").trim(),
            // Kubernetes' client libraries refuse a node without these two.
            "systemUUID": read("/etc/machine-id").trim(),
            "kubeProxyVersion": "",
        },
        "board": {"name": board.name, "description": board.description},
    })
}

/// Kubernetes' word for the processor.
pub const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn os_image() -> String {
    let text = read("/etc/os-release");
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    name.trim_matches('"').to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Facts {
    fn look(state_dir: &Path) -> Facts {
        let meminfo = read("/proc/meminfo");
        let kib = |name: &str| {
            let line = meminfo.lines().find_map(|l| l.strip_prefix(name));
            line.and_then(|l| l.trim_start_matches(':').split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let disk = rustix::fs::statvfs(state_dir).ok();
        Facts {
            memory_total_kib: kib("MemTotal"),
            memory_available_kib: kib("MemAvailable"),
            disk_total: disk.as_ref().map_or(0, |d| d.f_blocks * d.f_frsize),
            disk_free: disk.as_ref().map_or(0, |d| d.f_bavail * d.f_frsize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_left_is_pressure() {
        let units = Units::default();
        let full = Facts { memory_total_kib: 1000, memory_available_kib: 40, disk_total: 1000, disk_free: 900 };
        let held: Vec<_> = conditions(&full, &[], &units).into_iter().filter(|c| c.holds).map(|c| c.kind).collect();
        assert_eq!(held, ["Ready", "MemoryPressure"]);
        let none = conditions(&Facts::default(), &[], &units);
        assert!(none.iter().all(|c| c.holds == (c.kind == "Ready")), "unknown is no pressure: {none:?}");
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let facts = Facts::look(Path::new("/"));
        assert!(facts.memory_total_kib > 0 && facts.disk_total > 0, "{facts:?}");
    }
}
