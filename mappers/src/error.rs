//! Why a device could not be read or written, in words of the field.

/// What went wrong. Nothing was changed in the device unless the variant says so.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccessError {
    /// The device has no such property.
    #[error("property {0} is not one of the device")]
    Unknown(String),
    /// The model says ReadOnly.
    #[error("property {0} is read-only")]
    ReadOnly(String),
    /// The value is of another type than the property.
    #[error("{value} is not {expected}")]
    Type {
        /// The value as given.
        value: String,
        /// What would be right, such as `an integer`.
        expected: &'static str,
    },
    /// The value is outside what the model or the register allows.
    #[error("{value} is not between {low} and {high}")]
    Range {
        /// The value as given.
        value: String,
        /// The smallest value allowed.
        low: String,
        /// The largest value allowed.
        high: String,
    },
    /// The device did not answer in time. A write may have been done.
    #[error("no answer within {0} ms")]
    Timeout(u32),
    /// There is no connection to the device. A write may have been done.
    #[error("no connection: {0}")]
    Disconnected(String),
    /// The device answered with an exception (Modbus Application Protocol V1.1b3, section 7).
    #[error("the device answered exception {code} ({})", exception(*.code))]
    Exception {
        /// The exception code.
        code: u8,
    },
    /// The device, or what stands for it, said no. Whether a write was done is up to it.
    #[error("the device refused: {0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("the answer makes no sense: {0}")]
    Garbage(String),
    /// What was read back is not what was written: the write was done and did not stick.
    #[error("wrote {wrote} and read back {found}")]
    Mismatch {
        /// What was written.
        wrote: String,
        /// What was read back.
        found: String,
    },
    /// The device was removed or reconfigured meanwhile.
    #[error("the device is no longer configured")]
    Gone,
    /// Too many commands are waiting for the device.
    #[error("too many commands are waiting for the device")]
    Busy,
}

impl AccessError {
    /// Whether the same call may succeed later without anybody changing it.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            AccessError::Timeout(_)
                | AccessError::Disconnected(_)
                | AccessError::Garbage(_)
                | AccessError::Busy
                | AccessError::Exception { code: 5 | 6 | 10 | 11 }
        )
    }
}

/// The name of a Modbus exception code.
pub const fn exception(code: u8) -> &'static str {
    match code {
        1 => "illegal function",
        2 => "illegal data address",
        3 => "illegal data value",
        4 => "server device failure",
        5 => "acknowledge",
        6 => "server device busy",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target device failed to respond",
        _ => "unknown",
    }
}
