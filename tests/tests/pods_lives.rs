//! Pods over the deaths of the runtime: containers go on, are taken over, and come back after a reboot. Needs what `pods.rs`
//! needs.

use std::fs;
use std::time::Duration;

use edge_model::pod::PodStatus;
use edge_model::pod::status::Phase;
use edge_tests::pod_node::process::{self, Node};
use edge_tests::pod_node::{sh, with_image};
use serde_json::json;

/// The other process of these tests.
#[test]
#[ignore = "run by the other tests as a process of its own"]
fn node_process() {
    process::main();
}

fn ready(s: &PodStatus) -> bool {
    !s.container_statuses.is_empty() && s.container_statuses.iter().all(|c| c.ready)
}

/// Which processes run, and since when.
fn lives(s: &PodStatus) -> Vec<(String, String, u32)> {
    let life = |c: &edge_model::pod::status::ContainerStatus| {
        (c.container_id.clone(), c.state.running.clone().unwrap_or_default().started_at, c.restart_count)
    };
    s.container_statuses.iter().map(life).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_a_killed_runtime() {
    let dir = with_image().await;
    let mut node = Node::new(dir.path());
    node.start();
    for name in ["one", "two"] {
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [sh("a", "echo $$; exec sleep 1000"), sh("b", "exec sleep 1000")]});
        node.apply(name, spec);
    }
    let before: Vec<_> = ["one", "two"].map(|n| lives(&node.wait(n, ready))).into();
    for round in 0..10u64 {
        // Killed at once, while it takes over, and when it has.
        node.kill();
        node.start();
        if round % 3 != 0 {
            node.status("one");
            std::thread::sleep(Duration::from_millis(round * 7 % 40));
        }
    }
    let after: Vec<_> = ["one", "two"].map(|n| lives(&node.wait(n, ready))).into();
    assert_eq!(after, before);
    node.stop();
    node.start();
    assert_eq!(lives(&node.wait("one", ready)), before[0]);
    node.delete(&["one", "two"]);
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_cut_short_is_finished_once() {
    let dir = with_image().await;
    let mut node = Node::new(dir.path());
    let host = dir.path().join("host");
    fs::create_dir(&host).unwrap();
    for round in 0..8u64 {
        node.start();
        let mut container = sh("a", "echo up >> /h/log; exec sleep 1000");
        container["volumeMounts"] = json!([{"name": "h", "mountPath": "/h"}]);
        let volumes = json!([{"name": "h", "hostPath": {"path": host}}]);
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes});
        node.apply(&format!("p{round}"), spec);
        std::thread::sleep(Duration::from_millis(round * 5));
        node.kill();
    }
    node.start();
    for round in 0..8 {
        node.wait(&format!("p{round}"), ready);
    }
    assert_eq!(node.containers().len(), 8, "{:?}", node.containers());
    let starts = fs::read_to_string(host.join("log")).unwrap();
    assert_eq!(starts.lines().count(), 8, "each has started once");
    let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    node.delete(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let roots = fs::read_dir(dir.path().join("images/roots")).unwrap().count();
    assert_eq!(roots, 0);
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_or_is_deleted_while_no_runtime_is_there_is_noticed() {
    let dir = with_image().await;
    let mut node = Node::new(dir.path());
    node.start();
    let host = dir.path().join("host");
    fs::create_dir(&host).unwrap();
    let mut container = sh("a", "while ! [ -f /h/end ]; do sleep 0.02; done; exit 7");
    container["volumeMounts"] = json!([{"name": "h", "mountPath": "/h"}]);
    let volumes = json!([{"name": "h", "hostPath": {"path": host}}]);
    node.apply("ends", json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes}));
    node.apply("gone", json!({"terminationGracePeriodSeconds": 0, "containers": [sh("a", "exec sleep 1000")]}));
    node.wait("ends", ready);
    node.wait("gone", ready);
    node.kill();
    fs::write(host.join("end"), "").unwrap();
    node.start();
    let status = node.wait("ends", |s| s.phase == Phase::Failed);
    assert_eq!(status.container_statuses[0].state.terminated.as_ref().map(|t| t.exit_code), Some(7));
    // Deleted, and killed before anything could be done about it.
    node.ask(json!({"delete": "gone"}));
    node.kill();
    node.start();
    node.delete(&["ends"]);
    node.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_after_a_reboot() {
    let dir = with_image().await;
    let mut node = Node::new(dir.path());
    node.start();
    let mut init = sh("init", "echo i >> /v/log");
    let mut main = sh("main", "cat /v/log; exec sleep 1000");
    for c in [&mut init, &mut main] {
        c["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    }
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    let spec =
        json!({"terminationGracePeriodSeconds": 0, "initContainers": [init], "containers": [main], "volumes": volumes});
    node.apply("web", spec);
    node.apply("done", json!({"restartPolicy": "Never", "containers": [sh("a", "exit 0")]}));
    let before = node.wait("web", ready);
    node.wait("done", |s| s.phase == Phase::Succeeded);
    for count in 1..3 {
        node.kill();
        node.reboot();
        node.start();
        let after = node.wait("web", |s| ready(s) && s.container_statuses[0].restart_count == count);
        assert_ne!(after.container_statuses[0].container_id, before.container_statuses[0].container_id);
        let last = after.container_statuses[0].last_state.terminated.clone().unwrap();
        assert_eq!(last.reason, "ContainerStatusUnknown");
        assert_eq!(after.init_container_statuses[0].restart_count, count);
    }
    assert_eq!(node.status("done").phase, Phase::Succeeded);
    assert_eq!(node.status("done").container_statuses[0].restart_count, 0);
    node.delete(&["web", "done"]);
    node.stop();
}
