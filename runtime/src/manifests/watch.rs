//! Notices changes of the folder, also while it is not there yet.
//!
//! A watch is made anew for each look at the folder, before the look: whatever happens after that is noticed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{Event, EventMask, Inotify, WatchMask};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout, timeout_at};

use super::folder::is_manifest;

/// The folder must have been quiet for so long before it is read: an editor or a copy makes several changes in a row.
const QUIET: Duration = Duration::from_millis(150);
/// But it is read after this time even if it never is quiet.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a watch is set up again because what was missing came in between.
const TRIES: u32 = 5;
/// Room for a burst of events; what does not fit is read next time.
const BUFFER: usize = 4096;

/// A watch on the folder, or on the nearest folder above that exists.
pub(super) struct Watcher {
    inotify: AsyncFd<Inotify>,
    folder: PathBuf,
    /// The folder on the way whose appearance is waited for; `None` when the folder itself is there.
    missing: Option<PathBuf>,
}

impl Watcher {
    pub fn new(folder: &Path) -> io::Result<Watcher> {
        let mut tries = 0;
        loop {
            let watcher = Watcher::once(folder)?;
            tries += 1;
            // What was missing may have come before the folder above was watched. A link that leads nowhere looks like that
            // for good, hence the count.
            match &watcher.missing {
                Some(missing) if tries < TRIES && fs::symlink_metadata(missing).is_ok() => {}
                _ => return Ok(watcher),
            }
        }
    }

    fn once(folder: &Path) -> io::Result<Watcher> {
        let mut inotify = Inotify::init()?;
        let inside = WatchMask::CLOSE_WRITE
            | WatchMask::MODIFY
            | WatchMask::ATTRIB
            | WatchMask::CREATE
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let mut missing = None;
        match inotify.watches().add(folder, inside) {
            Ok(_) => watch_linked(&mut inotify, folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing = Some(watch_above(&mut inotify, folder)?);
            }
            Err(error) => return Err(error),
        }
        #[expect(
            deprecated,
            reason = "its successor wants a promise that the descriptor stays the same and open; Inotify owns it"
        )]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Watcher { inotify, folder: folder.to_owned(), missing })
    }

    /// Returns once something has changed and the folder is quiet again. Cancel safe: the watch is made anew afterwards.
    pub async fn changed(&mut self) -> io::Result<()> {
        while !self.batch().await? {}
        let patience = Instant::now() + PATIENCE;
        while let Ok(Ok(more)) = timeout_at(patience, timeout(QUIET, self.batch())).await {
            more?;
        }
        Ok(())
    }

    /// Waits for events; whether one of them is a reason to look.
    async fn batch(&mut self) -> io::Result<bool> {
        loop {
            let mut guard = self.inotify.readable_mut().await?;
            let mut buffer = [0; BUFFER];
            let read = guard.try_io(|fd| {
                let events = fd.get_mut().read_events(&mut buffer)?;
                Ok(events.map(|event| event.to_owned()).collect::<Vec<_>>())
            });
            match read {
                Ok(events) => {
                    let missing = self.missing.as_deref().and_then(Path::file_name).and_then(|n| n.to_str());
                    let folder = &self.folder;
                    return Ok(events?.iter().any(|event| matters(folder, missing, event)));
                }
                // Somebody else was quicker, or it was a false alarm.
                Err(_would_block) => {}
            }
        }
    }
}

/// Also watches what symbolic links in the folder lead to: a change there is not one of the folder.
fn watch_linked(inotify: &mut Inotify, folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let linked = entry.file_type().is_ok_and(|t| t.is_symlink());
        if linked && entry.file_name().to_str().is_some_and(is_manifest) {
            let mask = WatchMask::CLOSE_WRITE | WatchMask::ATTRIB | WatchMask::MOVE_SELF | WatchMask::DELETE_SELF;
            // A link that leads nowhere is seen when it changes, or at the slow look.
            let _ = inotify.watches().add(entry.path(), mask);
        }
    }
}

/// Watches the nearest folder above that exists; what is missing right below it.
fn watch_above(inotify: &mut Inotify, folder: &Path) -> io::Result<PathBuf> {
    let mask = WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    let mut below = folder;
    for above in folder.ancestors().skip(1) {
        let place = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match inotify.watches().add(place, mask) {
            Ok(_) => return Ok(below.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => below = above,
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Whether an event is a reason to look at the folder.
fn matters(folder: &Path, missing: Option<&str>, event: &Event<std::ffi::OsString>) -> bool {
    let Some(name) = event.name.as_ref().and_then(|n| n.to_str()) else {
        // The folder itself, a link's target, or more events than the kernel could keep.
        return !event.mask.contains(EventMask::MODIFY);
    };
    if let Some(missing) = missing {
        return name == missing;
    }
    // `..data` is how Kubernetes swaps all files of a volume at once.
    if !is_manifest(name) && !name.starts_with("..") {
        return false;
    }
    if event.mask.contains(EventMask::MODIFY) {
        // Somebody is still writing; closing the file is the news.
        return false;
    }
    if event.mask.contains(EventMask::CREATE) {
        // A new file is empty and will be closed; a link is whole from the start.
        return fs::symlink_metadata(folder.join(name)).is_ok_and(|m| m.is_symlink() || m.nlink() > 1);
    }
    true
}
