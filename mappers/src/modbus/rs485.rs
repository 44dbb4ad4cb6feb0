//! The direction of an RS-485 transceiver, handed to the kernel's driver: `ioctl` TIOCSRS485.
//!
//! Source: Linux, `include/uapi/linux/serial.h` and `Documentation/driver-api/serial/serial-rs485.rst`. Only the driver knows
//! when the last bit has left the line.
#![expect(unsafe_code, reason = "no safe crate covers TIOCSRS485")]

use std::io;
use std::os::fd::AsRawFd;

use edge_model::device::modbus::Rs485;

/// `TIOCSRS485` of `asm-generic/ioctls.h`: the architectures we build for have it.
const TIOCSRS485: libc::Ioctl = 0x542f;
const ENABLED: u32 = 1;
const RTS_ON_SEND: u32 = 1 << 1;
const RTS_AFTER_SEND: u32 = 1 << 2;
const RECEIVE_DURING_SEND: u32 = 1 << 4;

/// `struct serial_rs485`: 32 bytes, the last five words reserved.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SerialRs485 {
    flags: u32,
    delay_before: u32,
    delay_after: u32,
    reserved: [u32; 5],
}

impl From<Rs485> for SerialRs485 {
    fn from(s: Rs485) -> SerialRs485 {
        let direction = if s.invert { RTS_AFTER_SEND } else { RTS_ON_SEND };
        let receive = if s.receive_during_send { RECEIVE_DURING_SEND } else { 0 };
        SerialRs485 {
            flags: ENABLED | direction | receive,
            delay_before: s.delay_before,
            delay_after: s.delay_after,
            reserved: [0; 5],
        }
    }
}

/// Lets the driver of this line switch its transceiver.
///
/// # Errors
/// When the driver cannot: the message says that, since "inappropriate ioctl" tells nobody anything.
pub fn set(port: &impl AsRawFd, settings: Rs485) -> io::Result<()> {
    let mut settings = SerialRs485::from(settings);
    // SAFETY: the descriptor is open while `port` is borrowed; the kernel reads and writes back one `struct serial_rs485`,
    // which `settings` is laid out as.
    let done = unsafe { libc::ioctl(port.as_raw_fd(), TIOCSRS485, &raw mut settings) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let text = format!("the driver of this line does not switch an RS-485 transceiver: {error}");
    Err(io::Error::new(error.kind(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_the_kernels() {
        assert_eq!(size_of::<SerialRs485>(), 32);
        let plain = SerialRs485::from(Rs485 { delay_before: 1, delay_after: 2, ..Rs485::default() });
        assert_eq!((plain.flags, plain.delay_before, plain.delay_after), (0b11, 1, 2));
        let other = SerialRs485::from(Rs485 { invert: true, receive_during_send: true, ..Rs485::default() });
        assert_eq!(other.flags, 0b10101);
    }

    #[test]
    fn a_device_that_is_no_transceiver_says_so() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(set(&null, Rs485::default()).unwrap_err().to_string().contains("RS-485"));
    }
}
