//! What an unquoted YAML scalar means, by the rules kubectl applies.
//!
//! Source: the resolver of `sigs.k8s.io/yaml` (YAML 1.1 with YAML 1.2's octal): `yes`, `on` and `y` are booleans, `0644` is
//! octal, `_` may group digits, a date stays text.

use serde_json::{Number, Value};

/// Why a scalar has no meaning in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScalarError {
    /// `.inf` and `.nan` have no JSON form.
    #[error("infinity and NaN are not supported")]
    NotFinite,
    /// More than 64 bits.
    #[error("the number needs more than 64 bits; put it in quotes if it is text")]
    TooLarge,
}

/// The value of a plain (unquoted, untagged) scalar.
pub(super) fn resolve(text: &str) -> Result<Value, ScalarError> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ if is_not_finite(text) => return Err(ScalarError::NotFinite),
        _ => number(text)?.unwrap_or_else(|| Value::String(text.to_owned())),
    })
}

/// Whether a string has to be quoted in YAML because it would be read as something else.
pub(super) fn is_special(text: &str) -> bool {
    !matches!(resolve(text), Ok(Value::String(_))) || text == "<<"
}

fn is_not_finite(text: &str) -> bool {
    let word = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(word, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

fn number(text: &str) -> Result<Option<Value>, ScalarError> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Ok(None);
    }
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix(['+', '-']) {
        Some(rest) => (plain.starts_with('-'), rest),
        None => (false, plain.as_str()),
    };
    if let Some((radix, digits)) = integer(digits) {
        let Ok(magnitude) = u64::from_str_radix(digits, radix) else { return Err(ScalarError::TooLarge) };
        if !negative {
            return Ok(Some(Value::Number(magnitude.into())));
        }
        let value = i64::try_from(-i128::from(magnitude)).map_err(|_| ScalarError::TooLarge)?;
        return Ok(Some(Value::Number(value.into())));
    }
    if !is_float(digits) {
        return Ok(None);
    }
    let value = plain.parse::<f64>().ok().and_then(Number::from_f64);
    value.map(|n| Some(Value::Number(n))).ok_or(ScalarError::TooLarge)
}

/// The radix and the digits of an unsigned integer; `None` when it is not one.
fn integer(text: &str) -> Option<(u32, &str)> {
    let prefixed = [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)];
    let (radix, digits) = prefixed
        .into_iter()
        .find_map(|(prefix, radix)| text.strip_prefix(prefix).map(|rest| (radix, rest)))
        .or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()).map(|rest| (8, rest)))
        .unwrap_or((10, text));
    (!digits.is_empty() && digits.chars().all(|c| c.is_digit(radix))).then_some((radix, digits))
}

/// `[0-9]*(\.[0-9]*)?([eE][-+]?[0-9]+)?` with at least one digit before the exponent.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['+', '-']).unwrap_or(e))),
        None => (text, None),
    };
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_mean_what_kubectl_takes_them_for() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("n", json!(false)),
            ("nginx", json!("nginx")),
            ("0", json!(0)),
            ("-7", json!(-7)),
            ("+7", json!(7)),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x1F", json!(31)),
            ("-0b101", json!(-5)),
            ("1_000", json!(1000)),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1.", json!(1.0)),
            ("1e3", json!(1000.0)),
            ("089", json!(89.0)),
            ("100m", json!("100m")),
            ("1.2.3", json!("1.2.3")),
            ("12:30:45", json!("12:30:45")),
            ("2026-11-30", json!("2026-11-30")),
            ("-", json!("-")),
            (".", json!(".")),
            ("1e", json!("1e")),
            ("0xg", json!("0xg")),
        ];
        for (text, value) in cases {
            assert_eq!(resolve(text), Ok(value), "{text}");
        }
        assert_eq!(resolve("-.inf"), Err(ScalarError::NotFinite));
        assert_eq!(resolve(".nan"), Err(ScalarError::NotFinite));
        assert_eq!(resolve("18446744073709551616"), Err(ScalarError::TooLarge));
        assert_eq!(resolve("1e999"), Err(ScalarError::TooLarge));
    }
}
