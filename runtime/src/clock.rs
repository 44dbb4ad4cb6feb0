//! The one place that asks the system what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// UTC milliseconds since 1970; 0 when the clock is before that.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(0)
}
