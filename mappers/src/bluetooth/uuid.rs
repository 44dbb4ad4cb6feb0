//! Names of services and characteristics: 128 bits, of which the assigned ones are written with 16 or 32 (Bluetooth Core 5.4,
//! volume 3, part B, 2.5.1).

use std::fmt;

/// A UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

/// What short UUIDs are offsets into: `00000000-0000-1000-8000-00805f9b34fb`.
const BASE: u128 = 0x0000_0000_0000_1000_8000_0080_5f9b_34fb;

impl Uuid {
    /// An assigned number of 16 bits.
    pub const fn short(number: u16) -> Uuid {
        Uuid(((number as u128) << 96) | BASE)
    }

    /// Takes 4, 8 or 32 hexadecimal digits, with or without hyphens; `None` when it is not that.
    pub fn parse(text: &str) -> Option<Uuid> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let number = u128::from_str_radix(&digits, 16).ok()?;
        match digits.len() {
            4 | 8 => Some(Uuid((number << 96) | BASE)),
            32 => Some(Uuid(number)),
            _ => None,
        }
    }
}

/// As RFC 4122 writes it.
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:032x}", self.0);
        for (i, c) in text.chars().enumerate() {
            if matches!(i, 8 | 12 | 16 | 20) {
                f.write_str("-")?;
            }
            write!(f, "{c}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_are_the_same() {
        let battery = Uuid::short(0x2a19);
        for text in
            ["2A19", "00002a19", "00002a19-0000-1000-8000-00805f9b34fb", "00002A1900001000800000805F9B34FB", " 2a19 "]
        {
            assert_eq!(Uuid::parse(text), Some(battery), "{text}");
        }
        assert_eq!(battery.to_string(), "00002a19-0000-1000-8000-00805f9b34fb");
        for text in ["", "2a1", "+a19", "2a19x", "00002a19-0000"] {
            assert_eq!(Uuid::parse(text), None, "{text}");
        }
    }
}
