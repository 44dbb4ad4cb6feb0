//! A Modbus TCP server that answers as badly as a test wants.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A TCP server that answers each request with whatever `answer` makes of its PDU and transaction identifier; an empty answer
/// closes the connection.
pub async fn hostile(answer: impl Fn(&[u8], [u8; 2]) -> Vec<u8> + Clone + Send + 'static) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            clients.spawn(async move {
                let mut header = [0; 7];
                while stream.read_exact(&mut header).await.is_ok() {
                    let mut pdu = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) - 1];
                    if stream.read_exact(&mut pdu).await.is_err() {
                        return;
                    }
                    let bytes = answer(&pdu, [header[0], header[1]]);
                    if bytes.is_empty() || stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, tasks)
}
