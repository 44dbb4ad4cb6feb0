//! Percent-encoding (RFC 3986, section 2.1), for URLs and for what else borrows it.

use std::fmt::Write as _;

/// Whether a byte is unreserved (section 2.3): it never needs encoding.
pub const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Encodes every byte that is not kept. What is kept must be ASCII.
pub fn encode(text: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii() && keep(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_kept_are_encoded() {
        assert_eq!(encode("a b/\u{fc}-~", is_unreserved), "a%20b%2F%C3%BC-~");
        assert_eq!(encode("a%\n", |b| b != b'%' && b >= b' '), "a%25%0A");
    }
}
