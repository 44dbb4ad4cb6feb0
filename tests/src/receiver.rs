//! Somebody in the cloud who listens to a node and keeps the books: what came, in which order, what came twice, what is
//! missing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::wait::until_holds;

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Got {
    /// Its topic.
    pub topic: String,
    /// Its envelope.
    pub envelope: Value,
}

impl Got {
    /// Its stream.
    pub fn stream(&self) -> &str {
        self.envelope["stream"].as_str().unwrap_or_default()
    }

    /// Its number.
    pub fn seq(&self) -> u64 {
        self.envelope["seq"].as_u64().unwrap_or_default()
    }
}

/// What a stream looks like from the cloud.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Books {
    /// The highest number, which is also how many there should be.
    pub last: u64,
    /// Numbers that never came.
    pub lost: Vec<u64>,
    /// How many came again.
    pub repeats: u64,
    /// The furthest a repeat was behind the newest one.
    pub furthest: u64,
    /// New messages that came after a later one.
    pub disorder: u64,
}

/// The listener; reconnects by itself, ends when dropped.
pub struct Receiver {
    got: Arc<Mutex<Vec<Got>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Listens at a broker of this machine to everything a node sends up; returns once it has subscribed.
    pub async fn start(port: u16, base: &str) -> Receiver {
        let mut options = MqttOptions::new("receiver", "127.0.0.1", port);
        options.set_clean_session(false).set_max_packet_size(1 << 20, 1 << 20).set_keep_alive(Duration::from_secs(60));
        let (client, mut events) = AsyncClient::new(options, 10);
        let filter = format!("{base}/up/#");
        let got = Arc::new(Mutex::new(Vec::new()));
        let (books, subscribed) = (Arc::clone(&got), Arc::new(Mutex::new(false)));
        let done = Arc::clone(&subscribed);
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        client.try_subscribe(filter.clone(), QoS::AtLeastOnce).expect("room");
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => *done.lock().expect("lock") = true,
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let envelope = serde_json::from_slice(&publish.payload).expect("an envelope is JSON");
                        books.lock().expect("lock").push(Got { topic: publish.topic, envelope });
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        until_holds("the receiver has subscribed", || *subscribed.lock().expect("lock")).await;
        Receiver { got, task }
    }

    /// Everything that came, repeats included.
    pub fn all(&self) -> Vec<Got> {
        self.got.lock().expect("lock").clone()
    }

    /// How many came, repeats included.
    pub fn count(&self) -> usize {
        self.got.lock().expect("lock").len()
    }

    /// The highest number of a stream.
    pub fn last(&self, stream: &str) -> u64 {
        self.got.lock().expect("lock").iter().filter(|g| g.stream() == stream).map(Got::seq).max().unwrap_or(0)
    }

    /// The books of a stream.
    pub fn books(&self, stream: &str) -> Books {
        let mut books = Books::default();
        let mut seen: HashMap<u64, u64> = HashMap::new();
        for got in self.got.lock().expect("lock").iter().filter(|g| g.stream() == stream) {
            let seq = got.seq();
            if *seen.entry(seq).and_modify(|n| *n += 1).or_insert(1) > 1 {
                books.repeats += 1;
                books.furthest = books.furthest.max(books.last - seq + 1);
            } else if seq < books.last {
                books.disorder += 1;
            }
            books.last = books.last.max(seq);
        }
        books.lost = (1..=books.last).filter(|seq| !seen.contains_key(seq)).collect();
        books
    }

    /// Answers to commands, in the order they came.
    pub fn replies(&self) -> Vec<Value> {
        let got = self.got.lock().expect("lock");
        got.iter().filter(|g| g.stream() == "replies").map(|g| g.envelope["payload"].clone()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
