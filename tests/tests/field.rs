//! Devices as objects: polled, in the twin, on the bus, in the queue; read and written by whoever may.

use edge_mappers::plant;
use edge_model::Kind;
use edge_model::reading::{Quality, Value};
use edge_runtime::queue::Stream;
use edge_tests::field::{Field, device, eventually, model, model_property, property, reported};
use serde_json::json;
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

#[tokio::test]
async fn a_device_object_is_polled_and_seen_everywhere() {
    let (port, stop) = plant().await;
    let field = Field::start();
    let mut data = field.bus.subscribe("$ke/events/device/+/data/update");
    let properties = [
        model_property("temperature", "FLOAT", "ReadOnly"),
        model_property("setpoint", "FLOAT", "ReadWrite"),
        model_property("pump", "BOOLEAN", "ReadWrite"),
    ];
    field.apply(Kind::DeviceModel, "plant", model(&properties)).await;
    let mut temperature =
        property("temperature", json!({"register": "InputRegister", "offset": 0, "dataType": "int16", "scale": 0.1}));
    temperature["reportToCloud"] = json!(true);
    let spec = device(
        "plant",
        json!({"port": port}),
        &[
            temperature,
            property("setpoint", json!({"register": "HoldingRegister", "dataType": "int16", "scale": 0.1})),
            property("pump", json!({"register": "CoilRegister"})),
        ],
    );
    field.apply(Kind::Device, "tank", spec).await;

    let status = field.status_when("tank", "read", |s| reported(s, "setpoint") == "21.5").await;
    assert_eq!(status.state, "online");
    assert_eq!(reported(&status, "pump"), "true");
    let message = data.next().await.unwrap();
    assert_eq!(message.topic, "$ke/events/device/tank/data/update");

    let reading = field.commands.set("default", "tank", "setpoint", json!(23.5)).await.unwrap();
    assert_eq!((reading.value, reading.quality), (Some(Value::Float(23.5)), Quality::Good));
    field.status_when("tank", "set", |s| reported(s, "setpoint") == "23.5").await;
    let queued = eventually("readings in the queue", async || {
        field.queue.read(Stream::Data, 0, 1).await.unwrap().into_iter().next()
    })
    .await;
    assert_eq!(queued.message.subject, "devices/default/tank/data");
    stop.cancel();
    field.stop().await;
}
