//! Our Modbus server, with clients nobody here wrote: mbpoll, libmodbus, pymodbus.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use edge_mappers::Point;
use edge_mappers::modbus::endpoint::Line as Settings485;
use edge_mappers::modbus::server::{Door, Entry, Exposed, Identity, Refusal, Server, Settings, Write};
use edge_model::device::PropertyType;
use edge_model::device::modbus::{Parity, Visitor};
use edge_model::reading::Value;
use edge_tests::line::Line;
use edge_tests::{libmodbus, pymodbus};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

const LEVEL: usize = 0;
const COUNT: usize = 1;
const MODE: usize = 2;
const STUCK: usize = 3;
const PUMP: usize = 4;

fn entries() -> Vec<Entry> {
    let entry = |name: &str, value_type, writable, keys: Json| {
        let visitor: Visitor = serde_json::from_value(keys).unwrap();
        let point =
            Point { name: name.into(), value_type, unit: String::new(), writable, minimum: None, maximum: None };
        Entry::new(1, point, &visitor).unwrap()
    };
    vec![
        entry("level", PropertyType::Float, true, json!({"register": "HoldingRegister", "limit": 2})),
        entry("count", PropertyType::Int, false, json!({"register": "InputRegister", "offset": 10})),
        entry("mode", PropertyType::Int, true, json!({"register": "HoldingRegister", "offset": 4})),
        entry("stuck", PropertyType::Int, true, json!({"register": "HoldingRegister", "offset": 5})),
        entry("pump", PropertyType::Boolean, true, json!({"register": "CoilRegister", "offset": 5})),
    ]
}

/// A server whose values agree to be written, but for one; what was written.
struct Running {
    port: u16,
    exposed: Exposed,
    written: mpsc::UnboundedReceiver<Vec<(usize, Value)>>,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start(line: Option<&Path>) -> Running {
    let (writes, mut asked) = mpsc::channel::<Write>(8);
    let mut doors = vec![Door::Tcp("127.0.0.1:0".parse().unwrap())];
    if let Some(path) = line {
        doors.push(Door::Rtu(Settings485 {
            path: path.display().to_string(),
            baud: 19_200,
            data_bits: 8,
            parity: Parity::Even,
            stop_bits: 1,
            rs485: None,
            silence: Duration::from_millis(2),
            turnaround: Duration::ZERO,
        }));
    }
    let identity = Identity { vendor: "Acme".into(), product: "Gateway".into(), revision: "7".into() };
    let settings = Settings { doors, entries: entries(), identity, within: Duration::from_secs(30) };
    let (server, exposed) = Server::bind(settings, writes).await.unwrap();
    let (tell, written) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(write) = asked.recv().await {
            let stuck = write.values.iter().any(|(entry, _)| *entry == STUCK);
            let _ = write.reply.send(if stuck { Err(Refusal::Failure) } else { Ok(()) });
            let _ = tell.send(write.values);
        }
    });
    let port = server.addresses()[0].port();
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.run(stop.clone()));
    for (entry, value) in [
        (LEVEL, Value::Float(1.5)),
        (COUNT, Value::Int(1234)),
        (MODE, Value::Int(0x12)),
        (STUCK, Value::Int(0)),
        (PUMP, Value::Bool(false)),
    ] {
        exposed.set(entry, Some(&value)).unwrap();
    }
    Running { port, exposed, written, stop, task }
}

/// Runs mbpoll with these arguments; whether it succeeded, and all it said.
async fn mbpoll(arguments: Vec<String>) -> (bool, String) {
    let run = move || {
        let output = Command::new("mbpoll").args(&arguments).output().expect("this test needs mbpoll");
        let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
        (output.status.success(), text)
    };
    spawn_blocking(run).await.unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn mbpoll_reads_and_writes_over_tcp_and_a_serial_line() {
    let line = Line::new();
    let mut server = start(Some(&line.a())).await;
    let tcp = format!("-m tcp -p {} -a 1 -0 -1 -o 10 127.0.0.1", server.port);
    let serial = format!("-m rtu -b 19200 -P even -a 1 -0 -1 -o 10 {}", line.b().display());
    for (way, level) in [(tcp, "2.5"), (serial, "3.25")] {
        let ask = async |more: &str, value: &str| {
            let value = if value.is_empty() { String::new() } else { format!(" -- {value}") };
            mbpoll(words(&format!("{more} {way}{value}"))).await
        };
        let found = |said: &(bool, String), address: u16, value: &str| {
            let line = format!("[{address}]: \t{value}");
            assert!(said.0 && said.1.contains(&line), "{way}: {said:?}");
        };
        found(&ask("-t 3 -r 10", "").await, 10, "1234");
        found(&ask("-t 0 -r 5", "").await, 5, "0");
        let written = ask("-t 4:float -B -r 0", level).await;
        assert!(written.0, "{way}: {written:?}");
        assert_eq!(server.written.recv().await, Some(vec![(LEVEL, Value::Float(level.parse().unwrap()))]));
        found(&ask("-t 4:float -B -r 0", "").await, 0, level);
        assert!(ask("-t 0 -r 5", "1").await.0, "{way}: the coil");
        assert_eq!(server.written.recv().await, Some(vec![(PUMP, Value::Bool(true))]));
        found(&ask("-t 0 -r 5", "").await, 5, "1");
        server.exposed.set(PUMP, Some(&Value::Bool(false))).unwrap();
        for (what, more, value, part) in [
            ("nothing there", "-t 4 -r 99", "", "Illegal data address"),
            ("refused by its owner", "-t 4 -r 5", "9", "Slave device or server failure"),
        ] {
            let said = ask(more, value).await;
            assert!(said.1.contains(part), "{way}: {what}: {said:?}");
        }
        assert_eq!(server.written.recv().await, Some(vec![(STUCK, Value::Int(9))]));
    }
    server.exposed.set(COUNT, None).unwrap();
    let said = mbpoll(words(&format!("-m tcp -p {} -a 1 -0 -1 -t 3 -r 10 127.0.0.1", server.port))).await;
    assert!(said.1.contains("Slave device or server failure"), "bad is not an old value: {said:?}");
    server.stop.cancel();
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn libmodbus_and_pymodbus_use_the_rarer_functions() {
    let mut server = start(None).await;
    let port = server.port.to_string();
    let run = {
        let port = port.clone();
        move || Command::new(libmodbus::program()).args(["rare", &port]).output().unwrap()
    };
    let output = spawn_blocking(run).await.unwrap();
    // The specification's example of a mask write gives 0x17.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "23\n77\n", "{output:?}");
    assert_eq!(server.written.recv().await, Some(vec![(MODE, Value::Int(0x17))]));
    assert_eq!(server.written.recv().await, Some(vec![(MODE, Value::Int(77))]));
    let said = spawn_blocking(move || pymodbus::client(&["identify".to_owned(), port])).await.unwrap();
    assert_eq!(said, json!([[0, "Acme"], [1, "Gateway"], [2, "7"]]));
}

/// Our own client over a line to libmodbus: the third implementation of RTU.
#[tokio::test]
async fn libmodbus_is_a_unit_on_our_line() {
    use edge_tests::modbus::{Mapper, config, value};
    let line = Line::new();
    let _server = libmodbus::Server::start_rtu(&line.b());
    let properties = [
        ("one", "INT", json!({"register": "HoldingRegister", "offset": 999})),
        ("two", "INT", json!({"register": "InputRegister", "offset": 258, "limit": 2})),
        ("coil", "BOOLEAN", json!({"register": "CoilRegister", "offset": 3})),
        ("bit", "BOOLEAN", json!({"register": "HoldingRegister", "offset": 8, "bit": 0})),
    ];
    let link = json!({"serialPort": line.a(), "maskWrite": true});
    let mut mapper = Mapper::start(vec![config("d", link, &properties)]);
    let readings = mapper.read(0).await.unwrap();
    assert_eq!(value(&readings, "one"), Some(Value::Int(999)));
    assert_eq!(value(&readings, "two"), Some(Value::Int(258 << 16 | 259)));
    assert_eq!(value(&readings, "coil"), Some(Value::Bool(true)));
    for (property, json, back) in [
        ("one", json!(4711), Value::Int(4711)),
        ("coil", json!(false), Value::Bool(false)),
        ("bit", json!(true), Value::Bool(true)),
    ] {
        assert_eq!(mapper.write(0, property, json).await.map(|r| r.value), Ok(Some(back)), "{property}");
    }
}
