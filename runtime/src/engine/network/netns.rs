//! Network namespaces that live as files: no process has to stay to hold one.
//!
//! A namespace belongs to a thread. Each is made, and later entered, by a thread of its own that ends right afterwards, so that
//! no thread of the runtime is ever left in the wrong one.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Makes a namespace and binds it to a file, unless one is bound there already.
pub(super) fn make(path: &Path) -> io::Result<()> {
    if is_namespace(path) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    let target = path.to_owned();
    apart(move || {
        unshare_network()?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &target)?;
        Ok(())
    })
}

/// Whether a namespace is bound to this file.
pub(super) fn is_namespace(path: &Path) -> bool {
    /// `NSFS_MAGIC` of linux/magic.h.
    const NSFS: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|s| u64::try_from(s.f_type) == Ok(NSFS))
}

/// Does something inside a namespace.
pub(super) fn inside<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = File::open(path)?;
    apart(move || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })
}

fn apart<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("netns".to_owned()).stack_size(256 << 10).spawn(work)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread of a network namespace has panicked")))
}

fn unshare_network() -> io::Result<()> {
    // SAFETY: only `FILES` is unsafe to unshare (descriptors of other threads would be lost); this is `NEWNET` alone.
    #[expect(unsafe_code, reason = "rustix marks unshare unsafe for the sake of FILES")]
    let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
    Ok(unshared?)
}

/// Lets go of a namespace: it ends with the last process in it. Fine when there is none.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if is_namespace(path) {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
