//! Opens the way to an endpoint and puts tokio-modbus on it.
//!
//! | endpoint | framing |
//! |---|---|
//! | TCP, TLS, devices that call in | tokio-modbus' TCP client |
//! | serial line, RTU over TCP | tokio-modbus' RTU client |
//! | ASCII, on a line or over TCP | its TCP client over [`Ascii`] |
//! | UDP | its TCP client over [`Datagrams`] |

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_modbus::client::{Context, rtu, tcp};

use super::ascii::Ascii;
use super::endpoint::{Address, Endpoint, Framing};
use super::inbound::{Called, Lobby};
use super::serial;
use super::tls;
use super::udp::Datagrams;

/// A client, and the connection it is on when that can be handed back.
pub(super) struct Opened {
    pub(super) client: Context,
    pub(super) called: Option<Arc<TcpStream>>,
}

fn client<S>(stream: S, framing: Framing) -> Context
where
    S: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static,
{
    match framing {
        Framing::Tcp => tcp::attach(stream),
        Framing::Rtu => rtu::attach(stream),
        Framing::Ascii => tcp::attach(Ascii::new(stream)),
    }
}

/// The addresses to try, the one that is more likely first.
fn places<'a>(at: &'a Address, backup: Option<&'a Address>, backup_first: bool) -> Vec<&'a Address> {
    let mut all: Vec<&Address> = std::iter::once(at).chain(backup).collect();
    if backup_first {
        all.reverse();
    }
    all
}

/// Opens an endpoint. `backup_first` says which of two addresses is tried first, and becomes the one that worked. Each may
/// take as long as `within`.
///
/// # Errors
/// Why it cannot be opened, in words for the status.
pub(super) async fn open(
    endpoint: &Endpoint,
    lobby: Option<&Lobby>,
    within: Duration,
    backup_first: &mut bool,
) -> Result<Opened, String> {
    let millis = within.as_millis();
    let late = |what: &str| format!("{what}: cannot connect within {millis} ms");
    match endpoint {
        Endpoint::Serial { line, framing } => {
            let port = serial::Port::open(line).map_err(|e| format!("{}: {e}", line.path))?;
            Ok(Opened { client: client(port, *framing), called: None })
        }
        Endpoint::Inbound { framing, caller, .. } => {
            let lobby = lobby.ok_or("nobody listens")?;
            match timeout(within, lobby.take(*caller)).await {
                Ok(stream) => {
                    let client = client(Called(Arc::clone(&stream)), *framing);
                    Ok(Opened { client, called: Some(stream) })
                }
                Err(_) => Err(lobby.broken().unwrap_or_else(|| format!("{endpoint}: has not called"))),
            }
        }
        Endpoint::Udp { at, backup } | Endpoint::Tcp { at, backup, .. } => {
            let mut why = Vec::new();
            for place in places(at, backup.as_ref(), *backup_first) {
                match timeout(within, reach(endpoint, place)).await {
                    Ok(Ok(client)) => {
                        *backup_first = place != at;
                        return Ok(Opened { client, called: None });
                    }
                    Ok(Err(e)) => why.push(format!("{place}: {e}")),
                    Err(_) => why.push(late(&place.to_string())),
                }
            }
            Err(why.join("; "))
        }
    }
}

async fn reach(endpoint: &Endpoint, place: &Address) -> io::Result<Context> {
    let address = (place.host.as_str(), place.port);
    let (framing, tls) = match endpoint {
        Endpoint::Udp { .. } => {
            let mut last = io::Error::other("no address");
            for to in tokio::net::lookup_host(address).await? {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                match socket.connect(to).await {
                    Ok(()) => return Ok(tcp::attach(Datagrams::new(socket))),
                    Err(error) => last = error,
                }
            }
            return Err(last);
        }
        Endpoint::Tcp { framing, tls, .. } => (*framing, tls.as_ref()),
        Endpoint::Serial { .. } | Endpoint::Inbound { .. } => return Err(io::Error::other("has no address")),
    };
    let stream = TcpStream::connect(address).await?;
    // Requests are small and each waits for its answer; without this Nagle's algorithm delays them.
    let _ = stream.set_nodelay(true);
    match tls {
        None => Ok(client(stream, framing)),
        Some(tls) => Ok(client(tls::secure(stream, &place.host, tls).await?, framing)),
    }
}
