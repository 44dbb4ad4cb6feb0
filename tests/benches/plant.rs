//! A plant: 100 TCP devices and a serial line with 20 units, every twentieth dead, slow, lying or garbling.
//!
//! `cargo bench -p edge-tests --bench plant [-- SECONDS]`; ten minutes is what counts, twenty seconds when nobody says it.
//! Healthy devices are libmodbus (TCP) and pymodbus (the line, over a pair of pseudo terminals). Said at the end: by how much
//! the slowest healthy device fell behind its period, whether every fault is seen for what it is, and the memory at the
//! beginning and the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_mappers::modbus::{Config, Modbus, Pauses};
use edge_mappers::{Link, Stats};
use edge_tests::hostile::hostile;
use edge_tests::line::Line;
use edge_tests::modbus::config;
use edge_tests::{libmodbus, pymodbus};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

/// The period of TCP devices and of units on the line, in milliseconds.
const PERIOD: (u64, u64) = (100, 1_000);
/// Time-out of every device, in milliseconds: what a dead unit may cost the line.
const TIMEOUT: u64 = 200;

/// What is seen of a device.
#[derive(Default)]
struct Seen {
    answers: u64,
    faults: Vec<String>,
    stats: Stats,
}

fn main() {
    let seconds = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(20);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(plant(Duration::from_secs(seconds)));
}

fn with_period(name: &str, link: Json, ms: u64) -> Config {
    let names: Vec<String> = (0..10).map(|i| format!("p{i}")).collect();
    let keys = |i: usize| json!({"register": "HoldingRegister", "offset": i * 3});
    let properties: Vec<(&str, &str, Json)> =
        names.iter().enumerate().map(|(i, name)| (name.as_str(), "INT", keys(i))).collect();
    let mut link = link;
    link["timeout"] = json!(TIMEOUT);
    let mut config = config(name, link, &properties);
    for register in &mut config.registers {
        register.period = Duration::from_millis(ms);
    }
    config
}

async fn plant(length: Duration) {
    let healthy = libmodbus::Server::start(None);
    let silent = pymodbus::Server::start(json!([{"unit": 1, "holding": [[0, vec![0; 40]]], "delay": 600_000}]));
    let (lying, _lies) = hostile(|_, t| [&[t[0], t[1], 0, 0], [0, 5, 1, 3, 2, 0, 9].as_slice()].concat()).await;
    let (garbling, _garbage) = hostile(|_, _| b"\xff\xfe garbage \x00\x01".to_vec()).await;
    let nobody = pymodbus::lasting_port();
    let line = Line::new();
    let units: Vec<Json> = (1..=20)
        .map(|unit| {
            let delay = if unit == 20 { 600_000 } else { 0 };
            json!({"unit": unit, "holding": [[0, vec![unit; 40]]], "delay": delay})
        })
        .collect();
    let _bus = pymodbus::Server::start_as(json!({"kind": "serial", "path": line.b()}), json!(units));
    let mut all = Vec::new();
    for i in 1..=100u16 {
        let (fault, port) = match i {
            20 => ("dead", nobody),
            40 => ("slow", silent.port),
            60 => ("lying", lying),
            80 => ("garbling", garbling),
            _ => ("healthy", healthy.port),
        };
        let link = json!({"ip": format!("127.0.0.{i}"), "port": port});
        let link = if fault == "healthy" { link } else { json!({"port": port}) };
        all.push(Arc::new(with_period(&format!("tcp-{i}-{fault}"), link, PERIOD.0)));
    }
    for unit in 1..=20 {
        let fault = if unit == 20 { "slow" } else { "healthy" };
        let link = json!({"serialPort": line.a(), "slaveID": unit});
        all.push(Arc::new(with_period(&format!("rtu-{unit}-{fault}"), link, PERIOD.1)));
    }
    let (out, mut batches) = mpsc::channel(64);
    let mut modbus = Modbus::new(out, || 0, Pauses::default());
    modbus.set(&all);
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    // The first second connects everything.
    let warm = Instant::now() + Duration::from_secs(1);
    let end = warm + length;
    let mut memory = 0;
    while Instant::now() < end {
        let Ok(batch) = tokio::time::timeout(Duration::from_secs(1), batches.recv()).await else { continue };
        let batch = batch.expect("the mapper runs");
        let one = seen.entry(batch.device.name.clone()).or_default();
        if Instant::now() < warm {
            one.stats = batch.stats;
            continue;
        }
        if memory == 0 {
            memory = resident();
        }
        match &batch.link {
            Link::Online if !batch.samples.is_empty() => one.answers += 1,
            Link::Online => {}
            Link::Offline(why) if !one.faults.contains(why) => one.faults.push(why.clone()),
            Link::Offline(_) => {}
        }
        one.stats = batch.stats;
    }
    modbus.shutdown().await;
    report(&seen, length, memory);
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn report(seen: &BTreeMap<String, Seen>, length: Duration, memory: u64) {
    println!(
        "100 TCP devices every {} ms, 20 units on a line every {} ms, for {} s:",
        PERIOD.0,
        PERIOD.1,
        length.as_secs()
    );
    for (kind, period) in [("tcp", PERIOD.0), ("rtu", PERIOD.1)] {
        let wanted = length.as_millis() as f64 / period as f64;
        let healthy = || seen.iter().filter(|(n, _)| n.starts_with(kind) && n.ends_with("healthy"));
        let slowest = healthy().min_by_key(|(_, s)| s.answers).expect("devices");
        let slip = (1.0 - slowest.1.answers as f64 / wanted).max(0.0) * 100.0;
        let faults = healthy().filter(|(_, s)| !s.faults.is_empty()).count();
        println!(
            "  {kind}: {} healthy, the slowest {} answers of {wanted:.0} ({slip:.1} % behind), {faults} ever offline",
            healthy().count(),
            slowest.1.answers,
        );
    }
    for (name, s) in seen.iter().filter(|(n, _)| !n.ends_with("healthy")) {
        let (requests, errors) = (s.stats.requests, s.stats.errors);
        println!("  {name}: {requests} requests, {errors} errors, {}", s.faults.join("; "));
    }
    println!("  memory: {} KiB in the beginning, {} KiB in the end", memory, resident());
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
