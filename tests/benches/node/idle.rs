//! What an idle node does all the same: processor time, wake-ups, bytes written.

use std::time::Duration;

use edge_tests::daemon::Node;

use crate::peers::{Mosquitto, accepts};
use crate::process::{ours, ticks, wakeups, written};
use crate::table::Table;

/// How long a node may settle before the window opens.
const SETTLE: Duration = Duration::from_secs(10);

/// Watches ours and mosquitto for the same `window`.
pub fn run(window: Duration) {
    let mosquitto = Mosquitto::launch();
    let mut node = Node::new();
    node.start();
    std::thread::sleep(SETTLE);
    assert!(accepts(mosquitto.address()), "mosquitto runs");
    let series = [("edge-runtime", ours(&node)), ("mosquitto", vec![mosquitto.pid()])];
    let look = |pids: &[i32]| (ticks(pids), wakeups(pids), written(pids));
    let before = series.each_ref().map(|(_, pids)| look(pids));
    std::thread::sleep(window);
    let heading = format!("Idle work, seen for {} s", window.as_secs());
    let columns = ["what", "CPU ms per minute", "wake-ups per second", "KB written per hour", "KB written per day"];
    let mut table = Table::new(&heading, &columns);
    let seconds = window.as_secs_f64();
    for ((name, pids), before) in series.iter().zip(before) {
        let after = look(pids);
        let per_second = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
        let bytes = per_second(before.2, after.2);
        table.row(&[
            name,
            &format!("{:.0}", per_second(before.0, after.0) * 10.0 * 60.0),
            &format!("{:.1}", per_second(before.1, after.1)),
            &format!("{:.1}", bytes * 3600.0 / 1000.0),
            &format!("{:.0}", bytes * 86_400.0 / 1000.0),
        ]);
    }
    table.print();
}
