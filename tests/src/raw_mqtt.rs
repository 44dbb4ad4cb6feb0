//! MQTT as raw bytes, for what no client would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wait::DEADLINE;

/// A CONNECT of MQTT 3.1.1 with a clean session and the client identifier `r` (section 3.1).
pub const fn connect_v4(keep_alive: u8) -> [u8; 15] {
    [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, keep_alive, 0, 1, b'r']
}

/// A raw client that has been accepted.
pub async fn raw(address: SocketAddr, connect: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(connect).await.unwrap();
    assert_eq!(read(&mut socket, 4).await, [0x20, 2, 0, 0]);
    socket
}

/// The next `n` bytes.
pub async fn read(socket: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    tokio::time::timeout(DEADLINE, socket.read_exact(&mut bytes)).await.expect("an answer").unwrap();
    bytes
}

/// What comes until the server closes.
pub async fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let end = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut bytes)).await;
    let _ = end.expect("closed");
    bytes
}
