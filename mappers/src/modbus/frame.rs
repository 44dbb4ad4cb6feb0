//! Frames in hexadecimal (Modbus over Serial Line V1.02, section 2.5.2): `:` unit PDU LRC CR LF; and what our own streams of
//! frames share.

use tokio::io::ReadBuf;

/// An answer that is handed on piece by piece.
#[derive(Debug, Default)]
pub struct Answer {
    bytes: Vec<u8>,
    given: usize,
}

impl Answer {
    /// A whole answer.
    pub const fn new(bytes: Vec<u8>) -> Answer {
        Answer { bytes, given: 0 }
    }

    /// Hands on what fits; `false` when nothing is left.
    pub fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = self.bytes.get(self.given..).unwrap_or_default();
        let some = rest.get(..buf.remaining()).unwrap_or(rest);
        buf.put_slice(some);
        self.given += some.len();
        !rest.is_empty()
    }
}

/// The longest frame: a colon, 254 bytes and their sum in hexadecimal, CR and LF.
pub const MAX_ASCII: usize = 1 + 2 * 255 + 2;

/// The longitudinal redundancy check: the two's complement of the sum of all bytes (section 6.2.1).
pub fn lrc(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

/// The CRC of RTU frames, its low byte first on the wire (section 6.2.2).
pub fn crc(bytes: &[u8]) -> [u8; 2] {
    bytes.iter().fold(CRC_START, |crc, b| crc_step(crc, *b)).to_le_bytes()
}

/// The CRC of nothing.
pub const CRC_START: u16 = 0xffff;

/// The CRC with one byte more.
pub fn crc_step(crc: u16, byte: u8) -> u16 {
    let step = |crc: u16, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
    (0..8).fold(crc ^ u16::from(byte), step)
}

/// A frame of unit identifier and PDU.
pub fn to_ascii(unit_and_pdu: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(2 * unit_and_pdu.len() + 5);
    out.push(b':');
    let sum = lrc(unit_and_pdu);
    for byte in unit_and_pdu.iter().chain(std::iter::once(&sum)) {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    out.extend(b"\r\n");
    out
}

/// Unit identifier and PDU of the characters between the colon and CR LF.
///
/// # Errors
/// What is wrong with them.
pub fn from_ascii(hexadecimal: &[u8]) -> Result<Vec<u8>, &'static str> {
    let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = hexadecimal.as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[a, b]| Some(digit(a)? << 4 | digit(b)?)).collect();
    let Some((sum, body)) = bytes.as_deref().and_then(<[u8]>::split_last).filter(|_| rest.is_empty()) else {
        return Err("a frame that is not hexadecimal");
    };
    if body.len() < 2 {
        return Err("a frame that is too short");
    }
    if lrc(body) != *sum {
        return Err("a frame with a wrong check sum");
    }
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sums_are_the_specifications() {
        // Read 10 holding registers of unit 1 from address 0: CRC 0xC5 0xCD on the wire, LRC 0xF2.
        let read = [1, 3, 0, 0, 0, 10];
        assert_eq!(crc(&read), [0xc5, 0xcd]);
        assert_eq!(to_ascii(&read), b":01030000000AF2\r\n");
    }

    #[test]
    fn a_broken_frame_is_refused() {
        for bad in ["", "0", "01F", "0103GG", "0103", "01030000000AF3", "FF01"] {
            assert!(from_ascii(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(bytes in prop::collection::vec(any::<u8>(), 2..254)) {
            let frame = to_ascii(&bytes);
            prop_assert!(frame.len() <= MAX_ASCII);
            prop_assert_eq!(from_ascii(&frame[1..frame.len() - 2]), Ok(bytes));
        }

        #[test]
        fn any_characters_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = from_ascii(&bytes);
        }
    }
}
