//! One Modbus TCP connection: connects when needed, one request at a time, and judges every answer.
//!
//! After a time-out or an answer that makes no sense the connection is closed: a late answer must never be taken for the next
//! one. A connection the device closed while it was idle is opened again without anybody noticing.

use std::borrow::Cow;
use std::time::Duration;

use edge_model::device::modbus::Table;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::client::{Client as _, Context, tcp};
use tokio_modbus::slave::SlaveContext as _;
use tokio_modbus::{Error, ProtocolError, Request, Response, Slave};

use super::config::{Config, Endpoint};
use super::encode::Encoded;
use super::plan::Span;
use crate::AccessError;
use crate::backoff::Backoff;

/// Why there is no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// None came within so many milliseconds.
    Timeout(u32),
    /// No connection, for this reason.
    Disconnected(String),
    /// The device answered with this exception code.
    Exception(u8),
    /// The answer is not one to this request.
    Garbage(String),
}

impl From<Fault> for AccessError {
    fn from(fault: Fault) -> AccessError {
        match fault {
            Fault::Timeout(ms) => AccessError::Timeout(ms),
            Fault::Disconnected(why) => AccessError::Disconnected(why),
            Fault::Exception(code) => AccessError::Exception { code },
            Fault::Garbage(what) => AccessError::Garbage(what),
        }
    }
}

/// What a read answered: exactly as much as was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Of holding or input registers.
    Registers(Vec<u16>),
    /// Of coils or discrete inputs.
    Bits(Vec<bool>),
}

/// The connection to one endpoint.
pub struct Link {
    endpoint: Endpoint,
    connection: Option<Connection>,
    backoff: Backoff,
    /// No attempt to connect before this, and why the last one failed.
    refused: Option<(Instant, String)>,
}

struct Connection {
    context: Context,
    /// Whether it has answered at least once: only then is a broken pipe worth a second try.
    proven: bool,
    last: Instant,
}

impl Link {
    /// A link that connects on its first request.
    pub const fn new(endpoint: Endpoint, backoff: Backoff) -> Link {
        Link { endpoint, connection: None, backoff, refused: None }
    }

    /// Before when no attempt to connect is made.
    pub fn refused_until(&self) -> Option<Instant> {
        self.refused.as_ref().map(|(until, _)| *until)
    }

    /// Reads a span of one table.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn read(&mut self, to: &Config, span: Span) -> Result<Payload, Fault> {
        let Span { table, address, count } = span;
        let request = match table {
            Table::Coil => Request::ReadCoils(address, count),
            Table::Discrete => Request::ReadDiscreteInputs(address, count),
            Table::Holding => Request::ReadHoldingRegisters(address, count),
            Table::Input => Request::ReadInputRegisters(address, count),
        };
        let length = usize::from(count);
        match self.call(to, request).await? {
            Response::ReadHoldingRegisters(r) | Response::ReadInputRegisters(r) if r.len() == length => {
                Ok(Payload::Registers(r))
            }
            // Whole bytes come; the bits that fill up the last one mean nothing.
            Response::ReadCoils(mut b) | Response::ReadDiscreteInputs(mut b)
                if b.len() == length.next_multiple_of(8) =>
            {
                b.truncate(length);
                Ok(Payload::Bits(b))
            }
            _ => Err(self.garbage("another length than asked for")),
        }
    }

    /// Writes registers or coils from an address on.
    ///
    /// # Errors
    /// Any [`Fault`]. After a time-out or a lost connection the write may have been done.
    pub async fn write(&mut self, to: &Config, address: u16, value: &Encoded) -> Result<(), Fault> {
        let request = match value {
            Encoded::Registers(r) => match r.as_slice() {
                [one] if !to.write_multiple => Request::WriteSingleRegister(address, *one),
                all => Request::WriteMultipleRegisters(address, Cow::Borrowed(all)),
            },
            Encoded::Bits(b) => match b.as_slice() {
                [one] if !to.write_multiple => Request::WriteSingleCoil(address, *one),
                all => Request::WriteMultipleCoils(address, Cow::Borrowed(all)),
            },
            Encoded::Bit(mask, on) => return self.write_bit(to, address, *mask, *on).await,
        };
        let echo = match &request {
            Request::WriteSingleRegister(a, v) => Response::WriteSingleRegister(*a, *v),
            Request::WriteSingleCoil(a, v) => Response::WriteSingleCoil(*a, *v),
            Request::WriteMultipleRegisters(a, v) => Response::WriteMultipleRegisters(*a, length(v.len())),
            Request::WriteMultipleCoils(a, v) => Response::WriteMultipleCoils(*a, length(v.len())),
            _ => return Ok(()),
        };
        if self.call(to, request).await? == echo { Ok(()) } else { Err(self.garbage("not the echo of the write")) }
    }

    /// Reads the register, changes one bit, writes it: many devices lack mask write (22). Nobody else is on this connection
    /// in between.
    async fn write_bit(&mut self, to: &Config, address: u16, mask: u16, on: bool) -> Result<(), Fault> {
        let payload = self.read(to, Span { table: Table::Holding, address, count: 1 }).await?;
        let Payload::Registers(r) = payload else { return Err(self.garbage("bits for a register")) };
        let old = r.first().copied().unwrap_or(0);
        let new = if on { old | mask } else { old & !mask };
        Box::pin(self.write(to, address, &Encoded::Registers(vec![new]))).await
    }

    fn garbage(&mut self, what: &str) -> Fault {
        self.connection = None;
        Fault::Garbage(what.to_owned())
    }

    async fn call(&mut self, to: &Config, request: Request<'_>) -> Result<Response, Fault> {
        let reused = self.connection.as_ref().is_some_and(|c| c.proven);
        match self.call_once(to, request.clone()).await {
            // Devices close idle connections, and a register written twice holds the same: one more try is harmless.
            Err(Fault::Disconnected(_)) if reused => self.call_once(to, request).await,
            answer => answer,
        }
    }

    async fn call_once(&mut self, to: &Config, request: Request<'_>) -> Result<Response, Fault> {
        let mut connection = match self.connection.take() {
            Some(c) => c,
            None => self.connect(to.connect_timeout).await?,
        };
        if !to.interval.is_zero() {
            sleep_until(connection.last + to.interval).await;
        }
        connection.context.set_slave(Slave(to.unit));
        let answer = timeout(to.timeout, connection.context.call(request)).await;
        connection.last = Instant::now();
        let result = match answer {
            Err(_) => return Err(Fault::Timeout(u32::try_from(to.timeout.as_millis()).unwrap_or(u32::MAX))),
            Ok(Err(Error::Protocol(ProtocolError::HeaderMismatch { .. }))) => {
                return Err(Fault::Garbage("it is for another request".to_owned()));
            }
            Ok(Err(Error::Protocol(ProtocolError::FunctionCodeMismatch { .. }))) => {
                return Err(Fault::Garbage("it is for another function".to_owned()));
            }
            Ok(Err(Error::Transport(e))) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(Fault::Garbage(e.to_string()));
            }
            // A short PDU ends its reader early.
            Ok(Err(Error::Transport(e))) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(Fault::Garbage("it is cut short".to_owned()));
            }
            Ok(Err(Error::Transport(_))) => return Err(Fault::Disconnected("the device closed it".to_owned())),
            Ok(Ok(Err(exception))) => Err(Fault::Exception(exception.into())),
            Ok(Ok(Ok(response))) => Ok(response),
        };
        connection.proven = true;
        self.connection = Some(connection);
        result
    }

    async fn connect(&mut self, within: Duration) -> Result<Connection, Fault> {
        let now = Instant::now();
        if let Some((_, why)) = self.refused.as_ref().filter(|(until, _)| *until > now) {
            return Err(Fault::Disconnected(why.clone()));
        }
        let address = (self.endpoint.host.as_str(), self.endpoint.port);
        let why = match timeout(within, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are small and each waits for its answer; without this Nagle's algorithm delays them.
                let _ = stream.set_nodelay(true);
                self.backoff.reset();
                self.refused = None;
                return Ok(Connection { context: tcp::attach(stream), proven: false, last: now });
            }
            Ok(Err(e)) => format!("{}: {e}", self.endpoint),
            Err(_) => format!("{}: cannot connect within {} ms", self.endpoint, within.as_millis()),
        };
        self.refused = Some((Instant::now() + self.backoff.pause(), why.clone()));
        Err(Fault::Disconnected(why))
    }
}

fn length(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}
