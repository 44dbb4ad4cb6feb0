//! Running sled's code: panics come back as text, and its threads are kept from waking the processor.

use std::any::Any;
use std::cell::Cell;
use std::num::NonZeroU64;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs sled code that may panic on what it finds on disk. The panic comes back as text and is not printed.
pub(super) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                previous(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let slack = lengthen_slack();
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    if let Some(slack) = slack {
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(slack));
    }
    GUARDED.set(outer);
    result.map_err(|payload| text_of(&*payload))
}

/// Whether sled has started its threads.
static STARTED: AtomicBool = AtomicBool::new(false);

/// How late the waits of sled's threads may end, in nanoseconds.
const SLACK: u64 = 600_000_000_000;

/// sled keeps seven threads that wake up every second to look for nothing. They inherit the timer slack of the thread that
/// starts them; with a long one these waits end only when the processor is awake anyway. Work still wakes them at once.
fn lengthen_slack() -> Option<u64> {
    if STARTED.load(Ordering::Relaxed) {
        return None;
    }
    let before = rustix::thread::current_timer_slack().ok()?;
    rustix::thread::set_current_timer_slack(NonZeroU64::new(SLACK)).ok()?;
    Some(before)
}

/// After the first flush the threads are there.
pub(super) fn threads_started() {
    STARTED.store(true, Ordering::Relaxed);
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    // sled's messages carry whole pages; the beginning says what it was.
    text.unwrap_or("panic").chars().take(200).collect()
}
