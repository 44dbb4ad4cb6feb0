//! Where a device is and how its frames travel. Devices with the same endpoint share its connection or its wire.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use edge_model::device::modbus::{Link, Mode, Parity, Rs485, Tls};

use crate::resolve::ConfigError;

/// The silence between RTU frames above 19200 bits a second (Modbus over Serial Line V1.02, section 2.5.1.1).
const FAST_SILENCE: Duration = Duration::from_micros(1_750);
/// Longest silence between frames, in microseconds.
const MAX_SILENCE_US: u32 = 100_000;
/// Longest delay of an RS-485 transceiver, in milliseconds, as in the kernel's drivers.
const MAX_RS485_MS: u32 = 100;

/// Where a device is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A TCP server.
    Tcp {
        /// Where.
        at: Address,
        /// Where else.
        backup: Option<Address>,
        /// What travels on the connection.
        framing: Framing,
        /// With certificates.
        tls: Option<Tls>,
    },
    /// A server of datagrams, each a frame of Modbus TCP.
    Udp {
        /// Where.
        at: Address,
        /// Where else.
        backup: Option<Address>,
    },
    /// A serial line of this machine.
    Serial {
        /// The line.
        line: Line,
        /// What travels on it.
        framing: Framing,
    },
    /// The device calls in.
    Inbound {
        /// Where we listen.
        at: SocketAddr,
        /// What travels on the connection.
        framing: Framing,
        /// Which of the callers it is.
        caller: Caller,
    },
}

/// How a request and its answer are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// With the header of Modbus TCP.
    Tcp,
    /// Binary with a CRC.
    Rtu,
    /// Hexadecimal with an LRC.
    Ascii,
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A serial line and its settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// Its device, such as `/dev/ttyUSB0`.
    pub path: String,
    /// Bits a second.
    pub baud: u32,
    /// 5 to 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// Direction of the transceiver, when the kernel switches it.
    pub rs485: Option<Rs485>,
    /// The silence before a frame.
    pub silence: Duration,
    /// The pause after a write to all units.
    pub turnaround: Duration,
}

/// How a device that calls in is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    /// By the address it calls from.
    Peer(IpAddr),
    /// It answers to this unit identifier.
    Unit(u8),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// As a person would name it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { at, .. } | Endpoint::Udp { at, .. } => at.fmt(f),
            Endpoint::Serial { line, .. } => f.write_str(&line.path),
            Endpoint::Inbound { at, caller: Caller::Peer(peer), .. } => write!(f, "{peer} calling {at}"),
            Endpoint::Inbound { at, caller: Caller::Unit(unit), .. } => write!(f, "unit {unit} calling {at}"),
        }
    }
}

impl Line {
    /// The silence before a frame: 3.5 characters, or the fixed time of fast lines.
    pub fn silence(baud: u32, data_bits: u8, parity: Parity, stop_bits: u8) -> Duration {
        if baud > 19_200 {
            return FAST_SILENCE;
        }
        let bits = 1 + u64::from(data_bits) + u64::from(parity != Parity::None) + u64::from(stop_bits);
        Duration::from_micros((3_500_000 * bits).div_ceil(u64::from(baud.max(1))))
    }
}

impl Endpoint {
    /// The endpoint a device's settings name.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn new(link: &Link) -> Result<Endpoint, ConfigError> {
        let mode = link.mode();
        if mode.is_serial() {
            return serial(link, mode);
        }
        if !link.serial_port.is_empty() {
            return fail("serialPort", "is for communicateMode RTU or ASCII");
        }
        let framing = match mode {
            Mode::RtuOverTcp => Framing::Rtu,
            Mode::AsciiOverTcp => Framing::Ascii,
            _ => Framing::Tcp,
        };
        if !link.listen.is_empty() {
            return inbound(link, mode, framing);
        }
        if !link.peer.is_empty() {
            return fail("peer", "is for devices that call in; say listen");
        }
        let port = link.port.unwrap_or(if mode == Mode::Tls { 802 } else { 502 });
        let at = address("ip", &link.ip, port)?;
        let backup = match link.backup_ip.as_str() {
            "" => None,
            host => Some(address("backupIp", host, link.backup_port.unwrap_or(port))?),
        };
        match (mode, &link.tls) {
            (Mode::Tls, None) => fail("tls", "name at least the certificates of the authorities, ca"),
            (Mode::Tls, Some(tls)) if tls.ca.is_empty() => fail("tls.ca", "name the file with the authorities"),
            (Mode::Tls, Some(tls)) if tls.certificate.is_empty() != tls.key.is_empty() => {
                fail("tls", "certificate and key belong together")
            }
            (Mode::Tls, Some(tls)) => Ok(Endpoint::Tcp { at, backup, framing, tls: Some(tls.clone()) }),
            (_, Some(_)) => fail("tls", "is for communicateMode TLS"),
            (Mode::Udp, None) => Ok(Endpoint::Udp { at, backup }),
            (_, None) => Ok(Endpoint::Tcp { at, backup, framing, tls: None }),
        }
    }

    /// Whether it is inside TLS.
    pub const fn is_secure(&self) -> bool {
        matches!(self, Endpoint::Tcp { tls: Some(_), .. })
    }

    /// Which caller it is, if it calls in.
    pub const fn caller(&self) -> Option<Caller> {
        match self {
            Endpoint::Inbound { caller, .. } => Some(*caller),
            _ => None,
        }
    }

    /// The serial line, if it is one.
    pub const fn line(&self) -> Option<&Line> {
        match self {
            Endpoint::Serial { line, .. } => Some(line),
            _ => None,
        }
    }
}

fn fail<T>(key: &str, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { path: format!("spec.protocol.configData.{key}"), message: message.into() })
}

fn address(key: &str, host: &str, port: u16) -> Result<Address, ConfigError> {
    if host.is_empty() || host.contains(char::is_whitespace) {
        return fail(key, "name the host or address of the device");
    }
    if port == 0 {
        return fail("port", "0 is not between 1 and 65535");
    }
    Ok(Address { host: host.to_owned(), port })
}

fn inbound(link: &Link, mode: Mode, framing: Framing) -> Result<Endpoint, ConfigError> {
    if !mode.is_tcp() {
        return fail("listen", "devices call in over TCP, RTUoverTCP or ASCIIoverTCP");
    }
    let text = link.listen.replacen("localhost:", "127.0.0.1:", 1);
    let Ok(at) = text.parse() else {
        return fail("listen", format!("{:?} is not address:port, such as 0.0.0.0:502", link.listen));
    };
    let caller = match link.peer.as_str() {
        "" => Caller::Unit(link.slave_id),
        peer => match peer.parse() {
            Ok(peer) => Caller::Peer(peer),
            Err(_) => return fail("peer", format!("{peer:?} is not an IP address")),
        },
    };
    Ok(Endpoint::Inbound { at, framing, caller })
}

fn serial(link: &Link, mode: Mode) -> Result<Endpoint, ConfigError> {
    let framing = if mode == Mode::Rtu { Framing::Rtu } else { Framing::Ascii };
    if !link.serial_port.starts_with('/') {
        return fail("serialPort", "name the serial device, such as /dev/ttyUSB0");
    }
    let least = if mode == Mode::Rtu { 8 } else { 7 };
    if !(least..=8).contains(&link.data_bits) {
        return fail("dataBits", format!("{} is not between {least} and 8", link.data_bits));
    }
    let rs485 = link.rs485.unwrap_or_default();
    let ranges = [
        ("baudRate", link.baud_rate, 50, 4_000_000),
        ("stopBits", u32::from(link.stop_bits), 1, 2),
        ("slaveID", u32::from(link.slave_id), 0, 247),
        ("frameSilence", link.frame_silence.unwrap_or(0), 0, MAX_SILENCE_US),
        ("rs485.delayBefore", rs485.delay_before, 0, MAX_RS485_MS),
        ("rs485.delayAfter", rs485.delay_after, 0, MAX_RS485_MS),
    ];
    for (key, value, low, high) in ranges {
        if !(low..=high).contains(&value) {
            return fail(key, format!("{value} is not between {low} and {high}"));
        }
    }
    let usual = match framing {
        Framing::Rtu => Line::silence(link.baud_rate, link.data_bits, link.parity, link.stop_bits),
        // A frame in hexadecimal has a beginning and an end of its own.
        Framing::Tcp | Framing::Ascii => Duration::ZERO,
    };
    let line = Line {
        path: link.serial_port.clone(),
        baud: link.baud_rate,
        data_bits: link.data_bits,
        parity: link.parity,
        stop_bits: link.stop_bits,
        rs485: link.rs485,
        silence: link.frame_silence.map_or(usual, |us| Duration::from_micros(u64::from(us))),
        turnaround: Duration::from_millis(u64::from(link.turnaround)),
    };
    Ok(Endpoint::Serial { line, framing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoint(keys: Value) -> Result<Endpoint, String> {
        let link: Link = serde_json::from_value(keys).map_err(|e| e.to_string())?;
        Endpoint::new(&link).map_err(|e| e.to_string())
    }

    #[test]
    fn the_silence_is_the_specifications() {
        // 3.5 characters of 11 bits at 9600 bits a second are 4.01 ms.
        assert_eq!(Line::silence(9_600, 8, Parity::Even, 1), Duration::from_micros(4_011));
        assert_eq!(Line::silence(19_200, 8, Parity::None, 1), Duration::from_micros(1_823));
        assert_eq!(Line::silence(115_200, 8, Parity::None, 1), FAST_SILENCE);
    }

    #[test]
    fn keys_of_kubeedge_name_a_serial_line() {
        let keys = json!({"serialPort": "/dev/ttyS0", "baudRate": "9600", "dataBits": 8, "parity": "even",
            "stopBits": "1", "communicateMode": "RTU", "slaveID": 5});
        let Ok(Endpoint::Serial { line, framing }) = endpoint(keys) else { panic!("no serial line") };
        assert_eq!((line.baud, line.parity, framing), (9_600, Parity::Even, Framing::Rtu));
        assert_eq!(line.silence, Duration::from_micros(4_011));
    }

    #[test]
    fn every_mode_has_its_endpoint() {
        let host = "10.0.0.1";
        let tcp = |keys| match endpoint(keys) {
            Ok(Endpoint::Tcp { at, backup, framing, tls }) => (at.port, backup.map(|b| b.port), framing, tls.is_some()),
            other => panic!("{other:?}"),
        };
        assert_eq!(tcp(json!({"ip": host})), (502, None, Framing::Tcp, false));
        let backed = json!({"ip": host, "backupIp": "10.0.0.2", "backupPort": 503});
        assert_eq!(tcp(backed), (502, Some(503), Framing::Tcp, false));
        assert_eq!(tcp(json!({"ip": host, "tls": {"ca": "/ca"}})), (802, None, Framing::Tcp, true));
        assert_eq!(tcp(json!({"ip": host, "communicateMode": "RTUoverTCP"})), (502, None, Framing::Rtu, false));
        assert!(matches!(endpoint(json!({"ip": host, "communicateMode": "UDP"})), Ok(Endpoint::Udp { .. })));
        let called = endpoint(json!({"listen": "0.0.0.0:5020", "slaveID": 3}));
        assert!(matches!(called, Ok(Endpoint::Inbound { caller: Caller::Unit(3), .. })), "{called:?}");
    }

    #[test]
    fn what_does_not_fit_names_its_key() {
        let cases = [
            (json!({}), "ip"),
            (json!({"ip": "a b"}), "ip"),
            (json!({"ip": "a", "port": 0}), "port"),
            (json!({"communicateMode": "RTU"}), "serialPort"),
            (json!({"ip": "a", "serialPort": "/dev/ttyS0", "communicateMode": "TCP"}), "serialPort"),
            (json!({"serialPort": "/dev/ttyS0", "dataBits": 7}), "dataBits"),
            (json!({"serialPort": "/dev/ttyS0", "slaveID": 248}), "slaveID"),
            (json!({"serialPort": "/dev/ttyS0", "rs485": {"delayAfter": 500}}), "rs485.delayAfter"),
            (json!({"ip": "a", "communicateMode": "TLS"}), "tls"),
            (json!({"ip": "a", "tls": {"ca": "/a", "key": "/k"}}), "tls"),
            (json!({"ip": "a", "peer": "10.0.0.1"}), "peer"),
            (json!({"listen": "5020"}), "listen"),
            (json!({"listen": "0.0.0.0:5020", "peer": "x"}), "peer"),
            (json!({"listen": "0.0.0.0:5020", "communicateMode": "UDP"}), "listen"),
        ];
        for (keys, key) in cases {
            let error = endpoint(keys.clone()).unwrap_err();
            assert!(error.starts_with(&format!("spec.protocol.configData.{key}:")), "{keys}: {error}");
        }
    }
}
