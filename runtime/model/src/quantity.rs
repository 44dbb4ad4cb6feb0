//! Kubernetes quantities (`64Mi`, `500m`, `1e3`), held exactly.
//!
//! Source: Kubernetes API reference, "Quantity" (`k8s.io/apimachinery/pkg/api/resource`): decimal suffixes n u m k M G T P E,
//! binary suffixes Ki Mi Gi Ti Pi Ei, or a decimal exponent; at most 2⁶³−1; finer than a nano is rounded away from zero.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANO: i128 = 1_000_000_000;
const MAX: i128 = (i64::MAX as i128) * NANO;
/// More digits than any quantity in range needs; keeps the arithmetic inside `i128`.
const DIGITS_MAX: usize = 64;

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// In which family of suffixes a quantity is printed; it has no part in comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Binary,
    Decimal,
    Exponent,
}

/// An exact amount of something: bytes of memory, cores, a size on disk.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    family: Family,
}

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is not a number with a known suffix.
    #[error(
        "{0:?} is not a quantity: a number with one of the suffixes n u m k M G T P E Ki Mi Gi Ti Pi Ei, as in 64Mi"
    )]
    Syntax(String),
    /// It is beyond ±(2⁶³−1).
    #[error("{0:?} is out of range: at most 2^63-1")]
    Range(String),
}

impl Quantity {
    /// A whole number of units.
    pub const fn units(n: i64) -> Quantity {
        Quantity { nanos: n as i128 * NANO, family: Family::Decimal }
    }

    /// A number of bytes, printed with binary suffixes.
    pub const fn bytes(n: i64) -> Quantity {
        Quantity { nanos: n as i128 * NANO, family: Family::Binary }
    }

    /// Thousandths of a unit, as cores are counted.
    pub const fn millis(n: i64) -> Quantity {
        Quantity { nanos: n as i128 * (NANO / 1000), family: Family::Decimal }
    }

    /// In whole units, rounded up, as Kubernetes does.
    pub fn value(&self) -> i64 {
        ceil(self.nanos, NANO)
    }

    /// In thousandths of a unit, rounded up: milli-cores for `cpu`.
    pub fn milli_value(&self) -> i64 {
        ceil(self.nanos, NANO / 1000)
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }
}

fn ceil(n: i128, unit: i128) -> i64 {
    let up = n.div_euclid(unit) + i128::from(n.rem_euclid(unit) != 0);
    i64::try_from(up).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        let syntax = || QuantityError::Syntax(text.to_owned());
        let range = || QuantityError::Range(text.to_owned());
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = (rest.get(..end).unwrap_or(""), rest.get(end..).unwrap_or(""));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(syntax());
        }
        let (power, family) = scale(suffix).ok_or_else(syntax)?;
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if whole.len() + fraction.len() > DIGITS_MAX {
            return Err(range());
        }
        let magnitude = scaled(whole, fraction, power).ok_or_else(range)?;
        let nanos = if negative { -magnitude } else { magnitude };
        Ok(Quantity { nanos, family })
    }
}

/// What a suffix multiplies by.
enum Power {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Option<(Power, Family)> {
    if let Some((_, bits)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Some((Power::Two(*bits), Family::Binary));
    }
    if let Some((_, ten)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((Power::Ten(*ten), Family::Decimal));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Power::Ten(exponent.parse().ok()?), Family::Exponent))
}

/// The digits times the power, in nanos, rounded away from zero; `None` beyond the range.
fn scaled(whole: &str, fraction: &str, power: Power) -> Option<i128> {
    // Digit by digit: value = (whole ++ fraction) × 10^(ten − |fraction|) × 2^two, kept as "in nanos" throughout.
    let (ten, two) = match power {
        Power::Ten(n) => (n, 0),
        Power::Two(n) => (0, n),
    };
    let mut point = i32::try_from(whole.len()).ok()? + ten + 9;
    let mut nanos: i128 = 0;
    let mut rest = false;
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if two > 0 {
        // A binary suffix: the fraction is at most DIGITS_MAX digits, so multiply in pieces that stay exact.
        return binary(whole, fraction, two);
    }
    if point < 0 {
        return Some(i128::from(digits.iter().any(|d| *d != b'0')));
    }
    for digit in digits {
        if point > 0 {
            nanos = nanos.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
            point -= 1;
        } else {
            rest |= digit != b'0';
        }
    }
    while point > 0 && nanos != 0 {
        nanos = nanos.checked_mul(10)?;
        point -= 1;
    }
    nanos += i128::from(rest);
    (nanos <= MAX).then_some(nanos)
}

/// As [`scaled`] for `2^bits`: whole part exactly, fraction to 18 digits and rounded away from zero beyond.
fn binary(whole: &str, fraction: &str, bits: u32) -> Option<i128> {
    /// Eighteen digits times 2⁶⁰ stay below 2¹²⁷.
    const KEPT: usize = 18;
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let whole = whole.checked_mul(1 << bits)?.checked_mul(NANO)?;
    let kept = fraction.get(..KEPT.min(fraction.len())).unwrap_or("");
    let mut part: i128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
    let mut scale: i128 = 1;
    for _ in 0..kept.len() {
        scale *= 10;
    }
    part = part.checked_mul(1 << bits)?;
    // part × NANO may not fit: divide first and carry the remainder.
    let (units, rest) = (part / scale, part % scale);
    let rest = rest.checked_mul(NANO)?;
    let up = rest % scale != 0 || fraction.len() > KEPT;
    let nanos = whole.checked_add(units.checked_mul(NANO)?)?.checked_add(rest / scale + i128::from(up))?;
    (nanos <= MAX).then_some(nanos)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical form: the largest suffix of the family that leaves a whole number.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.family == Family::Binary && self.nanos % NANO == 0 && self.nanos != 0 {
            let units = self.nanos / NANO;
            return match BINARY.iter().rev().find(|(_, bits)| units % (1 << bits) == 0) {
                Some((suffix, bits)) => write!(f, "{}{suffix}", units >> bits),
                None => write!(f, "{units}"),
            };
        }
        let ten = |power: i32| (0..power + 9).fold(1i128, |n, _| n * 10);
        let found = DECIMAL.iter().rev().find(|(_, power)| self.nanos % ten(*power) == 0);
        match found {
            _ if self.nanos == 0 => f.write_str("0"),
            Some((_, 0)) | None => write!(f, "{}", self.nanos / NANO),
            Some((_, power)) if self.family == Family::Exponent => write!(f, "{}e{power}", self.nanos / ten(*power)),
            Some((suffix, power)) => write!(f, "{}{suffix}", self.nanos / ten(*power)),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

/// YAML says `cpu: 1` and `cpu: 0.5` as often as `cpu: "1"`.
struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity such as 64Mi, 500m or 2")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Quantity, E> {
        n.to_string().parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Quantity, E> {
        n.to_string().parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, n: f64) -> Result<Quantity, E> {
        // The shortest text that reads back as the same number is what stood in the file.
        n.to_string().parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn values_and_canonical_forms() {
        let cases = [
            ("0", 0, 0, "0"),
            ("64Mi", 67_108_864, 67_108_864_000, "64Mi"),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000, "1536Mi"),
            ("500m", 1, 500, "500m"),
            ("0.5", 1, 500, "500m"),
            (".5", 1, 500, "500m"),
            ("2.", 2, 2000, "2"),
            ("+2", 2, 2000, "2"),
            ("1e3", 1000, 1_000_000, "1e3"),
            ("1E3", 1000, 1_000_000, "1e3"),
            ("12E-1", 2, 1200, "1200e-3"),
            ("1E", 1_000_000_000_000_000_000, i64::MAX, "1E"),
            ("1k", 1000, 1_000_000, "1k"),
            ("1000", 1000, 1_000_000, "1k"),
            ("100u", 1, 1, "100u"),
            ("0.1n", 1, 1, "1n"),
            ("-1500m", -1, -1500, "-1500m"),
            ("0.1Ki", 103, 102_400, "102400m"),
            ("9223372036854775807", i64::MAX, i64::MAX, "9223372036854775807"),
        ];
        for (text, units, millis, canonical) in cases {
            let quantity = q(text);
            assert_eq!(quantity.value(), units, "{text}");
            assert_eq!(quantity.milli_value(), millis, "{text}");
            assert_eq!(quantity.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "-", ".", "1.2.3", "1 Mi", "Mi", "1mi", "1KB", "1e", "1e+", "1e1000", "ten", "1i", "0x10", "١"]
        {
            assert!(matches!(text.parse::<Quantity>(), Err(QuantityError::Syntax(_))), "{text}");
        }
        for text in ["9223372036854775808", "8Ei", "1e19", "10E", &"9".repeat(70), "99999999999999999999999999999Ei"] {
            assert!(matches!(text.parse::<Quantity>(), Err(QuantityError::Range(_))), "{text}");
        }
    }

    #[test]
    fn numbers_of_yaml_are_quantities() {
        let read = |v: serde_json::Value| serde_json::from_value::<Quantity>(v).map(|q| q.to_string()).ok();
        assert_eq!(read(serde_json::json!(2)), Some("2".into()));
        assert_eq!(read(serde_json::json!(0.1)), Some("100m".into()));
        assert_eq!(read(serde_json::json!("1Ki")), Some("1Ki".into()));
        assert_eq!(read(serde_json::json!(true)), None);
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_equal(n in any::<i64>(), power in 0usize..DECIMAL.len()) {
            let text = format!("{n}{}", DECIMAL[power].0);
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert_eq!(q(&quantity.to_string()), quantity);
            }
        }

        #[test]
        fn binary_and_decimal_agree(n in 0i64..1 << 33, bits in 0usize..3) {
            let (suffix, shift) = BINARY[bits];
            prop_assert_eq!(q(&format!("{n}{suffix}")), q(&(i128::from(n) << shift).to_string()));
            prop_assert_eq!(q(&format!("{n}{suffix}")).to_string().parse::<Quantity>().unwrap(), q(&format!("{n}{suffix}")));
        }

        #[test]
        fn order_is_of_the_value(a in 0u32.., b in 0u32..) {
            prop_assert_eq!(q(&format!("{a}m")).cmp(&q(&format!("{b}000u"))), a.cmp(&b));
        }

        #[test]
        fn no_text_panics(text in "[-+.0-9eEKMGTPinumk]{0,30}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert_eq!(q(&quantity.to_string()), quantity);
            }
        }
    }
}
