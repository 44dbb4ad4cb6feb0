//! A serial line: opened with its settings, and silent before each request.
//!
//! A late answer of one request would be taken for the answer of the next (tokio-modbus has no way to know): whatever is in
//! the kernel's buffer when a request starts is thrown away.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use edge_model::device::modbus::Parity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_serial::{ClearBuffer, DataBits, FlowControl, SerialPort as _, SerialStream, StopBits};

use super::endpoint::Line;
use super::rs485;

/// An open line.
#[derive(Debug)]
pub struct Port {
    stream: SerialStream,
    /// Something was read since the last write: the next write begins a request.
    fresh: bool,
}

/// Opens a line for ourselves alone.
///
/// # Errors
/// When there is no such device, somebody else has it, or it does not take the settings.
pub fn open(line: &Line) -> io::Result<SerialStream> {
    let parity = match line.parity {
        Parity::None => tokio_serial::Parity::None,
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
    };
    let data_bits = match line.data_bits {
        5 => DataBits::Five,
        6 => DataBits::Six,
        7 => DataBits::Seven,
        _ => DataBits::Eight,
    };
    let stop_bits = if line.stop_bits == 2 { StopBits::Two } else { StopBits::One };
    let settings = tokio_serial::new(&line.path, line.baud)
        .data_bits(data_bits)
        .parity(parity)
        .stop_bits(stop_bits)
        .flow_control(FlowControl::None);
    let stream = SerialStream::open(&settings)?;
    if let Some(settings) = line.rs485 {
        rs485::set(&stream, settings)?;
    }
    Ok(stream)
}

impl Port {
    /// Opens a line as a client.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(line: &Line) -> io::Result<Port> {
        Ok(Port { stream: open(line)?, fresh: true })
    }
}

impl AsyncRead for Port {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.fresh = true;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Port {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.fresh {
            self.stream.clear(ClearBuffer::Input)?;
            self.fresh = false;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
