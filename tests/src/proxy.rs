//! A network that can be cut: a TCP proxy whose connections end, fall silent or are refused when the test says so.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It passes everything on.
    Open,
    /// It passes on what clients send, and swallows what the server answers.
    NoAnswers,
    /// It swallows everything; connections stay.
    Silent,
    /// It ends new connections at once.
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct Orders {
    mode: Mode,
    /// Connections of an earlier number end.
    cut: u64,
}

/// The proxy; ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    orders: Arc<watch::Sender<Orders>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts one before a port of this machine.
    pub async fn start(port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("address");
        let orders = Arc::new(watch::Sender::new(Orders { mode: Mode::Open, cut: 0 }));
        let given = Arc::clone(&orders);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("accept");
                if given.borrow().mode == Mode::Closed {
                    continue;
                }
                connections.spawn(pass(client, port, given.subscribe()));
            }
        });
        Proxy { address, orders, task }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes what it does, for the connections there are, too.
    pub fn set(&self, mode: Mode) {
        self.orders.send_modify(|o| o.mode = mode);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.orders.send_modify(|o| o.cut += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, port: u16, orders: watch::Receiver<Orders>) {
    let born = orders.borrow().cut;
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let mut cut = orders.clone();
    tokio::select! {
        () = copy(client_read, server_write, orders.clone(), |m| m == Mode::Silent) => {}
        () = copy(server_read, client_write, orders, |m| matches!(m, Mode::Silent | Mode::NoAnswers)) => {}
        _ = cut.wait_for(|o| o.cut > born) => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    orders: watch::Receiver<Orders>,
    swallows: impl Fn(Mode) -> bool,
) {
    let mut buffer = vec![0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if !swallows(orders.borrow().mode) && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
