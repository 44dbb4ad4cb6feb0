//! RuuviTag, data format 5 (RAWv2): docs.ruuvi.com, "Data format 5 (RAWv2)".
//!
//! ```text
//! 05 │ temperature 2 │ humidity 2 │ pressure 2 │ acceleration x 2 │ y 2 │ z 2 │ power 2 │ movements 1 │ sequence 2 │ address 6
//! ```
//! Most significant byte first. The largest unsigned and the smallest signed number mean: not available.

use super::{Decoded, big, signed};

/// Ruuvi Innovations Ltd.
pub const COMPANY: u16 = 0x0499;

/// The length of a packet.
const LENGTH: usize = 24;

/// Decodes manufacturer data: `temperature` (°C), `humidity` (%), `pressure` (Pa), `acceleration_x`, `_y`, `_z` (g),
/// `voltage` (V), `tx_power` (dBm), `movement_counter`, `sequence`.
///
/// # Errors
/// Why the packet cannot be used.
pub fn decode(data: &[u8]) -> Result<Decoded, &'static str> {
    if data.first() != Some(&5) {
        return Err("another data format than 5");
    }
    let packet: &[u8; LENGTH] = data.first_chunk().ok_or("a packet that is cut off")?;
    let word = |at: usize| big(packet.get(at..at + 2).unwrap_or_default());
    let mut decoded = Decoded::new();
    let mut signed_at = |name: &str, at: usize, divisor: u32| match word(at) {
        0x8000 => {}
        raw => decoded.number(name, signed(raw, 2), 1, divisor),
    };
    signed_at("temperature", 1, 200);
    signed_at("acceleration_x", 7, 1000);
    signed_at("acceleration_y", 9, 1000);
    signed_at("acceleration_z", 11, 1000);
    if word(3) != 0xffff {
        decoded.number("humidity", word(3).cast_signed(), 1, 400);
    }
    if word(5) != 0xffff {
        decoded.number("pressure", word(5).cast_signed() + 50_000, 1, 1);
    }
    let power = word(13);
    if power >> 5 != 0x7ff {
        decoded.number("voltage", (power >> 5).cast_signed() + 1_600, 1, 1000);
    }
    if power & 0x1f != 0x1f {
        decoded.number("tx_power", (power & 0x1f).cast_signed() * 2 - 40, 1, 1);
    }
    if packet[15] != 0xff {
        decoded.number("movement_counter", i64::from(packet[15]), 1, 1);
    }
    if word(16) != 0xffff {
        decoded.number("sequence", word(16).cast_signed(), 1, 1);
        decoded.packet = u32::try_from(word(16)).ok();
    }
    Ok(decoded)
}
