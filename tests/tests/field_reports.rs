//! What of a device's readings is told, and when: deadbands, windows, stale values, states with patience, membership.

use edge_model::Kind;
use edge_model::topic::Topic;
use edge_runtime::bus::Retain;
use edge_tests::field::{Field, model_property, reported, twin};
use serde_json::{Value, json};

/// A virtual device whose property `p` replays values, one each 20 ms, with a report.
async fn replay(field: &Field, values: Value, report: Value) {
    let p = model_property("p", "DOUBLE", "ReadOnly");
    field.apply(Kind::DeviceModel, "m", json!({"protocol": "virtual", "properties": [p]})).await;
    let data = json!({"generator": "replay", "values": values, "report": report});
    let visitors = json!({"protocolName": "virtual", "configData": data});
    let property = json!({"name": "p", "collectCycle": 20, "visitors": visitors});
    let spec = json!({
        "deviceModelRef": {"name": "m"}, "protocol": {"protocolName": "virtual"}, "properties": [property],
    });
    field.apply(Kind::Device, "d", spec).await;
}

#[tokio::test]
async fn a_value_within_its_deadband_is_not_told() {
    let field = Field::start();
    let mut data = field.listen("$ke/events/device/d/data/update");
    replay(&field, json!([10, 10.4, 10.9, 11.2, 11.6, 20]), json!({"deadband": 1})).await;
    let mut told = Vec::new();
    for _ in 0..6 {
        let message = data.message("a value", |_| true).await;
        told.push(message["data"]["p"]["value"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(told, ["10", "11.2", "20", "10", "11.2", "20"]);
    field.stop().await;
}

#[tokio::test]
async fn a_window_is_one_value() {
    let field = Field::start();
    let mut data = field.listen("$ke/events/device/d/data/update");
    replay(&field, json!([1, 3]), json!({"aggregate": "mean", "window": 1000})).await;
    for _ in 0..2 {
        let message = data.message("a mean", |_| true).await;
        let mean: f64 = message["data"]["p"]["value"].as_str().unwrap_or_default().parse().expect("a number");
        assert!(mean > 1.0 && mean < 3.0, "of ones and threes: {message}");
    }
    let status = field.status_when("d", "read", |s| !reported(s, "p").is_empty()).await;
    assert!(["1", "3"].contains(&reported(&status, "p")), "the twin has readings, not means");
    field.stop().await;
}

/// A device of a mapper in a pod.
async fn lamp(field: &Field, report: Value, health: Value) {
    let p = model_property("p", "INT", "ReadOnly");
    field.apply(Kind::DeviceModel, "lamp", json!({"protocol": "dali", "properties": [p]})).await;
    let visitors = json!({"protocolName": "dali", "configData": {"report": report, "address": 4}});
    let spec = json!({
        "deviceModelRef": {"name": "lamp"},
        "protocol": {"protocolName": "dali", "configData": {"health": health, "bus": 1}},
        "properties": [{"name": "p", "visitors": visitors}],
    });
    field.apply(Kind::Device, "lamp", spec).await;
    field.status_when("lamp", "known", |s| !s.twins.is_empty()).await;
}

fn says(field: &Field, state: &str) {
    let payload = json!({"event_id": "", "timestamp": 1, "state": state}).to_string();
    field.bus.publish(&Topic::DeviceState("lamp".into()), payload, Retain::No);
}

#[tokio::test]
async fn a_value_nobody_renews_becomes_stale_and_keeps_its_time() {
    let field = Field::start();
    let mut documents = field.listen("$hw/events/device/lamp/twin/update/document");
    lamp(&field, json!({"stale": 2_500}), json!({})).await;
    let payload = json!({"event_id": "", "timestamp": 1, "twin": {"p": {"actual": {"value": "7"}}}}).to_string();
    field.bus.publish(&Topic::TwinUpdate("lamp".into()), payload.clone(), Retain::No);
    documents.message("the value", |d| d["twin"]["p"]["current"]["actual"]["value"] == "7").await;
    let quality = |s: &edge_model::device::status::DeviceStatus| twin(s, "p").map(|t| t.reported.metadata.clone());
    let stale = field.status_when("lamp", "stale", |s| quality(s).is_some_and(|m| m.quality == "stale")).await;
    assert_eq!(reported(&stale, "p"), "7", "the last value stays");
    assert_eq!(quality(&stale).unwrap().version, 1);
    field.bus.publish(&Topic::TwinUpdate("lamp".into()), payload, Retain::No);
    let again = field.status_when("lamp", "good", |s| quality(s).is_some_and(|m| m.quality == "good")).await;
    assert!(quality(&again).unwrap().timestamp > quality(&stale).unwrap().timestamp);
    field.stop().await;
}

#[tokio::test]
async fn a_short_silence_is_no_offline() {
    let field = Field::start();
    lamp(&field, json!({}), json!({"offlineAfter": 1500})).await;
    says(&field, "online");
    field.status_when("lamp", "online", |s| s.state == "online").await;
    // Silent and back again within its patience: whoever looks later sees nothing of it.
    says(&field, "offline");
    says(&field, "online");
    // Silent for good.
    let silent = std::time::Instant::now();
    says(&field, "offline");
    field.status_when("lamp", "offline", |s| s.state == "offline").await;
    assert!(silent.elapsed().as_millis() >= 1_500, "it had its time");
    field.stop().await;
}

#[tokio::test]
async fn the_bus_is_told_which_devices_there_are() {
    let field = Field::start();
    let mut updates = field.listen("$hw/events/node/gw/membership/updated");
    let mut answers = field.listen("$hw/events/node/gw/membership/get/result");
    lamp(&field, json!({}), json!({})).await;
    let came = updates.message("it came", |_| true).await;
    assert_eq!(came["added_devices"][0]["id"], "lamp");
    let question = json!({"event_id": "q"}).to_string();
    field.bus.publish(&Topic::MembershipGet("gw".into()), question, Retain::No);
    let answer = answers.message("an answer", |_| true).await;
    assert_eq!((&answer["event_id"], &answer["devices"][0]["id"]), (&json!("q"), &json!("lamp")));
    field.store.delete(&edge_model::Key::new(Kind::Device, "", "lamp"), None).await.expect("deletes");
    let went = updates.message("it went", |_| true).await;
    assert_eq!(went["removed_devices"][0]["id"], "lamp");
    field.stop().await;
}
