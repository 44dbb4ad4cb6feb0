//! Devices as objects: polled, in the twin, on the bus, in the queue; read and written by whoever may.

use std::time::Duration;

use edge_mappers::plant;
use edge_model::reading::{Quality, Value};
use edge_model::topic::Topic;
use edge_model::{Key, Kind, Object};
use edge_runtime::bus::Retain;
use edge_runtime::field::{CommandError, Settings};
use edge_runtime::queue::Stream;
use edge_tests::field::{Field, device, eventually, model, model_property, property, reported, twin};
use edge_tests::pymodbus;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The demonstration's plant on a free port.
async fn plant() -> (u16, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    tokio::spawn(plant::serve(listener, stop.clone()));
    (port, stop)
}

/// The model of a thermostat: a setpoint with limits, and a temperature.
async fn thermostat_model(field: &Field) {
    let mut setpoint = model_property("setpoint", "FLOAT", "ReadWrite");
    (setpoint["minimum"], setpoint["maximum"], setpoint["unit"]) = (json!("5"), json!("30"), json!("°C"));
    let properties = [setpoint, model_property("temperature", "FLOAT", "ReadOnly")];
    field.apply(Kind::DeviceModel, "thermostat", model(&properties)).await;
}

/// A thermostat's spec; the setpoint is holding register 0, the temperature 1, in tenths.
fn thermostat(port: u16, desired: Option<&str>) -> Json {
    let tenths =
        |offset: u16| json!({"register": "HoldingRegister", "offset": offset, "dataType": "int16", "scale": 0.1});
    let mut setpoint = property("setpoint", tenths(0));
    if let Some(desired) = desired {
        setpoint["desired"] = json!({"value": desired});
    }
    let mut temperature = property("temperature", tenths(1));
    temperature["reportToCloud"] = json!(true);
    device("thermostat", json!({"port": port}), &[setpoint, temperature])
}

/// The registers of a thermostat in pymodbus.
fn registers(setpoint: u16, temperature: u16) -> Json {
    json!([{"unit": 1, "holding": [[0, [setpoint, temperature]]]}])
}

#[tokio::test]
async fn a_device_object_is_polled_and_seen_everywhere() {
    let (port, stop) = plant().await;
    let field = Field::start();
    let mut data = field.listen("$ke/events/device/+/data/update");
    let mut states = field.listen("$hw/events/device/+/state/update");
    for object in plant::objects(port) {
        field.store.apply(Object::from_json(object).unwrap()).await.unwrap();
    }

    let status = field.status_when("plant", "read", |s| reported(s, "setpoint") == "21.5").await;
    assert_eq!(status.state, "online");
    assert_eq!(reported(&status, "pump"), "true");
    assert_eq!(states.message("online", |m| m["state"] == "online").await["event_id"], "");
    let readings = data.message("a temperature", |m| !m["data"]["temperature"].is_null()).await;
    assert_eq!(readings["data"]["temperature"]["metadata"]["type"], "float");

    // A coil that the plant obeys.
    let reading = field.commands.set("default", "plant", "pump", json!(false)).await.unwrap();
    assert_eq!((reading.value, reading.quality), (Some(Value::Bool(false)), Quality::Good));
    field.status_when("plant", "stopped", |s| reported(s, "running") == "false").await;

    let queued = eventually("readings in the queue", async || {
        field.queue.read(Stream::Data, 0, 1).await.unwrap().into_iter().next()
    })
    .await;
    assert_eq!(queued.message.subject, "devices/default/plant/data");
    let payload: Json = serde_json::from_slice(&queued.message.payload).unwrap();
    let many = payload["readings"].as_array().unwrap();
    assert!(many.len() > 1, "many readings in one message: {payload}");
    let temperature = many.iter().find(|r| r["p"] == "temperature").unwrap_or_else(|| panic!("{payload}"));
    assert!(temperature["v"].is_f64() && temperature["t"].is_i64(), "{payload}");
    stop.cancel();
    field.stop().await;
}

#[tokio::test]
async fn desired_values_are_written_and_kept() {
    let server = pymodbus::Server::start(registers(200, 190));
    let field = Field::start();
    let mut deltas = field.listen("$hw/events/device/+/twin/update/delta");
    thermostat_model(&field).await;
    field.apply(Kind::Device, "hall", thermostat(server.port, Some("21.5"))).await;
    let status = field.status_when("hall", "as desired", |s| reported(s, "setpoint") == "21.5").await;
    assert_eq!(twin(&status, "setpoint").unwrap().observed_desired.value, "21.5");
    let delta = deltas.message("a delta", |_| true).await;
    assert_eq!(delta["delta"], json!({"setpoint": "21.5"}));
    assert_eq!(delta["twin"]["setpoint"]["actual"]["value"], "20");

    // Somebody turns the knob: it is turned back.
    let mut server = server;
    server.poke(1, 3, 0, 300);
    deltas.message("another delta", |d| d["twin"]["setpoint"]["actual"]["value"] == "30").await;
    field.status_when("hall", "as desired again", |s| reported(s, "setpoint") == "21.5").await;

    // A command changes what is desired, too, so that the two do not fight.
    let reading = field.commands.set("default", "hall", "setpoint", json!(18)).await.unwrap();
    assert_eq!(reading.value, Some(Value::Float(18.0)));
    eventually("the spec says so", async || {
        let object = field.store.get(&Key::new(Kind::Device, "", "hall")).unwrap();
        (object.spec()["properties"][0]["desired"]["value"] == "18").then_some(())
    })
    .await;
    let at_peace = field.status_when("hall", "set", |s| reported(s, "setpoint") == "18").await;
    assert_eq!(twin(&at_peace, "temperature").unwrap().reported.value, "19");
    server.requests();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let writes = server.requests().iter().filter(|r| r.1 == 6).count();
    assert_eq!(writes, 0, "nothing is written once it is as desired");
    field.stop().await;
}

#[tokio::test]
async fn what_can_never_be_written_is_said_and_not_tried() {
    let mut server = pymodbus::Server::start(registers(200, 190));
    let field = Field::start();
    thermostat_model(&field).await;
    field.apply(Kind::Device, "hall", thermostat(server.port, Some("99"))).await;
    let status = field.status_when("hall", "read", |s| reported(s, "setpoint") == "20").await;
    let error = &twin(&status, "setpoint").unwrap().observed_desired.metadata.error;
    assert_eq!(error, "99 is not between 5 and 30");

    let set =
        async |property: &str, value: Json| field.commands.set("default", "hall", property, value).await.unwrap_err();
    assert!(matches!(set("setpoint", json!(99)).await, CommandError::OutOfRange(_)));
    assert!(matches!(set("setpoint", json!("warm")).await, CommandError::OutOfRange(_)));
    assert_eq!(set("temperature", json!(20)).await, CommandError::ReadOnly("temperature".into()));
    assert!(matches!(set("colour", json!(1)).await, CommandError::NotFound(_)));
    let elsewhere = field.commands.get("default", "kitchen", None).await;
    assert!(matches!(elsewhere, Err(CommandError::NotFound(_))));
    assert!(server.requests().iter().all(|r| r.1 == 3), "nothing but reads on the wire");

    let all = field.commands.get("default", "hall", None).await.unwrap();
    assert_eq!(all.iter().map(|r| r.property.as_str()).collect::<Vec<_>>(), ["setpoint", "temperature"]);
    assert_eq!((all[0].value.clone(), all[0].unit.as_str()), (Some(Value::Float(20.0)), "°C"));
    field.stop().await;
}

#[tokio::test]
async fn methods_write_only_their_properties() {
    let server = pymodbus::Server::start(registers(200, 190));
    let field = Field::start();
    thermostat_model(&field).await;
    let mut spec = thermostat(server.port, None);
    spec["methods"] = json!([{"name": "heat", "propertyNames": ["setpoint"]}]);
    field.apply(Kind::Device, "hall", spec).await;
    field.status_when("hall", "read", |s| reported(s, "setpoint") == "20").await;
    let call = async |method: &str, property: &str| {
        field.commands.call_method("default", "hall", method, property, json!(25)).await
    };
    assert_eq!(call("heat", "setpoint").await.unwrap().value, Some(Value::Float(25.0)));
    assert!(matches!(call("heat", "temperature").await, Err(CommandError::NotFound(_))));
    assert!(matches!(call("cool", "setpoint").await, Err(CommandError::NotFound(_))));
    field.stop().await;
}

#[tokio::test]
async fn a_vanished_device_is_offline_with_its_last_values_and_comes_back() {
    let port = pymodbus::lasting_port();
    let server = pymodbus::Server::start_on(port, registers(200, 190));
    let field = Field::start();
    thermostat_model(&field).await;
    field.apply(Kind::Device, "hall", thermostat(port, None)).await;
    field.status_when("hall", "online", |s| s.state == "online" && reported(s, "setpoint") == "20").await;
    drop(server);
    let status = field.status_when("hall", "offline", |s| s.state == "offline").await;
    let setpoint = &twin(&status, "setpoint").unwrap().reported;
    assert_eq!((setpoint.value.as_str(), setpoint.metadata.quality.as_str()), ("20", "disconnected"));
    assert!(status.extensions.reason.contains("no connection"), "{status:?}");
    assert!(!status.last_online_time.is_empty() && status.extensions.errors > 0);
    let offline = field.commands.set("default", "hall", "setpoint", json!(20)).await;
    assert!(matches!(offline, Err(CommandError::Offline(_))), "{offline:?}");

    // What is desired while it is away is written when it is back.
    field.apply(Kind::Device, "hall", thermostat(port, Some("25"))).await;
    let _server = pymodbus::Server::start_on(port, registers(200, 190));
    let back = field.status_when("hall", "back", |s| s.state == "online" && reported(s, "setpoint") == "25").await;
    assert_eq!(back.extensions.reason, "");
    let events = field.queue.read(Stream::Events, 0, 10).await.unwrap();
    let states: Vec<String> = events
        .iter()
        .map(|e| serde_json::from_slice::<Json>(&e.message.payload).unwrap()["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states, ["online", "offline", "online"]);
    assert_eq!(events[0].message.subject, "devices/default/hall/state");
    field.stop().await;
}

#[tokio::test]
async fn a_device_waits_for_its_model_and_says_so() {
    let server = pymodbus::Server::start(registers(200, 190));
    let field = Field::start();
    field.apply(Kind::Device, "hall", thermostat(server.port, None)).await;
    let status = field.status_when("hall", "unusable", |s| !s.extensions.reason.is_empty()).await;
    assert_eq!(status.extensions.reason, "DeviceModel thermostat is missing");
    assert_eq!(status.state, "unknown");
    let refused = field.commands.get("default", "hall", None).await;
    assert_eq!(refused, Err(CommandError::Refused("DeviceModel thermostat is missing".into())));
    thermostat_model(&field).await;
    let status = field.status_when("hall", "read", |s| reported(s, "setpoint") == "20").await;
    assert_eq!(status.extensions.reason, "");

    // What does not fit the model is named by its field.
    let mut spec = thermostat(server.port, None);
    spec["properties"][0]["visitors"]["configData"]["limit"] = json!(3);
    field.apply(Kind::Device, "hall", spec).await;
    let status = field.status_when("hall", "unusable", |s| !s.extensions.reason.is_empty()).await;
    assert!(status.extensions.reason.starts_with("spec.properties[0].visitors.configData"), "{status:?}");
    field.store.delete(&Key::new(Kind::Device, "", "hall"), None).await.unwrap();
    eventually("it is gone", async || {
        matches!(field.commands.get("default", "hall", None).await, Err(CommandError::NotFound(_))).then_some(())
    })
    .await;
    field.stop().await;
}

#[tokio::test]
async fn local_applications_use_kubeedges_topics() {
    let server = pymodbus::Server::start(registers(200, 190));
    let field = Field::start();
    let mut results = field.listen("$hw/events/device/hall/twin/update/result");
    let mut gets = field.listen("$hw/events/device/hall/twin/get/result");
    thermostat_model(&field).await;
    field.apply(Kind::Device, "hall", thermostat(server.port, None)).await;
    field.status_when("hall", "read", |s| reported(s, "setpoint") == "20").await;
    let update = |twin: Json| {
        let payload = json!({"event_id": "e1", "timestamp": 1, "twin": twin}).to_string();
        field.bus.publish(&Topic::TwinUpdate("hall".into()), payload, Retain::No);
    };

    update(json!({"setpoint": {"expected": {"value": "22.5"}, "metadata": {"type": "float"}}}));
    let result = results.message("a result", |_| true).await;
    assert_eq!((&result["event_id"], &result["twin"]["setpoint"]["expected"]["value"]), (&json!("e1"), &json!("22.5")));
    field.status_when("hall", "as desired", |s| reported(s, "setpoint") == "22.5").await;

    for (twin, code) in [
        (json!({"setpoint": {"expected": {"value": "99"}}}), 400),
        (json!({"temperature": {"expected": {"value": "20"}}}), 400),
        (json!({"colour": {"expected": {"value": "20"}}}), 404),
        (json!({"setpoint": {"actual": {"value": "20"}}}), 409),
    ] {
        update(twin.clone());
        assert_eq!(results.message("a refusal", |_| true).await["code"], code, "{twin}");
    }
    field.bus.publish(&Topic::TwinUpdate("hall".into()), "{", Retain::No);
    assert_eq!(results.message("a refusal", |_| true).await["code"], 400);

    field.bus.publish(&Topic::TwinGet("hall".into()), r#"{"event_id":"e2","timestamp":1}"#, Retain::No);
    let twin = gets.message("the twin", |_| true).await;
    assert_eq!(twin["event_id"], "e2");
    assert_eq!(twin["twin"]["setpoint"]["actual"]["value"], "22.5");
    assert_eq!(twin["twin"]["temperature"]["metadata"]["type"], "float");
    field.stop().await;
}

#[tokio::test]
async fn a_mapper_in_a_pod_speaks_kubeedges_topics() {
    let field = Field::start();
    let mut deltas = field.listen("$hw/events/device/lamp/twin/update/delta");
    let mut dimmer = model_property("dimmer", "INT", "ReadWrite");
    (dimmer["minimum"], dimmer["maximum"]) = (json!("0"), json!("100"));
    field.apply(Kind::DeviceModel, "lamp", json!({"protocol": "dali", "properties": [dimmer]})).await;
    let spec = |desired: &str| {
        json!({
            "deviceModelRef": {"name": "lamp"},
            "protocol": {"protocolName": "dali", "configData": {"bus": 1}},
            "properties": [{"name": "dimmer", "desired": {"value": desired}, "reportToCloud": true}],
        })
    };
    field.apply(Kind::Device, "lamp", spec("80")).await;
    field.status_when("lamp", "known", |s| !s.twins.is_empty()).await;
    let actual = |value: &str| {
        let payload =
            json!({"event_id": "", "timestamp": 1, "twin": {"dimmer": {"actual": {"value": value}}}}).to_string();
        field.bus.publish(&Topic::TwinUpdate("lamp".into()), payload, Retain::No);
    };
    actual("10");
    let delta = deltas.message("a delta", |_| true).await;
    assert_eq!(delta["delta"], json!({"dimmer": "80"}), "the mapper hears what is wanted");
    let status = field.status_when("lamp", "reported", |s| reported(s, "dimmer") == "10").await;
    assert_eq!(status.state, "online");
    actual("80");
    field.status_when("lamp", "as desired", |s| reported(s, "dimmer") == "80").await;
    let reading = field.commands.get("default", "lamp", Some("dimmer")).await.unwrap();
    assert_eq!(reading[0].value, Some(Value::Int(80)));
    let offline = json!({"event_id": "", "timestamp": 1, "state": "offline"}).to_string();
    field.bus.publish(&Topic::DeviceState("lamp".into()), offline, Retain::No);
    field.status_when("lamp", "offline", |s| s.state == "offline").await;
    eventually("its readings go to the cloud", async || {
        (!field.queue.read(Stream::Data, 0, 1).await.unwrap().is_empty()).then_some(())
    })
    .await;
    field.stop().await;
}

#[tokio::test]
async fn stopping_keeps_everything_and_a_new_start_knows_the_last_values() {
    let server = pymodbus::Server::start(registers(200, 190));
    let field = Field::start();
    thermostat_model(&field).await;
    field.apply(Kind::Device, "hall", thermostat(server.port, None)).await;
    field.status_when("hall", "read", |s| reported(s, "setpoint") == "20").await;
    let (bus, store, queue) = (field.bus.clone(), field.store.clone(), field.queue.clone());
    field.stop().await;
    let queued = queue.read(Stream::Data, 0, 100).await.unwrap();
    assert!(!queued.is_empty(), "what was read is in the queue");
    drop(server);

    let field = Field::start_on(store, bus, queue, Settings::default());
    let status = field.status_when("hall", "offline", |s| s.state == "offline").await;
    assert_eq!(reported(&status, "setpoint"), "20", "the last value is still known");
    assert_eq!(twin(&status, "setpoint").unwrap().reported.metadata.quality, "disconnected");
    assert!(!status.last_online_time.is_empty());
    field.stop().await;
}

#[tokio::test]
async fn devices_of_other_nodes_are_left_alone() {
    let mut server = pymodbus::Server::start(registers(200, 190));
    let settings = Settings { node_name: "here".into(), ..Settings::default() };
    let (store, bus, queue) = (
        edge_runtime::store::Store::in_memory(),
        edge_runtime::bus::Bus::in_memory(),
        edge_runtime::queue::Queue::in_memory(),
    );
    let field = Field::start_on(store, bus, queue, settings);
    thermostat_model(&field).await;
    let (mut there, mut here) = (thermostat(server.port, None), thermostat(server.port, None));
    (there["nodeName"], here["nodeName"]) = (json!("there"), json!("here"));
    field.apply(Kind::Device, "there", there).await;
    let status = field.status_when("there", "said", |s| !s.extensions.reason.is_empty()).await;
    assert_eq!(status.extensions.reason, "the device is attached to node there");
    assert!(server.requests().is_empty());
    field.apply(Kind::Device, "here", here).await;
    field.status_when("here", "read", |s| reported(s, "setpoint") == "20").await;
    field.stop().await;
}
