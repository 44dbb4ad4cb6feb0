//! A client that uploads numbered messages over the bus and keeps what the broker has acknowledged, through any number of
//! interruptions: one message at a time, again until its PUBACK.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::task::JoinHandle;

/// How long a PUBACK may take before the connection counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// The client; ends when dropped.
pub struct Uploader {
    acknowledged: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Uploader {
    /// Uploads `{"n": 1}`, `{"n": 2}`, … to `$hw/events/upload/<name>` on a bus of this machine.
    pub fn start(port: u16, name: &str) -> Uploader {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(upload(port, name.to_owned(), Arc::clone(&acknowledged)));
        Uploader { acknowledged, task }
    }

    /// The highest number that has been acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Ends it; returns the highest number acknowledged.
    pub async fn stop(self) -> u64 {
        self.task.abort();
        // Aborting waits for nothing; the number may still go up by one until the task is gone.
        tokio::task::yield_now().await;
        self.acknowledged()
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn upload(port: u16, name: String, acknowledged: Arc<AtomicU64>) {
    loop {
        let mut options = MqttOptions::new(format!("uploader-{name}"), "127.0.0.1", port);
        options.set_clean_session(true).set_keep_alive(Duration::from_secs(30));
        let (client, mut events) = AsyncClient::new(options, 4);
        let mut next = acknowledged.load(Ordering::SeqCst) + 1;
        let publish = |n: u64| {
            let topic = format!("$hw/events/upload/{name}");
            client.try_publish(topic, QoS::AtLeastOnce, false, format!("{{\"n\":{n}}}")).expect("room for one");
        };
        // What comes is polled in a row: a lost connection drops the client whole and with it what it would repeat.
        while let Ok(Ok(event)) = tokio::time::timeout(PATIENCE, events.poll()).await {
            match event {
                Event::Incoming(Packet::ConnAck(_)) => publish(next),
                Event::Incoming(Packet::PubAck(_)) => {
                    acknowledged.store(next, Ordering::SeqCst);
                    next += 1;
                    publish(next);
                }
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
