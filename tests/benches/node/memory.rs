//! Idle memory with 0, 1 and 10 pods, and what each helper has for itself.

use std::time::Duration;

use edge_tests::daemon::Node;

use crate::image::Image;
use crate::peers::{Mosquitto, accepts};
use crate::pods::{start_pod, wait_running};
use crate::process::{helpers, ours, private, pss};
use crate::table::{Table, mebibytes};

/// How long a node idles before it is looked at.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures ours and mosquitto's.
pub fn run() {
    let image = Image::make();
    let mosquitto = Mosquitto::launch();
    let mut node = Node::new();
    node.start();
    node.cli(&["image", "import", &image.archive().to_string_lossy()]).ok();
    // Importing an image is work that an idle gateway has behind it: memory is that of a fresh start.
    node.stop();
    node.start();
    let mut table = Table::new("Idle memory", &["what", "processes", "PSS MiB", "private KiB per helper"]);
    let mut running = 0;
    for pods in [0, 1, 10] {
        while running < pods {
            running += 1;
            let name = format!("idle-{running}");
            start_pod(&node, &name, true);
            wait_running(&node, &name);
        }
        std::thread::sleep(SETTLE);
        let processes = ours(&node);
        let mut own: Vec<u64> = helpers(&node).into_iter().map(private).collect();
        own.sort_unstable();
        let median = own.get(own.len() / 2).map_or("–".to_owned(), u64::to_string);
        let what = format!("edge-runtime, {pods} pods");
        table.row(&[&what, &processes.len().to_string(), &mebibytes(pss(&processes)), &median]);
    }
    assert!(accepts(mosquitto.address()), "mosquitto runs");
    table.row(&["mosquitto alone", "1", &mebibytes(pss(&[mosquitto.pid()])), "–"]);
    table.print();
}
