//! Where clients come in: TCP listeners and serial lines, each a task of one server.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_model::reading::Value;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_modbus::server::{self, Service};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};
use tokio_util::sync::CancellationToken;

use super::super::endpoint::Line;
use super::super::serial;
use super::image::{Answer, Entry, Identity, Image, Then};
use crate::AccessError;

/// Clients of one listener at a time; a SCADA system and a few panels. More are turned away.
const CLIENTS: usize = 32;
/// How long until a serial line that failed is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a server is.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where clients come in.
    pub doors: Vec<Door>,
    /// What they find.
    pub entries: Vec<Entry>,
    /// What it says of itself.
    pub identity: Identity,
    /// How long the owner of a value may take to agree to a write.
    pub within: Duration,
}

/// Where clients come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// Modbus TCP.
    Tcp(SocketAddr),
    /// Modbus RTU: we are a unit, or several, on somebody's line.
    Rtu(Line),
}

/// A client wants values changed, all or none of them.
#[derive(Debug)]
pub struct Write {
    /// Entries by their index, with values that have passed type and limits.
    pub values: Vec<(usize, Value)>,
    /// The owner's word. Dropping it refuses.
    pub reply: oneshot::Sender<Result<(), Refusal>>,
}

/// Why the owner of a value does not want it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot have this value: exception 3.
    Value,
    /// It does not work: exception 4.
    Failure,
    /// Not now: exception 6.
    Busy,
}

impl From<Refusal> for ExceptionCode {
    fn from(refusal: Refusal) -> ExceptionCode {
        match refusal {
            Refusal::Value => ExceptionCode::IllegalDataValue,
            Refusal::Failure => ExceptionCode::ServerDeviceFailure,
            Refusal::Busy => ExceptionCode::ServerDeviceBusy,
        }
    }
}

/// The values a server exposes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exposed {
    image: Arc<Mutex<Image>>,
}

impl Exposed {
    fn lock(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value became known; `None` when it is bad.
    ///
    /// # Errors
    /// When its registers cannot hold it; clients see it as bad then.
    pub fn set(&self, entry: usize, value: Option<&Value>) -> Result<(), AccessError> {
        self.lock().set(entry, value)
    }
}

/// A server, bound and ready to run.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    lines: Vec<Line>,
    hall: Hall,
}

/// What every door leads to.
#[derive(Debug, Clone)]
struct Hall {
    exposed: Exposed,
    writes: mpsc::Sender<Write>,
    within: Duration,
}

impl Server {
    /// Binds the listeners. Writes of clients go to `writes`; when it is full they are refused as busy.
    ///
    /// # Errors
    /// An address that cannot be bound, with its name.
    pub async fn bind(settings: Settings, writes: mpsc::Sender<Write>) -> io::Result<(Server, Exposed)> {
        let (mut listeners, mut lines) = (Vec::new(), Vec::new());
        for door in settings.doors {
            match door {
                Door::Tcp(at) => {
                    let named = |e: io::Error| io::Error::new(e.kind(), format!("{at}: {e}"));
                    listeners.push(TcpListener::bind(at).await.map_err(named)?);
                }
                Door::Rtu(line) => lines.push(line),
            }
        }
        let exposed = Exposed { image: Arc::new(Mutex::new(Image::new(settings.entries, settings.identity))) };
        let hall = Hall { exposed: exposed.clone(), writes, within: settings.within };
        Ok((Server { listeners, lines, hall }, exposed))
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// When a listener fails for good.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            tasks.spawn(tcp(listener, self.hall.clone()));
        }
        for line in self.lines {
            tasks.spawn(rtu(line, self.hall.clone()));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            Some(ended) = tasks.join_next() => return ended.unwrap_or_else(|e| Err(io::Error::other(e))),
        }
        tasks.shutdown().await;
        Ok(())
    }
}

async fn tcp(listener: TcpListener, hall: Hall) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CLIENTS));
    let connected = |stream: tokio::net::TcpStream, from: SocketAddr| {
        let (hall, place) = (hall.clone(), Arc::clone(&places).try_acquire_owned());
        async move {
            let Ok(place) = place else {
                tracing::warn!(%from, "modbus server: too many clients");
                return Ok(None);
            };
            let _ = stream.set_nodelay(true);
            Ok(Some((Client { hall, serial: false, _place: Some(place) }, stream)))
        }
    };
    let server = server::tcp::Server::new(listener);
    server.serve(&connected, |e| tracing::debug!(error = %e, "modbus server: connection ended")).await
}

/// A line that breaks, or on which nothing makes sense, is opened again.
async fn rtu(line: Line, hall: Hall) -> io::Result<()> {
    loop {
        let ended = match serial::open(&line) {
            Ok(stream) => {
                let client = Client { hall: hall.clone(), serial: true, _place: None };
                server::rtu::Server::new(stream).serve_forever(client).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(line = %line.path, %error, "modbus server: line");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// One client, or everybody on a line.
#[derive(Debug)]
struct Client {
    hall: Hall,
    serial: bool,
    _place: Option<OwnedSemaphorePermit>,
}

type Answered = Result<Option<Response>, ExceptionCode>;

impl Service for Client {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Pin<Box<dyn Future<Output = Answered> + Send>>;

    fn call(&self, request: SlaveRequest<'static>) -> Self::Future {
        let (hall, serial) = (self.hall.clone(), self.serial);
        Box::pin(async move { hall.answer(serial, request.slave, &request.request).await })
    }
}

impl Hall {
    async fn answer(&self, serial: bool, unit: u8, request: &Request<'static>) -> Answered {
        if !self.exposed.lock().has(unit) {
            return if serial { Ok(None) } else { Err(ExceptionCode::GatewayTargetDevice) };
        }
        let answer = self.exposed.lock().answer(unit, request);
        let (values, then) = match answer {
            Answer::Now(response) => return response.map(Some),
            Answer::Ask(values, then) => (values, then),
        };
        let (reply, word) = oneshot::channel();
        let write = Write { values: values.clone(), reply };
        self.writes.try_send(write).map_err(|_| ExceptionCode::ServerDeviceBusy)?;
        match tokio::time::timeout(self.within, word).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(refusal))) => return Err(refusal.into()),
            Ok(Err(_)) => return Err(ExceptionCode::ServerDeviceFailure),
            Err(_) => return Err(ExceptionCode::ServerDeviceBusy),
        }
        let mut image = self.exposed.lock();
        for (entry, value) in &values {
            // They came out of these registers: they fit.
            let _ = image.set(*entry, Some(value));
        }
        match then {
            Then::Say(response) => Ok(Some(response)),
            Then::Read(address, count) => image.read_after(unit, address, count).map(Some),
        }
    }
}
