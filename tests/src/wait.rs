//! Waiting for a condition, never for a while that hopes.
//!
//! The deadlines are not measurements: they are far beyond what a loaded machine needs, and only end a test that hangs.

use std::time::{Duration, Instant};

/// What every wait of the kit allows unless told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(15);

/// Waits until `probe` gives a value. Panics after [`DEADLINE`], naming `what` was awaited.
#[track_caller]
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    until_or(DEADLINE, what, String::new, probe)
}

/// Waits until `probe` holds.
#[track_caller]
pub fn until_true(what: &str, mut probe: impl FnMut() -> bool) {
    until(what, || probe().then_some(()))
}

/// Waits until `probe` gives a value, at most `deadline`; on failure the panic carries what `state` tells of the moment.
#[track_caller]
pub fn until_or<T>(
    deadline: Duration,
    what: &str,
    state: impl FnOnce() -> String,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}\n{}", state());
        std::thread::sleep(STEP);
    }
}

/// The same inside an asynchronous test.
pub async fn until_async<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        tokio::time::sleep(STEP).await;
    }
}

/// Waits inside an asynchronous test until the condition holds.
pub async fn until_holds(what: &str, mut condition: impl FnMut() -> bool) {
    until_async(what, async || condition().then_some(())).await;
}
