//! A Bluetooth device address: six bytes, written most significant first (Bluetooth Core 5.4, volume 6, part B, 1.3).

use std::fmt;

/// The address of a device. Bluetooth sends it least significant byte first; here it is in the order people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 6]);

impl Address {
    /// Takes `A4:C1:38:02:83:F4`, with `:`, `-` or `_` between the bytes or nothing; `None` when it is not that.
    pub fn parse(text: &str) -> Option<Address> {
        let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '_')).collect();
        let separated = digits.len() == text.len() || text.len() == 17;
        let bytes = super::decode::hex(&digits)?;
        Some(Address(<[u8; 6]>::try_from(bytes).ok().filter(|_| separated)?))
    }

    /// As it is on the air: least significant byte first.
    pub fn reversed(self) -> [u8; 6] {
        let mut bytes = self.0;
        bytes.reverse();
        bytes
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_is_taken() {
        let address = Address([0xa4, 0xc1, 0x38, 0x02, 0x83, 0xf4]);
        for text in ["A4:C1:38:02:83:F4", "a4-c1-38-02-83-f4", "A4_C1_38_02_83_F4", "a4c1380283f4"] {
            assert_eq!(Address::parse(text), Some(address), "{text}");
        }
        for text in ["", "A4:C1:38:02:83", "A4:C1:38:02:83:F4:00", "A4:C1:38:02:83:G4", "A4C1:380283F4", "é4c1380283f"]
        {
            assert_eq!(Address::parse(text), None, "{text}");
        }
        assert_eq!(address.to_string(), "A4:C1:38:02:83:F4");
        assert_eq!(address.reversed()[0], 0xf4);
    }
}
