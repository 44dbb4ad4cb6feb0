//! `configData` of Modbus devices: KubeEdge's keys, and ours where it has none.
//!
//! KubeEdge's Modbus mapper knows `ip`, `port`, `slaveID`, `communicateMode`, and for a serial line `serialPort`, `baudRate`,
//! `dataBits`, `parity`, `stopBits` for the device, and `register`, `offset`, `limit`, `scale`, `isSwap`, `isRegisterSwap` for
//! a property (kubeedge/mappers-go, `mappers/modbus`). They mean the same here. The rest is ours and optional. [`Link`] is how
//! to reach a device, [`visitor`] where its properties are.
//!
//! Protocol facts: Modbus Application Protocol V1.1b3 (addresses from 0, at most 125 registers or 2000 bits a read, 123
//! registers or 1968 bits a write, section 6), Modbus Messaging on TCP/IP V1.0b (port 502, unit identifier), Modbus over
//! Serial Line V1.02 (RTU, ASCII, even parity) and Modbus/TCP Security V3.6 (TLS, port 802).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub mod visitor;

pub use visitor::{DataType, Encoding, Packing, Padding, Table, Visitor};

/// `protocol.configData`: how to reach the device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// Host name or address.
    #[serde(default)]
    pub ip: String,
    /// TCP or UDP port; 502 when absent, 802 with TLS.
    #[serde(default, deserialize_with = "optional_number")]
    pub port: Option<u16>,
    /// Unit identifier, 0 to 255; 1 when absent. On a serial line 1 to 247, and 0 writes to all units.
    #[serde(default = "defaults::slave", rename = "slaveID", deserialize_with = "number")]
    pub slave_id: u8,
    /// How it is attached; when absent `RTU` with a `serialPort`, `TLS` with `tls`, otherwise `TCP`.
    #[serde(default)]
    pub communicate_mode: Option<Mode>,
    /// Ours: a second address of the same device, tried when the first cannot be reached, and the other way round.
    #[serde(default)]
    pub backup_ip: String,
    /// Ours: the port at the second address; `port` when absent.
    #[serde(default, deserialize_with = "optional_number")]
    pub backup_port: Option<u16>,
    /// Ours, instead of `ip`: the device calls in here, `address:port`. With `peer` it is known by its address, otherwise by
    /// answering to its `slaveID`.
    #[serde(default)]
    pub listen: String,
    /// Ours: the IP address the device calls in from.
    #[serde(default)]
    pub peer: String,
    /// Ours: certificates of Modbus/TCP Security.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Serial device, such as `/dev/ttyUSB0`.
    #[serde(default)]
    pub serial_port: String,
    /// Bits a second; 19200 when absent.
    #[serde(default = "defaults::baud", deserialize_with = "number")]
    pub baud_rate: u32,
    /// 5 to 8; 8 when absent. RTU needs 8.
    #[serde(default = "defaults::data_bits", deserialize_with = "number")]
    pub data_bits: u8,
    /// `none`, `even` (when absent) or `odd`.
    #[serde(default)]
    pub parity: Parity,
    /// 1 (when absent) or 2.
    #[serde(default = "defaults::stop_bits", deserialize_with = "number")]
    pub stop_bits: u8,
    /// Ours: the kernel switches the direction of an RS-485 transceiver.
    #[serde(default)]
    pub rs485: Option<Rs485>,
    /// Ours: the silence between frames on a serial line, in microseconds, 0 to 100000. When absent 3.5 characters, and
    /// 1750 µs above 19200 bits a second (Modbus over Serial Line V1.02, section 2.5.1.1).
    #[serde(default)]
    pub frame_silence: Option<u32>,
    /// Ours: the pause after a write to all units (`slaveID` 0) on a serial line, in milliseconds, 0 to 10000; 100 when absent
    /// (section 2.4.1).
    #[serde(default = "defaults::turnaround")]
    pub turnaround: u32,
    /// Ours: how long an answer may take, in milliseconds, 1 to 60000; 1000 when absent.
    #[serde(default = "defaults::timeout")]
    pub timeout: u32,
    /// Ours: how long connecting may take, in milliseconds, 1 to 60000; 3000 when absent.
    #[serde(default = "defaults::connect_timeout")]
    pub connect_timeout: u32,
    /// Ours: the pause the device needs between two requests, in milliseconds, 0 to 10000; 0 when absent.
    #[serde(default)]
    pub request_interval: u32,
    /// Ours: the most registers nobody asked for that are read along to save a request; 16 when absent.
    #[serde(default = "defaults::gap")]
    pub max_gap: u16,
    /// Ours: the most registers the device gives in one request, 1 to 125.
    #[serde(default = "defaults::registers")]
    pub max_registers: u16,
    /// Ours: the most coils or discrete inputs the device gives in one request, 1 to 2000.
    #[serde(default = "defaults::bits")]
    pub max_bits: u16,
    /// Ours: write single values with functions 15 and 16 as well, for devices that lack 5 and 6.
    #[serde(default)]
    pub write_multiple: bool,
    /// Ours: write parts of a register with function 22 (mask write) instead of reading it, changing it and writing it.
    #[serde(default)]
    pub mask_write: bool,
    /// Ours: write registers and read them back in one request, function 23.
    #[serde(default)]
    pub read_write: bool,
}

impl Link {
    /// How the device is attached, also when nobody said it.
    pub fn mode(&self) -> Mode {
        self.communicate_mode.unwrap_or(match (self.serial_port.is_empty(), &self.tls) {
            (false, _) => Mode::Rtu,
            (true, Some(_)) => Mode::Tls,
            (true, None) => Mode::Tcp,
        })
    }
}

/// How a Modbus device is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Mode {
    /// Modbus TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// Modbus TCP's frames in datagrams.
    #[serde(rename = "UDP")]
    Udp,
    /// Modbus/TCP Security.
    #[serde(rename = "TLS")]
    Tls,
    /// A serial line with binary frames.
    #[serde(rename = "RTU")]
    Rtu,
    /// A serial line with frames in hexadecimal.
    #[serde(rename = "ASCII")]
    Ascii,
    /// A serial line behind a converter that passes its bytes over TCP.
    #[serde(rename = "RTUoverTCP")]
    RtuOverTcp,
    /// The same with frames in hexadecimal.
    #[serde(rename = "ASCIIoverTCP")]
    AsciiOverTcp,
}

impl Mode {
    /// Whether it is a serial device of this machine.
    pub const fn is_serial(self) -> bool {
        matches!(self, Mode::Rtu | Mode::Ascii)
    }

    /// Whether it is a TCP connection, so that a device could call in as well.
    pub const fn is_tcp(self) -> bool {
        matches!(self, Mode::Tcp | Mode::RtuOverTcp | Mode::AsciiOverTcp)
    }
}

/// Certificates of Modbus/TCP Security: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// The authorities that may have signed the device's certificate.
    pub ca: String,
    /// Our certificate with its chain; the specification wants one from both sides.
    #[serde(default)]
    pub certificate: String,
    /// Its private key.
    #[serde(default)]
    pub key: String,
    /// The name in the device's certificate; `ip` when absent.
    #[serde(default)]
    pub server_name: String,
}

/// Parity of a serial line. KubeEdge writes the word, older examples its first letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// None.
    #[serde(alias = "N", alias = "None")]
    None,
    /// Even: Modbus' own.
    #[default]
    #[serde(alias = "E", alias = "Even")]
    Even,
    /// Odd.
    #[serde(alias = "O", alias = "Odd")]
    Odd,
}

/// Direction of an RS-485 transceiver, switched by the kernel's driver (`struct serial_rs485`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rs485 {
    /// RTS is low while sending, and high otherwise.
    pub invert: bool,
    /// Milliseconds from RTS to the first bit, 0 to 100.
    pub delay_before: u32,
    /// Milliseconds from the last bit to RTS, 0 to 100.
    pub delay_after: u32,
    /// The receiver stays on while sending.
    pub receive_during_send: bool,
}

/// A number, or a text with one, as KubeEdge's examples write it.
fn optional_number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_u64().or_else(|| value.as_str().and_then(|t| t.trim().parse().ok()));
    let fits = number.and_then(|n| T::try_from(n).ok());
    fits.map(Some).ok_or_else(|| D::Error::custom(format!("{value} is not a number that fits")))
}

fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<T, D::Error> {
    optional_number(from)?.ok_or_else(|| D::Error::custom("a number is missing"))
}

mod defaults {
    pub(super) const fn slave() -> u8 {
        1
    }
    pub(super) const fn baud() -> u32 {
        19_200
    }
    pub(super) const fn data_bits() -> u8 {
        8
    }
    pub(super) const fn stop_bits() -> u8 {
        1
    }
    pub(super) const fn turnaround() -> u32 {
        100
    }
    pub(super) const fn timeout() -> u32 {
        1_000
    }
    pub(super) const fn connect_timeout() -> u32 {
        3_000
    }
    pub(super) const fn gap() -> u16 {
        16
    }
    pub(super) const fn registers() -> u16 {
        125
    }
    pub(super) const fn bits() -> u16 {
        2_000
    }
}
