//! Tables: what is taken, what is refused, and which field the message names.

use serde_json::{Value, json};

use super::container::PullPolicy;
use super::status::{ContainerState, ContainerStatus, Terminated};
use super::*;

fn minimal() -> Value {
    json!({"containers": [{"name": "a", "image": "busybox:1"}]})
}

/// The minimal pod with one field set, by JSON pointer; intermediate mappings are made.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = minimal();
    let mut at = &mut spec;
    for part in pointer.trim_start_matches('/').split('/') {
        at = match part.parse::<usize>() {
            Ok(i) => {
                if !at.is_array() {
                    *at = json!([]);
                }
                let list = at.as_array_mut().unwrap();
                while list.len() <= i {
                    list.push(json!({}));
                }
                &mut list[i]
            }
            Err(_) => {
                if at.is_null() {
                    *at = json!({});
                }
                &mut at[part]
            }
        };
    }
    *at = value;
    spec
}

#[test]
fn what_an_api_server_writes_out_is_taken() {
    let spec = json!({
        "containers": [{
            "name": "a", "image": "busybox", "imagePullPolicy": "Always", "resources": {}, "env": null,
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "securityContext": {"privileged": false, "allowPrivilegeEscalation": false, "procMount": "Default"},
            "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}],
        }],
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "priority": 0,
        "serviceAccountName": "default", "serviceAccount": "default", "automountServiceAccountToken": false,
        "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority", "securityContext": {},
        "terminationGracePeriodSeconds": 30, "nodeName": "gw",
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
    });
    let spec = check(&spec).unwrap();
    assert_eq!(spec.grace(), 30);
    assert_eq!(check(&serde_json::to_value(&spec).unwrap()), Ok(spec), "what is printed reads back");
}

#[test]
fn errors_name_the_field() {
    let c = "/containers/0";
    let cases = [
        ("/restartPolicy", json!("Sometimes"), "spec.restartPolicy", "OnFailure"),
        ("/restartpolicy", json!("Always"), "spec.restartpolicy", "unknown field"),
        ("/nodeSelector", json!({"a": "b"}), "spec.nodeSelector", "unknown field"),
        ("/containers", json!([]), "spec.containers", "at least one"),
        ("/hostPID", json!(true), "spec.hostPID", "only false"),
        ("/dnsPolicy", json!("None"), "spec.dnsPolicy", "Default or ClusterFirst"),
        ("/terminationGracePeriodSeconds", json!(-1), "spec.terminationGracePeriodSeconds", "invalid value"),
        ("/terminationGracePeriodSeconds", json!(3601), "spec.terminationGracePeriodSeconds", "0 to 3600"),
        ("/hostname", json!("A.b"), "spec.hostname", "lower-case"),
        ("/volumes", json!([{"name": "v"}]), "spec.volumes[0]", "exactly one"),
        (
            "/volumes",
            json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            "spec.volumes[0]",
            "exactly one",
        ),
        ("/volumes", json!([{"name": "v", "hostPath": {"path": "a"}}]), "spec.volumes[0].hostPath.path", "absolute"),
        (
            "/volumes",
            json!([{"name": "v", "hostPath": {"path": "/a/../b"}}]),
            "spec.volumes[0].hostPath.path",
            "absolute",
        ),
        ("/volumes", json!([{"name": "v", "nfs": {}}]), "spec.volumes[0].nfs", "unknown field"),
        (
            "/volumes",
            json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]),
            "spec.volumes[1].name",
            "twice",
        ),
        (
            "/volumes",
            json!([{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "../x"}]}}]),
            "spec.volumes[0].configMap.items[0].path",
            "relative",
        ),
        (
            "/volumes",
            json!([{"name": "v", "secret": {"secretName": "s", "defaultMode": 1000}}]),
            "spec.volumes[0].secret.defaultMode",
            "0 to 511",
        ),
        ("/containers/1", json!({"name": "a", "image": "b"}), "spec.containers[1].name", "twice"),
        ("/initContainers", json!([{"name": "a", "image": "b"}]), "spec.containers[0].name", "twice"),
        ("/imagePullSecrets", json!([{"name": "A"}]), "spec.imagePullSecrets[0].name", "not a name"),
        (&format!("{c}/name"), json!("A"), "spec.containers[0].name", "lower-case"),
        (&format!("{c}/image"), json!(""), "spec.containers[0].image", "image reference"),
        (&format!("{c}/livenessProbes"), json!({}), "spec.containers[0].livenessProbes", "unknown field"),
        (&format!("{c}/livenessProbe"), json!({}), "spec.containers[0].livenessProbe", "exactly one of exec"),
        (
            &format!("{c}/livenessProbe"),
            json!({"grpc": {"port": 1}}),
            "spec.containers[0].livenessProbe.grpc",
            "unknown field",
        ),
        (
            &format!("{c}/livenessProbe"),
            json!({"tcpSocket": {"port": 1}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold",
            "1 to 1",
        ),
        (
            &format!("{c}/readinessProbe"),
            json!({"tcpSocket": {"port": 70000}}),
            "spec.containers[0].readinessProbe.tcpSocket.port",
            "1 to 65535",
        ),
        (
            &format!("{c}/readinessProbe"),
            json!({"httpGet": {"port": "web"}}),
            "spec.containers[0].readinessProbe.httpGet.port",
            "not a port of this container",
        ),
        (
            &format!("{c}/startupProbe"),
            json!({"httpGet": {"port": 80, "scheme": "HTTPS"}}),
            "spec.containers[0].startupProbe.httpGet.scheme",
            "only HTTP",
        ),
        (
            &format!("{c}/readinessProbe"),
            json!({"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 5}),
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds",
            "ends nothing",
        ),
        (
            "/initContainers",
            json!([{"name": "i", "image": "b", "livenessProbe": {"tcpSocket": {"port": 1}}}]),
            "spec.initContainers[0].livenessProbe",
            "init containers",
        ),
        (&format!("{c}/command"), json!("sh"), "spec.containers[0].command", "sequence"),
        (&format!("{c}/tty"), json!(true), "spec.containers[0].tty", "only false"),
        (&format!("{c}/workingDir"), json!("a"), "spec.containers[0].workingDir", "absolute"),
        (&format!("{c}/env"), json!([{"name": "A=B", "value": ""}]), "spec.containers[0].env[0].name", "'='"),
        (&format!("{c}/env"), json!([{"name": "A", "value": 1}]), "spec.containers[0].env[0].value", "string"),
        (
            &format!("{c}/env"),
            json!([{"name": "A", "valueFrom": {}}]),
            "spec.containers[0].env[0].valueFrom",
            "exactly one",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
            "metadata.name",
        ),
        (&format!("{c}/envFrom"), json!([{}]), "spec.containers[0].envFrom[0]", "exactly one"),
        (
            &format!("{c}/resources"),
            json!({"limits": {"memory": "64MB"}}),
            "spec.containers[0].resources.limits.memory",
            "64Mi",
        ),
        (
            &format!("{c}/resources"),
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            "spec.containers[0].resources.requests.cpu",
            "more than the limit",
        ),
        (
            &format!("{c}/resources"),
            json!({"limits": {"nvidia.com/gpu": 1}}),
            "spec.containers[0].resources.limits.nvidia.com/gpu",
            "unknown field",
        ),
        (
            &format!("{c}/volumeMounts"),
            json!([{"name": "v", "mountPath": "/v"}]),
            "spec.containers[0].volumeMounts[0].name",
            "not a volume",
        ),
        (
            &format!("{c}/securityContext"),
            json!({"allowPrivilegeEscalation": true}),
            "spec.containers[0].securityContext.allowPrivilegeEscalation",
            "no-new-privileges",
        ),
        (
            &format!("{c}/securityContext"),
            json!({"capabilities": {"add": ["CAP_NET_RAW"]}}),
            "spec.containers[0].securityContext.capabilities.add[0]",
            "without CAP_",
        ),
        (
            &format!("{c}/securityContext"),
            json!({"seccompProfile": {"type": "Localhost"}}),
            "spec.containers[0].securityContext.seccompProfile.type",
            "RuntimeDefault",
        ),
        (&format!("{c}/ports"), json!([{"hostPort": 1}]), "spec.containers[0].ports[0].containerPort", "1 to 65535"),
        (
            &format!("{c}/ports"),
            json!([{"containerPort": 1, "hostPort": 2}, {"containerPort": 3, "hostPort": 2}]),
            "spec.containers[0].ports[1].hostPort",
            "twice",
        ),
        (&format!("{c}/ports"), json!([{"containerPort": 70000}]), "spec.containers[0].ports[0].containerPort", "u16"),
    ];
    for (pointer, value, path, message) in cases {
        let error = check(&with(pointer, value.clone())).expect_err(&format!("{pointer} {value}"));
        assert_eq!(error.path, path, "{pointer} {value}: {error}");
        assert!(error.message.contains(message), "{pointer} {value}: {error}");
    }
    assert_eq!(check(&Value::Null).unwrap_err().path, "spec");
}

#[test]
fn mounts_lead_to_volumes() {
    let mut spec = with("/volumes", json!([{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]));
    spec["containers"][0]["volumeMounts"] =
        json!([{"name": "v", "mountPath": "/v", "subPath": "a/b", "readOnly": true}]);
    assert!(check(&spec).is_ok());
    for (field, value) in [
        ("mountPath", "/"),
        ("mountPath", "/a:b"),
        ("subPath", "/a"),
        ("subPath", "../a"),
        ("mountPropagation", "Bidirectional"),
    ] {
        let mut bad = spec.clone();
        bad["containers"][0]["volumeMounts"][0][field] = json!(value);
        assert_eq!(check(&bad).unwrap_err().path, format!("spec.containers[0].volumeMounts[0].{field}"), "{value}");
    }
    spec["containers"][0]["volumeMounts"] =
        json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v/"}]);
    assert_eq!(check(&spec).unwrap_err().path, "spec.containers[0].volumeMounts[1].mountPath");
}

#[test]
fn the_pull_policy_follows_the_tag() {
    let cases = [
        ("busybox", PullPolicy::Always),
        ("busybox:latest", PullPolicy::Always),
        ("busybox:1", PullPolicy::IfNotPresent),
        ("localhost:5000/busybox", PullPolicy::Always),
        ("localhost:5000/busybox:1", PullPolicy::IfNotPresent),
        ("busybox@sha256:00", PullPolicy::IfNotPresent),
        ("busybox:latest@sha256:00", PullPolicy::IfNotPresent),
    ];
    for (image, expected) in cases {
        assert_eq!(Container { image: image.into(), ..Container::default() }.pull_policy(), expected, "{image}");
    }
    let container = Container { image_pull_policy: Some(PullPolicy::Never), ..Container::default() };
    assert_eq!(container.pull_policy(), PullPolicy::Never);
}

#[test]
fn status_has_the_field_names_of_kubernetes() {
    let end = Terminated { exit_code: 137, signal: 9, reason: "OOMKilled".into(), ..Terminated::default() };
    let status = PodStatus {
        pod_ip: "10.88.0.2".into(),
        container_statuses: vec![ContainerStatus {
            name: "a".into(),
            state: ContainerState::waiting("CrashLoopBackOff", "back-off 10s"),
            last_state: ContainerState::terminated(end),
            image_id: "sha256:1".into(),
            container_id: "edge://1".into(),
            ..ContainerStatus::default()
        }],
        ..PodStatus::default()
    };
    let value = serde_json::to_value(&status).unwrap();
    assert_eq!(value["phase"], "Pending");
    assert_eq!(value["podIP"], "10.88.0.2");
    let container = &value["containerStatuses"][0];
    assert_eq!(container["state"], json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}));
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!((&container["imageID"], &container["containerID"]), (&json!("sha256:1"), &json!("edge://1")));
    assert_eq!(serde_json::from_value::<PodStatus>(value).unwrap(), status);
}
