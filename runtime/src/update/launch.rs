//! What `/usr/bin/edge-runtime` does as the daemon before anything else: looks which version is in use, counts the start of one
//! that is on trial, and becomes it.
//!
//! ```text
//!  init ─► /usr/bin/edge-runtime ── state file ──┬─ none, or the image's own ─► goes on as the daemon
//!                 ▲                              └─ a slot ─► exec, same process id
//!                 └────────────── restart: exec ──────────────────┘
//! ```
//!
//! The start is counted on disk *before* the exec: however a new version dies (a crash, a watchdog's reset, a power cut), it has
//! used up one of its starts. One that hangs is ended by the kernel: the launcher sets an alarm that outlives the exec, and
//! only a version that proves itself takes it back.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::slots::{Ending, Folder, Outcome, Phase, Slot, State};
use super::version::Version;
use super::{artefact, kept};

/// Which slot this process was started from; it also keeps a started version from looking again.
const SLOT: &str = "EDGE_SLOT";
/// Who started it: where a restart goes through.
const LAUNCHER: &str = "EDGE_LAUNCHER";
/// Seconds on top of the trial's deadline, and a fifth of it, before the kernel ends a version that hangs: one that does not
/// rolls back by itself.
const ALARM_GRACE: u32 = 10;

/// The slot this process runs from.
pub fn own_slot() -> Slot {
    env::var(SLOT).ok().and_then(|name| Slot::named(&name)).unwrap_or(Slot::Factory)
}

/// What is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This executable, which is the image's own.
    Here,
    /// The one in a slot.
    Start(Slot),
}

/// Decides what is started, and changes the state accordingly.
pub fn decide(state: &mut State, own: &Version, now_ms: i64) -> Step {
    if state.phase == Phase::Trial && state.tries_left == 0 {
        state.roll_back("it was started as often as it may be and did not become healthy", now_ms);
    }
    supersede(state, own, now_ms);
    if state.phase == Phase::Trial {
        state.tries_left = state.tries_left.saturating_sub(1);
    }
    match state.current {
        Slot::Factory => Step::Here,
        slot => Step::Start(slot),
    }
}

/// An image that has brought a later version than the one in use wins: whoever renews the image means it.
pub fn supersede(state: &mut State, own: &Version, now_ms: i64) {
    if state.current == Slot::Factory || *own == state.factory || *own <= state.version(state.current) {
        return;
    }
    let (from, why) = (state.version(state.current), "the image has brought a later version".to_owned());
    let ending = Ending::Superseded;
    state.last = Some(Outcome { ending, from, to: own.clone(), why, at_ms: now_ms, told: false });
    (state.current, state.previous, state.phase) = (Slot::Factory, Slot::Factory, Phase::Committed);
    state.factory = own.clone();
}

/// The version in use cannot be started at all: the one before it is in use again, and at last the image's own.
fn cannot_start(state: &mut State, why: &str, now_ms: i64) {
    let broken = state.current;
    state.roll_back(why, now_ms);
    if state.previous == broken {
        state.previous = Slot::Factory;
    }
    state.put(broken, None);
}

/// Becomes the version in use. Returns when that is this executable.
///
/// `run_lock` is the lock of a daemon that runs: a second one that will be sent away must not use up a start.
pub fn launch(state_dir: &Path, run_lock: Option<&Path>) {
    if env::var_os(SLOT).is_some() {
        return;
    }
    // A version that gave way by itself has left its alarm behind.
    crate::sys::alarm(0);
    let folder = Folder::below(state_dir);
    match folder.read() {
        Ok(None) => return,
        Ok(Some(state)) if state.current == Slot::Factory && !state.store_restore => return,
        Ok(Some(_)) if run_lock.is_some_and(is_held) => return,
        Ok(Some(_)) => {}
        Err(error) => return say(&error.to_string()),
    }
    let slot = match round(&folder, state_dir) {
        Ok(Step::Here) => return,
        Ok(Step::Start(slot)) => slot,
        Err(why) => return say(&format!("the image's own version is started this time: {why}")),
    };
    let Err(error) = become_slot(&folder, slot);
    let why = format!("it cannot be started: {error}");
    say(&format!("slot {}: {why}", slot.name()));
    let noted = folder.change(|state| {
        cannot_start(state, &why, crate::clock::now_ms());
        Some(())
    });
    let Err(error) = match noted {
        // An exec that fails leaves signals changed, so it begins anew; the slot is out of use now, so this ends.
        Ok(_) => restart().map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    say(&error);
}

/// One look at the state: what it says is on disk when this returns.
fn round(folder: &Folder, state_dir: &Path) -> Result<Step, String> {
    // On a disk that takes nothing there is no lock either; a version that has proved itself is started all the same.
    let _lock = folder.lock("state.lock", true).ok();
    let Some(before) = folder.read().map_err(|e| e.to_string())? else { return Ok(Step::Here) };
    let mut state = before.clone();
    let step = decide(&mut state, &Version::own(), crate::clock::now_ms());
    if state.store_restore {
        kept::restore(folder, state_dir).map_err(|e| format!("the object store cannot be put back: {e}"))?;
        state.store_restore = false;
    }
    if state.phase == Phase::Trial && !state.store_kept {
        let schema = |slot| state.schema(slot, crate::store::SCHEMA);
        if schema(state.current) != schema(state.previous) {
            kept::keep(folder, state_dir).map_err(|e| format!("the object store cannot be copied: {e}"))?;
            state.store_kept = true;
        }
    }
    if state != before {
        // A start that cannot be counted must not happen: the next ones could not be either.
        folder.write(&state).map_err(|e| e.to_string())?;
    }
    Ok(step)
}

/// Becomes the executable in a slot if it is the one that was installed.
fn become_slot(folder: &Folder, slot: Slot) -> Result<Infallible, io::Error> {
    let state = folder.read().map_err(io::Error::other)?.unwrap_or_else(|| State::new(Version::own()));
    let path = folder.executable(slot).ok_or(io::ErrorKind::NotFound)?;
    let installed = state.installed(slot).ok_or(io::ErrorKind::NotFound)?;
    let (digest, _) = artefact::digest(File::open(&path)?)?;
    if digest != installed.sha256 {
        return Err(io::Error::other("the file is not the one that was installed"));
    }
    let deadline = state.deadline_seconds;
    let bell = deadline.saturating_add(deadline / 5).saturating_add(ALARM_GRACE);
    crate::sys::alarm(if state.phase == Phase::Trial { bell } else { 0 });
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("edge-runtime"));
    let error =
        Command::new(&path).arg0(name).args(arguments).env(SLOT, slot.name()).env(LAUNCHER, own_executable()).exec();
    crate::sys::alarm(0);
    Err(error)
}

/// Starts again from the beginning, in the same process: through the launcher, as init would.
///
/// # Errors
/// The launcher cannot be started; there is no other way on than to end.
pub fn restart() -> Result<Infallible, io::Error> {
    let launcher = env::var_os(LAUNCHER).map_or_else(own_executable, PathBuf::from);
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| launcher.clone().into_os_string());
    Err(Command::new(&launcher).arg0(name).args(arguments).env_remove(SLOT).env_remove(LAUNCHER).exec())
}

/// This executable's path, also when the file was replaced since it was started.
fn own_executable() -> PathBuf {
    let path = env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/edge-runtime"));
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(text) => PathBuf::from(text),
        None => path,
    }
}

/// Whether somebody holds a lock.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// The log does not run yet.
fn say(text: &str) {
    crate::command::complain(&format!("update: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::slots::Installed;

    fn trial(tries: u32) -> State {
        let mut state = State::new("1.0.0".parse().unwrap());
        let installed = Installed {
            version: "1.1.0".parse().unwrap(),
            sha256: String::new(),
            size: 1,
            store_schema: 2,
            installed_ms: 0,
        };
        state.try_out(Slot::A, installed, tries, 60);
        state
    }

    fn own() -> Version {
        "1.0.0".parse().unwrap()
    }

    #[test]
    fn a_trial_is_started_so_often_and_then_left() {
        let mut state = trial(2);
        for left in [1, 0] {
            assert_eq!(decide(&mut state, &own(), 1), Step::Start(Slot::A));
            assert_eq!(state.tries_left, left);
        }
        assert_eq!(decide(&mut state, &own(), 1), Step::Here);
        assert_eq!(state.last.as_ref().map(|l| l.ending), Some(Ending::RolledBack));
        let settled = state.clone();
        assert_eq!(decide(&mut state, &own(), 1), Step::Here);
        assert_eq!(state, settled, "nothing is written at each start");
    }

    #[test]
    fn what_proved_itself_is_started_and_nothing_is_written() {
        let mut state = trial(2);
        state.commit("", 1);
        let before = state.clone();
        assert_eq!(decide(&mut state, &own(), 1), Step::Start(Slot::A));
        assert_eq!(state, before);
    }

    #[test]
    fn a_later_image_wins_and_an_earlier_one_does_not() {
        for (image, step) in [("1.2.0", Step::Here), ("1.1.0", Step::Start(Slot::A)), ("0.9.0", Step::Start(Slot::A))] {
            let mut state = trial(2);
            state.commit("", 1);
            assert_eq!(decide(&mut state, &image.parse().unwrap(), 1), step, "{image}");
        }
        // An older version that was wanted: the image is the same as when it was decided.
        let mut state = trial(2);
        state.factory = "2.0.0".parse().unwrap();
        assert_eq!(decide(&mut state, &"2.0.0".parse().unwrap(), 1), Step::Start(Slot::A));
    }

    #[test]
    fn what_cannot_be_started_is_left_for_what_can() {
        let mut state = trial(2);
        state.commit("", 1);
        cannot_start(&mut state, "damaged", 2);
        assert_eq!((state.current, state.previous, &state.a), (Slot::Factory, Slot::Factory, &None));
    }
}
