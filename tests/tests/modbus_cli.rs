//! `edge-runtime modbus`: the shipped executable on the wire, with pymodbus at the other end.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use edge_mappers::modbus::frame::crc;
use edge_tests::binary::edge_runtime;
use edge_tests::line::Line;
use edge_tests::pymodbus::{Server, lasting_port};
use serde_json::{Value, json};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(edge_runtime()).arg("modbus").args(arguments).output().expect("it starts");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json_of(arguments: &[&str]) -> Value {
    let (code, out, err) = run(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {err}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {out}"))
}

fn devices() -> Value {
    json!([{"unit": 1, "holding": [[0, [0x47f1, 0x2000, 7, 8]]], "coils": [[0, [1, 0, 1]]]},
        {"unit": 3, "holding": [[0, [5]]]}])
}

#[test]
fn values_are_read_and_written() {
    let server = Server::start(devices());
    let at = format!("127.0.0.1:{}", server.port);
    let read = json_of(&["read", &at, "--type", "float32", "-o", "json"]);
    assert_eq!(read["values"], json!([{"address": 0, "raw": "47f1 2000", "value": 123_456.0}]));
    let coils = json_of(&["read", &at, "-t", "coil", "-c", "3", "-o", "json"]);
    let bits: Vec<&Value> = coils["values"].as_array().unwrap().iter().map(|v| &v["value"]).collect();
    assert_eq!(bits, [&json!(true), &json!(false), &json!(true)]);
    let (code, out, err) = run(&["write", &at, "-a", "2", "--type", "int16", "-5", "6"]);
    assert_eq!((code, out.as_str()), (Some(0), "2 HoldingRegister written at 2\n"), "{err}");
    let (_, table, _) = run(&["read", &at, "-a", "2", "-c", "2", "--type", "int16"]);
    assert_eq!(table, "ADDRESS   RAW    VALUE\n2         fffb   -5\n3         0006   6\n");
    let cases: [(&[&str], i32, &str); 5] = [
        (&["read", &at, "-a", "90"], 1, "exception"),
        (&["read", &at, "--type", "int17"], 64, "int17"),
        (&["write", &at, "-t", "input", "1"], 64, "cannot be written"),
        (&["write", &at, "70000"], 64, "not between"),
        (&["sniff", &at], 64, "serial line"),
    ];
    for (arguments, exit, part) in cases {
        let (code, _, err) = run(arguments);
        assert!(code == Some(exit) && err.contains(part), "{arguments:?}: {code:?} {err}");
    }
    let dead = format!("127.0.0.1:{}", lasting_port());
    let (code, _, err) = run(&["read", &dead]);
    assert!(code == Some(1) && err.contains("no connection"), "{err}");
}

#[test]
fn units_are_found_with_what_they_say() {
    let line = Line::new();
    let _server = Server::start_as(json!({"kind": "serial", "path": line.b()}), devices());
    let path = line.a().display().to_string();
    let found = json_of(&["scan", &path, "--units", "1-1", "--timeout", "30000", "-o", "json"]);
    let unit = &found["units"][0];
    assert_eq!((&unit["unit"], &unit["vendor"], &unit["revision"]), (&json!(1), &json!("Acme"), &json!("1.2")));
    let (code, out, err) = run(&["scan", &path, "--units", "1-3", "--timeout", "30000"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("UNIT   SAYS") && out.lines().any(|l| l.starts_with("3  ")), "{out}");
}

#[test]
fn a_line_is_listened_to() {
    let line = Line::new();
    let mut other = File::options().read(true).write(true).open(line.b()).unwrap();
    let path = line.a().display().to_string();
    let mut sniffer = Command::new(edge_runtime())
        .args(["modbus", "sniff", &path, "--frames", "3", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stdout = sniffer.stdout.take().expect("stdout");
    let summed = |body: &[u8]| [body, &crc(body)].concat();
    let (ended, over) = std::sync::mpsc::channel::<()>();
    // Nobody tells when it listens: the frames are repeated until it has heard enough.
    let talk = std::thread::spawn(move || {
        while over.recv_timeout(std::time::Duration::from_millis(200)).is_err() {
            let _ = other.write_all(&summed(&[1, 3, 0, 16, 0, 2]));
            let _ = other.write_all(&summed(&[1, 3, 4, 0, 9, 0, 8]));
        }
    });
    let heard: Vec<String> = BufReader::new(stdout).lines().map_while(Result::ok).collect();
    ended.send(()).unwrap();
    talk.join().unwrap();
    assert!(sniffer.wait().unwrap().success());
    let words: Vec<Value> = heard.iter().map(|l| serde_json::from_str::<Value>(l).unwrap()["words"].clone()).collect();
    assert_eq!(words.len(), 3, "{heard:?}");
    assert!(words.contains(&json!("unit 1 3 read holding registers 2 from 16")), "{words:?}");
}

#[test]
fn a_register_list_becomes_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("meter.csv");
    std::fs::write(&file, "name,address,type,dataType,scale,unit\nvoltage,40001,FLOAT,uint16,0.1,V\n").unwrap();
    let path = file.display().to_string();
    let (code, out, err) = run(&["import", &path, "--name", "meter", "--ip", "10.0.0.9"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("kind: DeviceModel") && out.contains("kind: Device\n"), "{out}");
    std::fs::write(&file, "name,address\nvoltage,99\n").unwrap();
    let (code, _, err) = run(&["import", &path, "--name", "meter"]);
    assert!(code == Some(1) && err.contains("line 2, column 2"), "{err}");
}
