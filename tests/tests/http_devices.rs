//! Devices with an HTTP interface: polled with as few requests as there are URLs, written, and refused with a reason.

use edge_model::Kind;
use edge_model::device::status::DeviceStatus;
use edge_model::reading::Value;
use edge_tests::authority::Authority;
use edge_tests::field::{Field, reported, twin};
use edge_tests::http_device::HttpDevice;
use serde_json::{Value as Json, json};

/// A relay with a meter. Three properties are in one answer, the level is in another.
fn model() -> Json {
    let visit = |data: Json| json!({"protocolName": "http", "configData": data});
    let relay = json!({"url": "/status", "path": "relays[0].ison",
        "write": {"url": "/relay/0", "method": "POST", "template": "{\"on\": {{json}}}"}});
    let name = json!({"url": "/status", "path": "name",
        "write": {"url": "/name", "template": "{{value}}", "contentType": "text/plain"}});
    let level = json!({"url": "/level", "write": {"url": "/level?set={{value}}", "method": "GET"}});
    json!({"protocol": "http", "properties": [
        {"name": "power", "type": "DOUBLE", "accessMode": "ReadOnly", "unit": "W",
            "visitors": visit(json!({"url": "/status", "path": "meters[0].power"}))},
        {"name": "relay", "type": "BOOLEAN", "accessMode": "ReadWrite", "visitors": visit(relay)},
        {"name": "name", "type": "STRING", "accessMode": "ReadWrite", "visitors": visit(name)},
        {"name": "level", "type": "INT", "accessMode": "ReadWrite", "maximum": 10, "visitors": visit(level)},
        {"name": "huge", "type": "STRING", "accessMode": "ReadOnly", "visitors": visit(json!({"url": "/huge"}))},
        {"name": "nothing", "type": "INT", "accessMode": "ReadOnly", "visitors": visit(json!({"url": "/nothing"}))},
    ]})
}

fn device(link: Json, properties: &[&str]) -> Json {
    let mut data = json!({"timeout": 60_000});
    for (key, value) in link.as_object().into_iter().flatten() {
        data[key] = value.clone();
    }
    json!({
        "deviceModelRef": {"name": "meter"},
        "protocol": {"protocolName": "http", "configData": data},
        "properties": properties.iter().map(|name| json!({"name": name, "collectCycle": 50})).collect::<Vec<_>>(),
    })
}

const WELL: [&str; 4] = ["power", "relay", "name", "level"];

fn url(peer: &HttpDevice) -> String {
    format!("http://127.0.0.1:{}/api", peer.port)
}

fn quality<'a>(status: &'a DeviceStatus, property: &str) -> &'a str {
    twin(status, property).map_or("", |t| &t.reported.metadata.quality)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_serves_many_properties_and_writes_are_read_back() {
    let mut peer = HttpDevice::start(&json!({}));
    let field = Field::start();
    field.apply(Kind::DeviceModel, "meter", model()).await;
    field.apply(Kind::Device, "meter", device(json!({"url": url(&peer)}), &WELL)).await;
    let status = field.status_when("meter", "read", |s| reported(s, "level") == "3").await;
    assert_eq!(status.state, "online");
    let values = ["power", "relay", "name"].map(|p| reported(&status, p));
    assert_eq!(values, ["12.5", "false", "hall"]);
    let requests = peer.requests();
    let count = |path: &str| requests.iter().filter(|r| r.1 == path).count();
    // The two are asked one after the other: never one more than the other by more than the poll under way.
    assert!(count("/api/status").abs_diff(count("/api/level")) <= 1, "{requests:?}");

    for (property, value, found) in [
        ("relay", json!(true), Value::Bool(true)),
        ("name", json!("attic"), Value::Text("attic".into())),
        ("level", json!(7), Value::Int(7)),
    ] {
        let reading = field.commands.set("default", "meter", property, value).await.unwrap();
        assert_eq!(reading.value, Some(found), "{property}");
    }
    let writes: Vec<_> = peer.requests().into_iter().filter(|r| r.0 != "GET" || r.1.contains('?')).collect();
    let pair = |method: &str, path: &str| (method.to_owned(), path.to_owned());
    assert_eq!(writes, [pair("POST", "/api/relay/0"), pair("PUT", "/api/name"), pair("GET", "/api/level?set=7")]);
    peer.set("power", json!(-3));
    field.status_when("meter", "read again", |s| reported(s, "power") == "-3").await;

    // Connections that are closed after every answer are no disturbance.
    peer.set("close", json!(true));
    peer.set("power", json!(99));
    let status = field.status_when("meter", "read again", |s| reported(s, "power") == "99").await;
    assert_eq!(status.state, "online");
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_url_refuses_does_not_spoil_another() {
    let peer = HttpDevice::start(&json!({}));
    let field = Field::start();
    field.apply(Kind::DeviceModel, "meter", model()).await;
    field.apply(Kind::Device, "meter", device(json!({"url": url(&peer)}), &["nothing", "level"])).await;
    let status = field.status_when("meter", "read", |s| reported(s, "level") == "3").await;
    assert_eq!((quality(&status, "nothing"), status.state.as_str()), ("refused", "online"));
    // An answer that is too long is no answer at all.
    field.apply(Kind::Device, "meter", device(json!({"url": url(&peer)}), &["huge", "level"])).await;
    let status = field.status_when("meter", "too much", |s| s.state == "offline").await;
    assert!(status.extensions.reason.contains("more than 262144 bytes"), "{status:?}");
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_silent_stubborn_or_gone_is_named() {
    let mut peer = HttpDevice::start(&json!({}));
    let field = Field::start();
    field.apply(Kind::DeviceModel, "meter", model()).await;
    field.apply(Kind::Device, "meter", device(json!({"url": url(&peer), "timeout": 1_000}), &WELL)).await;
    field.status_when("meter", "read", |s| reported(s, "level") == "3").await;
    peer.set("sticky", json!(true));
    edge_tests::field::eventually("a mismatch", async || {
        let stuck = field.commands.set("default", "meter", "relay", json!(true)).await.unwrap_err().to_string();
        stuck.contains("wrote true and read back false").then_some(())
    })
    .await;
    peer.set("status", json!(503));
    let status = field.status_when("meter", "refused", |s| quality(s, "power") == "refused").await;
    assert_eq!(reported(&status, "power"), "12.5", "the last value stays");
    let refused = field.commands.set("default", "meter", "relay", json!(true)).await.unwrap_err().to_string();
    assert!(refused.contains("HTTP status 503"), "{refused}");
    peer.set("status", json!(200));
    peer.set("silent", json!(true));
    let status = field.status_when("meter", "silent", |s| s.state == "offline").await;
    assert!(status.extensions.reason.contains("no answer within 1000 ms"), "{status:?}");
    peer.set("silent", json!(false));
    field.status_when("meter", "back", |s| s.state == "online").await;
    drop(peer);
    field.status_when("meter", "gone", |s| s.extensions.reason.contains("no connection")).await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_tokens_and_tls() {
    let field = Field::start();
    field.apply(Kind::DeviceModel, "meter", model()).await;
    let peer = HttpDevice::start(&json!({"user": "admin", "password": "secret"}));
    field.apply(Kind::Device, "meter", device(json!({"url": url(&peer)}), &["level"])).await;
    field.status_when("meter", "refused", |s| quality(s, "level") == "refused").await;
    let link = json!({"url": url(&peer), "user": "admin", "password": "secret"});
    field.apply(Kind::Device, "meter", device(link, &["level"])).await;
    field.status_when("meter", "read", |s| quality(s, "level") == "good").await;

    let peer = HttpDevice::start(&json!({"token": "abc"}));
    field.apply(Kind::Device, "token", device(json!({"url": url(&peer), "token": "abc"}), &["level"])).await;
    field.status_when("token", "read", |s| quality(s, "level") == "good").await;

    let (authority, stranger) = (Authority::new("bench"), Authority::new("stranger"));
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.issue(&["localhost"]);
    let (at_certificate, at_key) = (folder.path().join("server.pem"), folder.path().join("server.key"));
    std::fs::write(&at_certificate, certificate).unwrap();
    std::fs::write(&at_key, key).unwrap();
    let peer = HttpDevice::start(&json!({"certificate": at_certificate, "key": at_key}));
    let link = |ca: &Authority| json!({"url": format!("https://localhost:{}/api", peer.port), "ca": ca.pem()});
    field.apply(Kind::Device, "tls", device(link(&stranger), &["level"])).await;
    let status = field.status_when("tls", "refused", |s| s.state == "offline").await;
    assert!(status.extensions.reason.to_lowercase().contains("certificate"), "{status:?}");
    field.apply(Kind::Device, "tls", device(link(&authority), &["level"])).await;
    field.status_when("tls", "read", |s| quality(s, "level") == "good").await;
    field.stop().await;
}
