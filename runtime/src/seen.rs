//! What is seen of the node from outside: sections of `status`, figures, readiness, and signs of life.

use std::path::Path;
use std::sync::Arc;

use edge_model::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::api::Backends;
use crate::api::backend::{BackendError, Item, LogLevel, Section};
use crate::bus::Bus;
use crate::cloud::{Link, LinkState};
use crate::disk::Health;
use crate::liveness::Probe;
use crate::queue::{self, Queue};
use crate::store::Store;
use crate::supervisor::{State, UnitStatus, Units};
use crate::telemetry::log::{self, Levels};
use crate::telemetry::metrics::{Exposition, Registry, Shape};

/// Everything behind the API.
pub fn backends(units: &Units, store: &Store, bus: &Bus, queue: &Queue, link: &Link) -> Backends {
    let metrics = Registry::default();
    metrics.add({
        let units = units.clone();
        move |e| unit_figures(e, &units.all())
    });
    metrics.add({
        let bus = bus.clone();
        move |e| bus_figures(e, &bus)
    });
    metrics.add({
        let queue = queue.clone();
        move |e| queue_figures(e, &queue.stats())
    });
    metrics.add({
        let link = link.clone();
        move |e| link_figures(e, &link)
    });
    metrics.add(process_figures);
    let section = {
        let units = units.clone();
        Arc::new(move || units.all().iter().map(unit_item).collect())
    };
    let ready = {
        let (units, store, queue) = (units.clone(), store.clone(), queue.clone());
        Arc::new(move || {
            if !units.settled() {
                return Err(line(&units));
            }
            let troubles = databases(&store, &queue).filter_map(|(name, health)| Some((name, health.trouble()?)));
            let troubles: Vec<String> = troubles.map(|(name, trouble)| format!("{name}: {trouble}")).collect();
            if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
        })
    };
    metrics.add({
        let (store, queue) = (store.clone(), queue.clone());
        move |e| {
            for (name, health) in databases(&store, &queue) {
                let well = f64::from(u8::from(health.trouble().is_none()));
                let help = "Whether a database takes what is written to it.";
                e.sample(Shape::Gauge, "edge_disk_writes_succeed", help, &[("database", name)], well);
            }
        }
    });
    Backends {
        log_level: Some(Arc::new(Live)),
        status: vec![
            ("units", section),
            ("disk", disk_section(store, queue)),
            ("queue", queue_section(queue)),
            ("link", link_section(link)),
        ],
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

/// The two databases, and how their commits go.
fn databases(store: &Store, queue: &Queue) -> impl Iterator<Item = (&'static str, Health)> {
    [("store", store.health()), ("queue", queue.health())].into_iter()
}

/// The section `disk` of the status.
fn disk_section(store: &Store, queue: &Queue) -> Section {
    let (store, queue) = (store.clone(), queue.clone());
    Arc::new(move || {
        let item = |(name, health): (&'static str, Health)| match health.trouble() {
            None => Item::well(name, "writing"),
            Some(trouble) => Item::unwell(name, "failing", trouble),
        };
        databases(&store, &queue).map(item).collect()
    })
}

/// The section `queue` of the status.
fn queue_section(queue: &Queue) -> Section {
    let queue = queue.clone();
    Arc::new(move || {
        let stats = queue.stats();
        let items = stats.streams.iter().map(|(stream, s)| {
            let lost = s.dropped.total();
            let item = match (stats.failing, lost) {
                (true, _) => Item::unwell(stream.name(), "failing", "the last write to disk failed"),
                (false, 0) => Item::well(stream.name(), if s.queued == 0 { "empty" } else { "waiting" }),
                (false, _) => Item::unwell(stream.name(), "dropping", format!("{lost} messages were dropped")),
            };
            item.with("queued", s.queued).with("bytes", s.stored_bytes).with("dropped", lost).with("acked", s.acked)
        });
        items.collect()
    })
}

/// The section `link` of the status.
fn link_section(link: &Link) -> Section {
    let link = link.clone();
    Arc::new(move || {
        let time = edge_model::time::rfc3339;
        let item = match link.state() {
            LinkState::Disabled => Item::well("cloud", "disabled"),
            LinkState::Online { since_ms } => match link.left_out() {
                None => Item::well("cloud", "online"),
                Some(which) => Item::unwell("cloud", "online", format!("left out: {which}")),
            }
            .with("since", time(since_ms)),
            LinkState::Connecting { reason } if reason.is_empty() => Item::well("cloud", "connecting"),
            LinkState::Connecting { reason } => Item::unwell("cloud", "connecting", reason),
            LinkState::Offline { since_ms, reason, next_try_ms } => Item::unwell("cloud", "offline", reason)
                .with("since", time(since_ms))
                .with("nextTry", time(next_try_ms)),
        };
        let stats = link.stats();
        let item = item.with("sent", stats.sent_total).with("acknowledged", stats.acked_total);
        vec![item.with("oversize", stats.oversize_total)]
    })
}

fn link_figures(e: &mut Exposition, link: &Link) {
    let stats = link.stats();
    let online = matches!(link.state(), LinkState::Online { .. });
    e.gauge("edge_cloud_online", "Whether the cloud can be reached.", f64::from(u8::from(online)));
    for (name, help, value) in [
        ("edge_cloud_sent_total", "Messages handed to the cloud, repeats included.", stats.sent_total),
        ("edge_cloud_resent_total", "Of these, the ones that had been sent before.", stats.resent_total),
        ("edge_cloud_acknowledged_total", "Messages the cloud has acknowledged.", stats.acked_total),
        ("edge_cloud_oversize_total", "Messages left out because they were too large.", stats.oversize_total),
        ("edge_cloud_connects_total", "Connections that were accepted.", stats.connects_total),
        ("edge_cloud_failures_total", "Connections that failed or were lost.", stats.failures_total),
        ("edge_cloud_commands_total", "Commands received.", stats.commands_total),
        ("edge_cloud_repeated_commands_total", "Commands received again.", stats.repeated_commands_total),
    ] {
        e.counter(name, help, value);
    }
}

fn queue_figures(e: &mut Exposition, stats: &queue::Stats) {
    let mut each = |shape, name: &str, help: &str, value: fn(&queue::StreamStats) -> u64| {
        for (stream, s) in stats.streams.iter() {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only doubles")]
            e.sample(shape, name, help, &[("stream", stream.name())], value(s) as f64);
        }
    };
    each(Shape::Gauge, "edge_queue_messages", "Messages that wait for the cloud.", |s| s.queued);
    each(Shape::Gauge, "edge_queue_stored_bytes", "What they take on disk, packed.", |s| s.stored_bytes);
    each(Shape::Counter, "edge_queue_pushed_total", "Sequence numbers given out.", |s| s.last);
    each(Shape::Counter, "edge_queue_acknowledged_total", "The highest number the cloud has acknowledged.", |s| {
        s.acked
    });
    each(Shape::Counter, "edge_queue_dropped_total", "Messages that were given up.", |s| s.dropped.total());
    each(Shape::Counter, "edge_queue_refused_total", "Pushes refused because the stream was full.", |s| s.refused);
    e.counter("edge_queue_commits_total", "Commits to disk.", stats.commits);
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only doubles")]
    e.gauge("edge_queue_disk_bytes", "The size of the queue's file.", stats.disk_bytes as f64);
}

fn bus_figures(e: &mut Exposition, bus: &Bus) {
    let stats = bus.stats();
    let gauge = |n: usize| u32::try_from(n).map_or(f64::INFINITY, f64::from);
    e.gauge("edge_bus_clients", "MQTT clients that are connected.", gauge(stats.connections));
    e.gauge("edge_bus_sessions", "MQTT sessions, also of clients that are away.", gauge(stats.sessions));
    e.gauge("edge_bus_subscriptions", "Subscriptions of all clients.", gauge(stats.subscriptions));
    e.counter(
        "edge_bus_messages_in_total",
        "Messages published, by clients and by the runtime.",
        stats.messages_in_total,
    );
    e.counter("edge_bus_messages_out_total", "Messages delivered.", stats.messages_out_total);
    for (who, n) in [
        ("client", stats.dropped_client_total),
        ("runtime", stats.dropped_inbox_total),
        ("retained", stats.dropped_retained_total),
    ] {
        let help = "Messages dropped because their receiver was too slow, or because too many were retained.";
        #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only doubles")]
        e.sample(Shape::Counter, "edge_bus_dropped_total", help, &[("receiver", who)], n as f64);
    }
    e.counter("edge_bus_uploads_total", "Messages that clients had brought to the cloud.", stats.uploads_total);
    e.counter("edge_bus_uploads_refused_total", "Uploads that were not acknowledged.", stats.uploads_refused_total);
    e.counter("edge_bus_refused_total", "Clients that were refused.", stats.refused_total);
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

/// Asks the store, the queue, the bus and the API for a sign of life. A disk that refuses answers, and is told in the status;
/// only one that does not answer any more is no sign of life.
pub fn probes(store: &Store, queue: &Queue, bus: &Bus, socket: &Path) -> Vec<Probe> {
    let (store, queue, bus, socket) = (store.clone(), queue.clone(), bus.clone(), socket.to_owned());
    vec![
        Probe::new("store", move || {
            let store = store.clone();
            async move {
                // Takes the store's lock: a writer that holds it for good is found here.
                let _ = store.list(Kind::Node, None);
                store.health().is_alive()
            }
        }),
        Probe::new("queue", move || {
            let queue = queue.clone();
            async move { queue.health().is_alive() }
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
