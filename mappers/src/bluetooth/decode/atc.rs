//! The firmwares of atc1441 and pvvx for Xiaomi's thermometers (github.com/atc1441/ATC_MiThermometer and
//! github.com/pvvx/ATC_MiThermometer, "Advertising data").
//!
//! ```text
//! address 6 │ temperature 2, 0.1 °C  │ humidity 1, %      │ battery 1, % │ battery 2, mV │ packet 1            atc1441, big-endian
//! address 6 │ temperature 2, 0.01 °C │ humidity 2, 0.01 % │ battery 2, mV │ battery 1, % │ packet 1 │ flags 1  pvvx, little-endian
//! ```

use edge_model::reading::Value;

use super::{Decoded, big, little, signed};
use crate::bluetooth::uuid::Uuid;

/// The service its data comes with: Environmental Sensing.
pub const SERVICE: Uuid = Uuid::short(0x181a);

/// Decodes service data: `temperature` (°C), `humidity` (%), `battery` (%), `voltage` (V), `packet_id`; with pvvx also
/// `switch` and `opening`.
///
/// # Errors
/// Why the packet cannot be used.
pub fn decode(data: &[u8]) -> Result<Decoded, &'static str> {
    let mut decoded = Decoded::new();
    let packet = match data.len() {
        13 => {
            decoded.number("temperature", signed(big(&data[6..8]), 2), 1, 10);
            decoded.number("humidity", i64::from(data[8]), 1, 1);
            decoded.number("battery", i64::from(data[9]), 1, 1);
            decoded.number("voltage", big(&data[10..12]).cast_signed(), 1, 1000);
            data[12]
        }
        15 => {
            decoded.number("temperature", signed(little(&data[6..8]), 2), 1, 100);
            decoded.number("humidity", little(&data[8..10]).cast_signed(), 1, 100);
            decoded.number("voltage", little(&data[10..12]).cast_signed(), 1, 1000);
            decoded.number("battery", i64::from(data[12]), 1, 1);
            decoded.push("opening", Value::Bool(data[14] & 1 != 0));
            decoded.push("switch", Value::Bool(data[14] & 2 != 0));
            data[13]
        }
        _ => return Err("neither of atc1441's nor of pvvx' length"),
    };
    decoded.number("packet_id", i64::from(packet), 1, 1);
    decoded.packet = Some(u32::from(packet));
    Ok(decoded)
}
