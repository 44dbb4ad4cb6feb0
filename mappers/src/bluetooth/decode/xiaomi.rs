//! Xiaomi's MiBeacon, versions 2 to 5 (iot.mi.com, "Bluetooth low energy: MiBeacon protocol" and "object definition").
//!
//! ```text
//! control 2 │ product 2 │ packet 1 │ [address 6] │ [capability 1, I/O 1] │ object id 2, length 1, value …
//!                                                                         │ the same, sealed │ counter 3 │ tag 4      4 and 5
//!                                                                         │ the same, sealed │ counter 3 │ 1          2 and 3
//! ```
//! Little-endian. Bits of `control`: 3 encrypted, 4 address, 5 capability, 6 objects, 7 mesh, 12–15 version.

use edge_model::reading::Value;

use super::{Decoded, little, signed};
use crate::bluetooth::address::Address;
use crate::bluetooth::crypto::{self, TAG};
use crate::bluetooth::uuid::Uuid;

/// The service its data comes with.
pub const SERVICE: Uuid = Uuid::short(0xfe95);

const CUT: &str = "a packet that is cut off";

/// Decodes service data. `key` is 16 bytes for versions 4 and 5, 12 for 2 and 3, or empty where nothing is encrypted.
///
/// # Errors
/// Why the packet cannot be used.
pub fn decode(address: Address, key: &[u8], data: &[u8]) -> Result<Decoded, &'static str> {
    let head: &[u8; 5] = data.first_chunk().ok_or(CUT)?;
    let control = little(&head[..2]);
    let flag = |bit: u32| control & (1 << bit) != 0;
    let version = control >> 12;
    if flag(7) {
        return Err("a packet of a mesh");
    }
    if version < 2 {
        return Err("a version of MiBeacon before 2");
    }
    let mut at = head.len();
    let mut sender = address.reversed();
    if flag(4) {
        sender = *data.get(at..).and_then(|d| d.first_chunk()).ok_or(CUT)?;
        at += 6;
    }
    if flag(5) {
        let capability = data.get(at).ok_or(CUT)?;
        at += if capability & 0x20 == 0 { 1 } else { 2 };
    }
    let packet = u32::from(head[4]);
    if !flag(6) {
        // Nothing but: here I am.
        return Ok(Decoded { packet: Some(packet), ..Decoded::new() });
    }
    let body = data.get(at..).ok_or(CUT)?;
    if !flag(3) {
        if !key.is_empty() {
            return Err("a plain packet, but encryptionKey is set");
        }
        return Ok(Decoded { packet: Some(packet), ..objects(body).0 });
    }
    if version >= 4 {
        let (sealed, counter, tag) = tail(body, 3, TAG).ok_or(CUT)?;
        let key = <[u8; 16]>::try_from(key).map_err(|_| "encrypted, and encryptionKey has not 32 digits")?;
        let nonce = [&sender[..], &head[2..], counter].concat();
        let text = crypto::open(&key, &nonce, &[0x11], sealed, tag).ok_or("encrypted with another key")?;
        // The packet's number is the lowest byte of the counter.
        let number = u32::try_from(little(counter) << 8).unwrap_or(0) | packet;
        return Ok(Decoded { packet: Some(number), sealed: true, ..objects(&text).0 });
    }
    let (sealed, counter, _) = tail(body, 3, 1).ok_or(CUT)?;
    let short = <[u8; 12]>::try_from(key).map_err(|_| "encrypted, and encryptionKey has not 24 digits")?;
    let mut key = [0u8; 16];
    key[..6].copy_from_slice(&short[..6]);
    key[6..10].copy_from_slice(&[0x8d, 0x3d, 0x3c, 0x97]);
    key[10..].copy_from_slice(&short[6..]);
    let nonce = [&head[..], counter, &sender[..5]].concat();
    let nonce = <[u8; 13]>::try_from(nonce).map_err(|_| CUT)?;
    // Without a tag, only the form says whether the key was right.
    match objects(&crypto::unverified(&key, &nonce, sealed)) {
        (decoded, true) => Ok(Decoded { packet: Some(packet), ..decoded }),
        (_, false) => Err("encrypted with another key"),
    }
}

/// Body, counter and tag.
fn tail(bytes: &[u8], counter: usize, tag: usize) -> Option<(&[u8], &[u8], &[u8])> {
    let (rest, tag) = bytes.split_at_checked(bytes.len().checked_sub(tag)?)?;
    let (body, counter) = rest.split_at_checked(rest.len().checked_sub(counter)?)?;
    Some((body, counter, tag))
}

/// The objects, and whether they end where the packet ends.
fn objects(mut rest: &[u8]) -> (Decoded, bool) {
    let mut decoded = Decoded::new();
    while let Some((head, after)) = rest.split_first_chunk::<3>() {
        let Some((value, after)) = after.split_at_checked(usize::from(head[2])) else { return (decoded, false) };
        object(&mut decoded, little(&head[..2]), value);
        rest = after;
    }
    (decoded, rest.is_empty())
}

/// One object. Those of unknown kind or unusual length are passed over.
fn object(decoded: &mut Decoded, id: u64, value: &[u8]) {
    let raw = little(value.get(..value.len().min(8)).unwrap_or_default());
    let int = raw.cast_signed();
    let flag = |on: bool| Value::Bool(on);
    match (id, value.len()) {
        (0x0003, 1) => decoded.push("motion", flag(raw != 0)),
        (0x0007, 1) => decoded.push("door", flag(matches!(raw, 0 | 2 | 4))),
        (0x000f, 3) => {
            decoded.push("motion", flag(true));
            decoded.number("illuminance", int, 1, 1);
        }
        (0x1001, 3) => {
            decoded.number("button", i64::from(value[0]), 1, 1);
            decoded.number("steps", signed(u64::from(value[1]), 1), 1, 1);
            // What a number means depends on the product: 0 is a short press of a button, 3 of a dimmer.
            decoded.number("press", i64::from(value[2]), 1, 1);
        }
        (0x1004, 2) => decoded.number("temperature", signed(raw, 2), 1, 10),
        (0x1005, 2) => {
            decoded.push("switch", flag(value[0] != 0));
            decoded.number("temperature", i64::from(value[1]), 1, 1);
        }
        (0x1006, 2) => decoded.number("humidity", int, 1, 10),
        (0x1007, 3) => decoded.number("illuminance", int, 1, 1),
        (0x1008, 1) => decoded.number("moisture", int, 1, 1),
        (0x1009, 2) => decoded.number("conductivity", int, 1, 1),
        (0x100a | 0x4803, 1) => decoded.number("battery", int, 1, 1),
        (0x100d, 4) => {
            decoded.number("temperature", signed(raw & 0xffff, 2), 1, 10);
            decoded.number("humidity", int >> 16, 1, 10);
        }
        (0x1010, 2) => decoded.number("formaldehyde", int, 1, 100),
        (0x1012, 1) => decoded.push("switch", flag(raw != 0)),
        (0x1013, 1) => decoded.number("consumable", int, 1, 1),
        (0x1014, 1) => decoded.push("moisture_detected", flag(raw != 0)),
        (0x1015, 1) => decoded.push("smoke", flag(raw != 0)),
        (0x1017, 4) => {
            decoded.push("motion", flag(raw == 0));
            decoded.number("idle_time", int, 1, 1);
        }
        (0x1018, 1) => decoded.push("light", flag(raw != 0)),
        (0x1019, 1) => decoded.push("opening", flag(raw != 1)),
        (0x4a01, 1) => decoded.push("battery_low", flag(raw != 0)),
        (0x4c02, 1) => decoded.number("humidity", int, 1, 1),
        (0x4c01 | 0x4c08, 4) => {
            let x = f64::from(f32::from_bits(u32::try_from(raw).unwrap_or(0)));
            if x.is_finite() {
                decoded.push(if id == 0x4c01 { "temperature" } else { "humidity" }, Value::Float(x));
            }
        }
        _ => {}
    }
}
