//! BTHome v2 (bthome.io/format, bthome.io/encryption).
//!
//! ```text
//! info │ [address 6] │ object id │ value │ object id │ value …                            plain
//! info │ [address 6] │ the same, sealed with AES-CCM │ counter 4 │ tag 4                  encrypted
//! ```
//! Bit 0 of `info` says encrypted, bit 1 that the address is there, bits 5–7 are the version. All numbers are little-endian.
//! An object this table does not know ends the packet, since its length is not known either.

use edge_model::reading::Value;

use super::{Decoded, little, signed};
use crate::bluetooth::address::Address;
use crate::bluetooth::crypto::{self, TAG};
use crate::bluetooth::uuid::Uuid;

/// The service its data comes with.
pub const SERVICE: Uuid = Uuid::short(0xfcd2);

/// What an object is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Unsigned bytes, and what the raw number is multiplied and divided by.
    Unsigned(usize, u32, u32),
    /// The same in two's complement.
    Signed(usize, u32, u32),
    /// True or false, one byte.
    Flag,
    /// The number of the packet.
    Packet,
    /// A button, one byte; 0 is nothing.
    Button,
    /// A dimmer: direction and steps.
    Dimmer,
    /// Length and text.
    Text,
    /// Length and bytes.
    Raw,
}

use Kind::{Button, Dimmer, Flag, Packet, Raw, Signed, Text, Unsigned};

/// By object id. The names are Home Assistant's; units are in the comments. Where the same quantity comes in another unit,
/// the name says so.
const OBJECTS: &[(u8, &str, Kind)] = &[
    (0x00, "packet_id", Packet),
    (0x01, "battery", Unsigned(1, 1, 1)),       // %
    (0x02, "temperature", Signed(2, 1, 100)),   // °C
    (0x03, "humidity", Unsigned(2, 1, 100)),    // %
    (0x04, "pressure", Unsigned(3, 1, 100)),    // hPa
    (0x05, "illuminance", Unsigned(3, 1, 100)), // lx
    (0x06, "mass", Unsigned(2, 1, 100)),        // kg
    (0x07, "mass_lb", Unsigned(2, 1, 100)),     // lb
    (0x08, "dew_point", Signed(2, 1, 100)),     // °C
    (0x09, "count", Unsigned(1, 1, 1)),
    (0x0a, "energy", Unsigned(3, 1, 1000)),  // kWh
    (0x0b, "power", Unsigned(3, 1, 100)),    // W
    (0x0c, "voltage", Unsigned(2, 1, 1000)), // V
    (0x0d, "pm25", Unsigned(2, 1, 1)),       // µg/m³
    (0x0e, "pm10", Unsigned(2, 1, 1)),       // µg/m³
    (0x0f, "generic", Flag),
    (0x10, "power_on", Flag),
    (0x11, "opening", Flag),
    (0x12, "co2", Unsigned(2, 1, 1)),        // ppm
    (0x13, "tvoc", Unsigned(2, 1, 1)),       // µg/m³
    (0x14, "moisture", Unsigned(2, 1, 100)), // %
    (0x15, "battery_low", Flag),
    (0x16, "battery_charging", Flag),
    (0x17, "carbon_monoxide", Flag),
    (0x18, "cold", Flag),
    (0x19, "connectivity", Flag),
    (0x1a, "door", Flag),
    (0x1b, "garage_door", Flag),
    (0x1c, "gas_detected", Flag),
    (0x1d, "heat", Flag),
    (0x1e, "light", Flag),
    (0x1f, "lock", Flag),
    (0x20, "moisture_detected", Flag),
    (0x21, "motion", Flag),
    (0x22, "moving", Flag),
    (0x23, "occupancy", Flag),
    (0x24, "plug", Flag),
    (0x25, "presence", Flag),
    (0x26, "problem", Flag),
    (0x27, "running", Flag),
    (0x28, "safety", Flag),
    (0x29, "smoke", Flag),
    (0x2a, "sound", Flag),
    (0x2b, "tamper", Flag),
    (0x2c, "vibration", Flag),
    (0x2d, "window", Flag),
    (0x2e, "humidity", Unsigned(1, 1, 1)), // %
    (0x2f, "moisture", Unsigned(1, 1, 1)), // %
    (0x3a, "button", Button),
    (0x3c, "dimmer", Dimmer),
    (0x3d, "count", Unsigned(2, 1, 1)),
    (0x3e, "count", Unsigned(4, 1, 1)),
    (0x3f, "rotation", Signed(2, 1, 10)),     // °
    (0x40, "distance_mm", Unsigned(2, 1, 1)), // mm
    (0x41, "distance", Unsigned(2, 1, 10)),   // m
    (0x42, "duration", Unsigned(3, 1, 1000)), // s
    (0x43, "current", Unsigned(2, 1, 1000)),  // A
    (0x44, "speed", Unsigned(2, 1, 100)),     // m/s
    (0x45, "temperature", Signed(2, 1, 10)),  // °C
    (0x46, "uv_index", Unsigned(1, 1, 10)),
    (0x47, "volume", Unsigned(2, 1, 10)),             // l
    (0x48, "volume_ml", Unsigned(2, 1, 1)),           // ml
    (0x49, "volume_flow_rate", Unsigned(2, 1, 1000)), // m³/h
    (0x4a, "voltage", Unsigned(2, 1, 10)),            // V
    (0x4b, "gas", Unsigned(3, 1, 1000)),              // m³
    (0x4c, "gas", Unsigned(4, 1, 1000)),              // m³
    (0x4d, "energy", Unsigned(4, 1, 1000)),           // kWh
    (0x4e, "volume", Unsigned(4, 1, 1000)),           // l
    (0x4f, "water", Unsigned(4, 1, 1000)),            // l
    (0x50, "timestamp", Unsigned(4, 1, 1)),           // seconds since 1970, UTC
    (0x51, "acceleration", Unsigned(2, 1, 1000)),     // m/s²
    (0x52, "gyroscope", Unsigned(2, 1, 1000)),        // °/s
    (0x53, "text", Text),
    (0x54, "raw", Raw),
    (0x55, "volume_storage", Unsigned(4, 1, 1000)), // l
    (0x56, "conductivity", Unsigned(2, 1, 1)),      // µS/cm
    (0x57, "temperature", Signed(1, 1, 1)),         // °C
    (0x58, "temperature", Signed(1, 35, 100)),      // °C
    (0x59, "count", Signed(1, 1, 1)),
    (0x5a, "count", Signed(2, 1, 1)),
    (0x5b, "count", Signed(4, 1, 1)),
    (0x5c, "power", Signed(4, 1, 100)),         // W
    (0x5d, "current", Signed(2, 1, 1000)),      // A
    (0x5e, "direction", Unsigned(2, 1, 100)),   // °
    (0x5f, "precipitation", Unsigned(2, 1, 1)), // mm
    (0x60, "channel", Unsigned(1, 1, 1)),
];

/// Decodes service data. `key` is 16 bytes, or empty where nothing is encrypted.
///
/// # Errors
/// Why the packet cannot be used.
pub fn decode(address: Address, key: &[u8], data: &[u8]) -> Result<Decoded, &'static str> {
    let (&info, mut rest) = data.split_first().ok_or("an empty packet")?;
    if info >> 5 != 2 {
        return Err("not version 2 of BTHome");
    }
    let mut sender = address.0;
    if info & 0b10 != 0 {
        let (own, after) = rest.split_first_chunk::<6>().ok_or("a packet that is cut off")?;
        (sender, rest) = (*own, after);
        sender.reverse();
    }
    if info & 1 == 0 {
        if !key.is_empty() {
            return Err("a plain packet, but encryptionKey is set");
        }
        return Ok(objects(rest));
    }
    let key = <[u8; 16]>::try_from(key).map_err(|_| "encrypted, and encryptionKey is not set")?;
    let end = rest.len().checked_sub(4 + TAG).ok_or("a packet that is cut off")?;
    let (sealed, (counter, tag)) = (rest.get(..end).unwrap_or_default(), rest.split_at(end).1.split_at(4));
    let mut nonce = Vec::with_capacity(13);
    nonce.extend_from_slice(&sender);
    nonce.extend_from_slice(&[0xd2, 0xfc, info]);
    nonce.extend_from_slice(counter);
    let text = crypto::open(&key, &nonce, &[], sealed, tag).ok_or("encrypted with another key")?;
    let counter = u32::try_from(little(counter)).ok();
    Ok(Decoded { packet: counter, sealed: true, ..objects(&text) })
}

fn objects(mut rest: &[u8]) -> Decoded {
    let mut decoded = Decoded::new();
    while let Some((id, after)) = rest.split_first() {
        let Some((name, kind)) =
            OBJECTS.binary_search_by_key(id, |o| o.0).ok().and_then(|i| OBJECTS.get(i)).map(|o| (o.1, o.2))
        else {
            break;
        };
        let Some(after) = object(&mut decoded, name, kind, after) else { break };
        rest = after;
    }
    decoded
}

/// One object's value; what follows it, or `None` when it is cut off.
fn object<'a>(decoded: &mut Decoded, name: &str, kind: Kind, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let length = match kind {
        Unsigned(length, ..) | Signed(length, ..) => length,
        Flag | Packet | Button => 1,
        Dimmer => 2,
        Text | Raw => usize::from(*bytes.first()?) + 1,
    };
    let (value, rest) = bytes.split_at_checked(length)?;
    let raw = little(value.get(..length.min(8))?);
    match kind {
        Unsigned(_, factor, divisor) => decoded.number(name, raw.cast_signed(), factor, divisor),
        Signed(length, factor, divisor) => decoded.number(name, signed(raw, length), factor, divisor),
        Flag => decoded.push(name, Value::Bool(raw != 0)),
        Packet => {
            decoded.packet = u32::try_from(raw).ok();
            decoded.push(name, Value::Int(raw.cast_signed()));
        }
        // Also where nothing was pressed: with several buttons the place counts.
        Button => decoded.push(name, Value::Text(button(raw).to_owned())),
        Dimmer => {
            let steps = i64::from(*value.get(1)?);
            match value.first()? {
                1 => decoded.number(name, -steps, 1, 1),
                2 => decoded.number(name, steps, 1, 1),
                _ => decoded.number(name, 0, 1, 1),
            }
        }
        Text => match String::from_utf8(value.get(1..)?.to_vec()) {
            Ok(text) => decoded.push(name, Value::Text(text)),
            Err(_) => return None,
        },
        Raw => decoded.push(name, Value::Bytes(value.get(1..)?.to_vec())),
    }
    Some(rest)
}

/// The words of Home Assistant.
const fn button(code: u64) -> &'static str {
    match code {
        0x01 => "press",
        0x02 => "double_press",
        0x03 => "triple_press",
        0x04 => "long_press",
        0x05 => "long_double_press",
        0x06 => "long_triple_press",
        0x80 => "hold_press",
        _ => "none",
    }
}
