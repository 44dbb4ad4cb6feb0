//! The listeners: the Unix socket, which is also the lock of the run directory, and the loopback port for figures.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::route::Route;

/// Who may open the socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// How long requests under way may take to end when the node stops.
const GRACE: Duration = Duration::from_secs(3);
/// The pause after `accept` failed (no descriptors left): it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The read buffer of a connection, in bytes; also the most that the head of a request may have.
const HEAD_MAX: usize = 16 * 1024;
/// What a client gets when there are too many: written without waiting for it.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\n\r\n\
{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"reason\":\"ServiceUnavailable\",\
\"message\":\"too many connections to the node's API\",\"code\":503}\n";

/// How the API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The group (name or number) that may use the socket beside its owner; `None` leaves the process's group.
    pub group: Option<String>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served over TCP; `None` for nowhere. The default port is the one of
    /// kubelet's read-only port.
    pub metrics: Option<SocketAddr>,
    /// Connections at the same time on each listener, 1 to 1024. Watches and followed logs hold one each.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request, and how long an idle connection is kept. Milliseconds.
    pub header_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            socket: PathBuf::from("/run/edge-runtime/api.sock"),
            group: None,
            metrics: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 10_255))),
            max_connections: 64,
            header_timeout_ms: 10_000,
        }
    }
}

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the run directory.
    #[error("another edge-runtime is running: it holds {0}")]
    Running(PathBuf),
    /// A file or folder refused.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such group.
    #[error("there is no group {0:?}")]
    NoGroup(String),
    /// The port cannot be had.
    #[error("cannot listen on {address}")]
    Port {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The bound socket of the API. Dropping it removes the socket.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    settings: Settings,
    /// Held as long as the socket: whoever has the lock may take a socket that was left behind.
    _lock: File,
}

impl Socket {
    /// Takes the lock beside the socket, then the socket: one that was left behind by a process that died is replaced. The
    /// socket appears under its name only once its mode and group are right.
    ///
    /// # Errors
    /// [`Error::Running`] when another process holds the lock; the others when files or the group cannot be had.
    pub fn bind(settings: &Settings) -> Result<Socket, Error> {
        let path = settings.socket.clone();
        let file = |path: &Path| {
            let path = path.to_owned();
            |source: io::Error| Error::File { path, source }
        };
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(file(folder))?;
        }
        let lock_path = beside(&path, ".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(file(&lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Running(lock_path)),
            Err(errno) => return Err(file(&lock_path)(errno.into())),
        }
        let new = beside(&path, ".new");
        remove(&new).map_err(file(&new))?;
        let listener = UnixListener::bind(&new).map_err(file(&new))?;
        if let Some(group) = &settings.group {
            chown(&new, None, Some(group_id(group)?)).map_err(file(&new))?;
        }
        fs::set_permissions(&new, Permissions::from_mode(SOCKET_MODE)).map_err(file(&new))?;
        fs::rename(&new, &path).map_err(file(&path))?;
        Ok(Socket { listener, path, settings: settings.clone(), _lock: lock })
    }

    /// Serves until `stop`; then ends watches, lets requests under way finish for a moment, and returns.
    pub async fn serve(&self, api: &Api, stop: CancellationToken) {
        let accept = || async { self.listener.accept().await.map(|(stream, _)| stream) };
        serve(accept, busy_unix, &self.settings, stop, |stream, settings, stop| {
            let api = api.clone();
            Box::pin(async move {
                let inner = stop.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let (api, stop) = (api.clone(), inner.clone());
                    async move { Ok::<_, Infallible>(api.answer(request, stop).await) }
                });
                connection(stream, &settings, service, stop).await;
            })
        })
        .await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The lock is still held, so this cannot be another's socket.
        let _ = fs::remove_file(&self.path);
    }
}

/// The bound port for figures.
#[derive(Debug)]
pub struct MetricsListener {
    listener: TcpListener,
    settings: Settings,
}

impl MetricsListener {
    /// Binds the port of the settings; `None` when they name none.
    ///
    /// # Errors
    /// [`Error::Port`].
    pub async fn bind(settings: &Settings) -> Result<Option<MetricsListener>, Error> {
        let Some(address) = settings.metrics else { return Ok(None) };
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Port { address, source })?;
        Ok(Some(MetricsListener { listener, settings: settings.clone() }))
    }

    /// The address it got.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn serve(&self, api: &Api, stop: CancellationToken) {
        let accept = || async { self.listener.accept().await.map(|(stream, _)| stream) };
        serve(accept, busy_tcp, &self.settings, stop, |stream, settings, stop| {
            let api = api.clone();
            Box::pin(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
                    let route = Route::parse(request.uri().path()).filter(|_| reads);
                    // Anything but figures is a path that this port does not have.
                    let answer = api.seen(&route.unwrap_or(Route::Status));
                    async move { Ok::<_, Infallible>(answer) }
                });
                connection(stream, &settings, service, stop).await;
            })
        })
        .await;
    }
}

fn busy_unix(stream: &UnixStream) {
    let _ = stream.try_write(BUSY);
}

fn busy_tcp(stream: &TcpStream) {
    let _ = stream.try_write(BUSY);
}

type Connection = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Accepts and owns connections until `stop`.
async fn serve<S, A>(
    accept: impl Fn() -> A,
    busy: fn(&S),
    settings: &Settings,
    stop: CancellationToken,
    serve: impl Fn(S, Settings, CancellationToken) -> Connection,
) where
    A: Future<Output = io::Result<S>>,
{
    let free = Arc::new(Semaphore::new(settings.max_connections.max(1)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok(stream) => match Arc::clone(&free).try_acquire_owned() {
                Ok(permit) => {
                    let connection = serve(stream, settings.clone(), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(_) => busy(&stream),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let ended = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        connections.shutdown().await;
    }
}

async fn connection<S, F, R>(stream: S, settings: &Settings, service: F, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: hyper::service::HttpService<Incoming, ResBody = super::body::Body, Future = R, Error = Infallible>,
    R: Future<Output = Result<hyper::Response<super::body::Body>, Infallible>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(settings.header_timeout_ms.max(1)))
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The number of a group, from its number or from `/etc/group`. The C library's own lookup would load plug-ins.
fn group_id(group: &str) -> Result<u32, Error> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let table = Path::new("/etc/group");
    let text = fs::read_to_string(table).map_err(|source| Error::File { path: table.to_owned(), source })?;
    let id = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1))?
    });
    id.and_then(|id| id.parse().ok()).ok_or_else(|| Error::NoGroup(group.to_owned()))
}
