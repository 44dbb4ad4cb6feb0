//! Messages of netlink, as bytes, and the kernel's answers.
//!
//! Source: `linux/netlink.h`: a header of 16 bytes, then a body, then attributes of length, type and value, each padded to
//! four bytes.

use std::io;

use netlink_sys::{Socket, SocketAddr};

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// Make what is not there; together with [`EXCLUSIVE`] only if it is not there.
pub(super) const CREATE: u16 = 0x400;
/// Fail when it is there.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// Add at the end.
pub(super) const APPEND: u16 = 0x800;
const ERROR: u16 = 0x2;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// One message or attribute under construction.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    /// A body that begins with a fixed structure.
    pub(super) fn new(fixed: &[u8]) -> Body {
        let mut body = Body(fixed.to_vec());
        body.pad();
        body
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }

    /// An attribute with these bytes.
    #[must_use]
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Body {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
        self
    }

    /// A text with its final zero.
    #[must_use]
    pub(super) fn text(self, kind: u16, value: &str) -> Body {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// A number in the machine's byte order, as routing has them.
    #[must_use]
    pub(super) fn native(self, kind: u16, value: u32) -> Body {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in network byte order, as netfilter has them.
    #[must_use]
    pub(super) fn network(self, kind: u16, value: u32) -> Body {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes within an attribute.
    #[must_use]
    pub(super) fn nest(self, kind: u16, inner: Body) -> Body {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// A message with its header. Every message is acknowledged, unless `quiet`.
pub(super) fn message(kind: u16, flags: u16, quiet: bool, body: &Body) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.0.len()).unwrap_or(u32::MAX);
    let flags = REQUEST | flags | if quiet { 0 } else { ACK };
    let mut out = Vec::with_capacity(HEADER + body.0.len());
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&body.0);
    out
}

/// Sends messages in one piece and gives the first error among the kernel's answers. The kernel has answered by the time the
/// send returns.
pub(super) fn transact(protocol: isize, messages: &[u8]) -> io::Result<()> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    socket.send(messages, 0)?;
    loop {
        let answer = match socket.recv_from_full() {
            Ok((answer, _)) => answer,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        first_error(&answer)?;
    }
}

/// The first error in a buffer of answers.
fn first_error(mut answers: &[u8]) -> io::Result<()> {
    let number =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    while let Some(length) = number(answers, 0).and_then(|l| usize::try_from(l).ok()).filter(|l| *l >= HEADER) {
        let kind = answers.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
        if kind == Some(ERROR) {
            match number(answers, HEADER) {
                Some(0) | None => {}
                Some(code) => return Err(io::Error::from_raw_os_error(-code)),
            }
        }
        answers = answers.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let body = Body::new(&[7]).text(3, "ab").nest(2, Body::default().network(1, 5));
        let mut expected = vec![7, 0, 0, 0];
        expected.extend([7, 0, 3, 0, b'a', b'b', 0, 0]);
        expected.extend([12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 5]);
        assert_eq!(body.0, expected);
        assert_eq!(message(16, CREATE, false, &body).len(), 16 + expected.len());
    }

    #[test]
    fn answers_are_searched_for_errors() {
        let answer = |code: i32| message(ERROR, 0, true, &Body::new(&code.to_ne_bytes()));
        assert!(first_error(&answer(0)).is_ok());
        let both = [answer(0), answer(-17)].concat();
        assert_eq!(first_error(&both).unwrap_err().raw_os_error(), Some(17));
        for garbage in [&[][..], &[1, 2, 3], &[255; 20], &[4, 0, 0, 0, 2, 0]] {
            assert!(first_error(garbage).is_ok());
        }
    }
}
