//! A Device and its DeviceModel, resolved: nothing left to look up, default or refuse while polling.

use std::sync::Arc;
use std::time::Duration;

use edge_model::device::modbus::{Link, Table, Visitor};
use edge_model::device::{Device, DeviceModel, MODBUS};
use edge_model::reading::{Quality, Value};

use super::decode::Codec;
use super::endpoint::Endpoint;
use super::link::Payload;
use super::plan::{Limits, Span};
use crate::resolve::{self, ConfigError, fail};
use crate::{Profile, Sample};

/// Longest time-out, in milliseconds.
const MAX_TIMEOUT_MS: u32 = 60_000;
/// Longest pause between requests, in milliseconds.
const MAX_INTERVAL_MS: u32 = 10_000;
/// Most registers of a read (Modbus Application Protocol V1.1b3, section 6.3).
pub const MAX_REGISTERS: u16 = 125;
/// Most bits of a read (section 6.1).
pub const MAX_BITS: u16 = 2_000;
/// Most registers of a write (section 6.12).
const MAX_WRITE_REGISTERS: u16 = 123;

/// One Modbus device, ready to be polled.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Names, types and limits of its points.
    pub profile: Arc<Profile>,
    /// Where the device is: devices with the same endpoint share its connection.
    pub endpoint: Endpoint,
    /// The unit identifier on that connection.
    pub unit: u8,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The pause the device needs between two requests.
    pub interval: Duration,
    /// What one request may ask for.
    pub limits: Limits,
    /// Write single values with functions 15 and 16.
    pub write_multiple: bool,
    /// Write parts of a register with function 22.
    pub mask_write: bool,
    /// Write registers and read them back with function 23.
    pub read_write: bool,
    /// Where each point is, as many and in the order of the profile's points.
    pub registers: Vec<Register>,
}

impl Config {
    /// A device of which nothing is known but how to reach it.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn of_link(link: &Link) -> Result<Config, ConfigError> {
        check_link(link)?;
        let millis = |ms: u32| Duration::from_millis(u64::from(ms));
        Ok(Config {
            profile: Arc::new(Profile { namespace: String::new(), name: String::new(), points: Vec::new() }),
            endpoint: Endpoint::new(link)?,
            unit: link.slave_id,
            timeout: millis(link.timeout),
            connect_timeout: millis(link.connect_timeout),
            interval: millis(link.request_interval),
            limits: Limits { gap: link.max_gap, registers: link.max_registers, bits: link.max_bits },
            write_multiple: link.write_multiple,
            mask_write: link.mask_write,
            read_write: link.read_write,
            registers: Vec::new(),
        })
    }

    /// Whether it is all units of a serial line: they are written to and never answer (Modbus over Serial Line V1.02,
    /// section 2.1).
    pub fn is_broadcast(&self) -> bool {
        self.unit == 0 && self.endpoint.line().is_some()
    }

    /// The samples of some points in the answer to a read of a span.
    pub fn samples(&self, points: &[u16], span: Span, payload: &Payload) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(points.len());
        samples.extend(points.iter().filter_map(|point| self.sample(*point, span, payload)));
        samples
    }

    fn sample(&self, point: u16, span: Span, payload: &Payload) -> Option<Sample> {
        let register = self.registers.get(usize::from(point))?;
        let from = usize::from(register.address.checked_sub(span.address)?);
        let to = from + usize::from(register.count);
        let value = match payload {
            Payload::Registers(r) => r.get(from..to).and_then(|r| register.codec.decode(r).ok()),
            Payload::Bits(b) => b.get(from..to).and_then(|b| register.codec.decode_bits(b).ok()),
            Payload::Objects(o) => {
                o.iter().find(|(id, _)| u16::from(*id) == register.address).map(|(_, text)| Value::Text(text.clone()))
            }
        };
        let value = value.filter(|v| self.profile.points.get(usize::from(point)).is_some_and(|p| p.allows(v)));
        let quality = if value.is_some() { Quality::Good } else { Quality::Invalid };
        Some(Sample { point, quality, value })
    }
}

/// Where one point is and how to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    /// Which table.
    pub table: Table,
    /// The first address.
    pub address: u16,
    /// How many registers or bits, at least 1.
    pub count: u16,
    /// How they make a value.
    pub codec: Codec,
    /// How often to read it.
    pub period: Duration,
    /// Whether a write is checked by reading.
    pub read_back: bool,
}

/// Resolves a device against its model.
///
/// # Errors
/// Names the field that does not fit.
pub fn resolve(namespace: &str, name: &str, device: &Device, model: &DeviceModel) -> Result<Config, ConfigError> {
    resolve::speaks(MODBUS, device, model)?;
    let link: Link = resolve::link(device, model)?;
    let bare = Config::of_link(&link)?;
    let limits = bare.limits;
    let mut points = Vec::with_capacity(device.properties.len());
    let mut registers = Vec::with_capacity(device.properties.len());
    for property in resolve::properties::<Visitor>(device, model) {
        let (property, point) = property?;
        let (path, visitor) = (&property.path, &property.visitor);
        let (codec, count) = Codec::resolve(visitor, property.model.value_type)
            .map_err(|message| ConfigError { path: path.clone(), message })?;
        check_register(path, visitor, count, point.writable, &limits)?;
        points.push(point);
        registers.push(Register {
            table: visitor.register,
            address: visitor.offset,
            count,
            codec,
            period: Duration::from_millis(property.own.collect_ms()),
            read_back: visitor.read_back,
        });
    }
    let profile = Arc::new(Profile { namespace: namespace.to_owned(), name: name.to_owned(), points });
    Ok(Config { profile, registers, ..bare })
}

fn check_link(link: &Link) -> Result<(), ConfigError> {
    let at = |key: &str| format!("spec.protocol.configData.{key}");
    let ranges = [
        ("turnaround", link.turnaround, 0, MAX_INTERVAL_MS),
        ("timeout", link.timeout, 1, MAX_TIMEOUT_MS),
        ("connectTimeout", link.connect_timeout, 1, MAX_TIMEOUT_MS),
        ("requestInterval", link.request_interval, 0, MAX_INTERVAL_MS),
        ("maxRegisters", u32::from(link.max_registers), 1, u32::from(MAX_REGISTERS)),
        ("maxBits", u32::from(link.max_bits), 1, u32::from(MAX_BITS)),
    ];
    for (key, value, low, high) in ranges {
        if !(low..=high).contains(&value) {
            return fail(at(key), format!("{value} is not between {low} and {high}"));
        }
    }
    Ok(())
}

fn check_register(path: &str, v: &Visitor, count: u16, writable: bool, limits: &Limits) -> Result<(), ConfigError> {
    let most = if v.register.is_bits() { limits.bits } else { limits.registers };
    if count > most {
        return fail(format!("{path}.limit"), format!("{count} is more than one request may ask for, {most}"));
    }
    if v.offset.checked_add(count - 1).is_none() {
        return fail(format!("{path}.offset"), format!("{} + {count} goes beyond address 65535", v.offset));
    }
    if writable && !v.register.is_writable() {
        let why =
            "this table is read-only in Modbus; say ReadOnly in the model, or use CoilRegister or HoldingRegister";
        return fail(format!("{path}.register"), why);
    }
    if writable && count > MAX_WRITE_REGISTERS {
        return fail(format!("{path}.limit"), format!("{count} is more than one write takes, {MAX_WRITE_REGISTERS}"));
    }
    Ok(())
}
