//! One connection or line: opened when needed, one request at a time, and a judge of every answer.
//!
//! After a time-out or an answer that makes no sense a connection is closed: a late answer must never be taken for the next
//! one. A connection the device closed while it was idle is opened again without anybody noticing. A serial line stays open
//! (its buffer is emptied before each request) and a garbled answer is asked for once more.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use edge_model::device::modbus::Table;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::client::{Client as _, Context};
use tokio_modbus::prelude::{DeviceIdObject, ReadCode};
use tokio_modbus::slave::SlaveContext as _;
use tokio_modbus::{Error, ProtocolError, Request, Response, Slave};

use super::config::Config;
use super::encode::{Encoded, merge};
use super::endpoint::Endpoint;
use super::inbound::Lobby;
use super::plan::Span;
use super::transport::{self, Opened};
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
    /// Of the identification: those objects that the device has, by their numbers.
    Objects(Vec<(u8, String)>),
}

/// The connection to one endpoint.
pub struct Link {
    endpoint: Endpoint,
    /// Where the device calls in, if it does.
    lobby: Option<Arc<Lobby>>,
    connection: Option<Connection>,
    backoff: Backoff,
    /// No attempt to connect before this, and why the last one failed.
    refused: Option<(Instant, String)>,
    /// The second address is the one to try first.
    backup_first: bool,
    /// Connections opened so far.
    opened: u64,
}

struct Connection {
    context: Context,
    /// Whether it has answered at least once: only then is a broken pipe worth a second try.
    proven: bool,
    /// When the wire was last used.
    last: Instant,
    /// When each unit that needs a pause was last spoken to.
    units: Vec<(u8, Instant)>,
    called: Option<Arc<TcpStream>>,
}

impl Link {
    /// A link that connects on its first request.
    pub const fn new(endpoint: Endpoint, lobby: Option<Arc<Lobby>>, backoff: Backoff) -> Link {
        let (connection, refused) = (None, None);
        Link { endpoint, lobby, connection, backoff, refused, backup_first: false, opened: 0 }
    }

    /// How often it was opened again.
    pub const fn reconnects(&self) -> u64 {
        self.opened.saturating_sub(1)
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
            Table::Identification => {
                return self.identify(to, u8::try_from(address).unwrap_or(u8::MAX)).await.map(Payload::Objects);
            }
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
            Encoded::Masked { masks, values } => return self.write_masked(to, address, masks, values).await,
        };
        let Some(echo) = echo(&request) else { return Ok(()) };
        if self.call(to, request).await? == echo { Ok(()) } else { Err(self.garbage("not the echo of the write")) }
    }

    /// Writes registers and reads them back in one request (function 23); the write comes first (section 6.17).
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn write_read(&mut self, to: &Config, address: u16, words: &[u16]) -> Result<Payload, Fault> {
        let request = Request::ReadWriteMultipleRegisters(address, length(words.len()), address, Cow::Borrowed(words));
        match self.call(to, request).await? {
            Response::ReadWriteMultipleRegisters(r) if r.len() == words.len() => Ok(Payload::Registers(r)),
            _ => Err(self.garbage("another length than asked for")),
        }
    }

    /// Changes some bits of registers: with function 22 where the device has it, otherwise by reading, changing and writing.
    /// Nobody else is on this connection in between.
    async fn write_masked(&mut self, to: &Config, address: u16, masks: &[u16], values: &[u16]) -> Result<(), Fault> {
        if let (true, [mask], [value]) = (to.mask_write, masks, values) {
            // Result = (current AND and-mask) OR (or-mask AND NOT and-mask), section 6.16.
            let request = Request::MaskWriteRegister(address, !mask, *value);
            let echo = Response::MaskWriteRegister(address, !mask, *value);
            let answer = self.call(to, request).await?;
            return if answer == echo { Ok(()) } else { Err(self.garbage("not the echo of the write")) };
        }
        let span = Span { table: Table::Holding, address, count: length(masks.len()) };
        let Payload::Registers(old) = self.read(to, span).await? else {
            return Err(self.garbage("bits for a register"));
        };
        Box::pin(self.write(to, address, &Encoded::Registers(merge(&old, masks, values)))).await
    }

    /// What the device says of itself (function 43/14): objects by their number, 0 the vendor, 1 the product code, 2 the
    /// revision, up to 6 as the specification says, from 128 on the device's own (section 6.21). Those from `first` on; the
    /// device's own only when `first` is one of them.
    ///
    /// # Errors
    /// Any [`Fault`]; most devices answer exception 1.
    pub async fn identify(&mut self, to: &Config, first: u8) -> Result<Vec<(u8, String)>, Fault> {
        let (mut all, mut next) = (Vec::new(), first);
        let code = if first < 0x80 { ReadCode::Regular } else { ReadCode::Extended };
        // Each answer holds at least one of 256 objects; nobody has so many.
        for _ in 0..16 {
            let request = Request::ReadDeviceIdentification(code, next);
            let Response::ReadDeviceIdentification(answer) = self.call(to, request).await? else {
                return Err(self.garbage("another answer than an identification"));
            };
            let text = |o: &DeviceIdObject| (o.id, String::from_utf8_lossy(&o.value).into_owned());
            all.extend(answer.device_id_objects.iter().map(text));
            if !answer.more_follows || answer.next_object_id <= next {
                break;
            }
            next = answer.next_object_id;
        }
        Ok(all)
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
            // Noise, or somebody's late answer.
            Err(Fault::Garbage(_)) if self.endpoint.line().is_some() => self.call_once(to, request).await,
            answer => answer,
        }
    }

    async fn call_once(&mut self, to: &Config, request: Request<'_>) -> Result<Response, Fault> {
        let mut connection = match self.connection.take() {
            Some(c) => c,
            None => self.connect(to.connect_timeout).await?,
        };
        let line = self.endpoint.line();
        if let Some(silence) = line.map(|l| l.silence).filter(|s| !s.is_zero()) {
            sleep_until(connection.last + silence).await;
        }
        if let Some((_, last)) = connection.units.iter().find(|(unit, _)| *unit == to.unit) {
            sleep_until(*last + to.interval).await;
        }
        connection.context.set_slave(Slave(to.unit));
        // Nobody answers what is for everybody (Modbus over Serial Line V1.02, section 2.1).
        let broadcast = line.filter(|_| to.unit == 0).and_then(|l| Some((l.turnaround, echo(&request)?)));
        let within = broadcast.as_ref().map_or(to.timeout, |(turnaround, _)| *turnaround);
        let answer = timeout(within, connection.context.call(request)).await;
        connection.last = Instant::now();
        if !to.interval.is_zero() {
            connection.units.retain(|(unit, _)| *unit != to.unit);
            connection.units.push((to.unit, connection.last));
        }
        let garbage = |what: &str| Err(Fault::Garbage(what.to_owned()));
        let mut broken = false;
        let result = match (answer, broadcast) {
            (Err(_), Some((_, echo))) => Ok(echo),
            (Err(_), None) => Err(Fault::Timeout(u32::try_from(to.timeout.as_millis()).unwrap_or(u32::MAX))),
            (Ok(Err(Error::Protocol(ProtocolError::HeaderMismatch { .. }))), _) => garbage("it is for another request"),
            (Ok(Err(Error::Protocol(ProtocolError::FunctionCodeMismatch { .. }))), _) => {
                garbage("it is for another function")
            }
            (Ok(Err(Error::Transport(e))), _) => match e.kind() {
                // Also when our certificate is refused, which the device says late.
                _ if e.get_ref().is_some_and(|e| e.is::<rustls::Error>()) => {
                    Err(Fault::Disconnected(format!("TLS: {e}")))
                }
                ErrorKind::UnexpectedEof if self.endpoint.is_secure() => {
                    Err(Fault::Disconnected("the device ended the secure connection".to_owned()))
                }
                // A reader that has seen an error ends.
                ErrorKind::InvalidData if line.is_some() => {
                    broken = true;
                    garbage(&e.to_string())
                }
                ErrorKind::InvalidData => garbage(&e.to_string()),
                // A short PDU ends its reader early.
                ErrorKind::UnexpectedEof => garbage("it is cut short"),
                _ if line.is_some() => Err(Fault::Disconnected(format!("{}: {e}", self.endpoint))),
                ErrorKind::ConnectionRefused => Err(Fault::Disconnected(format!("{}: {e}", self.endpoint))),
                _ => Err(Fault::Disconnected("the device closed it".to_owned())),
            },
            (Ok(Ok(Err(exception))), _) => Err(Fault::Exception(exception.into())),
            (Ok(Ok(Ok(response))), _) => Ok(response),
        };
        if !broken {
            self.keep(connection, &result);
        }
        result
    }

    /// What becomes of a connection after an answer, or none.
    fn keep<T>(&mut self, mut connection: Connection, result: &Result<T, Fault>) {
        match result {
            // A gateway's word that it has no such unit: another caller may have it.
            Err(Fault::Exception(10 | 11)) if self.lobby.is_some() && !connection.proven => {
                if let (Some(lobby), Some(stream)) = (&self.lobby, connection.called) {
                    lobby.put_back(stream, self.endpoint.caller());
                }
            }
            Ok(_) | Err(Fault::Exception(_)) => {
                connection.proven = true;
                self.connection = Some(connection);
            }
            Err(Fault::Timeout(_) | Fault::Garbage(_)) if self.endpoint.line().is_some() => {
                self.connection = Some(connection);
            }
            // It took the connection and never said a word: perhaps the other address, or another caller, is the device.
            Err(Fault::Timeout(_)) if !connection.proven => {
                self.backup_first = !self.backup_first;
                if let (Some(lobby), Some(stream)) = (&self.lobby, connection.called) {
                    lobby.put_back(stream, self.endpoint.caller());
                }
            }
            Err(_) => {}
        }
    }

    async fn connect(&mut self, within: Duration) -> Result<Connection, Fault> {
        let now = Instant::now();
        if let Some((_, why)) = self.refused.as_ref().filter(|(until, _)| *until > now) {
            return Err(Fault::Disconnected(why.clone()));
        }
        match transport::open(&self.endpoint, self.lobby.as_deref(), within, &mut self.backup_first).await {
            Ok(Opened { client: context, called }) => {
                self.backoff.reset();
                self.refused = None;
                self.opened += 1;
                Ok(Connection { context, proven: false, last: Instant::now(), units: Vec::new(), called })
            }
            Err(why) => {
                self.refused = Some((Instant::now() + self.backoff.pause(), why.clone()));
                Err(Fault::Disconnected(why))
            }
        }
    }
}

/// What a device says to a write it has done; `None` for reads.
fn echo(request: &Request<'_>) -> Option<Response> {
    Some(match request {
        Request::WriteSingleRegister(a, v) => Response::WriteSingleRegister(*a, *v),
        Request::WriteSingleCoil(a, v) => Response::WriteSingleCoil(*a, *v),
        Request::WriteMultipleRegisters(a, v) => Response::WriteMultipleRegisters(*a, length(v.len())),
        Request::WriteMultipleCoils(a, v) => Response::WriteMultipleCoils(*a, length(v.len())),
        Request::MaskWriteRegister(a, and, or) => Response::MaskWriteRegister(*a, *and, *or),
        _ => return None,
    })
}

fn length(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}
