//! `modbus …`: for the bench, straight on the wire, without the node.
//!
//! A line or connection that the node uses is its own: stop the device there first, or a serial line is refused as busy.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use edge_mappers::AccessError;
use edge_mappers::backoff::Backoff;
use edge_mappers::modbus::Config;
use edge_mappers::modbus::decode::Codec;
use edge_mappers::modbus::endpoint::{Endpoint, Framing};
use edge_mappers::modbus::link::{Fault, Link, Payload};
use edge_mappers::modbus::plan::Span;
use edge_mappers::modbus::{csv, serial, sniff};
use edge_model::device::PropertyType;
use edge_model::device::modbus::{self, Table as Registers, Visitor};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::error::CliError;
use super::get::document_text;
use super::out::{Out, Table};
use super::verbs::Format;

/// Verbs of the bench.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ModbusVerb {
    /// Find the units that answer, and what they say of themselves.
    Scan {
        /// Where.
        #[command(flatten)]
        target: Target,
        /// The units to ask: one, or a range.
        #[arg(long, default_value = "1-247", value_parser = range)]
        units: (u8, u8),
        /// How to print.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Read values.
    Read {
        /// Where.
        #[command(flatten)]
        target: Target,
        /// What.
        #[command(flatten)]
        place: Place,
        /// How many values.
        #[arg(short = 'c', long, default_value_t = 1)]
        count: u16,
        /// How to print.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Write values, one after the other, in one request.
    Write {
        /// Where.
        #[command(flatten)]
        target: Target,
        /// What.
        #[command(flatten)]
        place: Place,
        /// The values.
        #[arg(required = true, allow_hyphen_values = true)]
        values: Vec<String>,
    },
    /// Listen on a serial line and print the frames others exchange, until interrupted.
    Sniff {
        /// Where.
        #[command(flatten)]
        target: Target,
        /// End after so many frames.
        #[arg(long)]
        frames: Option<u64>,
        /// How to print.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Make a DeviceModel and a Device of a register list in CSV.
    Import {
        /// The list.
        file: PathBuf,
        /// The name of both objects.
        #[arg(long)]
        name: String,
        /// The address of the device; may be filled in later.
        #[arg(long, default_value = "192.0.2.1")]
        ip: String,
        /// How to print.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Yaml)]
        output: Format,
    },
}

/// A device, or a line.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Target {
    /// host, host:port, or a serial device such as /dev/ttyUSB0.
    #[arg(value_name = "TARGET")]
    at: String,
    /// The unit identifier.
    #[arg(short = 'u', long, default_value_t = 1)]
    unit: u8,
    /// TCP, UDP, TLS, RTU, ASCII, RTUoverTCP or ASCIIoverTCP; TCP or, for a serial device, RTU when absent.
    #[arg(short = 'm', long)]
    mode: Option<String>,
    /// Bits a second.
    #[arg(short = 'b', long, default_value_t = 19_200)]
    baud: u32,
    /// none, even or odd.
    #[arg(short = 'p', long, default_value = "even")]
    parity: String,
    /// 7 or 8.
    #[arg(long, default_value_t = 8)]
    data_bits: u8,
    /// 1 or 2.
    #[arg(long, default_value_t = 1)]
    stop_bits: u8,
    /// How long an answer may take, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    timeout: u32,
    /// For TLS: the file with the authorities.
    #[arg(long)]
    ca: Option<String>,
    /// For TLS: our certificate.
    #[arg(long, requires = "key")]
    certificate: Option<String>,
    /// For TLS: its key.
    #[arg(long, requires = "certificate")]
    key: Option<String>,
}

/// Where values are, and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Place {
    /// The table.
    #[arg(short = 't', long, value_enum, default_value_t = Kind::Holding)]
    table: Kind,
    /// The first address, from 0.
    #[arg(short = 'a', long, default_value_t = 0)]
    address: u16,
    /// What registers hold: int16, uint32, float32, bcd16, … as `dataType` of a device.
    #[arg(long = "type", default_value = "uint16")]
    data_type: String,
    /// The order of bytes on the wire, such as CDAB.
    #[arg(long)]
    order: Option<String>,
}

/// Modbus' tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Coil,
    Discrete,
    Holding,
    Input,
}

impl Kind {
    const fn table(self) -> Registers {
        match self {
            Kind::Coil => Registers::Coil,
            Kind::Discrete => Registers::Discrete,
            Kind::Holding => Registers::Holding,
            Kind::Input => Registers::Input,
        }
    }
}

fn range(text: &str) -> Result<(u8, u8), String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.parse(), high.parse()) {
        (Ok(low), Ok(high)) if low <= high => Ok((low, high)),
        _ => Err("name a unit, or a range such as 1-247".to_owned()),
    }
}

impl Target {
    fn config(&self) -> Result<Config, CliError> {
        let mut link = json!({
            "slaveID": self.unit, "timeout": self.timeout, "connectTimeout": self.timeout.max(1_000),
        });
        if self.at.starts_with('/') {
            link["serialPort"] = json!(self.at);
            link["baudRate"] = json!(self.baud);
            link["parity"] = json!(self.parity);
            link["dataBits"] = json!(self.data_bits);
            link["stopBits"] = json!(self.stop_bits);
        } else {
            let (host, port) = match self.at.rsplit_once(':') {
                // An IPv6 address without brackets has no port.
                Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
                _ => (self.at.as_str(), None),
            };
            link["ip"] = json!(host.trim_matches(['[', ']']));
            if let Some(port) = port {
                link["port"] = json!(port);
            }
        }
        if let Some(mode) = &self.mode {
            link["communicateMode"] = json!(mode);
        }
        if let Some(ca) = &self.ca {
            link["tls"] = json!({"ca": ca});
            if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
                (link["tls"]["certificate"], link["tls"]["key"]) = (json!(certificate), json!(key));
            }
        }
        let link: modbus::Link = serde_json::from_value(link).map_err(|e| CliError::Usage(e.to_string()))?;
        Config::of_link(&link).map_err(|e| {
            let key = e.path.rsplit('.').next().unwrap_or_default();
            CliError::Usage(format!("{key}: {}", e.message))
        })
    }
}

impl Place {
    /// How one value is made, and how many registers or bits it takes.
    fn codec(&self) -> Result<(Codec, u16, PropertyType), CliError> {
        let table = self.table.table();
        let mut keys = json!({"register": table.word()});
        let mut kind = PropertyType::Boolean;
        if !table.is_bits() {
            keys["dataType"] = json!(self.data_type);
            kind = if self.data_type.starts_with("float") { PropertyType::Double } else { PropertyType::Int };
        }
        if let Some(order) = &self.order {
            keys["byteOrder"] = json!(order);
        }
        let visitor: Visitor = serde_json::from_value(keys).map_err(|e| CliError::Usage(e.to_string()))?;
        let (codec, count) = Codec::resolve(&visitor, kind).map_err(CliError::Usage)?;
        Ok((codec, count, kind))
    }
}

fn open(config: &Config) -> Link {
    let pause = Duration::from_millis(1);
    Link::new(config.endpoint.clone(), None, Backoff::new(pause, pause))
}

fn no(fault: Fault) -> CliError {
    CliError::No(AccessError::from(fault).to_string())
}

/// Does a verb.
///
/// # Errors
/// Any [`CliError`] but those of a node.
pub async fn modbus(out: &mut Out, verb: ModbusVerb) -> Result<(), CliError> {
    match verb {
        ModbusVerb::Scan { target, units, output } => scan(out, &target, units, output).await,
        ModbusVerb::Read { target, place, count, output } => read(out, &target, &place, count, output).await,
        ModbusVerb::Write { target, place, values } => write(out, &target, &place, &values).await,
        ModbusVerb::Sniff { target, frames, output } => listen(out, &target, frames, output).await,
        ModbusVerb::Import { file, name, ip, output } => {
            let text =
                std::fs::read_to_string(&file).map_err(|source| CliError::File { path: file.clone(), source })?;
            let map = csv::parse(&text).map_err(|e| CliError::No(format!("{}: {e}", file.display())))?;
            let objects = map.objects(&name, &json!({"ip": ip}));
            if output == Format::Json {
                return out
                    .text(&document_text(&json!({"kind": "List", "apiVersion": "v1", "items": objects}), output));
            }
            let texts = objects.map(|o| document_text(&o, Format::Yaml));
            out.text(&texts.join("---\n"))
        }
    }
}

async fn scan(out: &mut Out, target: &Target, units: (u8, u8), output: Format) -> Result<(), CliError> {
    let mut config = target.config()?;
    let mut link = open(&config);
    let bar =
        if out.is_terminal() { ProgressBar::new(u64::from(units.1 - units.0) + 1) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("unit {pos:>3} {bar:30} {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut found = Vec::new();
    for unit in units.0..=units.1 {
        config.unit = unit;
        let start = std::time::Instant::now();
        let first = link.read(&config, Span { table: Registers::Holding, address: 0, count: 1 }).await;
        let micros = start.elapsed().as_micros();
        bar.inc(1);
        let says = match first {
            // A gateway's word that nobody is there.
            Ok(_) => "answers".to_owned(),
            Err(Fault::Timeout(_) | Fault::Garbage(_) | Fault::Exception(10 | 11)) => continue,
            Err(Fault::Exception(code)) => format!("exception {code}"),
            Err(fault) => return Err(no(fault)),
        };
        let identity = link.identify(&config, 0).await.unwrap_or_default();
        let object = |id: u8| identity.iter().find(|(i, _)| *i == id).map_or("", |(_, text)| text.as_str());
        let (vendor, product, revision) = (object(0), object(1), object(2));
        found.push(json!({
            "unit": unit, "says": says, "roundTripUs": u64::try_from(micros).unwrap_or(u64::MAX),
            "vendor": vendor, "product": product, "revision": revision,
        }));
    }
    bar.finish_and_clear();
    if matches!(output, Format::Json | Format::Yaml) {
        return out.text(&document_text(&json!({"units": found}), output));
    }
    let mut table = Table::new(&["UNIT", "SAYS", "MS", "VENDOR", "PRODUCT", "REVISION"]);
    for unit in &found {
        let text = |key: &str| unit.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let micros = unit.get("roundTripUs").and_then(Value::as_u64).unwrap_or(0);
        let number = unit.get("unit").map(Value::to_string).unwrap_or_default();
        let ms = format!("{}.{}", micros / 1000, micros / 100 % 10);
        table.row(vec![number, text("says"), ms, text("vendor"), text("product"), text("revision")]);
    }
    if table.is_empty() {
        return Err(CliError::No(format!("no unit of {} to {} answers", units.0, units.1)));
    }
    out.text(&table.take())
}

async fn read(out: &mut Out, target: &Target, place: &Place, count: u16, output: Format) -> Result<(), CliError> {
    let config = target.config()?;
    let (codec, size, _) = place.codec()?;
    let table = place.table.table();
    let most = if table.is_bits() { config.limits.bits } else { config.limits.registers };
    let mut link = open(&config);
    let (mut rows, mut address, mut left) = (Vec::new(), u32::from(place.address), u32::from(count));
    while left > 0 {
        // Whole values only.
        let values = left.min(u32::from(most / size));
        let registers = values * u32::from(size);
        let (Ok(from), Ok(length)) = (u16::try_from(address), u16::try_from(registers)) else {
            return Err(CliError::Usage("beyond address 65535".to_owned()));
        };
        let payload = link.read(&config, Span { table, address: from, count: length }).await.map_err(no)?;
        for i in 0..usize::try_from(values).unwrap_or(0) {
            let (from, to) = (i * usize::from(size), (i + 1) * usize::from(size));
            let (raw, value) = match &payload {
                Payload::Registers(r) => {
                    let own = r.get(from..to).unwrap_or_default();
                    let hex: Vec<String> = own.iter().map(|w| format!("{w:04x}")).collect();
                    (hex.join(" "), codec.decode(own))
                }
                Payload::Bits(b) => {
                    let own = b.get(from..to).unwrap_or_default();
                    (own.iter().map(|b| if *b { '1' } else { '0' }).collect(), codec.decode_bits(own))
                }
                Payload::Objects(_) => (String::new(), Err("texts, not registers")),
            };
            let value = value.map_or_else(|why| json!({"invalid": why}), |v| v.to_json());
            rows.push(json!({"address": address, "raw": raw, "value": value}));
            address += u32::from(size);
        }
        left -= values;
    }
    if matches!(output, Format::Json | Format::Yaml) {
        return out.text(&document_text(&json!({"values": rows}), output));
    }
    let mut text = Table::new(&["ADDRESS", "RAW", "VALUE"]);
    for row in &rows {
        let cell = |key: &str| row.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        text.row(["address", "raw", "value"].map(|key| cell(key).unwrap_or_default()).into());
    }
    out.text(&text.take())
}

async fn write(out: &mut Out, target: &Target, place: &Place, values: &[String]) -> Result<(), CliError> {
    use edge_mappers::modbus::encode::Encoded;
    let config = target.config()?;
    let (codec, size, kind) = place.codec()?;
    let table = place.table.table();
    if !table.is_writable() {
        return Err(CliError::Usage(format!("{} cannot be written", table.word())));
    }
    let point = edge_mappers::Point {
        name: String::new(),
        value_type: kind,
        unit: String::new(),
        writable: true,
        minimum: None,
        maximum: None,
    };
    let (mut words, mut bits) = (Vec::new(), Vec::new());
    for text in values {
        let value = point.parse(&Value::from(text.as_str())).map_err(|e| CliError::Usage(e.to_string()))?;
        match codec.encode(&value, size).map_err(|e| CliError::Usage(e.to_string()))? {
            Encoded::Registers(r) => words.extend(r),
            Encoded::Bits(b) => bits.extend(b),
            Encoded::Masked { .. } => {
                return Err(CliError::Usage("parts of registers are not written here; write whole ones".to_owned()));
            }
        }
    }
    let encoded = if table.is_bits() { Encoded::Bits(bits) } else { Encoded::Registers(words) };
    open(&config).write(&config, place.address, &encoded).await.map_err(no)?;
    out.line(&format!("{} {} written at {}", values.len(), table.word(), place.address))
}

async fn listen(out: &mut Out, target: &Target, most: Option<u64>, output: Format) -> Result<(), CliError> {
    let config = target.config()?;
    let Endpoint::Serial { line, framing } = &config.endpoint else {
        return Err(CliError::Usage("only a serial line can be listened to".to_owned()));
    };
    let mut port = serial::open(line).map_err(|e| CliError::No(format!("{}: {e}", line.path)))?;
    // The kernel hands bytes over in lumps; a frame is long over after this much silence.
    let silence = line.silence.max(Duration::from_millis(20));
    let (mut buffer, mut bytes, mut frames) = (Vec::new(), [0; 512], 0);
    loop {
        let quiet = match tokio::time::timeout(silence, port.read(&mut bytes)).await {
            Err(_) => true,
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(length)) => {
                buffer.extend(bytes.iter().take(length));
                false
            }
            Ok(Err(e)) => return Err(CliError::No(format!("{}: {e}", line.path))),
        };
        let heard =
            if *framing == Framing::Ascii { sniff::ascii(&mut buffer, quiet) } else { sniff::rtu(&mut buffer, quiet) };
        for one in heard {
            let time = edge_model::time::rfc3339(crate::clock::now_ms());
            let (what, raw, words) = match &one {
                sniff::Heard::Frame(body) => ("frame", sniff::hex(body), sniff::words(body)),
                sniff::Heard::Noise(noise) => ("noise", sniff::hex(noise), format!("noise {}", sniff::hex(noise))),
            };
            match output {
                Format::Json => out.line(&json!({"time": time, what: raw, "words": words}).to_string())?,
                Format::Wide => out.line(&format!("{time}  {words}  [{raw}]"))?,
                _ => out.line(&format!("{time}  {words}"))?,
            }
            frames += 1;
            if most.is_some_and(|most| frames >= most) {
                return Ok(());
            }
        }
    }
}
