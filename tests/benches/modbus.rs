//! Modbus values per second and processor time per value, beside libmodbus in C and pymodbus, in the same run.
//!
//! `cargo bench -p edge-tests --bench modbus`. The server is libmodbus' on core 1; each client has core 0 to itself and reads
//! 125 holding registers again and again, over one connection and over a hundred. The rounds alternate, and the best of each
//! counts. libmodbus gives an array of registers and asks one connection after the other; the mapper gives decoded, checked
//! samples with quality and time over its channel. Then what a plant needs: 30,000 values a second, the requests of scattered
//! properties, and how long a write takes while everything is polled.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_mappers::backoff::Backoff;
use edge_mappers::modbus::link::Link;
use edge_mappers::modbus::plan::Span;
use edge_mappers::modbus::{Config, Modbus, Pauses, resolve};
use edge_model::device::modbus::Table;
use edge_model::device::{Device, DeviceModel};
use edge_tests::field::{device, model, model_property, property};
use edge_tests::libmodbus::{Server, program};
use edge_tests::pymodbus;
use serde_json::json;
use tokio::sync::mpsc;

/// The length of one measurement.
const SECONDS: u64 = 2;
/// Measurements of each kind.
const ROUNDS: usize = 3;
/// Registers in one read: the most Modbus allows.
const REGISTERS: u16 = 125;
/// Writes whose time is taken.
const WRITES: usize = 2_000;

/// Reads done, and the processor time they took.
#[derive(Clone, Copy)]
struct Measured {
    reads: u64,
    cpu: f64,
}

fn main() {
    pin(0);
    let server = Server::start(Some(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for connections in [1u8, 100] {
        let (mut c, mut link, mut mapper, mut python) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            c.push(libmodbus(server.port, connections));
            if connections == 1 {
                link.push(runtime.block_on(only_link(server.port)));
            }
            mapper.push(runtime.block_on(whole_mapper(server.port, connections)));
            python.push(pymodbus(server.port, connections));
        }
        println!(
            "125 holding registers a read, connections: {connections}, client on core 0, server on core 1, best of {ROUNDS}:"
        );
        let rows = [
            ("libmodbus (C), registers", &c),
            ("link, registers", &link),
            ("mapper, samples", &mapper),
            ("pymodbus", &python),
        ];
        let best = |all: &[Measured]| all.iter().max_by_key(|m| m.reads).copied();
        let yardstick = best(&c).expect("rounds");
        for (name, m) in rows.into_iter().filter_map(|(name, all)| Some((name, best(all)?))) {
            row(name, m, yardstick);
        }
    }
    runtime.block_on(paced(server.port));
    let strewn = (0..30).map(|i| ("HoldingRegister", i * 8));
    let requests = runtime.block_on(scattered(server.port, strewn));
    println!("30 holding registers strewn over 240: {requests} requests a cycle (one by one: 30)");
    let strewn = (0..25).map(|i| ("HoldingRegister", i * 8)).chain((0..5).map(|i| ("InputRegister", i * 8)));
    let requests = runtime.block_on(scattered(server.port, strewn));
    println!("25 holding registers strewn over 200, 5 inputs over 40: {requests} requests a cycle (one by one: 30)");
    runtime.block_on(writes(server.port));
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn row(name: &str, m: Measured, yardstick: Measured) {
    let reads = m.reads as f64;
    println!(
        "  {name:26} {:8.0} reads/s  {:10.0} values/s  {:5.2} of libmodbus  {:7.1} ns CPU a value",
        reads / SECONDS as f64,
        reads / SECONDS as f64 * f64::from(REGISTERS),
        reads / yardstick.reads as f64,
        m.cpu * 1e9 / reads / f64::from(REGISTERS),
    );
}

fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("a core to run on");
}

/// The processor time of this process.
fn cpu() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let seconds = t.tv_sec as f64 + t.tv_nsec as f64 / 1e9;
    seconds
}

fn libmodbus(port: u16, connections: u8) -> Measured {
    let arguments = [port.into(), SECONDS, REGISTERS.into(), connections.into()].map(|n: u64| n.to_string());
    let output = Command::new(program()).arg("poll").args(arguments).output().expect("libmodbus runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace();
    let reads = words.next().and_then(|w| w.parse().ok()).expect("reads");
    let cpu = words.next().and_then(|w| w.parse().ok()).expect("seconds");
    Measured { reads, cpu }
}

fn pymodbus(port: u16, connections: u8) -> Measured {
    let numbers = [port.into(), SECONDS, REGISTERS.into(), connections.into()].map(|n: u64| n.to_string());
    let arguments: Vec<String> = std::iter::once("poll".to_owned()).chain(numbers).collect();
    let (reads, cpu) = serde_json::from_value(pymodbus::client(&arguments)).expect("numbers");
    Measured { reads, cpu }
}

/// A device of single holding registers (and inputs) at one of the loopback addresses, due so often.
fn config(port: u16, number: u8, period: Duration, points: impl Iterator<Item = (&'static str, u16)>) -> Config {
    let points: Vec<(String, &str, u16)> =
        points.enumerate().map(|(i, (table, offset))| (format!("p{i}"), table, offset)).collect();
    let in_model: Vec<_> = points
        .iter()
        .map(|(name, table, _)| {
            let access = if *table == "HoldingRegister" { "ReadWrite" } else { "ReadOnly" };
            model_property(name, "INT", access)
        })
        .collect();
    let in_device: Vec<_> = points
        .iter()
        .map(|(name, table, offset)| property(name, json!({"register": table, "offset": offset, "readBack": false})))
        .collect();
    let model = DeviceModel::parse(&model(&in_model)).expect("a model");
    let link = json!({"port": port, "ip": format!("127.0.0.{}", u16::from(number) + 1)});
    let device = Device::parse(&device("m", link, &in_device)).expect("a device");
    let mut config = resolve("default", &format!("d{number}"), &device, &model).expect("a config");
    for register in &mut config.registers {
        register.period = period;
    }
    config
}

fn all_holding() -> impl Iterator<Item = (&'static str, u16)> {
    (0..REGISTERS).map(|offset| ("HoldingRegister", offset))
}

/// Due all the time.
const ALWAYS: Duration = Duration::from_nanos(1);

/// One connection and its checks, without schedule, decoding and channel.
async fn only_link(port: u16) -> Measured {
    let config = config(port, 0, ALWAYS, [("HoldingRegister", 0)].into_iter());
    let pause = Duration::from_secs(1);
    let mut link = Link::new(config.endpoint.clone(), None, Backoff::new(pause, pause));
    let (start, before, mut reads) = (Instant::now(), cpu(), 0);
    while start.elapsed() < Duration::from_secs(SECONDS) {
        let span = Span { table: Table::Holding, address: 0, count: REGISTERS };
        link.read(&config, span).await.expect("an answer");
        reads += 1;
    }
    Measured { reads, cpu: cpu() - before }
}

/// The mapper as the runtime uses it.
async fn whole_mapper(port: u16, connections: u8) -> Measured {
    let all: Vec<_> = (0..connections).map(|n| Arc::new(config(port, n, ALWAYS, all_holding()))).collect();
    let (out, mut batches) = mpsc::channel(64);
    let mut modbus = Modbus::new(out, || 0, Pauses::default());
    modbus.set(&all);
    let (start, before, mut reads) = (Instant::now(), cpu(), 0);
    while start.elapsed() < Duration::from_secs(SECONDS) {
        let batch = batches.recv().await.expect("the mapper runs");
        assert_eq!(batch.samples.len(), usize::from(REGISTERS), "one request for all: {:?}", batch.link);
        reads += 1;
    }
    let after = cpu();
    modbus.shutdown().await;
    Measured { reads, cpu: after - before }
}

/// 100 devices with 30 values ten times a second: what that costs, and how many periods slip.
#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
async fn paced(port: u16) {
    let points = || (0..30).map(|i| ("HoldingRegister", i * 4));
    let all: Vec<_> = (0..100).map(|n| Arc::new(config(port, n, Duration::from_millis(100), points()))).collect();
    let (out, mut batches) = mpsc::channel(64);
    let mut modbus = Modbus::new(out, || 0, Pauses::default());
    modbus.set(&all);
    let (start, before, mut values) = (Instant::now(), cpu(), 0);
    let mut overruns = std::collections::HashMap::new();
    while start.elapsed() < Duration::from_secs(5) {
        let batch = batches.recv().await.expect("the mapper runs");
        values += batch.samples.len();
        overruns.insert(batch.device.name.clone(), batch.stats.overruns);
    }
    let (seconds, used) = (start.elapsed().as_secs_f64(), cpu() - before);
    modbus.shutdown().await;
    println!(
        "100 connections, 30 values each every 100 ms: {:.0} values/s on {:.1} % of a core, {} periods slipped",
        values as f64 / seconds,
        used / seconds * 100.0,
        overruns.values().sum::<u64>(),
    );
}

/// The requests of one cycle of scattered properties.
async fn scattered(port: u16, strewn: impl Iterator<Item = (&'static str, u16)>) -> u64 {
    let (out, mut batches) = mpsc::channel(64);
    let mut modbus = Modbus::new(out, || 0, Pauses::default());
    let config = config(port, 0, Duration::from_secs(3_600), strewn);
    let wanted = config.registers.len();
    modbus.set(&[Arc::new(config)]);
    let (mut points, mut requests) = (0, 0);
    while points < wanted {
        let batch = batches.recv().await.expect("the mapper runs");
        points += batch.samples.len();
        requests = batch.stats.requests;
    }
    modbus.shutdown().await;
    requests
}

/// From the command to the device's acknowledgement, while the same connection is polled without a pause.
async fn writes(port: u16) {
    let (out, mut batches) = mpsc::channel(64);
    let mut modbus = Modbus::new(out, || 0, Pauses::default());
    let config = Arc::new(config(port, 0, ALWAYS, all_holding()));
    modbus.set(&[Arc::clone(&config)]);
    let drain = tokio::spawn(async move { while batches.recv().await.is_some() {} });
    let writer = modbus.port(&config).expect("a port");
    let mut times = Vec::with_capacity(WRITES);
    for i in 0..WRITES {
        let start = Instant::now();
        writer.write("p7", json!(i % 1_000)).await.expect("it is written");
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[WRITES * share / 1000].as_micros();
    println!("a write while its connection is polled: p50 {} µs, p99 {} µs, p99.9 {} µs", at(500), at(990), at(999));
    modbus.shutdown().await;
    drop(modbus);
    drain.await.expect("ends");
}
