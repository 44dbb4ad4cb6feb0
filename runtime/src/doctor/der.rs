//! As much of a certificate as tells when it is valid: a walk over DER (ITU-T X.690) to `TBSCertificate.validity` (RFC 5280,
//! section 4.1). It judges nothing else; whether a certificate is good is for rustls to say.

/// From when to when a certificate is valid, UTC milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before that.
    pub from_ms: i64,
    /// Not after that.
    pub until_ms: i64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: the version, which certificates of version 1 leave out.
const VERSION: u8 = 0xa0;

/// When a certificate is valid; `None` when it is none.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let (whole, _) = tagged(certificate, SEQUENCE)?;
    let (mut body, _) = tagged(whole, SEQUENCE)?;
    if let Some((_, rest)) = tagged(body, VERSION) {
        body = rest;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, body) = tagged(body, tag)?;
    }
    let (validity, _) = tagged(body, SEQUENCE)?;
    let (from_ms, rest) = time(validity)?;
    let (until_ms, _) = time(rest)?;
    Some(Validity { from_ms, until_ms })
}

/// The content of the first element if it has this tag, and what follows it.
fn tagged(bytes: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        // No certificate has more than four bytes of length; 0x80, without a length, is not DER.
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0_usize, |n, d| n << 8 | usize::from(*d)), rest)
        }
        _ => return None,
    };
    (*tag == expected).then(|| rest.split_at_checked(length)).flatten()
}

/// A time (RFC 5280, section 4.1.2.5): `YYMMDDHHMMSSZ` from 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest) = tagged(bytes, UTC_TIME).or_else(|| tagged(bytes, GENERALIZED_TIME))?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let full = match text.len() {
        12 => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        14 => text.to_owned(),
        _ => return None,
    };
    let at = |from: usize, to: usize| full.get(from..to).unwrap_or_default();
    let (year, month, day) = (at(0, 4), at(4, 6), at(6, 8));
    let text = format!("{year}-{month}-{day}T{}:{}:{}Z", at(8, 10), at(10, 12), at(12, 14));
    Some((edge_model::time::parse_rfc3339(&text)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], length.as_slice(), content].concat()
    }

    fn certificate(version: bool, from: (u8, &str), until: (u8, &str)) -> Vec<u8> {
        let validity = [element(from.0, from.1.as_bytes()), element(until.0, until.1.as_bytes())].concat();
        let mut body = if version { element(VERSION, &element(INTEGER, &[2])) } else { Vec::new() };
        for part in [element(INTEGER, &[1; 20]), element(SEQUENCE, &[]), element(SEQUENCE, &[0; 300])] {
            body.extend(part);
        }
        body.extend(element(SEQUENCE, &validity));
        element(SEQUENCE, &element(SEQUENCE, &body))
    }

    #[test]
    fn both_kinds_of_time_are_read() {
        let ms = |text| edge_model::time::parse_rfc3339(text).unwrap();
        let both = certificate(true, (UTC_TIME, "500102030405Z"), (GENERALIZED_TIME, "20501231235959Z"));
        let expected = Validity { from_ms: ms("1950-01-02T03:04:05Z"), until_ms: ms("2050-12-31T23:59:59Z") };
        assert_eq!(validity(&both), Some(expected));
        let first = certificate(false, (UTC_TIME, "240102030405Z"), (UTC_TIME, "490102030405Z"));
        assert_eq!(validity(&first).map(|v| v.until_ms), Some(ms("2049-01-02T03:04:05Z")));
        for bad in ["240102030405", "2401020304Z", "240102030405+0100", "24010203040xZ", "241302030405Z"] {
            assert_eq!(validity(&certificate(true, (UTC_TIME, bad), (UTC_TIME, bad))), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = validity(&bytes);
        }

        #[test]
        fn cut_anywhere_it_is_none(cut in 0usize..380) {
            let whole = certificate(true, (UTC_TIME, "240102030405Z"), (UTC_TIME, "490102030405Z"));
            prop_assert!(cut >= whole.len() || validity(&whole[..cut]).is_none());
        }
    }
}
