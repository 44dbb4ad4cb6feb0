//! Modbus TCP's frames in datagrams, as a stream for tokio-modbus: each write is a datagram, each answer too.
//!
//! Datagrams come late, twice or never: those of another transaction than the last are passed over in silence.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UdpSocket;

use super::frame::Answer;

/// The longest frame is 260 bytes (Modbus Messaging on TCP/IP V1.0b, section 3.1); longer datagrams are cut and so refused.
const MAX_FRAME: usize = 261;

/// A connected socket.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    transaction: [u8; 2],
    answer: Answer,
}

impl Datagrams {
    /// A stream over a connected socket.
    pub const fn new(socket: UdpSocket) -> Datagrams {
        Datagrams { socket, transaction: [0; 2], answer: Answer::new(Vec::new()) }
    }
}

impl AsyncRead for Datagrams {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.answer.give(buf) {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; MAX_FRAME];
            let mut raw = ReadBuf::new(&mut bytes);
            ready!(this.socket.poll_recv(cx, &mut raw))?;
            let frame = raw.filled();
            if frame.first_chunk::<2>() != Some(&this.transaction) {
                continue;
            }
            let length = match frame {
                [_, _, _, _, high, low, ..] => 6 + usize::from(u16::from_be_bytes([*high, *low])),
                _ => usize::MAX,
            };
            if frame.len() != length {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram of another length")));
            }
            this.answer = Answer::new(frame.to_vec());
        }
    }
}

impl AsyncWrite for Datagrams {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(transaction) = buf.first_chunk::<2>() {
            this.transaction = *transaction;
        }
        this.answer = Answer::default();
        this.socket.poll_send(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
