//! The port: accepts clients, as many as there may be, and ends them all when the unit stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Context};
use super::{Bus, count};
use crate::queue::Queue;

/// How long accepting rests when the system has no descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the listener cannot work.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The port is taken or not allowed; trying again can help.
    #[error("mqtt: cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A bound port. Clients can connect from here on, and are served by [`run`](Listener::run).
pub struct Listener {
    socket: TcpListener,
    context: Arc<Context>,
}

impl Listener {
    /// Binds the port of the bus's settings. Uploads of clients go to `queue`; without one they are ordinary messages.
    ///
    /// # Errors
    /// [`BusError::Bind`].
    pub async fn bind(bus: &Bus, queue: Option<Queue>) -> Result<Listener, BusError> {
        let settings = bus.shared.settings.clone();
        let address = settings.listen;
        let socket = TcpListener::bind(address).await.map_err(|source| BusError::Bind { address, source })?;
        let (serial, start) = (AtomicU64::new(0), crate::clock::now_ms());
        let fresh = Box::new(move || format!("auto-{start:x}-{}", serial.fetch_add(1, Ordering::Relaxed)));
        Ok(Listener { socket, context: Arc::new(Context { bus: bus.clone(), settings, queue, fresh }) })
    }

    /// Where it listens; tells the port when the settings left the choice to the system.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves clients until `stop`; then every one of them is told and closed.
    pub async fn run(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.context.settings.max_connections));
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = clients.join_next(), if !clients.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "mqtt connection failed");
                    }
                }
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                            count(&self.context.bus.counters().refused, 1);
                            continue;
                        };
                        let _ = stream.set_nodelay(true);
                        let (context, stop) = (Arc::clone(&self.context), stop.clone());
                        clients.spawn(async move {
                            connection::serve(stream, context, stop).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "mqtt: cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        while clients.join_next().await.is_some() {}
    }
}

/// The bus as a unit of the supervisor: binds, says so, serves.
///
/// # Errors
/// [`BusError::Bind`]; the bus works in the process all the same.
pub async fn run(
    bus: &Bus,
    queue: Option<Queue>,
    ready: impl FnOnce(SocketAddr),
    stop: CancellationToken,
) -> Result<(), BusError> {
    let listener = Listener::bind(bus, queue).await?;
    let address = listener.local_addr().unwrap_or(bus.shared.settings.listen);
    tracing::info!(%address, "mqtt listens");
    ready(address);
    listener.run(stop).await;
    Ok(())
}
