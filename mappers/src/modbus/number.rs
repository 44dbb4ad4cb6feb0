//! Numbers that Rust has no type for: half-precision floats and binary-coded decimals.

/// A half-precision float (IEEE 754-2008, binary16).
pub(super) fn from_half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (bits >> 10 & 0x1f, f64::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        0x1f if fraction == 0.0 => sign * f64::INFINITY,
        0x1f => f64::NAN,
        e => sign * (1.0 + fraction / 1024.0) * 2f64.powi(i32::from(e) - 15),
    }
}

/// The half-precision float nearest to a number, ties to even; `None` when it is too large or no number.
pub(super) fn to_half(x: f64) -> Option<u16> {
    let sign = u16::from(x.is_sign_negative()) << 15;
    let magnitude = x.abs();
    // 65520 is half way between the largest half and what would be the next.
    if magnitude.is_nan() || magnitude >= 65_520.0 {
        return None;
    }
    // The spacing of halves around the number: 2^-24 among the subnormal ones.
    let mut exponent = -14;
    while exponent < 15 && magnitude >= 2f64.powi(exponent + 1) {
        exponent += 1;
    }
    let steps = (magnitude / 2f64.powi(exponent - 10)).round_ties_even();
    // Counted in steps the halves follow one another without gaps: 1024 steps an exponent. Steps reach from 0 to 2048.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2048 and 0 to 29")]
    let bits = (exponent + 14) as u16 * 1024 + steps as u16;
    Some(sign | bits)
}

/// Decimal digits, the first in the highest four bits of 64; `None` when a digit is above 9.
pub(super) fn from_bcd(left: u64) -> Option<u64> {
    (0..16).rev().try_fold(0u64, |number, i| match left >> (4 * i) & 15 {
        digit @ 0..=9 => Some(number * 10 + digit),
        _ => None,
    })
}

/// The inverse of [`from_bcd`], for numbers below 10^16.
pub(super) fn to_bcd(number: u64) -> u64 {
    (0..16).fold((0, number), |(bcd, rest), i| (bcd | (rest % 10) << (4 * i), rest / 10)).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_are_the_standards() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x0400, 2f64.powi(-14)),
            (0x0001, 2f64.powi(-24)),
            (0x3555, 0.333_251_953_125),
            (0x8000, -0.0),
        ];
        for (bits, number) in cases {
            assert_eq!(from_half(bits), number, "{bits:x}");
            assert_eq!(to_half(number), Some(bits), "{number}");
        }
        assert!(from_half(0x7c00).is_infinite() && from_half(0x7e00).is_nan());
        assert_eq!(to_half(1.0 / 3.0), Some(0x3555));
        for none in [65_520.0, f64::INFINITY, f64::NAN] {
            assert_eq!(to_half(none), None);
        }
    }

    #[test]
    fn decimals_are_digits() {
        assert_eq!(from_bcd(0x1234), Some(1_234));
        assert_eq!(from_bcd(0x12a4), None);
        assert_eq!(to_bcd(9_999_999_999_999_999), 0x9999_9999_9999_9999);
    }

    proptest! {
        #[test]
        fn every_half_there_and_back(bits in any::<u16>()) {
            let number = from_half(bits);
            prop_assume!(number.is_finite());
            prop_assert_eq!(to_half(number), Some(bits));
        }

        #[test]
        fn every_decimal_there_and_back(number in 0u64..10_000_000_000_000_000) {
            prop_assert_eq!(from_bcd(to_bcd(number)), Some(number));
        }
    }
}
