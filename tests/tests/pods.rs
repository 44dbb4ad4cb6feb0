//! Pods from the store to running containers and back, with the real engine, real images and real namespaces. Needs root and
//! Debian's `busybox-static` and `umoci`; fails loudly without.

use std::fs;

use edge_model::pod::status::Phase;
use edge_model::{Kind, Object};
use edge_tests::pod_node::{Bench, sh, until};
use serde_json::{Value, json};

/// A pod that runs a script to its end; gives its log.
async fn output(bench: &Bench, name: &str, container: Value, more: Value) -> String {
    let mut spec = json!({"restartPolicy": "Never", "containers": [container]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    bench.apply(name, spec).await;
    bench.wait(name, |s| matches!(s.phase, Phase::Succeeded | Phase::Failed)).await;
    bench.logs(name, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_to_its_end_and_leaves_nothing() {
    let bench = Bench::new().await;
    let run = bench.start();
    bench.apply("once", json!({"restartPolicy": "Never", "containers": [sh("a", "echo hello; exit 3")]})).await;
    let status = bench.wait("once", |s| s.phase == Phase::Failed).await;
    let end = status.container_statuses[0].state.terminated.clone().unwrap();
    assert_eq!((end.exit_code, end.reason.as_str()), (3, "Error"));
    assert!(status.container_statuses[0].image_id.starts_with("sha256:"));
    assert_eq!(bench.logs("once", None).await, "hello\n");
    bench.delete("once").await;
    assert!(run.ctx.images.prepared().await.unwrap().is_empty());
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_as_its_spec_says() {
    let bench = Bench::new().await;
    let run = bench.start();
    let map = Object {
        fields: json!({"data": {"k": "from-map"}}).as_object().cloned().unwrap(),
        ..Object::new(Kind::ConfigMap, "", "m", json!({}))
    };
    bench.store.apply(map).await.unwrap();
    let secret = Object {
        fields: json!({"stringData": {"p": "geheim"}}).as_object().cloned().unwrap(),
        ..Object::new(Kind::Secret, "", "s", json!({}))
    };
    bench.store.apply(secret).await.unwrap();
    let container = json!({
        "name": "a", "image": "busybox:1", "command": ["/bin/sh", "-c"],
        "args": ["pwd; echo $A $B $C $D $E; id -u; id -g; hostname; cat /etc/hostname; echo $(A)"],
        "workingDir": "/tmp",
        "env": [
            {"name": "A", "value": "one"}, {"name": "B", "value": "$(A)-two"},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
            {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "securityContext": {"runAsUser": 1234, "runAsGroup": 4321},
    });
    let text = output(&bench, "spec", container, json!({})).await;
    assert_eq!(text, "/tmp\none one-two from-map geheim gw\n1234\n4321\nspec\nspec\none\n");
    let mount = "(echo x > /file) 2>/dev/null && echo written || echo refused";
    let mut read_only = sh("a", mount);
    read_only["securityContext"] = json!({"readOnlyRootFilesystem": true});
    assert_eq!(output(&bench, "readonly", read_only, json!({})).await, "refused\n");
    assert_eq!(output(&bench, "writable", sh("a", mount), json!({})).await, "written\n");
    let limits = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";
    let mut limited = sh("a", limits);
    limited["resources"] = json!({"limits": {"memory": "32Mi", "cpu": "500m"}});
    assert!(output(&bench, "limited", limited, json!({})).await.contains("33554432"));
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_mounted_and_follow_their_objects() {
    let bench = Bench::new().await;
    let run = bench.start();
    let host = bench.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("f"), "host").unwrap();
    let mut writer = sh("writer", "echo shared > /empty/f; echo memory > /memory/f; sleep 1000");
    writer["volumeMounts"] = json!([{"name": "e", "mountPath": "/empty"}, {"name": "m", "mountPath": "/memory"}]);
    let script = "while ! [ -f /e/f ] || ! [ -f /m/f ]; do sleep 0.05; done; cat /e/f /m/f /h/f /s/p /sub; \
                  (echo x > /h/f) 2>/dev/null || echo refused; \
                  while [ \"$(cat /c/k)\" != new ]; do sleep 0.05; done; echo followed; sleep 1000";
    let mut reader = sh("reader", script);
    reader["volumeMounts"] = json!([
        {"name": "e", "mountPath": "/e"}, {"name": "m", "mountPath": "/m"}, {"name": "c", "mountPath": "/c"},
        {"name": "s", "mountPath": "/s"}, {"name": "h", "mountPath": "/h", "readOnly": true},
        {"name": "c", "mountPath": "/sub", "subPath": "k"},
    ]);
    let volumes = json!([
        {"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "h", "hostPath": {"path": host, "type": "Directory"}},
        {"name": "c", "configMap": {"name": "m"}}, {"name": "s", "secret": {"secretName": "s"}},
    ]);
    bench
        .apply(
            "volumes",
            json!({"terminationGracePeriodSeconds": 0, "containers": [writer, reader], "volumes": volumes}),
        )
        .await;
    // Not before its objects are there.
    bench.wait("volumes", |s| s.conditions.iter().any(|c| c.message.contains("configmap \"m\" not found"))).await;
    let map = |v: &str| Object {
        fields: json!({"data": {"k": v}}).as_object().cloned().unwrap(),
        ..Object::new(Kind::ConfigMap, "", "m", json!({}))
    };
    let secret = Object {
        fields: json!({"stringData": {"p": "geheim\n"}}).as_object().cloned().unwrap(),
        ..Object::new(Kind::Secret, "", "s", json!({}))
    };
    bench.store.apply(secret).await.unwrap();
    bench.store.apply(map("old\n")).await.unwrap();
    bench.running("volumes").await;
    let log = async |text: &str| {
        let deadline = tokio::time::Instant::now() + edge_tests::pod_node::PATIENCE;
        loop {
            let log = bench.logs("volumes", Some("reader")).await;
            if log == text {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{log:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let first = "shared\nmemory\nhostgeheim\nold\nrefused\n";
    log(first).await;
    bench.store.apply(map("new")).await.unwrap();
    log(&format!("{first}followed\n")).await;
    bench.delete("volumes").await;
    assert_eq!(fs::read_to_string(host.join("f")).unwrap(), "host", "what belongs to the node stays");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_come_first_and_crashes_back_off() {
    let bench = Bench::new().await;
    let run = bench.start();
    let mounted = |mut c: Value| {
        c["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        c
    };
    let init = |n: &str, before: &str| {
        mounted(sh(n, &format!("[ \"$(cat /v/log 2>/dev/null)\" = '{before}' ] || exit 1; echo -n {n} >> /v/log")))
    };
    let spec = json!({
        "initContainers": [init("x", ""), init("y", "x")],
        "containers": [mounted(sh("main", "cat /v/log; exit 1"))],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    bench.apply("looping", spec).await;
    let waits = |s: &edge_model::pod::PodStatus| {
        s.container_statuses[0].state.waiting.as_ref().is_some_and(|w| w.reason == "CrashLoopBackOff")
    };
    let status = bench.wait("looping", |s| s.container_statuses.first().is_some_and(|_| waits(s))).await;
    // The first restart is immediate, the second waits.
    assert_eq!((status.phase, status.container_statuses[0].restart_count), (Phase::Running, 1));
    assert_eq!(status.container_statuses[0].last_state.terminated.as_ref().map(|t| t.exit_code), Some(1));
    assert!(status.init_container_statuses.iter().all(|c| c.ready && c.restart_count == 0));
    assert_eq!(bench.logs("looping", Some("main")).await, "xy\n");
    bench.delete("looping").await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let bench = Bench::new().await;
    let run = bench.start();
    let reason = |s: &edge_model::pod::PodStatus| {
        let state = s.container_statuses.first().map(|c| c.state.clone()).unwrap_or_default();
        state.waiting.map(|w| w.reason).or(state.terminated.map(|t| t.reason)).unwrap_or_default()
    };
    let never = json!({"name": "a", "image": "none:1", "imagePullPolicy": "Never"});
    let no_program = json!({"name": "a", "image": "busybox:1", "command": ["/none"]});
    let privileged = json!({"name": "a", "image": "busybox:1", "securityContext": {"privileged": true}});
    let no_map = json!({"name": "a", "image": "busybox:1", "envFrom": [{"configMapRef": {"name": "none"}}]});
    let cases = [
        ("never", never, "ErrImageNeverPull"),
        ("program", no_program, "StartError"),
        ("privileged", privileged, "CreateContainerConfigError"),
        ("map", no_map, "CreateContainerConfigError"),
    ];
    for (name, container, expected) in cases {
        bench.apply(name, json!({"restartPolicy": "Never", "containers": [container]})).await;
        bench.wait(name, |s| reason(s) == expected).await;
    }
    assert_eq!(bench.status("program").unwrap().phase, Phase::Failed);
    let map = Object {
        fields: json!({"data": {}}).as_object().cloned().unwrap(),
        ..Object::new(Kind::ConfigMap, "", "none", json!({}))
    };
    bench.store.apply(map).await.unwrap();
    bench.wait("map", |s| s.phase == Phase::Succeeded).await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_has_its_grace() {
    let bench = Bench::new().await;
    let run = bench.start();
    let host = bench.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    let mut polite =
        sh("polite", "trap 'echo bye > /h/bye; exit 0' TERM; echo up > /h/polite; while :; do sleep 0.05; done");
    polite["volumeMounts"] = json!([{"name": "h", "mountPath": "/h"}]);
    let volumes = json!([{"name": "h", "hostPath": {"path": host}}]);
    bench.apply("polite", json!({"containers": [polite], "volumes": volumes})).await;
    until(|| host.join("polite").exists(), || "the trap is not set".into()).await;
    bench.delete("polite").await;
    assert_eq!(fs::read_to_string(host.join("bye")).unwrap(), "bye\n");
    let stubborn = sh("stubborn", "trap '' TERM; while :; do sleep 1000; done");
    bench.apply("stubborn", json!({"terminationGracePeriodSeconds": 1, "containers": [stubborn]})).await;
    bench.running("stubborn").await;
    bench.delete("stubborn").await;
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_spec_replaces_what_it_concerns() {
    let bench = Bench::new().await;
    let run = bench.start();
    let spec = |text: &str| json!({"terminationGracePeriodSeconds": 0, "containers": [sh("a", &format!("echo {text}; sleep 1000")), sh("b", "sleep 1000")]});
    bench.apply("web", spec("one")).await;
    let before = bench.running("web").await;
    bench.apply("web", spec("two")).await;
    let id = |s: &edge_model::pod::PodStatus, n: usize| s.container_statuses[n].container_id.clone();
    let after = bench.wait("web", |s| s.container_statuses.iter().all(|c| c.ready) && id(s, 0) != id(&before, 0)).await;
    assert_eq!(id(&after, 1), id(&before, 1));
    assert_eq!((after.container_statuses[0].restart_count, after.container_statuses[1].restart_count), (1, 0));
    assert_eq!(after.container_statuses[0].last_state.terminated.as_ref().map(|t| t.exit_code), Some(137));
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_its_own_network_and_its_ports_are_reached() {
    use std::io::{Read, Write};
    let bench = Bench::new().await;
    let run = bench.start();
    let port = edge_tests::ports::free();
    let mut web = sh("web", "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www");
    web["ports"] = json!([{"containerPort": 80, "hostPort": port.number()}]);
    let beside = sh("beside", "until wget -q -O - http://127.0.0.1/ 2>/dev/null; do sleep 0.1; done; exec sleep 1000");
    bench.apply("web", json!({"terminationGracePeriodSeconds": 0, "containers": [web, beside]})).await;
    let status = bench.running("web").await;
    assert!(run.ctx.settings.network.subnet.has(status.pod_ip.parse().unwrap()), "{}", status.pod_ip);
    let ask = |address: String| {
        let mut text = String::new();
        let stream = std::net::TcpStream::connect(address);
        let mut stream = stream?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read_to_string(&mut text)?;
        Ok::<String, std::io::Error>(text)
    };
    // From the node: by the pod's address, by the host port on loopback.
    for address in [format!("{}:80", status.pod_ip), format!("127.0.0.1:{}", port.number())] {
        until(
            || ask(address.clone()).is_ok_and(|t| t.ends_with("\r\n\r\nserved\n")),
            || format!("{address} does not answer"),
        )
        .await;
    }
    // From another container of the pod, on the loopback they share.
    let log = async |name: &str| bench.logs("web", Some(name)).await;
    let deadline = tokio::time::Instant::now() + edge_tests::pod_node::PATIENCE;
    while log("beside").await != "served\n" {
        assert!(tokio::time::Instant::now() < deadline, "{}", log("beside").await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // The pod sees nothing of the node: its own two interfaces, and not what listens on the node's loopback.
    let hidden = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = hidden.local_addr().unwrap().port();
    std::thread::spawn(move || hidden.incoming().for_each(drop));
    let probe = sh(
        "a",
        &format!(
            "nc -w 2 127.0.0.1 {number} </dev/null 2>/dev/null && echo reached; nc -w 2 host.edge.internal {number} </dev/null 2>/dev/null && echo reached; true"
        ),
    );
    assert_eq!(output(&bench, "probe", probe, json!({})).await.matches("reached").count(), 0);
    // On the node's own network it is another matter.
    let host = sh("a", &format!("nc -w 2 127.0.0.1 {number} </dev/null 2>/dev/null && echo reached; hostname"));
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(output(&bench, "host", host, json!({"hostNetwork": true})).await, format!("reached\n{name}"));
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_and_a_full_volume_end_a_pod() {
    let bench = Bench::new().await;
    let run = bench.start();
    let sleeper = json!([sh("a", "exec sleep 1000")]);
    let late = json!({"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 0, "containers": sleeper});
    bench.apply("late", late).await;
    let status =
        bench.wait("late", |s| s.phase == Phase::Failed && s.container_statuses[0].state.terminated.is_some()).await;
    assert_eq!(status.reason, "DeadlineExceeded");
    // Filled before the first measure.
    let mut init = sh("fill", "dd if=/dev/zero of=/v/f bs=1k count=200 2>/dev/null");
    let mut main = sh("a", "exec sleep 1000");
    for c in [&mut init, &mut main] {
        c["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    }
    let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "100Ki"}}]);
    let full =
        json!({"terminationGracePeriodSeconds": 0, "initContainers": [init], "containers": [main], "volumes": volumes});
    bench.apply("full", full).await;
    let status = bench.wait("full", |s| s.phase == Phase::Failed).await;
    assert_eq!(status.reason, "Evicted");
    run.stop().await;
}
