//! Pods from the store to running containers and back, with the real engine, real images and real namespaces. Needs root and
//! Debian's `busybox-static` and `umoci`; fails loudly without.

mod pods_bench;

use std::time::Duration;

use edge_model::pod::status::Phase;
use pods_bench::{Bench, sh};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_to_its_end() {
    let bench = Bench::new().await;
    let run = bench.start();
    bench.apply("once", json!({"restartPolicy": "Never", "containers": [sh("a", "echo hello; exit 3")]})).await;
    let status = bench.wait("once", |s| s.phase == Phase::Failed).await;
    let end = status.container_statuses[0].state.terminated.clone().unwrap();
    assert_eq!((end.exit_code, end.reason.as_str()), (3, "Error"));
    assert_eq!(bench.logs("once", None).await, "hello\n");
    bench.delete("once").await;
    run.stop().await;
}
