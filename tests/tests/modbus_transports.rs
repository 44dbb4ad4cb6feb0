//! The Modbus mapper over everything it travels on, against pymodbus.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use edge_mappers::backoff::Backoff;
use edge_mappers::modbus::frame::crc;
use edge_mappers::modbus::link::{Fault, Link as Wire, Payload};
use edge_mappers::modbus::plan::Span;
use edge_mappers::{AccessError, Link};
use edge_model::device::modbus::Table;
use edge_model::reading::{Quality, Value};
use edge_tests::field::eventually;
use edge_tests::line::Line;
use edge_tests::modbus::{Mapper, config, value};
use edge_tests::pymodbus::{Server, lasting_port};
use edge_tests::wait::until_true;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value as Json, json};

/// One unit with a bit of everything.
fn devices() -> Json {
    json!([{"unit": 7, "holding": [[0, [1, 2, 3]]], "input": [[10, [4, 5]]], "coils": [[0, [0, 1]]],
        "discrete": [[0, [1, 0, 1]]]}])
}

const PROPERTIES: [(&str, &str, &str, u16); 4] = [
    ("holding", "INT", "HoldingRegister", 1),
    ("input", "INT", "InputRegister", 11),
    ("coil", "BOOLEAN", "CoilRegister", 1),
    ("discrete", "BOOLEAN", "DiscreteInputRegister", 2),
];

/// Reads every table and writes what can be written.
async fn reads_and_writes(what: &str, link: Json) {
    let keys = |table: &str, offset: u16| json!({"register": table, "offset": offset});
    let properties = PROPERTIES.map(|(name, kind, table, offset)| (name, kind, keys(table, offset)));
    let mut mapper = Mapper::start(vec![config("d", link, &properties)]);
    mapper.batch(what, |b| b.link == Link::Online && !b.samples.is_empty()).await;
    let readings = mapper.read(0).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    let expected = [
        ("holding", Value::Int(2)),
        ("input", Value::Int(5)),
        ("coil", Value::Bool(true)),
        ("discrete", Value::Bool(true)),
    ];
    for (property, expected) in expected {
        assert_eq!(value(&readings, property), Some(expected), "{what}: {property}");
    }
    let written = mapper.write(0, "holding", json!(4_711)).await.map(|r| r.value);
    assert_eq!(written, Ok(Some(Value::Int(4_711))), "{what}");
    let written = mapper.write(0, "coil", json!(false)).await.map(|r| r.value);
    assert_eq!(written, Ok(Some(Value::Bool(false))), "{what}");
    mapper.modbus.shutdown().await;
}

#[tokio::test]
async fn serial_lines_in_both_framings() {
    for (framer, mode) in [("rtu", "RTU"), ("ascii", "ASCII")] {
        let line = Line::new();
        let _server = Server::start_as(json!({"kind": "serial", "path": line.b(), "framer": framer}), devices());
        let link = json!({"serialPort": line.a(), "communicateMode": mode, "slaveID": 7, "baudRate": "115200"});
        reads_and_writes(mode, link).await;
    }
}

#[tokio::test]
async fn converters_and_datagrams() {
    let cases = [("tcp", "rtu", "RTUoverTCP"), ("tcp", "ascii", "ASCIIoverTCP"), ("udp", "socket", "UDP")];
    for (kind, framer, mode) in cases {
        let server = Server::start_as(json!({"kind": kind, "framer": framer}), devices());
        reads_and_writes(mode, json!({"port": server.port, "communicateMode": mode, "slaveID": 7})).await;
    }
}

/// Modbus/TCP Security: both sides show a certificate, and a device with somebody else's is not spoken to.
#[tokio::test]
async fn tls_with_certificates_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, theirs) = (authority("plant"), authority("stranger"));
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let key = KeyPair::generate().unwrap();
    let identity = CertificateParams::new(vec!["plc.plant".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
    let (ca, wrong) = (file("ca", ours.pem()), file("wrong", theirs.pem()));
    let (certificate, key) = (file("certificate", identity.pem()), file("key", key.serialize_pem()));
    let kind = json!({"kind": "tls", "certificate": certificate, "key": key, "ca": ca});
    let server = Server::start_as(kind, devices());
    let link = |ca: &std::path::Path, own: bool| {
        let mut tls = json!({"ca": ca, "serverName": "plc.plant"});
        if own {
            (tls["certificate"], tls["key"]) = (json!(certificate), json!(key));
        }
        json!({"port": server.port, "slaveID": 7, "tls": tls})
    };
    reads_and_writes("TLS", link(&ca, true)).await;
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    for (what, link) in [("another authority", link(&wrong, true)), ("no certificate of ours", link(&ca, false))] {
        let mut mapper = Mapper::start(vec![config("d", link, &one)]);
        let off = mapper.batch(what, |b| matches!(b.link, Link::Offline(_))).await;
        assert_eq!(off.samples[0].quality, Quality::Disconnected, "{what}: {:?}", off.link);
    }
}

/// A device that calls in: here pymodbus behind socat.
struct CallIn {
    _server: Server,
    socat: Child,
}

impl CallIn {
    fn new(to: u16, devices: Json) -> CallIn {
        let server = Server::start(devices);
        let (from, to) =
            (format!("TCP:127.0.0.1:{}", server.port), format!("TCP:127.0.0.1:{to},retry=600,interval=0.1"));
        let socat = Command::new("socat").args([to, from]).stdin(Stdio::null()).spawn().expect("socat starts");
        CallIn { _server: server, socat }
    }
}

impl Drop for CallIn {
    fn drop(&mut self) {
        let _ = self.socat.kill();
        let _ = self.socat.wait();
    }
}

#[tokio::test]
async fn a_device_calls_in_and_calls_again() {
    let port = lasting_port();
    let link = json!({"listen": format!("127.0.0.1:{port}"), "peer": "127.0.0.1", "slaveID": 7});
    let one = [("p", "INT", json!({"register": "HoldingRegister", "offset": 1}))];
    let mut mapper = Mapper::start(vec![config("d", link, &one)]);
    for call in 0..2 {
        let caller = CallIn::new(port, devices());
        let batch = mapper.batch("a value", |b| b.link == Link::Online && !b.samples.is_empty()).await;
        assert_eq!(batch.samples[0].value, Some(Value::Int(2)), "call {call}");
        drop(caller);
        mapper.batch("offline", |b| matches!(b.link, Link::Offline(_))).await;
    }
    mapper.modbus.set(&[]);
    let gone = || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    eventually("nobody listens any more", async || gone().then_some(())).await;
}

/// Two devices behind one address of ours, known only by the unit that answers.
#[tokio::test]
async fn callers_are_known_by_their_unit() {
    let port = lasting_port();
    let listen = format!("127.0.0.1:{port}");
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let link = |unit: u8| json!({"listen": listen, "slaveID": unit, "timeout": 1_000});
    // pymodbus answers for units it does not have: the other one is there and silent.
    let unit = |unit: u8| {
        let silent = json!({"unit": 3 - unit, "holding": [[0, [0]]], "delay": 600_000});
        json!([{"unit": unit, "holding": [[0, [unit]]]}, silent])
    };
    let mut mapper = Mapper::start(vec![config("a", link(1), &one), config("b", link(2), &one)]);
    let _callers = (CallIn::new(port, unit(2)), CallIn::new(port, unit(1)));
    for (name, number) in [("a", 1), ("b", 2)] {
        let is = |b: &edge_mappers::Batch| {
            *b.device.name == *name && b.samples.iter().any(|s| s.value == Some(Value::Int(number)))
        };
        mapper.batch(name, is).await;
    }
}

#[tokio::test]
async fn a_second_address_is_tried() {
    let server = Server::start(devices());
    let dead = lasting_port();
    reads_and_writes("backup", json!({"port": dead, "backupIp": "127.0.0.1", "backupPort": server.port, "slaveID": 7}))
        .await;
}

/// One line, three units, one of which is not there: the others go on.
#[tokio::test]
async fn a_dead_unit_does_not_stop_the_line() {
    let line = Line::new();
    let silent = json!({"unit": 9, "holding": [[0, [0]]], "delay": 600_000});
    let devices = json!([{"unit": 1, "holding": [[0, [11]]]}, {"unit": 2, "holding": [[0, [12]]]}, silent]);
    let mut server = Server::start_as(json!({"kind": "serial", "path": line.b()}), devices);
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let link =
        |unit: u8| json!({"serialPort": line.a(), "slaveID": unit, "timeout": if unit == 9 { 100 } else { 30_000 }});
    let all = vec![config("dead", link(9), &one), config("a", link(1), &one), config("b", link(2), &one)];
    let mut mapper = Mapper::start(all);
    let off = mapper.batch("dead", |b| b.device.name == "dead" && matches!(b.link, Link::Offline(_))).await;
    assert_eq!((off.samples[0].quality, off.stats.timeouts), (Quality::Timeout, 1));
    for _ in 0..5 {
        for (name, number) in [("a", 11), ("b", 12)] {
            let batch = mapper.batch(name, |b| b.device.name == name).await;
            assert_eq!(batch.samples[0].value, Some(Value::Int(number)));
            assert_eq!(batch.stats.reconnects, 0, "the line stays open");
        }
    }
    // What is for everybody is answered by nobody, and done.
    let everybody = config("all", json!({"serialPort": line.a(), "slaveID": 0}), &one);
    mapper.devices.push(Arc::new(everybody));
    let devices = mapper.devices.clone();
    mapper.modbus.set(&devices);
    assert_eq!(mapper.write(3, "p", json!(77)).await.map(|r| r.value), Ok(Some(Value::Int(77))));
    for name in ["a", "b"] {
        mapper
            .batch(name, |b| b.device.name == name && b.samples.iter().any(|s| s.value == Some(Value::Int(77))))
            .await;
    }
    assert_eq!(server.requests().iter().filter(|r| r.0 == 0).map(|r| r.1).collect::<Vec<u8>>(), [6]);
}

/// A device that is asked more often than it can answer gets as many as it can, its misses are counted, and its neighbour on
/// the connection still has its turn.
#[tokio::test]
async fn overruns_are_counted_and_starve_nobody() {
    let devices = json!([{"unit": 1, "holding": [[0, [1]]], "delay": 30}, {"unit": 2, "holding": [[0, [2]]]}]);
    let server = Server::start(devices);
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let link = |unit: u8| json!({"port": server.port, "slaveID": unit});
    let with_period = |name, unit, ms| {
        let mut config = config(name, link(unit), &one);
        config.registers[0].period = Duration::from_millis(ms);
        config
    };
    let mut mapper = Mapper::start(vec![with_period("greedy", 1, 1), with_period("modest", 2, 100)]);
    for _ in 0..3 {
        mapper.batch("modest", |b| b.device.name == "modest" && b.samples[0].value == Some(Value::Int(2))).await;
    }
    let greedy = mapper.batch("greedy", |b| b.device.name == "greedy" && b.stats.overruns > 10).await;
    assert_eq!((greedy.link, greedy.stats.errors), (Link::Online, 0));
}

/// The pause one device needs is not its neighbour's.
#[tokio::test]
async fn a_device_that_needs_a_pause_delays_nobody() {
    let values = vec![7u16; 200];
    let server = Server::start(json!([{"unit": 1, "holding": [[0, values]]}, {"unit": 2, "holding": [[0, [2]]]}]));
    // Too far apart for one request.
    let two = ["near", "far"]
        .map(|n| (n, "INT", json!({"register": "HoldingRegister", "offset": if n == "far" { 199 } else { 0 }})));
    let slow = config("slow", json!({"port": server.port, "slaveID": 1, "requestInterval": 10_000}), &two);
    let quick = config("quick", json!({"port": server.port, "slaveID": 2}), &two[..1]);
    let mut mapper = Mapper::start(vec![slow, quick]);
    mapper.batch("the first half", |b| b.device.name == "slow").await;
    for _ in 0..3 {
        let batch = mapper.batch("anybody", |_| true).await;
        assert_eq!(*batch.device.name, *"quick");
    }
}

/// An answer that comes after its time-out is never taken for the next one's.
#[tokio::test]
async fn a_late_answer_is_thrown_away() {
    let line = Line::new();
    // Opened before the mapper has the line to itself, to see what has arrived.
    let eye = File::open(line.a()).unwrap();
    let mut slave = File::options().read(true).write(true).open(line.b()).unwrap();
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let quick = config("d", json!({"serialPort": line.a(), "timeout": 100}), &one);
    let patient = config("d", json!({"serialPort": line.a(), "timeout": 30_000}), &one);
    let pause = Duration::from_millis(10);
    let mut wire = Wire::new(quick.endpoint.clone(), None, Backoff::new(pause, pause));
    let span = |address: u16| Span { table: Table::Holding, address, count: 1 };
    assert_eq!(wire.read(&quick, span(1)).await, Err(Fault::Timeout(100)));
    let answer = |word: u16| {
        let [high, low] = word.to_be_bytes();
        let body = [1, 3, 2, high, low];
        [body.as_slice(), &crc(&body)].concat()
    };
    let mut request = [0; 8];
    slave.read_exact(&mut request).unwrap();
    slave.write_all(&answer(66)).unwrap();
    until_true("the late answer is there", || rustix::io::ioctl_fionread(&eye).is_ok_and(|n| n == 7));
    let second = std::thread::spawn(move || {
        slave.read_exact(&mut request).unwrap();
        slave.write_all(&answer(7)).unwrap();
        (request, slave)
    });
    assert_eq!(wire.read(&patient, span(2)).await, Ok(Payload::Registers(vec![7])));
    let (request, _slave) = second.join().unwrap();
    assert_eq!(request[..6], [1, 3, 0, 2, 0, 1]);
}

/// Noise before an answer costs nothing, a wrong sum one more try.
#[tokio::test]
async fn a_garbled_answer_is_asked_for_again() {
    let line = Line::new();
    let mut slave = File::options().read(true).write(true).open(line.b()).unwrap();
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let ascii = config("d", json!({"serialPort": line.a(), "communicateMode": "ASCII", "timeout": 30_000}), &one);
    let pause = Duration::from_millis(10);
    let mut wire = Wire::new(ascii.endpoint.clone(), None, Backoff::new(pause, pause));
    let answers = std::thread::spawn(move || {
        let mut request = [0; 17];
        for answer in [":010302002AD1\r\n", "\u{7f}:01:010302002AD0\r\n"] {
            slave.read_exact(&mut request).unwrap();
            slave.write_all(answer.as_bytes()).unwrap();
        }
        slave
    });
    let span = Span { table: Table::Holding, address: 0, count: 1 };
    assert_eq!(wire.read(&ascii, span).await, Ok(Payload::Registers(vec![42])));
    drop(answers.join().unwrap());
}

/// Mask write and read-write are used where the device is said to have them.
#[tokio::test]
async fn rarer_functions_where_the_device_has_them() {
    let mut server = Server::start(devices());
    let properties = [
        ("bit", "BOOLEAN", json!({"register": "HoldingRegister", "offset": 0, "bit": 4})),
        ("nibble", "INT", json!({"register": "HoldingRegister", "offset": 0, "dataType": "uint16", "mask": 0x0f00})),
        ("word", "INT", json!({"register": "HoldingRegister", "offset": 1})),
    ];
    let slow = |mut keys: Json| {
        keys["readBack"] = json!(true);
        keys
    };
    let properties = properties.map(|(n, t, k)| (n, t, slow(k)));
    let link = json!({"port": server.port, "slaveID": 7, "maskWrite": true, "readWrite": true});
    let mut mapper = Mapper::start(vec![config("d", link, &properties)]);
    let writes = [
        ("bit", json!(true), Value::Bool(true)),
        ("nibble", json!(5), Value::Int(5)),
        ("word", json!(9), Value::Int(9)),
    ];
    for (property, json, expected) in writes {
        assert_eq!(mapper.write(0, property, json).await.map(|r| r.value), Ok(Some(expected)), "{property}");
    }
    let readings = mapper.read(0).await.unwrap();
    assert_eq!((value(&readings, "bit"), value(&readings, "nibble")), (Some(Value::Bool(true)), Some(Value::Int(5))));
    let functions: Vec<u8> = server.requests().into_iter().map(|r| r.1).filter(|f| *f != 3).collect();
    assert_eq!(functions, [22, 22, 23]);
    assert!(matches!(mapper.write(0, "nibble", json!(16)).await, Err(AccessError::Range { .. })));
}

/// The parts of a register are changed without touching the rest, also by devices that lack function 22.
#[tokio::test]
async fn parts_of_registers_are_read_changed_and_written() {
    let server = Server::start(devices());
    let fields = json!([{"name": "low", "dataType": "uint8"}, {"name": "next", "offset": 1, "type": "INT"}]);
    let properties = [
        ("high", "INT", json!({"register": "HoldingRegister", "dataType": "uint8", "isSwap": true})),
        ("block", "STRING", json!({"register": "HoldingRegister", "dataType": "struct", "fields": fields})),
    ];
    let mut mapper = Mapper::start(vec![config("d", json!({"port": server.port, "slaveID": 7}), &properties)]);
    assert_eq!(mapper.write(0, "high", json!(200)).await.map(|r| r.value), Ok(Some(Value::Int(200))));
    let readings = mapper.read(0).await.unwrap();
    assert_eq!(value(&readings, "block"), Some(Value::Text(json!({"low": 1, "next": 2}).to_string())));
    let text = json!({"low": 9}).to_string();
    let back = mapper.write(0, "block", json!(text)).await.unwrap();
    assert_eq!(back.value, Some(Value::Text(json!({"low": 9, "next": 2}).to_string())), "read back whole");
    let readings = mapper.read(0).await.unwrap();
    assert_eq!(value(&readings, "high"), Some(Value::Int(200)));
}
