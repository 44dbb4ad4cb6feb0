//! What is seen of units from outside.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Where a unit is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has been started and is not yet at work.
    Starting,
    /// It is at work.
    Running,
    /// It failed and will be started again soon.
    BackOff,
    /// It failed too often and is left alone for a long time.
    GaveUp,
    /// It was stopped, or its work is done.
    Stopped,
}

impl State {
    /// The word in `status` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::BackOff => "back-off",
            State::GaveUp => "gave-up",
            State::Stopped => "stopped",
        }
    }
}

/// What is known of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitStatus {
    /// The unit.
    pub name: &'static str,
    /// Where it is.
    pub state: State,
    /// Why, when it is not well.
    pub reason: String,
    /// How often it was started again.
    pub restarts: u64,
}

/// All units; cheap to clone.
#[derive(Debug, Clone)]
pub struct Units {
    list: Arc<Mutex<Vec<UnitStatus>>>,
    changed: watch::Sender<()>,
}

impl Default for Units {
    fn default() -> Units {
        Units { list: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Units {
    fn lock(&self) -> MutexGuard<'_, Vec<UnitStatus>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All units, in the order in which they were started.
    pub fn all(&self) -> Vec<UnitStatus> {
        self.lock().clone()
    }

    /// Whether all units have got beyond their start: at work, failed for now, or done.
    pub fn settled(&self) -> bool {
        self.lock().iter().all(|u| u.state != State::Starting)
    }

    /// Whether all units are at work or done.
    pub fn well(&self) -> bool {
        self.lock().iter().all(|u| matches!(u.state, State::Running | State::Stopped))
    }

    /// Marks changes from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn set(&self, name: &'static str, state: State, reason: &str) {
        let mut list = self.lock();
        match list.iter_mut().find(|u| u.name == name) {
            Some(unit) => {
                unit.restarts += u64::from(state == State::BackOff || state == State::GaveUp);
                unit.state = state;
                reason.clone_into(&mut unit.reason);
            }
            None => list.push(UnitStatus { name, state, reason: reason.to_owned(), restarts: 0 }),
        }
        drop(list);
        self.changed.send_replace(());
    }
}
