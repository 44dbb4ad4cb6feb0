//! The local API over a real Unix socket, with curl as a client that is not ours.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_model::{Key, Kind, Object};
use edge_runtime::api::backend::{BackendError, Item, LogLevel, LogRequest, Logs, Properties, Reply};
use edge_runtime::api::{Backends, Error, Settings, Socket};
use edge_tests::served::{serve, serve_with};
use edge_tests::wait::DEADLINE;
use serde_json::{Value, json};

fn config_map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn objects_live_and_die() {
    let api = serve();
    let (code, made) = api.json("POST", MAPS, &config_map("a", &json!({"x": "1"})));
    assert_eq!(
        (code, &made["metadata"]["namespace"], &made["metadata"]["generation"]),
        (201, &json!("default"), &json!(1))
    );
    let (code, status) = api.json("POST", MAPS, &config_map("a", &json!({})));
    assert_eq!((code, &status["kind"], &status["reason"]), (409, &json!("Status"), &json!("AlreadyExists")));
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps", "namespace": "default"}));
    assert_eq!(api.get(&format!("{MAPS}/a")), (200, made.clone()));
    let (code, status) = api.get(&format!("{MAPS}/nothing"));
    assert_eq!((code, &status["reason"], &status["code"]), (404, &json!("NotFound"), &json!(404)));

    // Whoever saw an old version must not overwrite a newer one.
    let mut change = made.clone();
    change["data"]["x"] = json!("2");
    let (code, second) = api.json("PUT", &format!("{MAPS}/a"), &change);
    assert_eq!((code, &second["metadata"]["generation"]), (200, &json!(2)));
    let (code, status) = api.json("PUT", &format!("{MAPS}/a"), &change);
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")), "{status}");

    let (_, list) = api.get("/api/v1/configmaps");
    assert_eq!((&list["kind"], &list["items"][0]), (&json!("ConfigMapList"), &second));
    assert_eq!(list["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);

    let wrong = json!({"preconditions": {"uid": "other"}});
    assert_eq!(api.json("DELETE", &format!("{MAPS}/a"), &wrong).0, 409);
    let (code, status) = api.delete(&format!("{MAPS}/a"));
    assert_eq!((code, &status["status"]), (200, &json!("Success")));
    assert_eq!(api.delete(&format!("{MAPS}/a")).0, 404);
}

#[test]
fn patches_of_every_kind() {
    let api = serve();
    let path = format!("{MAPS}/a");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: \"1\"\n";
    assert_eq!(api.send("PATCH", &path, "application/apply-patch+yaml", yaml).0, 201);
    let (code, same) = api.send("PATCH", &path, "application/apply-patch+yaml; charset=utf-8", yaml);
    assert_eq!((code, &same["metadata"]["generation"]), (200, &json!(1)));
    let merge = r#"{"data": {"y": "2"}, "metadata": {"labels": {"l": "m"}}}"#;
    let (code, merged) = api.send("PATCH", &path, "application/merge-patch+json", merge);
    assert_eq!((code, &merged["data"]), (200, &json!({"x": "1", "y": "2"})));
    let json_patch = r#"[{"op": "test", "path": "/data/y", "value": "2"}, {"op": "remove", "path": "/data/x"}]"#;
    let (code, patched) = api.send("PATCH", &path, "application/json-patch+json", json_patch);
    assert_eq!((code, &patched["data"], &patched["metadata"]["labels"]), (200, &json!({"y": "2"}), &json!({"l": "m"})));
    let (code, _) = api.send("PATCH", &path, "application/json-patch+json", json_patch);
    assert_eq!(code, 422);
    let (code, patched) = api.send("PATCH", &path, "application/strategic-merge-patch+json", r#"{"data": {"z": "3"}}"#);
    assert_eq!((code, &patched["data"]), (200, &json!({"y": "2", "z": "3"})));
    assert_eq!(api.send("PATCH", &path, "text/plain", "x").0, 415);
    // The name cannot be patched away, and what is patched is checked.
    let (code, _) = api.send("PATCH", &path, "application/merge-patch+json", r#"{"metadata": {"name": "b"}}"#);
    assert_eq!(code, 400);
    let (code, status) = api.send("PATCH", &path, "application/merge-patch+json", r#"{"dat": {}}"#);
    assert_eq!((code, &status["details"]["causes"][0]["field"]), (422, &json!("dat")), "{status}");
    let old = format!(r#"{{"metadata": {{"resourceVersion": "{}"}}}}"#, 1);
    assert_eq!(api.send("PATCH", &path, "application/merge-patch+json", &old).0, 409);
    // Only the status changes under /status.
    let status = r#"{"status": {"seen": true}, "data": {"z": "4"}}"#;
    let (code, patched) = api.send("PATCH", &format!("{path}/status"), "application/merge-patch+json", status);
    assert_eq!((code, &patched["data"]["z"], &patched["status"]), (200, &json!("3"), &json!({"seen": true})));
}

#[test]
fn what_is_wrong_is_refused_with_the_field() {
    let api = serve();
    let mut object = config_map("a", &json!({}));
    object["metadata"]["labls"] = json!({});
    let (code, status) = api.json("POST", MAPS, &object);
    let cause = json!({
        "reason": "FieldValueInvalid", "field": "metadata.labls", "message": "unknown field, did you mean labels?",
    });
    assert_eq!((code, &status["details"]["causes"][0]), (422, &cause));
    let cases = [
        ("POST", MAPS, "application/json", "{\"a\": 1, \"a\": 2}", 400),
        ("POST", MAPS, "application/json", "{", 400),
        ("POST", MAPS, "application/json", "[]", 400),
        ("POST", MAPS, "application/yaml", "a: [", 400),
        ("POST", MAPS, "application/protobuf", "k8s", 415),
        ("POST", "/api/v1/configmaps", "application/json", "{}", 405),
        ("PUT", MAPS, "application/json", "{}", 405),
        ("POST", MAPS, "application/json", "{\"kind\": \"Pod\"}", 400),
        ("POST", "/api/v1/namespaces/A/configmaps", "application/json", "{\"metadata\": {\"name\": \"a\"}}", 422),
        ("POST", MAPS, "application/json", "{\"metadata\": {\"name\": \"a\", \"namespace\": \"b\"}}", 400),
        ("GET", "/api/v1/configmaps?labelSelector=a%20b", "", "", 400),
        ("GET", "/api/v1/configmaps?fieldSelector=spec.x=1", "", "", 400),
        ("GET", "/api/v1/configmaps?limit=many", "", "", 400),
        ("GET", "/nowhere", "", "", 404),
        ("GET", "/api/v1/namespaces/default/pods/a/log", "", "", 404),
        ("GET", "/images", "", "", 503),
    ];
    for (method, path, media_type, body, expected) in cases {
        let (code, status) = api.send(method, path, media_type, body);
        assert_eq!((code, &status["kind"]), (expected, &json!("Status")), "{method} {path} {body}: {status}");
    }
    assert!(api.store.list(Kind::ConfigMap, None).0.is_empty());
    let (code, _) = api.send("POST", MAPS, "application/json", &"x".repeat(3 << 20));
    assert_eq!(code, 413);
    let (code, dry) = api.json("POST", &format!("{MAPS}?dryRun=All"), &config_map("a", &json!({})));
    assert_eq!((code, api.get(&format!("{MAPS}/a")).0), (201, 404), "{dry}");
}

#[test]
fn lists_are_selected_and_paged() {
    let api = serve();
    for (name, ns, app) in [("a", "x", "web"), ("b", "x", "db"), ("a-b", "x-y", "web"), ("c", "x", "web")] {
        let mut object = config_map(name, &json!({}));
        object["metadata"]["labels"] = json!({"app": app});
        assert_eq!(api.json("POST", &format!("/api/v1/namespaces/{ns}/configmaps"), &object).0, 201);
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|i| {
                format!("{}/{}", i["metadata"]["namespace"].as_str().unwrap(), i["metadata"]["name"].as_str().unwrap())
            })
            .collect()
    };
    let (_, web) = api.get("/api/v1/configmaps?labelSelector=app%3Dweb");
    assert_eq!(names(&web), ["x/a", "x/c", "x-y/a-b"]);
    let (_, one) = api.get("/api/v1/namespaces/x/configmaps?fieldSelector=metadata.name%3Db");
    assert_eq!(names(&one), ["x/b"]);
    let (mut path, mut all) = ("/api/v1/configmaps?limit=1".to_owned(), Vec::new());
    for _ in 0..4 {
        let (_, page) = api.get(&path);
        all.extend(names(&page));
        let token = page["metadata"]["continue"].as_str().unwrap_or_default();
        path = format!("/api/v1/configmaps?limit=1&continue={}", edge_runtime::api::query::encode(token));
    }
    assert_eq!(all, ["x/a", "x/b", "x/c", "x-y/a-b"]);
    assert!(path.ends_with("continue="), "the last page ends the list: {path}");
}

#[test]
fn a_watch_loses_nothing_while_many_write() {
    const WRITERS: usize = 4;
    const CHANGES: usize = 60;
    let api = serve();
    api.json("POST", MAPS, &config_map("before", &json!({})));
    let mut lines = api.stream("/api/v1/configmaps?watch=1");
    let first = lines.next().unwrap();
    assert_eq!((&first["type"], &first["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("before")));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = api.store.clone();
        writers.push(api.spawn(async move {
            for change in 0..CHANGES {
                let mut object = Object::new(Kind::ConfigMap, "", &format!("w{writer}"), Value::Null);
                object.fields.clear();
                object.fields.insert("data".into(), json!({"n": change.to_string()}));
                store.apply(object).await.unwrap();
                tokio::task::yield_now().await;
            }
            store.delete(&Key::new(Kind::ConfigMap, "", &format!("w{writer}")), None).await.unwrap();
        }));
    }
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut last = first["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    for _ in 0..WRITERS * (CHANGES + 1) {
        let event = lines.next().expect("the watch goes on");
        let object = &event["object"];
        let version = object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        assert_eq!(version, last + 1, "no change is left out: {event}");
        last = version;
        let what = match event["type"].as_str().unwrap() {
            "DELETED" => "gone",
            _ => object["data"]["n"].as_str().unwrap(),
        };
        seen.entry(object["metadata"]["name"].as_str().unwrap().to_owned()).or_default().push(what.to_owned());
    }
    let mut expected: Vec<String> = (0..CHANGES).map(|n| n.to_string()).collect();
    expected.push("gone".to_owned());
    assert_eq!(seen.len(), WRITERS);
    assert!(seen.values().all(|changes| *changes == expected), "{seen:?}");
    for writer in writers {
        api.block_on(writer).unwrap();
    }
}

#[test]
fn watches_select_resume_expire_and_end() {
    let api = serve();
    let label = |name: &str, app: &str| {
        let mut object = config_map(name, &json!({}));
        object["metadata"]["labels"] = json!({"app": app});
        object
    };
    let (_, made) = api.json("POST", MAPS, &label("a", "web"));
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let mut selected = api.stream("/api/v1/configmaps?watch=true&labelSelector=app%3Dweb");
    assert_eq!(selected.next().unwrap()["type"], "ADDED");
    api.json("PUT", &format!("{MAPS}/a"), &label("a", "db"));
    api.json("POST", MAPS, &label("b", "db"));
    api.json("PUT", &format!("{MAPS}/a"), &label("a", "web"));
    api.delete(&format!("{MAPS}/a"));
    let words: Vec<Value> = (0..3).map(|_| selected.next().unwrap()["type"].clone()).collect();
    assert_eq!(words, ["DELETED", "ADDED", "DELETED"], "an object that leaves the selection is gone for the client");

    let mut resumed = api.stream(&format!("{MAPS}?watch=1&resourceVersion={version}&timeoutSeconds=3600"));
    let words: Vec<Value> = (0..4).map(|_| resumed.next().unwrap()["type"].clone()).collect();
    assert_eq!(words, ["MODIFIED", "ADDED", "MODIFIED", "DELETED"]);

    let mut bookmarked = api.stream(&format!("{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true"));
    assert_eq!(bookmarked.next().unwrap()["type"], "ADDED");
    let bookmark = bookmarked.next().unwrap();
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");

    api.block_on(async {
        for n in 0..3000 {
            let mut object = Object::new(Kind::ConfigMap, "", "many", Value::Null);
            object.fields.clear();
            object.fields.insert("data".into(), json!({"n": n.to_string()}));
            api.store.apply(object).await.unwrap();
        }
    });
    let mut expired = api.stream(&format!("{MAPS}?watch=1&resourceVersion={version}"));
    let event = expired.next().unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert_eq!(expired.next(), None);

    let mut short = api.stream(&format!("{MAPS}/b?watch=1&timeoutSeconds=1"));
    assert_eq!(short.next().unwrap()["object"]["metadata"]["name"], "b");
    assert_eq!(short.next(), None, "the watch ends by itself");

    let mut ends = api.stream("/api/v1/nodes?watch=1");
    let begun = Instant::now();
    // The request must have reached the server before it stops.
    std::thread::sleep(Duration::from_millis(100));
    api.stop.cancel();
    assert_eq!(ends.next(), None, "a node that stops ends its watches");
    assert!(begun.elapsed() < DEADLINE);
}

#[test]
fn the_socket_is_private_and_a_lock() {
    let api = serve();
    let socket = &api.settings.socket;
    let mode = std::fs::metadata(socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    let second = api.block_on(async { Socket::bind(&api.settings) });
    assert!(matches!(second, Err(Error::Running(_))), "{second:?}");
    let missing = Settings {
        socket: socket.with_file_name("b.sock"),
        group: Some("no such group".into()),
        ..Settings::default()
    };
    assert!(matches!(api.block_on(async { Socket::bind(&missing) }), Err(Error::NoGroup(_))));
    let grouped =
        Settings { socket: socket.with_file_name("c.sock"), group: Some("root".into()), ..Settings::default() };
    drop(api.block_on(async { Socket::bind(&grouped) }).unwrap());
    assert!(!grouped.socket.exists(), "a socket that is given up is removed");
    // What a process that was killed leaves behind is taken over.
    let stale = socket.with_file_name("d.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let settings = Settings { socket: stale.clone(), ..Settings::default() };
    let bound = api.block_on(async { Socket::bind(&settings) }).unwrap();
    assert!(UnixStream::connect(&stale).is_ok());
    drop(bound);
}

fn raw(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn garbage_slow_and_too_many_clients_do_no_harm() {
    let api = serve_with(Backends::default(), |s| {
        s.max_connections = 4;
        s.header_timeout_ms = 300;
    });
    let socket = api.settings.socket.clone();
    let long = [b"GET /".as_slice(), &vec![b'a'; 100_000], b" HTTP/1.1\r\n\r\n"].concat();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()[0]
    })
    .take(5000)
    .collect();
    let cases: [&[u8]; 8] = [
        b"",
        b"\0\0\0\0",
        &noise,
        &long,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/v1/namespaces/a/pods HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /api/v1/namespaces/a/pods HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /%ff%00%zz/../?%%%=& HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    for case in cases {
        let answer = raw(&socket, case);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Clients that say nothing hold every place, but only for so long.
    let idle: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let begun = Instant::now();
    loop {
        let answer = raw(&socket, b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(begun.elapsed() < DEADLINE, "the places are free again");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(idle);
}

struct Plant;

impl Properties for Plant {
    fn read<'a>(&'a self, device: &'a Key, property: &'a str) -> Reply<'a, Value> {
        Box::pin(async move {
            match property {
                "slow" => Err(BackendError::Timeout(format!("{} does not answer", device.name))),
                _ => Ok(json!({"value": 21.5, "unit": "C"})),
            }
        })
    }

    fn write<'a>(&'a self, _: &'a Key, _: &'a str, value: &'a Value) -> Reply<'a, Value> {
        Box::pin(async move {
            match value {
                Value::Number(_) => Ok(json!({"value": value})),
                _ => Err(BackendError::Invalid("value: is not a number".into())),
            }
        })
    }
}

struct Files;

impl Logs for Files {
    fn open(
        &self,
        request: LogRequest,
    ) -> Reply<'_, futures_util::stream::BoxStream<'static, Result<bytes::Bytes, BackendError>>> {
        Box::pin(async move {
            let line =
                format!("{:?} {:?} {} {}\n", request.container, request.tail_lines, request.follow, request.previous);
            let chunks = [Ok(bytes::Bytes::from(line)), Err(BackendError::Failed("the file is gone".into()))];
            Ok(Box::pin(futures_util::stream::iter(chunks)) as futures_util::stream::BoxStream<'static, _>)
        })
    }
}

struct Level(std::sync::Mutex<String>);

impl LogLevel for Level {
    fn get(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn set(&self, directives: &str) -> Result<(), BackendError> {
        if directives == "loud" {
            return Err(BackendError::Invalid("loud is no level".into()));
        }
        directives.clone_into(&mut self.0.lock().unwrap());
        Ok(())
    }
}

#[test]
fn the_node_shows_itself() {
    let ready = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_ready = Arc::clone(&ready);
    let backends = Backends {
        properties: Some(Arc::new(Plant)),
        logs: Some(Arc::new(Files)),
        log_level: Some(Arc::new(Level(std::sync::Mutex::new("info".into())))),
        status: vec![("units", Arc::new(|| vec![Item::well("bus", "Running").with("restarts", 0)]))],
        ready: Some(Arc::new(move || {
            if is_ready.load(std::sync::atomic::Ordering::Relaxed) {
                Ok(())
            } else {
                Err("the store is opening".into())
            }
        })),
        ..Backends::default()
    };
    backends.metrics.add(|e| e.counter("edge_things_total", "Things.", 7));
    let api = serve_with(backends, |_| {});
    let spec = json!({"deviceModelRef": {"name": "m"}});
    api.block_on(api.store.create(Object::new(Kind::Device, "", "pump", spec))).unwrap();
    api.block_on(api.store.create(Object::new(Kind::Pod, "", "web", json!({"containers": []})))).unwrap();

    let (_, status) = api.get("/status");
    assert_eq!(status["units"], json!([{"name": "bus", "state": "Running", "well": true, "restarts": 0}]));
    assert_eq!((&status["well"], &status["devices"][0]["well"]), (&json!(false), &json!(false)));
    assert_eq!(status["pods"][0]["name"], "default/web");

    let device = "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices/pump/properties";
    assert_eq!(api.get(device).0, 200);
    assert_eq!(api.get(&format!("{device}/t")), (200, json!({"value": 21.5, "unit": "C"})));
    assert_eq!(api.get(&format!("{device}/slow")).0, 504);
    assert_eq!(api.json("PUT", &format!("{device}/t"), &json!({"value": 3})), (200, json!({"value": 3})));
    assert_eq!(api.json("PUT", &format!("{device}/t"), &json!({"value": "x"})).0, 422);
    assert_eq!(api.json("PUT", &format!("{device}/t"), &json!({"valu": 3})).0, 400);

    let (code, log) = api.get("/api/v1/namespaces/default/pods/web/log?container=c&tailLines=5&follow=true");
    assert_eq!((code, log), (200, json!("Some(\"c\") Some(5) true false\nerror: the file is gone\n")));

    assert_eq!(api.json("PUT", "/loglevel", &json!({"level": "debug"})), (200, json!({"level": "debug"})));
    assert_eq!(api.json("PUT", "/loglevel", &json!({"level": "loud"})).0, 422);
    assert_eq!(api.get("/loglevel").1, json!({"level": "debug"}));

    assert_eq!(api.get("/readyz").0, 503);
    ready.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(api.get("/readyz").0, 200);

    let port = api.metrics.clone().unwrap();
    let http = |path: &str| {
        let output = Command::new("curl")
            .args(["-sS", "-w", "\n%{http_code}", &format!("http://{port}{path}")])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(http("/metrics").contains("edge_things_total 7\n"));
    assert_eq!(http("/healthz"), "ok\n200");
    assert_eq!(http("/readyz"), "ok\n200");
    assert!(http("/api/v1/pods").ends_with("\n404"), "objects are served on the socket only");
}

#[test]
fn clients_find_out_what_there_is() {
    let api = serve();
    let (_, groups) = api.get("/apis");
    assert_eq!(groups["groups"][0]["preferredVersion"]["groupVersion"], "devices.kubeedge.io/v1beta1");
    let (_, core) = api.get("/api/v1");
    let names: Vec<&str> = core["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert!(names.contains(&"pods/log") && names.contains(&"configmaps") && !names.contains(&"devices"), "{names:?}");
    assert_eq!(api.get("/apis/devices.kubeedge.io/v1beta1").0, 200);
    assert_eq!(api.get("/apis/apps/v1").0, 404);
    assert!(api.get("/version").1["gitVersion"].as_str().unwrap().starts_with("v1."));
    assert_eq!(PathBuf::from("/run/edge-runtime/api.sock"), Settings::default().socket);
}
