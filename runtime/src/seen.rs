//! What is seen of the node from outside: sections of `status`, figures, readiness, and signs of life.

use std::path::Path;
use std::sync::Arc;

use edge_model::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::api::Backends;
use crate::api::backend::{BackendError, Item, LogLevel};
use crate::bus::Bus;
use crate::liveness::Probe;
use crate::queue::Queue;
use crate::store::Store;
use crate::supervisor::{State, UnitStatus, Units};
use crate::telemetry::log::{self, Levels};
use crate::telemetry::metrics::{Exposition, Registry, Shape};

/// Everything behind the API.
pub fn backends(units: &Units, bus: &Bus, queue: &Queue) -> Backends {
    let _ = queue;
    let metrics = Registry::default();
    metrics.add({
        let units = units.clone();
        move |e| unit_figures(e, &units.all())
    });
    metrics.add({
        let bus = bus.clone();
        move |e| bus_figures(e, &bus)
    });
    metrics.add(process_figures);
    let section = {
        let units = units.clone();
        Arc::new(move || units.all().iter().map(unit_item).collect())
    };
    let ready = {
        let units = units.clone();
        Arc::new(move || if units.settled() { Ok(()) } else { Err(line(&units)) })
    };
    Backends {
        log_level: Some(Arc::new(Live)),
        status: vec![("units", section)],
        ready: Some(ready),
        metrics,
        ..Backends::default()
    }
}

fn unit_item(unit: &UnitStatus) -> Item {
    let item = match unit.state {
        State::Running | State::Stopped => Item::well(unit.name, unit.state.name()),
        _ => Item::unwell(unit.name, unit.state.name(), unit.reason.clone()),
    };
    item.with("restarts", unit.restarts)
}

fn unit_figures(e: &mut Exposition, units: &[UnitStatus]) {
    for unit in units {
        let up = f64::from(u8::from(unit.state == State::Running));
        e.sample(Shape::Gauge, "edge_unit_up", "Whether a unit is at work.", &[("unit", unit.name)], up);
    }
    for unit in units {
        let help = "How often a unit was started again.";
        #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only doubles")]
        e.sample(Shape::Counter, "edge_unit_restarts_total", help, &[("unit", unit.name)], unit.restarts as f64);
    }
}

fn bus_figures(e: &mut Exposition, bus: &Bus) {
    let _ = bus.stats();
    let _ = e;
}

/// What the process uses, from `/proc/self` (proc(5)).
fn process_figures(e: &mut Exposition) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let number = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only doubles")]
    let resident = (number(&status, "VmRSS:") << 10) as f64;
    e.gauge("edge_process_resident_memory_bytes", "Resident memory of the runtime itself.", resident);
    e.gauge(
        "edge_process_threads",
        "Threads of the runtime.",
        f64::from(u32::try_from(number(&status, "Threads:")).unwrap_or(0)),
    );
    e.counter(
        "edge_process_disk_written_bytes_total",
        "Bytes the runtime has sent to disks.",
        number(&io, "write_bytes:"),
    );
}

/// The units in a line, for `systemctl status`.
pub fn line(units: &Units) -> String {
    let all = units.all();
    let unwell: Vec<String> = all
        .iter()
        .filter(|u| !matches!(u.state, State::Running | State::Stopped))
        .map(|u| match u.reason.as_str() {
            "" => format!("{} {}", u.name, u.state.name()),
            reason => format!("{} {}: {reason}", u.name, u.state.name()),
        })
        .collect();
    if unwell.is_empty() { format!("{} units at work", all.len()) } else { unwell.join("; ") }
}

/// Log levels, live.
struct Live;

impl LogLevel for Live {
    fn get(&self) -> String {
        log::current()
    }

    fn set(&self, directives: &str) -> Result<(), BackendError> {
        log::set(Levels::parse(directives).map_err(BackendError::Invalid)?);
        Ok(())
    }
}

/// Asks the store, the bus and the API for a sign of life.
pub fn probes(store: &Store, bus: &Bus, socket: &Path) -> Vec<Probe> {
    let (store, bus, socket) = (store.clone(), bus.clone(), socket.to_owned());
    vec![
        Probe::new("store", move || {
            let store = store.clone();
            async move {
                // Takes the store's lock: a writer that holds it for good is found here.
                let _ = store.list(Kind::Node, None);
                true
            }
        }),
        Probe::new("bus", move || {
            let bus = bus.clone();
            async move {
                let _ = bus.stats();
                true
            }
        }),
        Probe::new("api", move || {
            let socket = socket.clone();
            async move { healthy(&socket).await.unwrap_or(false) }
        }),
    ]
}

/// Whether `/healthz` answers 200 over the socket, as a client would see it.
async fn healthy(socket: &Path) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    Ok(head == *b"HTTP/1.1 200")
}
