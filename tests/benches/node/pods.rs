//! From "apply" to "running" with a local image, beside engines that do the same from the command line.
//!
//! Ours is measured from the request to the API until the Pod's phase is Running; theirs until `run --detach` returns,
//! which is when the process has been started. All share the machine's network, so that nobody sets one up.

use std::process::Command;
use std::time::{Duration, Instant};

use edge_tests::daemon::Node;
use edge_tests::run::{Output, finish, run as run_program};
use edge_tests::wait::DEADLINE;
use serde_json::{Value, json};

use crate::image::{Image, NAME};
use crate::table::{Table, millis};

/// How often a pod's phase is asked for.
const STEP: Duration = Duration::from_millis(1);

/// Measures `runs` starts of each engine in turn.
pub fn run(runs: usize) {
    let image = Image::make();
    let mut node = Node::new();
    node.start();
    node.cli(&["image", "import", &image.archive().to_string_lossy()]).ok();
    run_program("podman", ["pull", "--quiet", &format!("oci-archive:{}", image.archive().display())], "").ok();
    for engine in ["crun", "runc"] {
        bundle(&image, engine);
    }
    let (mut host, mut isolated) = (Vec::new(), Vec::new());
    let (mut podman, mut runc, mut crun) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..runs {
        host.push(ours(&node, &format!("host-{round}"), true));
        isolated.push(ours(&node, &format!("isolated-{round}"), false));
        podman.push(podman_run(&image, round));
        runc.push(bundle_run(&image, "runc", round));
        crun.push(bundle_run(&image, "crun", round));
    }
    let mut table = Table::new("Pod from apply to running, image local", &["what", "ms, median (95 %)"]);
    table.row(&["edge-runtime, host network", &millis(&mut host)]);
    table.row(&["edge-runtime, network of its own", &millis(&mut isolated)]);
    table.row(&["podman run --network host", &millis(&mut podman)]);
    table.row(&["runc run, bundle prepared", &millis(&mut runc)]);
    table.row(&["crun run, bundle prepared", &millis(&mut crun)]);
    table.print();
    run_program("podman", ["rmi", "--force", NAME], "").ok();
}

fn ours(node: &Node, name: &str, host: bool) -> Duration {
    let start = Instant::now();
    start_pod(node, name, host);
    wait_running(node, name);
    let elapsed = start.elapsed();
    node.cli(&["delete", "pod", name]).ok();
    elapsed
}

/// Asks the API for a pod that sleeps.
pub fn start_pod(node: &Node, name: &str, host_network: bool) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "hostNetwork": host_network,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": NAME, "imagePullPolicy": "Never"}],
        },
    });
    let answer = node.api("POST", "/api/v1/namespaces/default/pods", &pod.to_string());
    assert!(answer.status < 300, "{}", answer.body);
}

/// Waits until a pod's phase is Running.
pub fn wait_running(node: &Node, name: &str) {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    let start = Instant::now();
    loop {
        let answer = node.api("GET", &path, "");
        let pod: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if pod["status"]["phase"] == "Running" {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{name} does not run: {}\n{}", answer.body, node.log());
        std::thread::sleep(STEP);
    }
}

fn podman_run(image: &Image, round: usize) -> Duration {
    let name = format!("edge-bench-{}-{round}", std::process::id());
    // podman asks for more open files and processes than a machine may allow; this many are enough to sleep.
    let line = format!(
        "podman --cgroup-manager cgroupfs --runtime runc run --detach --pull never --network host \
         --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --name {name} {NAME}"
    );
    let elapsed = timed(Command::new("sh").args(["-c", &aside(image, "podman", &line)]));
    run_program("podman", ["rm", "--force", "--time", "0", &name], "").ok();
    elapsed
}

/// A shell script of one command whose output goes to a file, and is shown if it fails: what an engine leaves running keeps
/// its output open.
fn aside(image: &Image, engine: &str, line: &str) -> String {
    let log = image.path(&format!("{engine}.log"));
    format!("{line} >'{log}' 2>&1 </dev/null || {{ cat '{log}'; exit 1; }}", log = log.display())
}

fn timed(command: &mut Command) -> Duration {
    let start = Instant::now();
    finish(command, "", DEADLINE).ok();
    start.elapsed()
}

/// A bundle as an engine's own `spec` makes it, with the image's command and without a terminal.
fn bundle(image: &Image, engine: &str) {
    let folder = image.path(engine);
    std::fs::create_dir_all(&folder).expect("a folder");
    finish(Command::new(engine).arg("spec").current_dir(&folder), "", DEADLINE).ok();
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).expect("the engine wrote a config");
    let mut config: Value = serde_json::from_str(&text).expect("a config is JSON");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/sleep", "100000"]);
    config["root"]["path"] = json!(image.rootfs());
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network" && namespace["type"] != "cgroup");
    }
    std::fs::write(path, config.to_string()).expect("the config can be written");
}

fn bundle_run(image: &Image, engine: &str, round: usize) -> Duration {
    let name = format!("edge-bench-{engine}-{}-{round}", std::process::id());
    let line = format!("{engine} run --detach --bundle '{}' {name}", image.path(engine).display());
    let elapsed = timed(&mut private_mounts(&aside(image, engine, &line)));
    let gone: Output = finish(&mut private_mounts(&format!("exec {engine} delete --force {name}")), "", DEADLINE);
    gone.ok();
    elapsed
}

/// crun 1.8 refuses a hybrid hierarchy: the unified part is hidden from it, and from runc as well to be fair.
fn private_mounts(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("umount /sys/fs/cgroup/unified 2>/dev/null; {script}")]);
    command
}
