//! Eddystone (github.com/google/eddystone, protocol-specification.md): UID, URL and unencrypted TLM.

use edge_model::reading::Value;

use super::{Decoded, big, signed, to_hex};
use crate::bluetooth::uuid::Uuid;

/// The service its data comes with.
pub const SERVICE: Uuid = Uuid::short(0xfeaa);

/// The first byte of a URL.
const SCHEMES: [&str; 4] = ["http://www.", "https://www.", "http://", "https://"];

/// Bytes 0 to 13 of a URL: the endings with a slash, then without.
const ENDINGS: [&str; 7] = [".com", ".org", ".edu", ".net", ".info", ".biz", ".gov"];

/// Decodes service data: `namespace`, `instance` and `tx_power` (dBm at the beacon) of a UID; `url` and `tx_power` of a URL;
/// `voltage` (V), `temperature` (°C), `advertisements`, `uptime` (s) of a TLM.
///
/// # Errors
/// Why the packet cannot be used.
pub fn decode(data: &[u8]) -> Result<Decoded, &'static str> {
    let cut = "a packet that is cut off";
    let (frame, rest) = data.split_first().ok_or(cut)?;
    let mut decoded = Decoded::new();
    match frame {
        0x00 => {
            let body: &[u8; 17] = rest.first_chunk().ok_or(cut)?;
            decoded.number("tx_power", signed(u64::from(body[0]), 1), 1, 1);
            decoded.push("namespace", Value::Text(to_hex(&body[1..11])));
            decoded.push("instance", Value::Text(to_hex(&body[11..])));
        }
        0x10 => {
            let (power, url) = rest.split_first().ok_or(cut)?;
            let (scheme, url) = url.split_first().ok_or(cut)?;
            let mut text = SCHEMES.get(usize::from(*scheme)).ok_or("a URL with an unknown scheme")?.to_string();
            for byte in url {
                let code = usize::from(*byte);
                match ENDINGS.get(code % 7).filter(|_| code < 14) {
                    Some(ending) => {
                        text.push_str(ending);
                        text.push_str(if code < 7 { "/" } else { "" });
                    }
                    None if byte.is_ascii_graphic() => text.push(char::from(*byte)),
                    None => return Err("a URL with characters that are none"),
                }
            }
            decoded.number("tx_power", signed(u64::from(*power), 1), 1, 1);
            decoded.push("url", Value::Text(text));
        }
        0x20 if rest.first() == Some(&0) => {
            let body: &[u8; 13] = rest.first_chunk().ok_or(cut)?;
            let (voltage, temperature) = (big(&body[1..3]), big(&body[3..5]));
            if voltage != 0 {
                decoded.number("voltage", voltage.cast_signed(), 1, 1000);
            }
            if temperature != 0x8000 {
                decoded.number("temperature", signed(temperature, 2), 1, 256);
            }
            decoded.number("advertisements", big(&body[5..9]).cast_signed(), 1, 1);
            decoded.number("uptime", big(&body[9..]).cast_signed(), 1, 10);
        }
        _ => return Err("a frame that is neither UID nor URL nor plain TLM"),
    }
    Ok(decoded)
}
