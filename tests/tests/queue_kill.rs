//! Killed with SIGKILL at random points, the queue and the store lose nothing that was acknowledged, and keep the order.
//!
//! `EDGE_KILL_ROUNDS` (default 10) says how often.

use std::path::Path;
use std::time::Duration;

use edge_tests::producer::{self, Acknowledged, Producer};

#[test]
fn nothing_acknowledged_is_lost_when_the_producer_is_killed() {
    let tool = Path::new(env!("CARGO_BIN_EXE_queue_tool"));
    let rounds: u64 = std::env::var("EDGE_KILL_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(10);
    let (_dir, path) = producer::folder();
    let mut known = Acknowledged::default();
    for round in 0..rounds {
        let mut producer = Producer::start(tool, &path, &[], known.clone());
        // Some are killed while they open, some in full flow.
        let before = known.messages;
        if round % 3 != 0 {
            edge_tests::wait::until("the producer writes", || {
                (producer.acknowledged().messages > before + 20).then_some(())
            });
        }
        std::thread::sleep(Duration::from_millis(round * 7919 % 150));
        known = producer.kill();
        let last = producer::verify(tool, &path, &known).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert!(
            last <= known.seq + 8,
            "round {round}: {last} is there, {} was acknowledged, 8 were under way",
            known.seq
        );
        known.seq = last;
    }
    assert!(known.messages > rounds, "hardly anything was written");
}
