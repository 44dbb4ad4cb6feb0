//! What becomes of units that fail, panic, end early or will not end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::keeper::{Next, next};
use super::*;

fn quick() -> Policy {
    Policy { first: Duration::from_millis(1), longest: Duration::from_millis(4), attempts: 3, ..Policy::default() }
}

async fn until(units: &Units, name: &str, state: State) -> UnitStatus {
    let mut changes = units.changes();
    let wait = async {
        loop {
            if let Some(unit) = units.all().into_iter().find(|u| u.name == name && u.state == state) {
                return unit;
            }
            let _ = changes.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{:?}", units.all()))
}

#[test]
fn pauses_double_up_to_the_longest_and_then_it_gives_up() {
    let policy = Policy { attempts: 5, ..quick() };
    let pauses: Vec<Next> = (1..=5).map(|n| next(&policy, n)).collect();
    let ms = |n| Next::BackOff(Duration::from_millis(n));
    assert_eq!(pauses, [ms(1), ms(2), ms(4), ms(4), Next::GaveUp(policy.rest)]);
    assert_eq!(next(&Policy { attempts: u32::MAX, ..policy }, u32::MAX - 1), ms(4));
}

#[tokio::test]
async fn a_unit_that_fails_is_started_again_and_its_reason_is_kept() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let mut supervisor = Supervisor::new();
    supervisor.start(
        Unit::new("flaky", move |context| {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => return Err("no cable".into()),
                    1 => panic!("on purpose"),
                    _ => context.ready(),
                }
                context.stop.cancelled().await;
                Ok(())
            }
        })
        .policy(Policy { attempts: 10, ..quick() }),
    );
    let unit = until(&supervisor.units(), "flaky", State::Running).await;
    assert_eq!((unit.restarts, unit.reason.as_str()), (2, ""));
    assert!(supervisor.stop(Duration::from_secs(30)).await.is_empty());
}

#[tokio::test]
async fn too_many_failures_are_seen_as_gave_up() {
    let mut supervisor = Supervisor::new();
    supervisor.start(Unit::new("broken", |_| async { Err("no such port".into()) }).policy(quick()));
    let unit = until(&supervisor.units(), "broken", State::GaveUp).await;
    assert_eq!((unit.reason.as_str(), unit.restarts), ("no such port", 3));
    assert!(supervisor.units().settled() && !supervisor.units().well());
    assert!(supervisor.stop(Duration::from_secs(30)).await.is_empty());
}

#[tokio::test]
async fn units_stop_in_reverse_order_and_a_late_one_is_named() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut supervisor = Supervisor::new();
    for name in ["first", "second", "third"] {
        let order = Arc::clone(&order);
        supervisor.start(Unit::new(name, move |context| {
            let order = Arc::clone(&order);
            async move {
                context.ready();
                context.stop.cancelled().await;
                order.lock().unwrap().push(name);
                Ok(())
            }
        }));
        until(&supervisor.units(), name, State::Running).await;
    }
    assert!(supervisor.stop(Duration::from_secs(30)).await.is_empty());
    assert_eq!(*order.lock().unwrap(), ["third", "second", "first"]);

    let mut supervisor = Supervisor::new();
    supervisor.start(Unit::new("deaf", |context| async move {
        context.ready();
        std::future::pending().await
    }));
    until(&supervisor.units(), "deaf", State::Running).await;
    assert_eq!(supervisor.stop(Duration::from_millis(20)).await, ["deaf"]);
}
