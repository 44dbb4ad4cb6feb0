//! The Modbus mapper against other people's servers, and against a hostile one.

use std::sync::Arc;

use edge_mappers::{AccessError, Batch, Link};
use edge_model::reading::{Quality, Value};
use edge_tests::hostile::hostile;
use edge_tests::modbus::{Mapper, config, quality, value};
use edge_tests::{libmodbus, pymodbus};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde_json::{Value as Json, json};

/// What a device says of itself (function 43/14), beside its registers; what it does not say is invalid, not missing.
#[tokio::test]
async fn the_identification_is_read_as_properties() {
    let server = pymodbus::Server::start(json!([{"unit": 7, "holding": [[0, [1]]]}]));
    let object = |number: u16| json!({"register": "DeviceIdentification", "offset": number});
    let properties = [
        ("vendor", "STRING", object(0)),
        ("revision", "STRING", object(2)),
        ("model", "STRING", object(5)),
        ("speed", "INT", json!({"register": "HoldingRegister", "offset": 0})),
    ];
    let mut mapper = Mapper::start(vec![config("d", json!({"port": server.port, "slaveID": 7}), &properties)]);
    let readings = mapper.read(0).await.unwrap();
    assert_eq!(value(&readings, "vendor"), Some(Value::Text("Acme".into())));
    assert_eq!(value(&readings, "revision"), Some(Value::Text("1.2".into())));
    assert_eq!(value(&readings, "speed"), Some(Value::Int(1)));
    assert_eq!((value(&readings, "model"), quality(&readings, "model")), (None, Quality::Invalid));
}

/// Every table and type, read from pymodbus and written with read-back.
#[tokio::test]
async fn every_table_and_type_with_pymodbus() {
    let server = pymodbus::Server::start(json!([{
        "unit": 7,
        "holding": [[0, [0xff85, 0x47f1, 0x2000, 0x0708, 0x0506, 0x0304, 0x0102, 0x4869, 0x2100, 0x0010]]],
        "input": [[100, [1, 2, 0x8000]]],
        "coils": [[0, [1, 0, 1]]],
        "discrete": [[20, [0, 1]]],
    }]));
    let holding = |offset: u16, more: Json| {
        let mut keys = json!({"register": "HoldingRegister", "offset": offset});
        for (k, v) in more.as_object().unwrap() {
            keys[k] = v.clone();
        }
        keys
    };
    let properties = [
        ("temperature", "FLOAT", holding(0, json!({"dataType": "int16", "scale": 0.1}))),
        ("pressure", "FLOAT", holding(1, json!({"limit": 2}))),
        ("counter", "INT", holding(3, json!({"limit": 4, "isRegisterSwap": true}))),
        ("name", "STRING", holding(7, json!({"limit": 2}))),
        ("flag", "BOOLEAN", holding(9, json!({"bit": 4}))),
        ("level", "INT", json!({"register": "InputRegister", "offset": 100, "limit": 2})),
        ("signed", "INT", json!({"register": "InputRegister", "offset": 102, "dataType": "int16"})),
        ("pump", "BOOLEAN", json!({"register": "CoilRegister", "offset": 2})),
        ("alarm", "BOOLEAN", json!({"register": "DiscreteInputRegister", "offset": 21})),
    ];
    let mut mapper = Mapper::start(vec![config("d", json!({"port": server.port, "slaveID": 7}), &properties)]);
    let readings = mapper.read(0).await.unwrap();
    let expected = [
        ("temperature", Value::Float(-12.3)),
        ("pressure", Value::Float(123_456.0)),
        ("counter", Value::Int(0x0102_0304_0506_0708)),
        ("name", Value::Text("Hi!".into())),
        ("flag", Value::Bool(true)),
        ("level", Value::Int(65_538)),
        ("signed", Value::Int(-32_768)),
        ("pump", Value::Bool(true)),
        ("alarm", Value::Bool(true)),
    ];
    for (property, expected) in expected {
        assert_eq!(value(&readings, property), Some(expected), "{property}");
    }

    let writes = [
        ("temperature", json!(21.5), Value::Float(21.5)),
        ("pressure", json!("1013.25"), Value::Float(1013.25)),
        ("counter", json!(i64::MAX), Value::Int(i64::MAX)),
        ("name", json!("abc"), Value::Text("abc".into())),
        ("flag", json!(false), Value::Bool(false)),
        ("pump", json!(false), Value::Bool(false)),
    ];
    for (property, json, expected) in &writes {
        let reading = mapper.write(0, property, json.clone()).await.unwrap();
        assert_eq!((reading.value, reading.quality), (Some(expected.clone()), Quality::Good), "{property}");
    }
    let readings = mapper.read(0).await.unwrap();
    for (property, _, expected) in writes {
        assert_eq!(value(&readings, property), Some(expected), "{property}");
    }
    for property in ["level", "alarm"] {
        let refused = mapper.write(0, property, json!(1)).await;
        assert_eq!(refused, Err(AccessError::ReadOnly(property.into())));
    }
    assert!(matches!(mapper.write(0, "temperature", json!(4_000)).await, Err(AccessError::Range { .. })));
    assert!(matches!(mapper.write(0, "x", json!(1)).await, Err(AccessError::Unknown(_))));
}

/// The same mapper against the second implementation.
#[tokio::test]
async fn libmodbus_agrees() {
    let server = libmodbus::Server::start(None);
    let properties = [
        ("one", "INT", json!({"register": "HoldingRegister", "offset": 999})),
        ("two", "INT", json!({"register": "InputRegister", "offset": 258, "limit": 2})),
        ("coil", "BOOLEAN", json!({"register": "CoilRegister", "offset": 3})),
        ("input", "BOOLEAN", json!({"register": "DiscreteInputRegister", "offset": 4})),
        ("beyond", "INT", json!({"register": "HoldingRegister", "offset": 1000})),
    ];
    let mut mapper = Mapper::start(vec![config("d", json!({"port": server.port}), &properties)]);
    let readings = mapper.read(0).await.unwrap();
    assert_eq!(value(&readings, "one"), Some(Value::Int(999)));
    assert_eq!(value(&readings, "two"), Some(Value::Int(258 << 16 | 259)));
    assert_eq!(value(&readings, "coil"), Some(Value::Bool(true)));
    assert_eq!(value(&readings, "input"), Some(Value::Bool(false)));
    assert_eq!(quality(&readings, "beyond"), Quality::Refused, "one register that is not there spoils nothing");
    for (property, json, back) in [("one", json!(4711), Value::Int(4711)), ("coil", json!(false), Value::Bool(false))] {
        assert_eq!(mapper.write(0, property, json).await.unwrap().value, Some(back));
    }
}

/// Thirty registers strewn over two hundred addresses cost three requests, as counted by the server.
#[tokio::test]
async fn scattered_points_take_few_requests() {
    let values: Vec<u16> = (0..250).collect();
    let mut server = pymodbus::Server::start(json!([{"unit": 1, "holding": [[0, values]], "input": [[0, values]]}]));
    let names: Vec<String> = (0..30).map(|i| format!("p{i}")).collect();
    let mut properties: Vec<(&str, &str, Json)> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let table = if i < 25 { "HoldingRegister" } else { "InputRegister" };
        properties.push((name, "INT", json!({"register": table, "offset": i % 25 * 8})));
    }
    let mut mapper = Mapper::start(vec![config("d", json!({"port": server.port}), &properties)]);
    let mut missing: Vec<u16> = (0..30).collect();
    while !missing.is_empty() {
        let batch = mapper.batch("every point", |_| true).await;
        missing.retain(|p| !batch.samples.iter().any(|s| s.point == *p));
    }
    let requests = server.requests();
    // Registers 0–192 do not fit into one request of 125; the inputs 0–32 do.
    let expected = [(1, 3, 0, 121), (1, 3, 128, 65), (1, 4, 0, 33)];
    for request in &requests {
        assert!(expected.contains(request), "{requests:?}");
    }
    assert!(requests.len() >= 3, "{requests:?}");
    let readings = mapper.read(0).await.unwrap();
    for (i, name) in names.iter().enumerate() {
        assert_eq!(value(&readings, name), Some(Value::Int(i as i64 % 25 * 8)), "{name}");
    }
}

/// A hole in the middle of a range: found once, and not asked for again.
#[tokio::test]
async fn a_bad_register_is_found_and_left_out() {
    let mut server = pymodbus::Server::start(json!([{"unit": 1, "holding": [[0, [10, 11, 12]], [4, [14, 15]]]}]));
    let names: Vec<String> = (0..6).map(|i| format!("p{i}")).collect();
    let properties: Vec<(&str, &str, Json)> = names
        .iter()
        .enumerate()
        .map(|(i, n)| (n.as_str(), "INT", json!({"register": "HoldingRegister", "offset": i})))
        .collect();
    let mut mapper = Mapper::start(vec![config("d", json!({"port": server.port}), &properties)]);
    let refused = mapper.batch("the bad one", |b| b.samples.iter().any(|s| s.quality == Quality::Refused)).await;
    assert_eq!(refused.samples.len(), 1);
    assert_eq!(refused.samples[0].point, 3);
    assert_eq!(refused.link, Link::Online, "an exception is an answer");
    // Settled, once the good ones come in two answers.
    let halves = [vec![0, 1, 2], vec![4, 5]];
    let is = |b: &Batch, half: &Vec<u16>| b.samples.iter().map(|s| s.point).eq(half.iter().copied());
    for round in 0..4 {
        for half in &halves {
            mapper.batch("a half", |b| is(b, half)).await;
        }
        if round == 1 {
            server.requests();
        }
    }
    // Now and then the bad one is tried alone.
    for request in server.requests() {
        assert!([(1, 3, 0, 3), (1, 3, 4, 2), (1, 3, 3, 1)].contains(&request), "{request:?}");
    }
    let readings = mapper.read(0).await.unwrap();
    assert_eq!((value(&readings, "p2"), value(&readings, "p4")), (Some(Value::Int(12)), Some(Value::Int(14))));
}

/// A device that is killed goes offline with its values bad, and is back by itself.
#[tokio::test]
async fn a_device_vanishes_and_comes_back() {
    let devices = json!([{"unit": 1, "holding": [[0, [5]]]}]);
    let port = pymodbus::lasting_port();
    let server = pymodbus::Server::start_on(port, devices.clone());
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let mut mapper = Mapper::start(vec![config("d", json!({"port": port}), &one)]);
    mapper.batch("a value", |b| b.samples.iter().any(|s| s.value == Some(Value::Int(5)))).await;
    drop(server);
    let gone = mapper.batch("offline", |b| matches!(b.link, Link::Offline(_))).await;
    assert_eq!(gone.samples[0].quality, Quality::Disconnected);
    assert!(matches!(mapper.read(0).await, Err(AccessError::Disconnected(_))));
    let _server = pymodbus::Server::start_on(port, devices);
    let back = mapper.batch("online", |b| b.link == Link::Online && !b.samples.is_empty()).await;
    assert_eq!(back.samples[0].value, Some(Value::Int(5)));
}

/// On one connection, a unit that never answers costs the other its own time-out now and then, and nothing more.
#[tokio::test]
async fn a_dead_unit_does_not_stop_its_neighbour() {
    let never = 600_000;
    let mut server = pymodbus::Server::start(json!([
        {"unit": 1, "holding": [[0, [5]]]},
        {"unit": 2, "holding": [[0, [0]]], "delay": never},
        {"unit": 3, "holding": [[0, [6]]], "delay": never},
    ]));
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let link = |unit: u8| json!({"port": server.port, "slaveID": unit, "timeout": 300});
    let all = vec![config("alive", link(1), &one), config("dead", link(2), &one), config("slow", link(3), &one)];
    let mut mapper = Mapper::start(all);
    for device in ["dead", "slow"] {
        let off = mapper.batch(device, |b| b.device.name == device && matches!(b.link, Link::Offline(_))).await;
        assert_eq!(off.samples[0].quality, Quality::Timeout);
    }
    for _ in 0..10 {
        mapper.batch("alive", |b| b.device.name == "alive" && b.link == Link::Online).await;
    }
    let requests = server.requests();
    assert!([1, 2, 3].iter().all(|unit| requests.iter().any(|r| r.0 == *unit)), "{requests:?}");
    server.delay(3, 0);
    mapper.batch("slow no more", |b| b.device.name == "slow" && b.link == Link::Online).await;
}

/// A slow device beside healthy ones: each endpoint has its own task.
#[tokio::test]
async fn a_slow_device_beside_healthy_ones() {
    let mut slow = pymodbus::Server::start(json!([{"unit": 1, "holding": [[0, [1]]], "delay": 600_000}]));
    let fast = pymodbus::Server::start(json!([{"unit": 1, "holding": [[0, [2]]]}]));
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let all = vec![
        config("slow", json!({"port": slow.port, "timeout": 60_000}), &one),
        config("fast", json!({"port": fast.port}), &one),
    ];
    let mut mapper = Mapper::start(all);
    for _ in 0..20 {
        let batch = mapper.batch("a value", |b| !b.samples.is_empty()).await;
        assert_eq!(batch.device.name, "fast");
    }
    assert_eq!(slow.requests(), [(1, 3, 0, 1)], "still waiting for its first answer");
}

/// A write does not stick: the register has another value when read back.
#[tokio::test]
async fn a_write_that_does_not_stick_is_said() {
    let (port, _guard) = hostile(|request, transaction| {
        let mut answer = vec![transaction[0], transaction[1], 0, 0];
        match request[0] {
            // The echo of the write, and then another value.
            6 => answer.extend([0, 6, 1, 6, request[1], request[2], request[3], request[4]]),
            _ => answer.extend([0, 5, 1, 3, 2, 0, 9]),
        }
        answer
    })
    .await;
    let mut mapper = Mapper::start(vec![config(
        "d",
        json!({"port": port}),
        &[("p", "INT", json!({"register": "HoldingRegister"}))],
    )]);
    let result = mapper.write(0, "p", json!(7)).await;
    assert_eq!(result, Err(AccessError::Mismatch { wrote: "7".into(), found: "9".into() }));
}

/// Every way an answer can be wrong is data with a quality, and the device is back with the first right answer.
#[tokio::test]
async fn wrong_answers_are_data() {
    let cases: [(&str, Vec<u8>, Quality); 12] = [
        ("another length than asked", vec![0, 5, 1, 3, 2, 0, 9], Quality::Invalid),
        ("an odd number of bytes", vec![0, 6, 1, 3, 3, 0, 9, 9], Quality::Invalid),
        ("more bytes than it says", vec![0, 8, 1, 3, 2, 0, 9, 0, 9, 0], Quality::Invalid),
        ("fewer bytes than it says", vec![0, 5, 1, 3, 4, 0, 9], Quality::Invalid),
        ("another unit", vec![0, 7, 2, 3, 4, 0, 9, 0, 9], Quality::Invalid),
        ("another function", vec![0, 7, 1, 4, 4, 0, 9, 0, 9], Quality::Invalid),
        ("no PDU at all", vec![0, 1, 1], Quality::Invalid),
        ("a length of zero", vec![0, 0, 1], Quality::Invalid),
        ("an exception without a code", vec![0, 2, 1, 0x83], Quality::Invalid),
        ("an exception of another function", vec![0, 3, 1, 0x84, 2], Quality::Invalid),
        ("an exception nobody knows", vec![0, 3, 1, 0x83, 99], Quality::Refused),
        ("the device behind the gateway is silent", vec![0, 3, 1, 0x83, 11], Quality::Timeout),
    ];
    for (what, rest, expected) in cases {
        let right = vec![0u8, 7, 1, 3, 4, 0, 0, 0, 9];
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (port, _guard) = hostile(move |_, transaction| {
            let nth = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let rest = if nth == 0 { &rest } else { &right };
            [&[transaction[0], transaction[1], 0, 0], rest.as_slice()].concat()
        })
        .await;
        let two = [("p", "INT", json!({"register": "HoldingRegister", "limit": 2}))];
        let mut mapper = Mapper::start(vec![config("d", json!({"port": port}), &two)]);
        let bad = mapper.batch(what, |b| !b.samples.is_empty()).await;
        assert_eq!(bad.samples[0].quality, expected, "{what}: {:?}", bad.link);
        mapper.batch(what, |b| b.samples.iter().any(|s| s.value == Some(Value::Int(9)))).await;
    }
}

/// The answer to the request before, the wrong transaction, the wrong protocol: never taken for this one's.
#[tokio::test]
async fn another_transactions_answer_is_never_taken() {
    let (port, _guard) = hostile(|_, transaction| {
        let before = u16::from_be_bytes(transaction).wrapping_sub(1).to_be_bytes();
        [&[before[0], before[1], 0, 0], [0, 5, 1, 3, 2, 0, 66].as_slice()].concat()
    })
    .await;
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let mut mapper = Mapper::start(vec![config("d", json!({"port": port}), &one)]);
    for _ in 0..10 {
        let batch = mapper.batch("anything", |_| true).await;
        assert!(matches!(batch.link, Link::Offline(_)), "{batch:?}");
        assert!(batch.samples.iter().all(|s| s.value.is_none()), "{batch:?}");
    }
}

/// A device that closes the connection after every answer is a nuisance, not a fault.
#[tokio::test]
async fn a_device_that_closes_when_idle_is_never_offline() {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (port, _guard) = hostile(move |_, transaction| {
        // No answer to every second request: it closes instead.
        if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2 == 1 {
            return Vec::new();
        }
        [&[transaction[0], transaction[1], 0, 0], [0, 5, 1, 3, 2, 0, 5].as_slice()].concat()
    })
    .await;
    let one = [("p", "INT", json!({"register": "HoldingRegister"}))];
    let mut mapper = Mapper::start(vec![config("d", json!({"port": port}), &one)]);
    for _ in 0..10 {
        let batch = mapper.batch("a value", |_| true).await;
        assert_eq!((batch.link, batch.samples[0].value.clone()), (Link::Online, Some(Value::Int(5))));
    }
}

/// Any bytes at all: no panic, no lie beyond what the bytes can honestly claim, and a command still gets an answer.
#[test]
fn any_bytes_are_survived() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Runs { cases: 64, failure_persistence: None, ..Runs::default() });
    let bytes = prop::collection::vec(any::<u8>(), 1..40);
    // Half of them with a header that fits, so that they get past it.
    let strategy = (bytes, any::<bool>());
    runner
        .run(&strategy, |(bytes, header)| {
            runtime.block_on(async {
                let (port, _guard) = hostile(move |_, transaction| {
                    if header {
                        let length = u8::try_from(bytes.len() + 1).unwrap();
                        [&[transaction[0], transaction[1], 0, 0, 0, length, 1], bytes.as_slice()].concat()
                    } else {
                        bytes.clone()
                    }
                })
                .await;
                let properties = [
                    ("p", "INT", json!({"register": "HoldingRegister", "limit": 2})),
                    ("c", "BOOLEAN", json!({"register": "CoilRegister", "offset": 3})),
                ];
                let link = json!({"port": port, "timeout": 50});
                let mut mapper = Mapper::start(vec![config("d", link, &properties)]);
                for _ in 0..3 {
                    let _ = mapper.read(0).await;
                }
                let _ = mapper.write(0, "p", json!(1)).await;
                mapper.modbus.shutdown().await;
            });
            Ok(())
        })
        .unwrap();
}

/// Devices come, change and go while their neighbours on the same endpoint keep their counters.
#[tokio::test]
async fn changing_one_device_leaves_its_neighbour_alone() {
    let server =
        pymodbus::Server::start(json!([{"unit": 1, "holding": [[0, [1, 2]]]}, {"unit": 2, "holding": [[0, [3]]]}]));
    let at = |offset: u16| [("p", "INT", json!({"register": "HoldingRegister", "offset": offset}))];
    let link = |unit: u8| json!({"port": server.port, "slaveID": unit});
    let mut mapper = Mapper::start(vec![config("a", link(1), &at(0)), config("b", link(2), &at(0))]);
    let before = mapper.batch("b", |b| b.device.name == "b" && b.stats.requests >= 3).await;
    mapper.devices[0] = Arc::new(config("a", link(1), &at(1)));
    let devices = mapper.devices.clone();
    mapper.modbus.set(&devices);
    mapper.batch("a, changed", |b| b.samples.iter().any(|s| s.value == Some(Value::Int(2)))).await;
    let after = mapper.batch("b", |b| b.device.name == "b").await;
    assert!(after.stats.requests > before.stats.requests, "its counters went on");
    mapper.modbus.set(&devices[..1]);
    let port = mapper.port(1);
    assert!(matches!(mapper.during(async move { port.read(None).await }).await, Err(AccessError::Gone) | Ok(_)));
    mapper.modbus.set(&[]);
    assert!(mapper.modbus.port(&devices[0]).is_none());
}
