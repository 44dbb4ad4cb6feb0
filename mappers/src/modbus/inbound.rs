//! Devices that call in: a listener, and the connections that wait for somebody to talk to.
//!
//! ```text
//! listener ─► waiting ─► a device takes the newest one from its peer address,
//!                        or, known by its unit identifier only, the oldest one nobody claims
//!                ▲                  │ no answer to the first request: not this one
//!                └──────────────────┘ it goes back, and is for others first
//! ```
//! Whatever a caller sends before it is spoken to (registration texts of cellular modems) is thrown away.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::endpoint::Caller;

/// Connections that wait for a device of ours; the oldest goes when there are more. Anybody may call.
const WAITING: usize = 64;
/// How long a connection on which a unit did not answer is only for others.
const TRIED: Duration = Duration::from_secs(5);
/// How long until a listener that failed is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// A connection and where it came from.
type Waiting = (IpAddr, Arc<TcpStream>);

/// Connections that came in at one address.
#[derive(Debug)]
pub struct Lobby {
    at: SocketAddr,
    inner: Mutex<Inner>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    /// Who tried which connection in vain, and when: otherwise two devices with each other's connections, who let go of them
    /// at different moments, would take them again for ever.
    tried: Vec<(Weak<TcpStream>, u8, Instant)>,
    /// Addresses that belong to devices known by them.
    claimed: Vec<IpAddr>,
    /// Why nobody can call.
    broken: Option<String>,
}

impl Lobby {
    /// A lobby nobody is in yet.
    pub fn new(at: SocketAddr) -> Lobby {
        Lobby { at, inner: Mutex::default(), arrived: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer addresses that are devices of their own.
    pub fn claim(&self, peers: Vec<IpAddr>) {
        self.lock().claimed = peers;
    }

    /// Listens for ever.
    pub async fn listen(self: Arc<Lobby>) {
        loop {
            let error = match TcpListener::bind(self.at).await {
                Ok(listener) => {
                    self.lock().broken = None;
                    self.accept(&listener).await
                }
                Err(error) => error,
            };
            self.lock().broken = Some(format!("cannot listen on {}: {error}", self.at));
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn accept(&self, listener: &TcpListener) -> io::Error {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let _ = stream.set_nodelay(true);
                    self.put(from.ip().to_canonical(), Arc::new(stream));
                }
                Err(error) => return error,
            }
        }
    }

    fn put(&self, from: IpAddr, stream: Arc<TcpStream>) {
        let mut inner = self.lock();
        if inner.waiting.len() >= WAITING {
            inner.waiting.pop_front();
        }
        inner.waiting.push_back((from, stream));
        drop(inner);
        self.arrived.notify_waiters();
    }

    /// A connection that turned out to be somebody else's.
    pub fn put_back(&self, stream: Arc<TcpStream>, caller: Option<Caller>) {
        if let Some(Caller::Unit(unit)) = caller {
            let mut inner = self.lock();
            inner.tried.retain(|(s, _, since)| s.strong_count() > 0 && since.elapsed() < TRIED);
            inner.tried.push((Arc::downgrade(&stream), unit, Instant::now()));
        }
        if let Ok(from) = stream.peer_addr() {
            self.put(from.ip().to_canonical(), stream);
        }
    }

    fn try_take(&self, caller: Caller) -> Option<Arc<TcpStream>> {
        let mut inner = self.lock();
        let Inner { waiting, claimed, tried, .. } = &mut *inner;
        let in_vain = |stream: &Arc<TcpStream>, unit: u8| {
            let this = |s: &Weak<TcpStream>| s.as_ptr() == Arc::as_ptr(stream);
            tried.iter().any(|(s, u, since)| *u == unit && this(s) && since.elapsed() < TRIED)
        };
        let at = match caller {
            Caller::Peer(peer) => waiting.iter().rposition(|(from, _)| *from == peer),
            Caller::Unit(unit) => {
                waiting.iter().position(|(from, stream)| !claimed.contains(from) && !in_vain(stream, unit))
            }
        };
        let (_, stream) = waiting.remove(at?)?;
        if let Caller::Peer(peer) = caller {
            // It called again: the connections before are dead.
            waiting.retain(|(from, _)| *from != peer);
        }
        Some(stream)
    }

    /// Waits for a connection of this caller.
    pub async fn take(&self, caller: Caller) -> Arc<TcpStream> {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            while let Some(stream) = self.try_take(caller) {
                if alive(&stream) {
                    return stream;
                }
            }
            arrived.await;
        }
    }

    /// Why nobody can call, if that is so.
    pub fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }
}

/// Throws away what was sent before anybody asked; whether the caller is still there.
fn alive(stream: &TcpStream) -> bool {
    let mut bytes = [0; 256];
    loop {
        match stream.try_read(&mut bytes) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// A connection that can be put back: its reader and writer borrow it.
#[derive(Debug)]
pub struct Called(pub Arc<TcpStream>);

impl AsyncRead for Called {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Called {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
