//! Probes of real containers: readiness, liveness and startup, by command, request and connection. Needs what `pods.rs` needs.

use std::time::Duration;

use edge_model::pod::PodStatus;
use edge_model::{Kind, pod::status::Phase};
use edge_tests::pod_node::process::{self, Node};
use edge_tests::pod_node::{Bench, sh, with_image};
use serde_json::{Value, json};

/// The other process of these tests.
#[test]
#[ignore = "run by the other tests as a process of its own"]
fn node_process() {
    process::main();
}

fn container(script: &str, probes: Value) -> Value {
    let mut container = sh("a", script);
    for (field, probe) in probes.as_object().unwrap() {
        container[field] = probe.clone();
    }
    container
}

/// A probe with this action, as often as can be asked for.
fn often(action: &str, of: Value, failures: u32) -> Value {
    json!({action: of, "periodSeconds": 1, "failureThreshold": failures})
}

fn pod(container: Value) -> Value {
    json!({"terminationGracePeriodSeconds": 1, "containers": [container]})
}

fn ready(s: &PodStatus) -> bool {
    s.container_statuses.first().is_some_and(|c| c.ready)
}

fn events(bench: &Bench) -> Vec<String> {
    let list = bench.store.list(Kind::Event, None).0;
    list.iter().map(|e| e.to_json()).map(|e| format!("{} {}", e["reason"], e["message"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_ready_when_its_probe_says_so() {
    let bench = Bench::new().await;
    let run = bench.start();
    let test = json!({"command": ["/bin/sh", "-c", "test -e /tmp/ready || { echo not yet; exit 7; }"]});
    let script = "while ! [ -e /tmp/go ]; do sleep 0.05; done; touch /tmp/ready; sleep 1000";
    let mut container = container(script, json!({"readinessProbe": often("exec", test, 1)}));
    container["volumeMounts"] = json!([{"name": "h", "mountPath": "/tmp"}]);
    let host = bench.dir.path().join("tmp");
    std::fs::create_dir(&host).unwrap();
    let mut spec = pod(container);
    spec["volumes"] = json!([{"name": "h", "hostPath": {"path": host}}]);
    bench.apply("ready", spec).await;
    let status = bench.wait("ready", |s| s.phase == Phase::Running).await;
    assert!(!ready(&status) && status.container_statuses[0].started);
    let condition = status.conditions.iter().find(|c| c.kind == "Ready").unwrap();
    assert_eq!(condition.reason, "ContainersNotReady");
    std::fs::write(host.join("go"), "").unwrap();
    bench.running("ready").await;
    let said = events(&bench).join("\n");
    assert!(said.contains("Readiness probe failed: the command ended with 7 not yet"), "{said}");
    std::fs::remove_file(host.join("ready")).unwrap();
    let status = bench.wait("ready", |s| !ready(s)).await;
    assert_eq!(status.container_statuses[0].restart_count, 0, "readiness restarts nothing");
    bench.delete("ready").await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_fails_its_liveness_probe_is_started_again() {
    let bench = Bench::new().await;
    let run = bench.start();
    // Its server goes, it goes on: nobody but the probe sees that. It ends with 0 when told to, which is no success here.
    let script = "trap 'exit 0' TERM; mkdir /www; echo ok > /www/index.html; httpd -f -p 8080 -h /www & sleep 2; \
                  rm /www/index.html; while true; do sleep 0.1; done";
    let http = json!({"path": "/index.html", "port": "web", "httpHeaders": [{"name": "X-Probe", "value": "1"}]});
    let mut container = container(script, json!({"livenessProbe": often("httpGet", http, 2)}));
    container["livenessProbe"]["initialDelaySeconds"] = json!(1);
    container["ports"] = json!([{"name": "web", "containerPort": 8080}]);
    let mut spec = pod(container);
    spec["restartPolicy"] = json!("OnFailure");
    bench.apply("live", spec).await;
    let status = bench.wait("live", |s| s.container_statuses.first().is_some_and(|c| c.restart_count > 0)).await;
    let end = status.container_statuses[0].last_state.terminated.clone().unwrap();
    assert_eq!(end.exit_code, 0);
    assert_eq!(status.phase, Phase::Running);
    let said = events(&bench).join("\n");
    assert!(said.contains("Liveness probe failed: the answer was 404"), "{said}");
    assert!(said.contains("failed its liveness probe 2 times"), "{said}");
    bench.delete("live").await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_start_is_protected_by_its_startup_probe() {
    let bench = Bench::new().await;
    let run = bench.start();
    let tcp = || json!({"port": 9000});
    let probes = json!({"startupProbe": often("tcpSocket", tcp(), 30), "livenessProbe": often("tcpSocket", tcp(), 1)});
    let slow = container("sleep 3; while true; do nc -l -p 9000 < /dev/null; done", probes.clone());
    bench.apply("slow", pod(slow)).await;
    let status = bench.wait("slow", |s| s.phase == Phase::Running).await;
    assert_eq!((ready(&status), status.container_statuses[0].started), (false, false));
    assert_eq!(bench.running("slow").await.container_statuses[0].restart_count, 0);
    // One that never starts is given up.
    let mut never = container("sleep 1000", probes);
    never["startupProbe"]["failureThreshold"] = json!(2);
    let mut spec = pod(never);
    spec["restartPolicy"] = json!("Never");
    bench.apply("never", spec).await;
    bench.wait("never", |s| s.phase == Phase::Failed).await;
    bench.delete("slow").await;
    bench.delete("never").await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_a_failure_and_holds_nothing_up() {
    let bench = Bench::new().await;
    let run = bench.start();
    let hang = json!({"command": ["/bin/sleep", "1000"]});
    let none = json!({"command": ["/no/such/program"]});
    for (name, exec, message) in [("hangs", hang, "took longer than 1 s"), ("none", none, "/no/such/program")] {
        bench.apply(name, pod(container("sleep 1000", json!({"livenessProbe": often("exec", exec, 1)})))).await;
        bench.wait(name, |s| s.container_statuses.first().is_some_and(|c| c.restart_count > 0)).await;
        let said = events(&bench).join("\n");
        assert!(said.contains(message), "{said}");
        bench.delete(name).await;
    }
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_probe_has_found_outlives_the_runtime() {
    let dir = with_image().await;
    let mut node = Node::new(dir.path());
    node.start();
    // It succeeds once: a runtime that begins anew would never find the container ready again.
    let once = json!({"command": ["/bin/sh", "-c", "mkdir /tmp/once"]});
    let probe = json!({"exec": once, "periodSeconds": 1, "failureThreshold": 1000});
    let spec = pod(container("sleep 1000", json!({"readinessProbe": probe})));
    node.apply("kept", spec);
    let before = node.wait("kept", ready);
    node.stop();
    node.start();
    std::thread::sleep(Duration::from_millis(500));
    let after = node.wait("kept", |s| s.phase == Phase::Running);
    assert!(ready(&after));
    assert_eq!(after.container_statuses[0].container_id, before.container_statuses[0].container_id);
    node.delete(&["kept"]);
    node.stop();
}
