//! Calls that the C library and the kernel only offer unsafely, each behind a safe function.
#![expect(unsafe_code, reason = "the interfaces of the C library and of device drivers")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// Settles the C library for a small, static process. Call it first in `main`.
///
/// * Host names are looked up in files and by DNS only: a static glibc would otherwise load the plug-ins that
///   `/etc/nsswitch.conf` names from the host's own, possibly other, C library.
/// * Two malloc arenas instead of eight per core, and freed memory goes back to the kernel early.
pub fn settle_c_library() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const libc::c_char, line: *const libc::c_char) -> libc::c_int;
        }
        // SAFETY: both arguments are NUL-terminated and static; no other thread runs yet. Failure leaves the default.
        unsafe {
            __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
            libc::mallopt(libc::M_ARENA_MAX, 2);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 10);
            libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10);
        }
    }
}

/// Gives freed memory back to the kernel: after work that comes in bursts (start, an image pull).
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of code that were run so far; what is run again comes back from the page cache, page by page. Code that
/// only the start needed is most of a small node's resident memory, and stays resident until the kernel is short of it.
///
/// Only executable mappings of our own file are touched: nothing ever writes to them, so nothing is lost. (Read-only data is
/// left alone: the pages that were relocated at the start are among it.)
pub fn forget_start_code() {
    let Ok(own) = std::fs::read_link("/proc/self/exe") else { return };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for line in maps.lines().filter(|l| l.split_whitespace().nth(1) == Some("r-xp")) {
        if !line.ends_with(&*own.to_string_lossy()) {
            continue;
        }
        let range = line.split_whitespace().next().and_then(|r| r.split_once('-'));
        let parse = |text: &str| usize::from_str_radix(text, 16).ok();
        let Some((Some(start), Some(end))) = range.map(|(a, b)| (parse(a), parse(b))) else { continue };
        let address = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start);
        // SAFETY: the range is a private, executable and unwritable mapping of a file; dropping its pages only makes the
        // next access read them from the file again.
        unsafe {
            libc::madvise(address, end.saturating_sub(start), libc::MADV_DONTNEED);
        }
    }
}

/// `WDIOC_SETTIMEOUT` of `linux/watchdog.h`: `_IOWR('W', 6, int)`.
const WDIOC_SETTIMEOUT: libc::c_ulong = 0xc004_5706;

/// Sets how long a hardware watchdog waits, in seconds. Returns what the driver made of it.
///
/// # Errors
/// The driver cannot do it.
pub fn set_watchdog_timeout(device: &File, seconds: i32) -> io::Result<i32> {
    use std::os::fd::AsRawFd as _;
    let mut value: libc::c_int = seconds;
    // SAFETY: the request reads and writes one int, and `value` outlives the call.
    let rc = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), WDIOC_SETTIMEOUT, &raw mut value) };
    if rc == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel end this process (SIGALRM) after so many seconds, also when it has become another executable by then; 0 takes
/// an earlier alarm back (alarm(2): it outlives exec and is not inherited by children).
pub fn alarm(seconds: u32) {
    // SAFETY: `alarm` only sets a timer of this process. It returns what was left of an earlier one, and cannot fail.
    unsafe {
        libc::alarm(seconds);
    }
}

/// Whether somebody keeps the kernel's clock right, and by how many microseconds it may be wrong at most (adjtimex(2)); `None`
/// when the kernel does not say.
pub fn clock_synchronised() -> Option<(bool, i64)> {
    // SAFETY: all zeros is a valid value of this plain structure, and `modes` 0 only reads; the structure outlives the call.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    (state >= 0).then_some((timex.status & libc::STA_UNSYNC == 0, timex.maxerror))
}

/// Registers a descriptor with the reactor.
///
/// # Errors
/// The system's.
pub fn async_fd(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor, and keeps it open as long as it lives.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.map_err(io::Error::from)
}
