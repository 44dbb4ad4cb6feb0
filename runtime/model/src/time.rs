//! Time as the product carries it: UTC milliseconds since 1970, printed as RFC 3339.

use chrono::{DateTime, SecondsFormat, Utc};

/// `2026-11-30T17:34:27Z`, as Kubernetes prints times (whole seconds). Out-of-range values print as the epoch.
pub fn rfc3339(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `2026-11-30T17:34:27.123Z`, for readings.
pub fn rfc3339_millis(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The milliseconds of an RFC 3339 time; `None` when it is not one.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_back() {
        for ms in [0, 1_796_060_067_123, -1] {
            assert_eq!(parse_rfc3339(&rfc3339_millis(ms)), Some(ms));
        }
        assert_eq!(rfc3339(1_796_060_067_123), "2026-11-30T17:34:27Z");
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z");
    }
}
