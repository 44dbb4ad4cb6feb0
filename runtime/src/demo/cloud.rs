//! The demo's cloud: a broker of its own, which can be unplugged, and a tally of what arrives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::{self, Bus, BusError, Listener};

/// What has arrived on one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Messages, without repeats.
    pub messages: u64,
    /// Numbers that were left out.
    pub lost: u64,
    /// Numbers that came again.
    pub repeated: u64,
    /// The highest number seen.
    pub last: u64,
}

impl Arrived {
    /// Counts a number as `edge_model::envelope` tells receivers to.
    fn count(&mut self, seq: u64) {
        if seq <= self.last {
            self.repeated += 1;
            return;
        }
        self.lost += seq - self.last - 1;
        self.messages += 1;
        self.last = seq;
    }
}

/// What the tally reads of an envelope.
#[derive(Deserialize)]
struct Identity {
    stream: String,
    seq: u64,
}

/// The cloud.
pub struct Cloud {
    bus: Bus,
    address: SocketAddr,
    plug: Option<(CancellationToken, JoinHandle<()>)>,
    tally: Arc<Mutex<BTreeMap<String, Arrived>>>,
    counting: JoinHandle<()>,
}

impl Cloud {
    /// A cloud on a free port of loopback, plugged in.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start() -> Result<Cloud, BusError> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = |listen| bus::Settings { listen, ..bus::Settings::default() };
        // The first listener only finds a free port, which then stays the cloud's address.
        let probe = Listener::bind(&Bus::new(&settings(any)), None).await?;
        let address = probe.local_addr().unwrap_or(any);
        drop(probe);
        let bus = Bus::new(&settings(address));
        let tally: Arc<Mutex<BTreeMap<String, Arrived>>> = Arc::default();
        let counting = tokio::spawn({
            let (mut messages, tally) = (bus.subscribe("#"), Arc::clone(&tally));
            async move {
                while let Some(message) = messages.next().await {
                    if let Ok(id) = serde_json::from_slice::<Identity>(&message.payload) {
                        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        tally.entry(id.stream).or_default().count(id.seq);
                    }
                }
            }
        });
        let mut cloud = Cloud { bus, address, plug: None, tally, counting };
        cloud.plug_in().await?;
        Ok(cloud)
    }

    /// Where the node reaches it.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Whether it is plugged in.
    pub fn is_up(&self) -> bool {
        self.plug.is_some()
    }

    /// Puts the plug in, or pulls it.
    ///
    /// # Errors
    /// The port has been taken meanwhile.
    pub async fn toggle(&mut self) -> Result<(), BusError> {
        if self.is_up() {
            self.unplug().await;
            return Ok(());
        }
        self.plug_in().await
    }

    async fn plug_in(&mut self) -> Result<(), BusError> {
        let listener = Listener::bind(&self.bus, None).await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(listener.run(stop.clone()));
        self.plug = Some((stop, task));
        Ok(())
    }

    async fn unplug(&mut self) {
        if let Some((stop, task)) = self.plug.take() {
            stop.cancel();
            let _ = task.await;
        }
    }

    /// What has arrived, by stream.
    pub fn arrived(&self) -> BTreeMap<String, Arrived> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it.
    pub async fn stop(mut self) {
        self.unplug().await;
        self.counting.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_losses_and_repeats_are_not_counted_twice() {
        let mut arrived = Arrived::default();
        for seq in [1, 2, 2, 5, 4, 6] {
            arrived.count(seq);
        }
        assert_eq!((arrived.messages, arrived.lost, arrived.repeated), (4, 2, 2));
    }
}
