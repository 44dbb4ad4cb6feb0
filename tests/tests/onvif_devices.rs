//! Cameras: what they say of themselves with a digest they check, with a clock that is wrong, and found by their name alone.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use edge_mappers::onvif::scan;
use edge_model::Kind;
use edge_model::device::status::DeviceStatus;
use edge_tests::binary::edge_runtime;
use edge_tests::field::{Field, PATIENCE, eventually, reported, twin};
use edge_tests::onvif_camera::Camera;
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;

/// Everybody on this machine hears what is asked on loopback: one test at a time.
static LOOPBACK: Mutex<()> = Mutex::const_new(());

const HALL: &str = "urn:uuid:6d9a3c1e-0f4b-4c2e-9a51-2b7f5e8d0c11";

fn model() -> Json {
    let property = |name: &str, kind: &str, data: Json| {
        json!({"name": name, "type": kind, "accessMode": "ReadOnly",
            "visitors": {"protocolName": "onvif", "configData": data}})
    };
    json!({"protocol": "onvif", "properties": [
        property("maker", "STRING", json!({"value": "manufacturer"})),
        property("model", "STRING", json!({"value": "model"})),
        property("snapshot", "STRING", json!({"value": "snapshotUri"})),
        property("stream", "STRING", json!({"value": "streamUri"})),
        property("small", "STRING", json!({"value": "streamUri", "profile": "Profile_Sub", "transport": "UDP"})),
        property("profiles", "STRING", json!({"value": "profiles"})),
        property("clock", "STRING", json!({"value": "dateTime"})),
        property("ahead", "INT", json!({"value": "clockOffset"})),
        property("at", "STRING", json!({"value": "deviceUri"})),
        property("hardware", "STRING", json!({"value": "hardwareId"})),
    ]})
}

fn device(link: Json, properties: &[&str]) -> Json {
    let mut data = json!({"timeout": 5_000});
    for (key, value) in link.as_object().into_iter().flatten() {
        data[key] = value.clone();
    }
    json!({
        "deviceModelRef": {"name": "camera"},
        "protocol": {"protocolName": "onvif", "configData": data},
        "properties": properties.iter().map(|name| json!({"name": name, "collectCycle": 100})).collect::<Vec<_>>(),
    })
}

fn at(camera: &Camera, more: Json) -> Json {
    let mut link = json!({"address": "127.0.0.1", "port": camera.port});
    for (key, value) in more.as_object().into_iter().flatten() {
        link[key] = value.clone();
    }
    link
}

fn quality<'a>(status: &'a DeviceStatus, property: &str) -> &'a str {
    twin(status, property).map_or("", |t| &t.reported.metadata.quality)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_camera_says_of_itself_with_requests_its_wsdl_allows() {
    let mut camera = Camera::start(&json!({"user": "admin", "password": "s<cret&", "host": "10.9.9.9"}));
    let field = Field::start();
    field.apply(Kind::DeviceModel, "camera", model()).await;
    let user = json!({"user": "admin", "password": "s<cret&"});
    let all = ["maker", "model", "snapshot", "stream", "small", "profiles", "clock", "ahead", "at"];
    field.apply(Kind::Device, "hall", device(at(&camera, user), &all)).await;
    let status = field.status_when("hall", "read", |s| all.iter().all(|p| quality(s, p) == "good")).await;
    assert_eq!(status.state, "online");
    let snapshot = format!("http://10.9.9.9:{}/snapshot.jpg", camera.port);
    assert_eq!(reported(&status, "snapshot"), snapshot, "the camera's own idea of its host is left");
    assert!(reported(&status, "stream").starts_with("rtsp://10.9.9.9:8554/"), "{status:?}");
    assert_ne!(reported(&status, "small"), reported(&status, "stream"), "another profile is another stream");
    assert!(!reported(&status, "maker").is_empty() && !reported(&status, "model").is_empty(), "{status:?}");
    let profiles: Json = serde_json::from_str(reported(&status, "profiles")).unwrap();
    assert_eq!(profiles[0]["token"], "Profile_Main");
    assert_eq!(profiles[1]["encoding"], "H264");
    assert_eq!(reported(&status, "at"), format!("http://127.0.0.1:{}/onvif/device_service", camera.port));
    let asked = camera.requests();
    for name in
        ["GetSystemDateAndTime", "GetDeviceInformation", "GetServices", "GetProfiles", "GetSnapshotUri", "GetStreamUri"]
    {
        assert!(asked.iter().any(|a| a == name), "{name} was not asked: {asked:?}");
    }

    let rewritten = json!({"user": "admin", "password": "s<cret&", "rewriteHost": true, "profile": "Profile_Sub"});
    field.apply(Kind::Device, "nat", device(at(&camera, rewritten), &["snapshot", "stream"])).await;
    let nat = field.status_when("nat", "read", |s| quality(s, "stream") == "good").await;
    assert_eq!(reported(&nat, "snapshot"), format!("http://127.0.0.1:{}/snapshot.jpg", camera.port));
    assert_eq!(reported(&nat, "stream"), reported(&status, "small").replace("10.9.9.9", "127.0.0.1"));
    let refused = field.commands.set("default", "nat", "stream", json!("x")).await.unwrap_err().to_string();
    assert!(refused.contains("read-only"), "{refused}");
    camera.requests();
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_a_wrong_clock_is_not() {
    // A camera that was never told the time: a token dated by our clock would be a day too old for it.
    let mut camera = Camera::start(&json!({"user": "admin", "password": "secret", "ahead": 86_400}));
    let field = Field::start();
    field.apply(Kind::DeviceModel, "camera", model()).await;
    let user = |password: &str| json!({"user": "admin", "password": password});
    field.apply(Kind::Device, "hall", device(at(&camera, user("wrong")), &["ahead", "maker"])).await;
    let status = field.status_when("hall", "refused", |s| quality(s, "maker") == "refused").await;
    assert_eq!((quality(&status, "ahead"), status.state.as_str()), ("good", "online"));
    field.apply(Kind::Device, "hall", device(at(&camera, user("secret")), &["ahead", "maker"])).await;
    let status = field.status_when("hall", "read", |s| quality(s, "maker") == "good").await;
    let ahead: i64 = reported(&status, "ahead").parse().unwrap();
    assert!((86_300..86_500).contains(&ahead), "{ahead}");
    // Set right meanwhile: the next reading knows.
    camera.set("ahead", json!(-90_000));
    field
        .status_when("hall", "read by the new clock", |s| {
            reported(s, "ahead").parse().is_ok_and(|a: i64| a < 0) && quality(s, "maker") == "good"
        })
        .await;
    camera.set("silent", json!(true));
    let status = field.status_when("hall", "silent", |s| s.state == "offline").await;
    assert!(status.extensions.reason.contains("no answer within 5000 ms"), "{status:?}");
    camera.set("silent", json!(false));
    field.status_when("hall", "back", |s| s.state == "online").await;

    let only_users = Camera::start(&json!({"user": "admin", "password": "secret", "clock_for_all": false}));
    field.apply(Kind::Device, "shy", device(at(&only_users, user("secret")), &["clock", "maker"])).await;
    field.status_when("shy", "read", |s| quality(s, "maker") == "good" && quality(s, "clock") == "good").await;
    field.apply(Kind::Device, "shy", device(at(&only_users, json!({})), &["clock", "maker"])).await;
    field.status_when("shy", "refused", |s| quality(s, "maker") == "refused").await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_may_want_the_digest_of_http() {
    let field = Field::start();
    field.apply(Kind::DeviceModel, "camera", model()).await;
    let options = json!({"user": "admin", "password": "secret", "http_digest": true, "clock_for_all": false});
    let camera = Camera::start(&options);
    let user = |password: &str| json!({"user": "admin", "password": password});
    field.apply(Kind::Device, "hall", device(at(&camera, user("wrong")), &["stream"])).await;
    field.status_when("hall", "refused", |s| quality(s, "stream") == "refused").await;
    field.apply(Kind::Device, "hall", device(at(&camera, user("secret")), &["stream"])).await;
    field.status_when("hall", "read", |s| quality(s, "stream") == "good").await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_is_heard_and_whose_it_is() {
    let _alone = LOOPBACK.lock().await;
    let mut heard = tokio::spawn(scan::hello(HALL, Some(Ipv4Addr::LOCALHOST)));
    let other = "urn:uuid:00000000-0000-4000-8000-000000000001";
    drop(Camera::start(&json!({"discovery": true, "uuid": other})));
    assert!(!heard.is_finished(), "another camera's greeting");
    // A camera greets once, when it starts.
    let start = Instant::now();
    loop {
        let camera = Camera::start(&json!({"discovery": true, "uuid": HALL}));
        if tokio::time::timeout(Duration::from_secs(1), &mut heard).await.is_ok() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no greeting was heard");
        drop(camera);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_found_by_its_name_wherever_it_is() {
    let _alone = LOOPBACK.lock().await;
    let field = Field::start();
    field.apply(Kind::DeviceModel, "camera", model()).await;
    let link = json!({"endpointReference": HALL.to_uppercase().replace("URN:UUID", "urn:uuid"),
        "interface": "127.0.0.1", "timeout": 500});
    field.apply(Kind::Device, "hall", device(link, &["at", "maker"])).await;
    let status = field.status_when("hall", "sought", |s| s.state == "offline").await;
    assert!(status.extensions.reason.contains("no camera says it is urn:uuid:"), "{status:?}");
    let camera = Camera::start(&json!({"discovery": true, "uuid": HALL}));
    let place = |c: &Camera| format!("http://127.0.0.1:{}/onvif/device_service", c.port);
    let status = field.status_when("hall", "found", |s| quality(s, "at") == "good").await;
    assert_eq!(reported(&status, "at"), place(&camera));
    // It comes back somewhere else, as after a new lease.
    drop(camera);
    field.status_when("hall", "lost", |s| s.state == "offline").await;
    let camera = Camera::start(&json!({"discovery": true, "uuid": HALL}));
    field.status_when("hall", "found again", |s| reported(s, "at") == place(&camera)).await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_in_the_network_are_listed() {
    let _alone = LOOPBACK.lock().await;
    let discover = |more: &[&str]| {
        let mut command = Command::new(edge_runtime());
        command.args(["onvif", "discover", "--interface", "127.0.0.1", "--timeout", "1500"]).args(more);
        let output = command.output().expect("it starts");
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, err) = discover(&[]);
    assert!(code == Some(1) && err.contains("no camera answers"), "{code:?} {err}");
    let camera = Camera::start(&json!({"discovery": true, "uuid": HALL, "name": "Hall"}));
    // A loaded machine may be late once.
    let found = eventually("found", async || {
        let (code, out, _) = discover(&["-o", "json"]);
        (code == Some(0))
            .then(|| serde_json::from_str::<Json>(&out).expect("JSON"))
            .filter(|j| j["cameras"][0].is_object())
    })
    .await;
    let first = &found["cameras"][0];
    assert_eq!(first["endpointReference"], HALL);
    assert_eq!(first["addresses"], json!([format!("http://127.0.0.1:{}/onvif/device_service", camera.port)]));
    assert_eq!(first["name"], "Hall");
    let (_, table, _) = discover(&[]);
    assert!(table.starts_with("NAME ") && table.contains(HALL), "{table}");
}
