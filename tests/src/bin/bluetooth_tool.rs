//! The mappers alone, as a program that is talked to in lines of JSON: it runs beside a D-Bus double, and inside the machine
//! with the real bluetoothd, which has no room for more.
//!
//! ```text
//! in   {"op": "set", "devices": [{"name", "device", "model"}]}      out  {"batch": {"device", "online", "reason", "readings"}}
//!      {"op": "read", "id", "device", ["property"]}                      {"answer": id, "readings" | "error"}
//!      {"op": "write", "id", "device", "property", "value"}
//!      {"op": "kill", "process"}    {"op": "end"}
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Duration;

use edge_mappers::modbus::Pauses;
use edge_mappers::{Batch, Config, Link, Mappers};
use edge_model::device::{Device, DeviceModel};
use edge_model::reading::Reading;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

fn clock() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or_default()
}

async fn run() -> Result<(), Failure> {
    let (to_out, mut batches) = mpsc::channel(64);
    let quick = (Duration::from_millis(100), Duration::from_millis(500));
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1883));
    let mut mappers = Mappers::new(to_out, clock, Pauses { unit: quick, link: quick }, Path::new("/"), nowhere);
    let (to_us, mut lines) = mpsc::channel::<String>(64);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if to_us.blocking_send(line).is_err() {
                return;
            }
        }
    });
    say(&json!({"ready": true}));
    let mut devices: BTreeMap<String, Config> = BTreeMap::new();
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            failure = mappers.failure() => return Err(failure.into()),
            Some(batch) = batches.recv() => say(&json!({"batch": shown(&batch)})),
            Some(answer) = calls.join_next() => say(&answer?),
            line = lines.recv() => {
                let Some(line) = line else { break };
                let command: Value = serde_json::from_str(&line)?;
                let text = |key: &str| command[key].as_str().map(str::to_owned);
                let device = text("device").and_then(|d| devices.get(&d));
                let (id, property, value) = (command["id"].clone(), text("property"), command["value"].clone());
                match command["op"].as_str() {
                    Some("set") => {
                        devices = resolved(&command["devices"])?;
                        mappers.set(&devices.values().cloned().collect::<Vec<_>>());
                    }
                    Some(op @ ("read" | "write")) => {
                        let Some(port) = device.and_then(|d| mappers.port(d)) else {
                            say(&json!({"answer": id, "error": "no such device"}));
                            continue;
                        };
                        let write = op == "write";
                        calls.spawn(async move {
                            let answer = match write {
                                true => port.write(&property.unwrap_or_default(), value).await.map(|r| vec![r]),
                                false => port.read(property.as_deref()).await,
                            };
                            match answer {
                                Ok(r) => json!({"answer": id, "readings": readings(r.into_iter())}),
                                Err(e) => json!({"answer": id, "error": e.to_string()}),
                            }
                        });
                    }
                    Some("kill") => {
                        let process = text("process").unwrap_or_default();
                        std::process::Command::new("/bin/busybox").args(["killall", &process]).status()?;
                    }
                    _ => break,
                }
            }
        }
    }
    // Whoever sends a last batch must not wait for us.
    let drain = async { while batches.recv().await.is_some() {} };
    tokio::select! {
        () = mappers.shutdown() => {}
        () = drain => {}
    }
    say(&json!({"ended": true}));
    Ok(())
}

fn resolved(list: &Value) -> Result<BTreeMap<String, Config>, Failure> {
    let mut devices = BTreeMap::new();
    for entry in list.as_array().into_iter().flatten() {
        let name = entry["name"].as_str().ok_or("a device without a name")?;
        let device = Device::parse(&entry["device"]).map_err(|e| e.to_string())?;
        let model = DeviceModel::parse(&entry["model"]).map_err(|e| e.to_string())?;
        let config = Config::resolve("default", name, &device, &model)?.ok_or("a protocol of somebody else")?;
        devices.insert(name.to_owned(), config);
    }
    Ok(devices)
}

fn shown(batch: &Batch) -> Value {
    let reason = if let Link::Offline(why) = &batch.link { why.as_str() } else { "" };
    let online = batch.link == Link::Online;
    json!({"device": batch.device.name, "online": online, "reason": reason, "readings": readings(batch.readings())})
}

/// Property → value, or its quality where there is none.
fn readings(all: impl Iterator<Item = Reading>) -> Value {
    let value = |r: &Reading| r.value.as_ref().map_or_else(|| json!({"quality": r.quality.as_str()}), |v| v.to_json());
    all.map(|r| (r.property.clone(), value(&r))).collect::<serde_json::Map<_, _>>().into()
}

fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    // Whoever listened has gone; the end follows on the other side.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
