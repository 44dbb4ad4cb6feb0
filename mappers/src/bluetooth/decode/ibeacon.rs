//! iBeacon (Apple, "Proximity Beacon Specification", release R1).
//!
//! ```text
//! 02 15 │ UUID 16 │ major 2 │ minor 2 │ power at one metre 1
//! ```

use edge_model::reading::Value;

use super::{Decoded, big, signed};
use crate::bluetooth::uuid::Uuid;

/// Apple, Inc.
pub const COMPANY: u16 = 0x004c;

/// Decodes manufacturer data: `uuid`, `major`, `minor`, `measured_power` (dBm at one metre). `None` for Apple's many other
/// packets.
pub fn decode(data: &[u8]) -> Option<Decoded> {
    let body: &[u8; 21] = data.strip_prefix(&[0x02, 0x15])?.first_chunk()?;
    let (uuid, rest) = body.split_first_chunk::<16>()?;
    let mut decoded = Decoded::new();
    decoded.push("uuid", Value::Text(Uuid(u128::from_be_bytes(*uuid)).to_string()));
    decoded.number("major", big(rest.get(..2)?).cast_signed(), 1, 1);
    decoded.number("minor", big(rest.get(2..4)?).cast_signed(), 1, 1);
    decoded.number("measured_power", signed(u64::from(*rest.get(4)?), 1), 1, 1);
    Some(decoded)
}
