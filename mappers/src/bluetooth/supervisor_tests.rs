//! Who is connected when: slots and turns, pauses, subscriptions, and an adapter that comes and goes.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use edge_model::device::{Device, DeviceModel};
use edge_model::reading::Quality;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::adapter::Adapter;
use super::address::Address;
use super::config::{Config, resolve};
use super::endpoints::Bluetooth;
use super::fake::{BATTERY, Fake, Peer};
use crate::device::Outlet;
use crate::mqtt::broker::Brokers;
use crate::{Batch, Link};

/// What takes longer does not happen. Nothing else here depends on time.
const DEADLINE: Duration = Duration::from_secs(120);

fn address(last: usize) -> Address {
    Address::parse(&format!("00:00:00:00:00:{last:02X}")).unwrap()
}

/// A device with a battery that is read every 10 ms, or that tells by itself.
fn config(last: usize, mode: &str, connections: usize) -> Arc<Config> {
    let model =
        json!({"protocol": "bluetooth", "properties": [{"name": "battery", "type": "INT", "accessMode": "ReadOnly"}]});
    let device = json!({
        "deviceModelRef": {"name": "m"},
        "protocol": {"protocolName": "bluetooth",
            "configData": {"macAddress": address(last).to_string(), "maxConnections": connections}},
        "properties": [{"name": "battery", "collectCycle": 10, "visitors": {"protocolName": "bluetooth",
            "configData": {"characteristicUUID": format!("{BATTERY:04x}"), "mode": mode}}}],
    });
    let (device, model) = (Device::parse(&device).unwrap(), DeviceModel::parse(&model).unwrap());
    Arc::new(resolve("default", &format!("d{last}"), &device, &model).unwrap())
}

/// A node with a Bluetooth of tests.
struct Bench {
    fake: Fake,
    node: Bluetooth<Fake>,
    batches: mpsc::Receiver<Batch>,
    /// How many good readings each device has sent, and the last of them.
    good: BTreeMap<String, (usize, String)>,
    /// Why a device is offline.
    offline: BTreeMap<String, String>,
    /// How often it has become so.
    losses: BTreeMap<String, usize>,
}

impl Bench {
    fn new(devices: &[Arc<Config>]) -> Bench {
        let (batches, inbox) = mpsc::channel(64);
        let pauses = (Duration::from_millis(2), Duration::from_millis(20));
        let outlet = Outlet {
            batches,
            clock: || 0,
            pauses,
            files: std::path::Path::new("/").into(),
            traps: Arc::default(),
            brokers: Arc::new(Brokers::new(([127, 0, 0, 1], 1883).into())),
        };
        let fake = Fake::default();
        for (number, config) in devices.iter().enumerate() {
            fake.world().peers.insert(config.address, Peer::of(u8::try_from(number).unwrap()));
        }
        let mut node = Bluetooth::new(fake.clone(), outlet, pauses);
        node.set(devices);
        let (good, offline, losses) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Bench { fake, node, batches: inbox, good, offline, losses }
    }

    fn count(&self, name: &str) -> usize {
        self.good.get(name).map_or(0, |g| g.0)
    }

    /// Takes what the devices send until it is so.
    async fn until(&mut self, what: &str, so: impl Fn(&Bench) -> bool) {
        let waiting = async {
            while !so(self) {
                let batch = self.batches.recv().await.expect("devices");
                let name = batch.device.name.clone();
                match &batch.link {
                    Link::Online => drop(self.offline.remove(&name)),
                    Link::Offline(why) => {
                        if self.offline.insert(name.clone(), why.clone()).is_none() {
                            *self.losses.entry(name.clone()).or_default() += 1;
                        }
                    }
                }
                for sample in batch.samples.iter().filter(|s| s.quality == Quality::Good) {
                    let good = self.good.entry(name.clone()).or_default();
                    *good = (good.0 + 1, sample.value.as_ref().map(ToString::to_string).unwrap_or_default());
                }
            }
        };
        let done = timeout(DEADLINE, waiting).await;
        assert!(done.is_ok(), "{what}: {:?}, offline {:?}", self.good, self.offline);
    }

    /// Waits for what no device tells of.
    async fn soon(&self, what: &str, so: impl Fn(&Fake) -> bool) {
        let waiting = async {
            while !so(&self.fake) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(timeout(DEADLINE, waiting).await.is_ok(), "{what}");
    }

    async fn stop(mut self) {
        let (node, batches) = (&mut self.node, &mut self.batches);
        // Somebody has to take what is still sent.
        let drained = async { while batches.recv().await.is_some() {} };
        tokio::select! {
            () = node.shutdown() => {}
            () = drained => unreachable!("the node has the other end"),
        }
        assert!(self.fake.world().connected.is_empty(), "left connected");
    }
}

#[tokio::test]
async fn more_devices_than_slots_all_get_their_turns() {
    let devices: Vec<_> = (0..7).map(|i| config(i, "read", 2)).collect();
    let mut bench = Bench::new(&devices);
    bench.until("everybody was read five times", |b| (0..7).all(|i| b.count(&format!("d{i}")) >= 5)).await;
    assert_eq!(bench.fake.world().most, 2, "as many as there are slots, and never more");
    for (i, (_, value)) in bench.good.values().enumerate() {
        assert_eq!(*value, i.to_string(), "each with its own value");
    }
    bench.stop().await;
}

/// Takes as long as a turn does.
#[tokio::test]
async fn one_that_listens_gives_way_when_its_turn_is_over_and_gets_another() {
    let devices = [config(0, "notify", 1), config(1, "read", 1)];
    let mut bench = Bench::new(&devices);
    bench.until("both had the slot", |b| b.count("d0") > 0 && b.count("d1") > 0).await;
    let listens = |fake: &Fake| fake.world().peers.get(&address(0)).map_or(0, |p| p.subscribed);
    bench.until("it listens after the other was read", |b| listens(&b.fake) > 0 && b.count("d1") > 1).await;
    assert_eq!(bench.fake.world().most, 1);
    assert_eq!(bench.losses.get("d1").copied().unwrap_or(0), 0, "to wait is not to be lost");
    bench.stop().await;
}

#[tokio::test]
async fn slots_go_to_who_has_waited_longest() {
    let adapter = Adapter::<super::fake::Adapter>::new("", 1);
    let first = adapter.slot().await.unwrap();
    assert!(!adapter.is_wanted());
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(adapter.slot())).collect();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for slot in &mut waiting {
        assert!(slot.as_mut().poll(&mut context).is_pending());
    }
    assert!(adapter.is_wanted());
    // One gives up: it is not counted any more and holds nobody up.
    drop(waiting.remove(2));
    let mut held = first;
    for mut next in waiting {
        drop(held);
        let std::task::Poll::Ready(Some(slot)) = next.as_mut().poll(&mut context) else { panic!("not the next one") };
        held = slot;
    }
    assert!(!adapter.is_wanted());
}

#[tokio::test]
async fn fewer_slots_are_in_force_as_soon_as_connections_end() {
    let adapter = Adapter::<super::fake::Adapter>::new("", 2);
    adapter.set_slots(1);
    let held = adapter.slot().await.unwrap();
    let mut second = Box::pin(adapter.slot());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(second.as_mut().poll(&mut context).is_pending());
    adapter.set_slots(2);
    assert!(second.as_mut().poll(&mut context).is_ready());
    drop(held);
}

#[tokio::test]
async fn one_that_refuses_is_tried_again_and_takes_nobody_the_slot() {
    let devices = [config(0, "read", 1), config(1, "read", 1)];
    let mut bench = Bench::new(&devices);
    if let Some(peer) = bench.fake.world().peers.get_mut(&address(1)) {
        peer.refuses = true;
    }
    bench.until("the other is read, and it is offline", |b| b.count("d0") >= 10 && b.offline.contains_key("d1")).await;
    let tries = |fake: &Fake| fake.world().peers.get(&address(1)).map_or(0, |p| p.tried);
    bench.until("it is tried again and again", |b| tries(&b.fake) >= 5 && b.count("d0") >= 20).await;
    assert_eq!(bench.fake.world().most, 1);
    assert_eq!((bench.losses.get("d1"), bench.count("d1")), (Some(&1), 0), "said once");
    assert!(bench.offline["d1"].contains("go away"), "{:?}", bench.offline);
    if let Some(peer) = bench.fake.world().peers.get_mut(&address(1)) {
        peer.refuses = false;
    }
    bench.until("it is read as the other is", |b| b.count("d1") >= 3 && b.offline.is_empty()).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_dropped_connection_is_made_again_with_its_subscription() {
    let devices = [config(0, "notify", 1)];
    let mut bench = Bench::new(&devices);
    let subscribed = |fake: &Fake| fake.world().peers.get(&address(0)).map_or(0, |p| p.subscribed);
    for round in 1..=3 {
        bench.until("read", |b| subscribed(&b.fake) == round && b.offline.is_empty() && b.count("d0") > 0).await;
        let value = u8::try_from(40 + round).unwrap();
        bench.soon("somebody listens", |fake| fake.notify(address(0), value)).await;
        bench.until("what it sent", |b| b.good["d0"].1 == value.to_string()).await;
        bench.fake.drop_connection(address(0));
        let round = usize::try_from(round).unwrap();
        bench.until("lost", |b| b.losses.get("d0") == Some(&round)).await;
        bench.until("back", |b| b.offline.is_empty()).await;
    }
    assert_eq!(bench.fake.world().order.len(), 4, "connected once for each time it was lost, and at first");
    bench.stop().await;
}

#[tokio::test]
async fn an_adapter_that_is_gone_and_back_brings_everybody_back() {
    let devices = [config(0, "read", 5), config(1, "notify", 5)];
    let mut bench = Bench::new(&devices);
    bench.until("read", |b| b.count("d0") > 0 && b.count("d1") > 0).await;
    bench.fake.unplug();
    bench.until("offline", |b| b.offline.len() == 2).await;
    let before = bench.fake.world().opened;
    bench.soon("it is looked for again and again", |fake| fake.world().opened >= before + 3).await;
    bench.fake.world().unplugged = false;
    let reads = (bench.count("d0"), bench.count("d1"));
    bench.until("online", |b| b.offline.is_empty() && b.count("d0") > reads.0 && b.count("d1") > reads.1).await;
    bench.soon("subscribed again", |fake| fake.notify(address(1), 77)).await;
    bench.until("what it sent", |b| b.good["d1"].1 == "77").await;
    bench.stop().await;
}

#[tokio::test]
async fn who_is_removed_lets_go_and_the_others_stay_connected() {
    let devices = [config(0, "notify", 2), config(1, "notify", 2), config(2, "notify", 2)];
    let mut bench = Bench::new(&devices[..2]);
    bench.fake.world().peers.insert(address(2), Peer::default());
    bench.until("both are there", |b| b.count("d0") > 0 && b.count("d1") > 0).await;
    // Its slot goes to the next one.
    bench.node.set(&[Arc::clone(&devices[0]), Arc::clone(&devices[2])]);
    bench.until("the third is there", |b| b.count("d2") > 0).await;
    {
        let world = bench.fake.world();
        assert_eq!((world.most, world.order.len()), (2, 3), "the first was left alone: {:?}", world.order);
        assert!(!world.connected.contains(&address(1)), "still connected");
    }
    bench.stop().await;
}
