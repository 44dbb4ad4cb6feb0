//! The bus in the process; with real clients it is tested in `tests/tests/bus.rs`.

use super::*;

#[tokio::test]
async fn subscribers_get_what_matches_in_order_until_the_bus_is_gone() {
    let bus = Bus::in_memory();
    let mut all = bus.subscribe("$ke/events/device/+/data/update");
    let mut none = bus.subscribe("#/bad");
    for n in 0..3 {
        bus.publish(&Topic::DeviceData(format!("d{n}")), "x", Retain::No);
    }
    bus.publish(&Topic::Link, "x", Retain::Yes);
    for n in 0..3 {
        assert_eq!(all.next().await.unwrap().topic, format!("$ke/events/device/d{n}/data/update"));
    }
    assert_eq!(bus.stats().retained, 1);
    drop(bus);
    assert!(all.next().await.is_none() && none.next().await.is_none());
}

#[tokio::test]
async fn a_slow_subscriber_loses_its_newest_messages_and_each_is_counted() {
    let bus = Bus::in_memory();
    let mut slow = bus.subscribe("#");
    for n in 0..INBOX_MESSAGES + 10 {
        bus.publish(&Topic::Events, n.to_string(), Retain::No);
    }
    assert_eq!(bus.stats().dropped_inbox_total, 10);
    for n in 0..INBOX_MESSAGES {
        assert_eq!(slow.next().await.unwrap().payload, n.to_string());
    }
    for _ in 0..3 {
        bus.publish(&Topic::Events, vec![0; INBOX_BYTES], Retain::No);
    }
    assert_eq!(bus.stats().dropped_inbox_total, 12);
    drop(slow);
    assert_eq!(bus.stats().subscriptions, 0);
}
