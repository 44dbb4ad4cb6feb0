//! Modbus ASCII for tokio-modbus, which has no such framing: a stream of Modbus TCP's frames on one side, of frames in
//! hexadecimal on the other.
//!
//! ```text
//! tokio-modbus  ──  transaction 0 length unit PDU  ──►  : unit PDU LRC CR LF  ──►  line
//!               ◄──  the same transaction …       ──◄  : unit PDU LRC CR LF  ◄──
//! ```
//! There is one request at a time, so an answer belongs to the last one sent. What is half received when a request starts is
//! thrown away.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{Answer, MAX_ASCII, from_ascii, to_ascii};

/// Length of the header up to the unit identifier: transaction, protocol, length.
const HEADER: usize = 6;

/// See the module.
#[derive(Debug)]
pub struct Ascii<S> {
    inner: S,
    /// The request, until it is whole.
    request: Vec<u8>,
    /// What the line has yet to take.
    outgoing: Vec<u8>,
    /// The transaction of the last request.
    transaction: [u8; 2],
    /// What came since the last colon; `None` before it.
    line: Option<Vec<u8>>,
    /// The answer as Modbus TCP.
    answer: Answer,
}

impl<S> Ascii<S> {
    /// An adapter for a line or connection.
    pub const fn new(inner: S) -> Ascii<S> {
        let answer = Answer::new(Vec::new());
        Ascii { inner, request: Vec::new(), outgoing: Vec::new(), transaction: [0; 2], line: None, answer }
    }

    /// Takes bytes of the line; the end of a frame makes the answer.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let garbage = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        for byte in bytes {
            match (*byte, &mut self.line) {
                // A colon begins a frame wherever it stands (section 2.5.2.1).
                (b':', line) => *line = Some(Vec::new()),
                (b'\r', _) | (_, None) => {}
                (b'\n', line) => {
                    let body = from_ascii(&line.take().unwrap_or_default()).map_err(garbage)?;
                    let length = u16::try_from(body.len()).map_err(|_| garbage("a frame that is too long"))?;
                    let header = [self.transaction, [0, 0], length.to_be_bytes()].concat();
                    self.answer = Answer::new([header, body].concat());
                }
                (other, Some(line)) => {
                    line.push(other);
                    if line.len() > MAX_ASCII {
                        self.line = None;
                        return Err(garbage("a frame that is too long"));
                    }
                }
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ascii<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.answer.give(buf) {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; 256];
            let mut raw = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut raw))?;
            if raw.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.take(raw.filled())?;
        }
    }
}

impl<S: AsyncWrite + Unpin> Ascii<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ascii<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        this.request.extend(buf);
        let whole = match this.request.get(4..HEADER) {
            Some([high, low]) => HEADER + usize::from(u16::from_be_bytes([*high, *low])),
            _ => usize::MAX,
        };
        if this.request.len() >= whole {
            let frame: Vec<u8> = this.request.drain(..whole).collect();
            if let [first, second, ..] = frame.as_slice() {
                this.transaction = [*first, *second];
            }
            (this.line, this.answer) = (None, Answer::default());
            this.outgoing = to_ascii(frame.get(HEADER..).unwrap_or_default());
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn a_request_goes_and_its_answer_comes() {
        let (ours, mut line) = duplex(1024);
        let mut ascii = Ascii::new(ours);
        // In two pieces, as a writer may.
        ascii.write_all(&[0, 7, 0, 0, 0, 6, 1]).await.unwrap();
        ascii.write_all(&[3, 0, 0, 0, 10]).await.unwrap();
        ascii.flush().await.unwrap();
        let mut sent = [0; 17];
        line.read_exact(&mut sent).await.unwrap();
        assert_eq!(&sent, b":01030000000AF2\r\n");
        line.write_all(b"noise:01:010302002AD0\r\n").await.unwrap();
        let mut answer = [0; 11];
        ascii.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0, 7, 0, 0, 0, 5, 1, 3, 2, 0, 42]);
    }

    #[tokio::test]
    async fn garbage_is_said_and_never_half_an_answer() {
        let (ours, mut line) = duplex(4096);
        let mut ascii = Ascii::new(ours);
        for bad in [":010302002AD1\r\n".to_owned(), ":0x\r\n".to_owned(), format!(":{}", "00".repeat(600))] {
            line.write_all(bad.as_bytes()).await.unwrap();
            let error = ascii.read(&mut [0; 32]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad}");
        }
    }
}
