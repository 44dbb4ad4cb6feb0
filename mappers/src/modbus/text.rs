//! Text and bytes in registers, in every packing.

use edge_model::device::modbus::{Encoding, Packing, Padding, Visitor};

/// How bytes are in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Text {
    pub(super) packing: Packing,
    /// The other byte of each register.
    pub(super) swap: bool,
    /// The last register first.
    pub(super) reverse: bool,
    pub(super) padding: Padding,
    pub(super) encoding: Encoding,
}

impl Text {
    pub(super) fn new(v: &Visitor) -> Result<Text, String> {
        let swap = match v.byte_order.as_deref() {
            None | Some("AB") => v.is_swap,
            Some("BA") => true,
            Some(other) => return Err(format!("byteOrder {other:?} of text is AB or BA")),
        };
        let swap = swap || v.packing == Packing::LowFirst;
        Ok(Text { packing: v.packing, swap, reverse: v.is_register_swap, padding: v.padding, encoding: v.encoding })
    }

    /// How many bytes so many registers hold.
    pub(super) fn room(self, count: u16) -> usize {
        if self.packing == Packing::Single { usize::from(count) } else { usize::from(count) * 2 }
    }

    /// The bytes in registers.
    pub(super) fn bytes(self, registers: &[u16]) -> Vec<u8> {
        let single = self.packing == Packing::Single;
        let of = |r: &u16| {
            let [high, low] = r.to_be_bytes();
            let pair = if self.swap { [low, high] } else { [high, low] };
            let from = usize::from(single);
            pair.into_iter().skip(from)
        };
        if self.reverse {
            registers.iter().rev().flat_map(of).collect()
        } else {
            registers.iter().flat_map(of).collect()
        }
    }

    /// The registers of bytes that fit into them, filled up.
    pub(super) fn registers(self, bytes: &[u8], count: u16) -> Vec<u16> {
        let filler = if self.padding == Padding::Space { b' ' } else { 0 };
        let at = |i: usize| bytes.get(i).copied().unwrap_or(filler);
        let register = |i: usize| {
            let pair = if self.packing == Packing::Single { [0, at(i)] } else { [at(2 * i), at(2 * i + 1)] };
            if self.swap { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
        };
        let all = 0..usize::from(count);
        if self.reverse { all.rev().map(register).collect() } else { all.map(register).collect() }
    }

    /// The text in registers: up to the first zero byte, without the spaces it was filled up with.
    pub(super) fn decode(self, registers: &[u16]) -> Result<String, &'static str> {
        let mut bytes = self.bytes(registers);
        if let Some(end) = bytes.iter().position(|b| *b == 0) {
            bytes.truncate(end);
        }
        if self.padding == Padding::Space {
            bytes.truncate(bytes.trim_ascii_end().len());
        }
        match self.encoding {
            Encoding::Latin1 => Ok(bytes.into_iter().map(char::from).collect()),
            Encoding::Utf8 => String::from_utf8(bytes).map_err(|_| "text is not UTF-8"),
        }
    }

    /// The bytes of a text; `None` when it has characters that the encoding lacks.
    pub(super) fn encode(self, text: &str) -> Option<Vec<u8>> {
        match self.encoding {
            Encoding::Latin1 => text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect(),
            Encoding::Utf8 => Some(text.as_bytes().to_vec()),
        }
    }
}
