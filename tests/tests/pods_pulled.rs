//! A pod by `apply` alone: its image comes from a private registry with the Secret it names, it speaks on the bus from a
//! network of its own, and serves on a port of the node.
//!
//! Needs root, docker-registry, skopeo, umoci, busybox-static and mosquitto-clients.

use std::fs;
use std::path::Path;

use edge_tests::daemon::Node;
use edge_tests::image::{busybox, text, tool, umoci};
use edge_tests::registry::{Guard, Registry};
use edge_tests::{http, mosquitto, ports, run};

/// `secret`, as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$8sMH85nm0T6NHvjkI7jifesfTV0kheLxVmBahu8FCtPjNSC4/gKQC\n";

/// Copies a program of this machine into an image, with every library it needs.
fn with_libraries(program: &str, root: &Path) {
    let list = tool("ldd", &[program]);
    let libraries = list.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let to = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder in the image");
        fs::copy(file, to).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
}

#[test]
fn a_pod_from_a_private_registry_speaks_on_the_bus_and_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry =
        Registry::start(&folder.path().join("registry"), &Guard { htpasswd: Some(HTPASSWD.into()), tls: None });
    let layout = umoci(
        folder.path(),
        &[&|root| {
            busybox(root);
            with_libraries("/usr/bin/mosquitto_pub", root);
        }],
    );
    let image = format!("{}/team/speaker:1", registry.host());
    let (from, to) = (format!("oci:{}:latest", text(&layout)), format!("docker://{image}"));
    tool("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", "user:secret", &from, &to]);

    let bridge = format!("ep{}", std::process::id());
    let mut node = Node::new().config(&format!(
        "[images]\ninsecure-registries = [{:?}]\n[engine]\nbridge = {bridge:?}\nsubnet = \"10.244.83.0/24\"\n",
        registry.host()
    ));
    node.start();
    let (bus, web) = (node.bus().port(), ports::free());
    let said = format!("mosquitto_pub -h host.edge.internal -p {bus} -q 1 -r -t from/pod -m hello");
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: speaker}}\nspec:\n  hostNetwork: false\n  \
         terminationGracePeriodSeconds: 0\n  imagePullSecrets: [{{name: team}}]\n  containers:\n    - name: speaker\n      \
         image: {image}\n      command: [/bin/sh, -c]\n      \
         args: ['until {said}; do /bin/busybox sleep 0.2; done; exec /bin/busybox httpd -f -p 80 -h /etc']\n      \
         env: [{{name: PATH, value: '/usr/bin:/bin'}}]\n      ports: [{{containerPort: 80, hostPort: {}}}]\n",
        web.number()
    ));
    let container = || node.json(&["get", "pod", "speaker"])["status"]["containerStatuses"][0].clone();
    node.until("the registry refuses strangers", || {
        let waiting = container()["state"]["waiting"].clone();
        (waiting["reason"] == "ImagePullBackOff").then_some(())
    });
    let config = format!(r#"{{"auths": {{"{}": {{"username": "user", "password": "secret"}}}}}}"#, registry.host());
    node.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: team}}\ntype: kubernetes.io/dockerconfigjson\n\
         stringData:\n  .dockerconfigjson: '{config}'\n"
    ));
    node.until("the pod runs", || (container()["ready"] == true).then_some(()));
    let heard = mosquitto::lines(mosquitto::subscribe(bus, &["-t", "from/pod", "-C", "1"]));
    assert_eq!(heard, ["hello"]);
    node.until("it serves on the node's port", || {
        let answer = http::tcp(web.address(), "/first").ok()?;
        (answer.status == 200 && answer.body.trim() == "1").then_some(())
    });
    // What is secret is in no status, event or log.
    for shown in
        [node.json(&["get", "pod", "speaker"]).to_string(), node.json(&["get", "events"]).to_string(), node.log()]
    {
        assert!(!shown.contains("\"password\"") && !shown.contains("dXNlcjpzZWNyZXQ="), "{shown}");
    }
    node.cli(&["delete", "pod", "speaker"]).ok();
    node.until("nothing listens any more", || http::tcp(web.address(), "/first").is_err().then_some(()));
    assert!(node.stop().success());
    run::run("ip", ["link", "del", &bridge], "");
}
