//! Modbus values per second on one core, beside libmodbus in C, in the same run.
//!
//! `cargo bench -p edge-tests --bench modbus`. The server is libmodbus' on core 1; each client has core 0 to itself and one
//! connection, and reads 125 holding registers again and again. The rounds alternate, and the best of each counts. libmodbus
//! gives an array of registers; the mapper gives decoded, checked samples with quality and time over its channel.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_mappers::backoff::Backoff;
use edge_mappers::modbus::Pauses;
use edge_mappers::modbus::link::Link;
use edge_mappers::modbus::plan::Span;
use edge_mappers::modbus::{Config, Modbus, resolve};
use edge_model::device::modbus::Table;
use edge_model::device::{Device, DeviceModel};
use edge_tests::field::{device, model, model_property, property};
use edge_tests::libmodbus::{Server, program};
use serde_json::json;
use tokio::sync::mpsc;

/// The length of one measurement.
const SECONDS: u64 = 2;
/// Measurements of each kind.
const ROUNDS: usize = 3;
/// Registers in one read: the most Modbus allows.
const REGISTERS: u16 = 125;

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
    let (mut c, mut link, mut mapper) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        c.push(libmodbus(server.port));
        link.push(runtime.block_on(only_link(server.port)));
        mapper.push(runtime.block_on(whole_mapper(server.port)));
    }
    println!("125 holding registers a read, one connection, client on core 0, server on core 1, best of {ROUNDS}:");
    let best = |all: &[Measured]| *all.iter().max_by_key(|m| m.reads).expect("rounds");
    let yardstick = best(&c);
    for (name, all) in [("libmodbus (C), registers", &c), ("link, registers", &link), ("mapper, samples", &mapper)] {
        let m = best(all);
        #[expect(clippy::cast_precision_loss, reason = "numbers for people")]
        let (per_second, ratio, cpu) =
            (m.reads as f64 / SECONDS as f64, m.reads as f64 / yardstick.reads as f64, m.cpu * 1e6 / m.reads as f64);
        println!(
            "  {name:26} {per_second:8.0} reads/s  {:10.0} values/s  {ratio:5.2} of libmodbus  {cpu:6.2} µs CPU a read",
            per_second * f64::from(REGISTERS)
        );
    }
    let requests = runtime.block_on(scattered(server.port));
    println!("30 properties strewn over 200 registers and 32 inputs: {requests} requests a cycle (one by one: 30)");
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

fn libmodbus(port: u16) -> Measured {
    let arguments = ["poll".to_owned(), port.to_string(), SECONDS.to_string(), REGISTERS.to_string()];
    let output = Command::new(program()).args(arguments).output().expect("libmodbus runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace();
    let reads = words.next().and_then(|w| w.parse().ok()).expect("reads");
    let cpu = words.next().and_then(|w| w.parse().ok()).expect("seconds");
    Measured { reads, cpu }
}

/// A device of single holding registers (and inputs), due all the time.
fn config(port: u16, points: impl Iterator<Item = (&'static str, u16)>) -> Config {
    let points: Vec<(String, &str, u16)> =
        points.enumerate().map(|(i, (table, offset))| (format!("p{i}"), table, offset)).collect();
    let in_model: Vec<_> = points.iter().map(|(name, ..)| model_property(name, "INT", "ReadOnly")).collect();
    let in_device: Vec<_> = points
        .iter()
        .map(|(name, table, offset)| property(name, json!({"register": table, "offset": offset})))
        .collect();
    let model = DeviceModel::parse(&model(&in_model)).expect("a model");
    let device = Device::parse(&device("m", json!({"port": port}), &in_device)).expect("a device");
    let mut config = resolve("default", "d", &device, &model).expect("a config");
    for register in &mut config.registers {
        register.period = Duration::from_nanos(1);
    }
    config
}

/// One connection and its checks, without schedule, decoding and channel.
async fn only_link(port: u16) -> Measured {
    let config = config(port, [("HoldingRegister", 0)].into_iter());
    let mut link =
        Link::new(config.endpoint.clone(), None, Backoff::new(Duration::from_secs(1), Duration::from_secs(1)));
    let (start, before, mut reads) = (Instant::now(), cpu(), 0);
    while start.elapsed() < Duration::from_secs(SECONDS) {
        let span = Span { table: Table::Holding, address: 0, count: REGISTERS };
        link.read(&config, span).await.expect("an answer");
        reads += 1;
    }
    Measured { reads, cpu: cpu() - before }
}

/// The mapper as the runtime uses it.
async fn whole_mapper(port: u16) -> Measured {
    let config = config(port, (0..REGISTERS).map(|offset| ("HoldingRegister", offset)));
    let (out, mut batches) = mpsc::channel(64);
    let mut modbus = Modbus::new(out, || 0, Pauses::default());
    let (start, before, mut reads) = (Instant::now(), cpu(), 0);
    modbus.set(&[Arc::new(config)]);
    while start.elapsed() < Duration::from_secs(SECONDS) {
        let batch = batches.recv().await.expect("the mapper runs");
        assert_eq!(batch.samples.len(), usize::from(REGISTERS), "one request for all");
        reads += 1;
    }
    let after = cpu();
    modbus.shutdown().await;
    Measured { reads, cpu: after - before }
}

/// The requests of one cycle of thirty scattered properties.
async fn scattered(port: u16) -> u64 {
    let strewn = (0..25).map(|i| ("HoldingRegister", i * 8)).chain((0..5).map(|i| ("InputRegister", i * 8)));
    let (out, mut batches) = mpsc::channel(64);
    let mut modbus = Modbus::new(out, || 0, Pauses::default());
    let mut config = config(port, strewn);
    for register in &mut config.registers {
        register.period = Duration::from_secs(3_600);
    }
    modbus.set(&[Arc::new(config)]);
    let (mut points, mut requests) = (0, 0);
    while points < 30 {
        let batch = batches.recv().await.expect("the mapper runs");
        points += batch.samples.len();
        requests = batch.stats.requests;
    }
    modbus.shutdown().await;
    requests
}
