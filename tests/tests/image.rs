//! The promise: the image that `cargo xtask image` makes boots to a gateway that does its work – field, containers, cloud – and
//! loses nothing acknowledged when its power is cut, and an update of its executable is kept or taken back.
//!
//! The short form runs with all tests. The long form, on any board and with ten power cuts, is what
//! `cargo xtask image --board NAME --check` runs.
//!
//! Needs Debian's apt, QEMU (fetched if it is not installed), mosquitto, docker-registry, skopeo, umoci and root.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_tests::aarch64;
use edge_tests::image::{text, tool, umoci};
use edge_tests::load::Uploader;
use edge_tests::machine::{self, LISTEN, Machine, OUTSIDE, PATIENCE};
use edge_tests::mosquitto::{self, Mosquitto, Setup};
use edge_tests::pymodbus::Server;
use edge_tests::receiver::Receiver;
use edge_tests::registry::{Guard, Registry};
use edge_tests::updates::Maker;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Messages that may be on the way to the cloud at the same time.
const WINDOW: u64 = 16;
/// How often the power is cut in the short form.
const CUTS: u32 = 2;
/// How many messages are acknowledged in each life at least.
const MESSAGES: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_boots_to_a_gateway_and_survives_power_cuts() {
    check("qemu-arm64", CUTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "some minutes; cargo xtask image --board NAME --check"]
async fn the_image_of_a_board_survives_ten_power_cuts() {
    check(&std::env::var("EDGE_TESTS_BOARD").unwrap_or_else(|_| "qemu-arm64".to_owned()), 10).await;
}

async fn check(board: &str, cuts: u32) {
    let mut outside = Outside::start().await;
    let mut machine = Machine::make(board, &outside.etc());
    outside.push_image();

    // It comes up by what stands on its disk alone, and delivers what it reads. The firmware takes its time.
    if cuts > CUTS {
        machine.boot_from_disk();
        machine.until("the plant's temperature is in the cloud", || outside.temperature(21.5));
        machine.cut_power();
        outside.plant.poke(1, 3, 0, 216);
    }
    let first = if cuts > CUTS { 21.6 } else { 21.5 };
    machine.boot();
    machine.until("the plant's temperature is in the cloud", || outside.temperature(first));
    machine.open();
    machine.wait_ready();
    outside.plant.poke(1, 3, 0, 304);
    machine.until("the new temperature is in the cloud", || outside.temperature(30.4));
    let pod = outside.pod();
    outside.apply(&machine, &pod);
    outside.pod_tells(&machine);

    let uploader = Uploader::start(machine.bus(), "c0");
    let mut applied = Vec::new();
    for cut in 0..cuts {
        let reached = uploader.acknowledged() + MESSAGES;
        machine.until("messages are acknowledged", || (uploader.acknowledged() >= reached).then_some(()));
        let map = map(&format!("cut-{cut}"));
        assert_eq!(outside.apply(&machine, &map)["applied"], "created");
        applied.push(map);
        // Not at a moment of our choosing: somewhere in the half second after.
        tokio::time::sleep(Duration::from_millis(u64::from(cut * 337 % 500))).await;
        machine.cut_power();
        eprintln!("power cut {cut}: {} acknowledged", uploader.acknowledged());
        if cut % 4 == 3 {
            // And one in the midst of a start.
            machine.boot();
            tokio::time::sleep(Duration::from_millis(u64::from(2000 + cut * 300))).await;
            machine.cut_power();
        }
        outside.live_again(&mut machine);
    }
    outside.update_and_roll_back(&mut machine);

    let reached = uploader.acknowledged() + MESSAGES;
    machine.until("the client gets through again", || (uploader.acknowledged() >= reached).then_some(()));
    let acknowledged = uploader.stop().await;
    outside.everything_arrives(&machine, acknowledged);
    // Objects that the cloud was told are there, are there: applying the same again changes nothing.
    for map in applied {
        assert_eq!(outside.apply(&machine, &map)["applied"], "unchanged", "{map}");
    }
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"for": name}})
}

/// Everything around the gateway, and what is seen of it.
struct Outside {
    folder: TempDir,
    maker: Maker,
    cloud: Mosquitto,
    receiver: Receiver,
    registry: Registry,
    plant: Server,
    /// Where the pod calls, and what it has said.
    ear: u16,
    heard: Arc<Mutex<Vec<String>>>,
    asked: u32,
}

impl Outside {
    async fn start() -> Outside {
        let folder = tempfile::tempdir().expect("a folder");
        let maker = Maker::new(folder.path(), "maker");
        let cloud = Mosquitto::start(&Setup::default());
        let receiver = Receiver::start(cloud.port(), "edge/gw").await;
        let registry = Registry::start(&folder.path().join("registry"), &Guard::default());
        // Holding register 0 is a temperature in tenths.
        let plant = Server::start(json!([{"unit": 1, "holding": [[0, [215]]]}]));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ear = listener.local_addr().expect("its port").port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&heard);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut text = String::new();
                let _ = stream.set_read_timeout(Some(PATIENCE));
                if stream.read_to_string(&mut text).is_ok() && text.lines().count() == 3 {
                    said.lock().expect("lock").push(text);
                }
            }
        });
        Outside { folder, maker, cloud, receiver, registry, plant, ear, heard, asked: 0 }
    }

    fn registry_inside(&self) -> String {
        format!("{OUTSIDE}:{}", self.registry.port)
    }

    /// An image of busybox for the board's processor, into the registry.
    fn push_image(&self) {
        let layout = umoci(
            self.folder.path(),
            &[&|root: &Path| {
                std::fs::create_dir_all(root.join("bin")).expect("bin");
                std::fs::copy(machine::busybox(), root.join("bin/busybox")).expect("busybox");
                std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("a link");
            }],
        );
        let image = format!("{}:latest", text(&layout));
        tool("umoci", &["config", "--image", &image, "--architecture", "arm64"]);
        let (from, to) = (format!("oci:{image}"), format!("docker://{}/busybox:1", self.registry.host()));
        tool("skopeo", &["--override-arch", "arm64", "copy", "--quiet", "--dest-tls-verify=false", &from, &to]);
    }

    /// The gateway's configuration and its device.
    fn etc(&self) -> Vec<(&'static str, String)> {
        let config = format!(
            "[node]\nname = \"gw\"\n[cloud]\naddress = \"mqtt://{OUTSIDE}:{}\"\nwindow = {WINDOW}\n\
             [images]\ninsecure-registries = [{:?}]\n\
             [update]\n{}health-seconds = 2\ndeadline-seconds = 60\ntries = 2\n{LISTEN}",
            self.cloud.port(),
            self.registry_inside(),
            self.maker.trusted()
        );
        let device = format!(
            "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {{name: plant}}\nspec:\n  protocol: modbus\n  \
             properties:\n    - {{name: temperature, type: FLOAT, accessMode: ReadOnly}}\n---\n\
             apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: plant}}\nspec:\n  \
             deviceModelRef: {{name: plant}}\n  protocol:\n    protocolName: modbus\n    \
             configData: {{communicateMode: TCP, ip: {OUTSIDE}, port: {}, slaveID: 1}}\n  properties:\n    - name: temperature\n      \
             collectCycle: 500\n      reportToCloud: true\n      visitors: {{protocolName: modbus, configData: {{register: \
             HoldingRegister, offset: 0, dataType: int16, scale: 0.1}}}}\n",
            self.plant.port
        );
        vec![("config.toml", config), ("manifests/plant.yaml", device)]
    }

    /// A pod whose image comes from the registry outside. Whenever it starts it calls outside, and tells in which cgroup, under
    /// which limit and in which life of the machine it runs.
    fn pod(&self) -> Value {
        let script = format!(
            "until (cd /proc/self; /bin/busybox head -n 1 cgroup; /bin/busybox cat /sys/fs/cgroup/memory.max \
             /proc/sys/kernel/random/boot_id) | /bin/busybox nc -w 10 {OUTSIDE} {}; do /bin/busybox sleep 1; done; \
             exec /bin/busybox sleep 100000",
            self.ear
        );
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "teller"},
            "spec": {"hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": format!("{}/busybox:1", self.registry_inside()), "command": ["/bin/sh", "-c", script],
                "resources": {"limits": {"memory": "32Mi"}},
            }]},
        })
    }

    /// What the pod has said in this life of the machine: that it runs on cgroup v2 alone, with its limit in force.
    fn pod_tells(&self, machine: &Machine) {
        let said = machine.until("the pod has called", || self.heard.lock().expect("lock").first().cloned());
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("0::/"), "not on cgroup v2 alone: {said:?}");
        assert_eq!(lines[1], (32 << 20).to_string(), "the limit is not in force: {said:?}");
    }

    /// Power is back. What the pod has said in an earlier life counts no more.
    fn live_again(&self, machine: &mut Machine) {
        self.heard.lock().expect("lock").clear();
        machine.boot();
        self.pod_tells(machine);
        machine.open();
        machine.wait_ready();
    }

    /// A new version is installed, proves itself and is there after a power cut; one that crashes is given up. The container
    /// notices neither.
    fn update_and_roll_back(&self, machine: &mut Machine) {
        let stripped = machine.folder().join("stripped");
        let strip = ["--strip-all", "-o", text(&stripped), text(aarch64::edge_runtime())];
        tool("aarch64-linux-gnu-strip", &strip);
        let good = self.maker.pack(&stripped, "9.0.0", &[]);
        let (well, said) = self.update(machine, &good);
        assert!(well && said.contains("9.0.0 is healthy and in use"), "{said}");
        assert_eq!(self.heard.lock().expect("lock").len(), 1, "the container was started again");
        machine.cut_power();
        self.live_again(machine);
        let running = |machine: &mut Machine| machine.shell("edge-runtime update status").1;
        let said = running(machine);
        assert!(said.contains("running: 9.0.0 from a"), "{said}");

        let (source, crashes) = (machine.folder().join("crashes.c"), machine.folder().join("crashes"));
        std::fs::write(&source, "int main(void) { return 3; }\n").expect("a source");
        tool("aarch64-linux-gnu-gcc", &["-static", "-o", text(&crashes), text(&source)]);
        let bad = self.maker.pack(&crashes, "9.1.0", &[]);
        let (well, said) = self.update(machine, &bad);
        assert!(!well && said.contains("9.1.0 was given up, 9.0.0 is in use again"), "{said}");
        let said = running(machine);
        assert!(said.contains("running: 9.0.0 from a"), "{said}");
        assert_eq!(self.heard.lock().expect("lock").len(), 1, "the container was started again");
    }

    /// Somebody at the console fetches an artefact and applies it.
    fn update(&self, machine: &mut Machine, artefact: &Path) -> (bool, String) {
        let bytes = std::fs::read(artefact).expect("the artefact");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its port").port();
        let sender = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the machine calls");
            stream.write_all(&bytes).expect("the machine listens");
        });
        let (well, said) = machine.shell(&format!("nc {OUTSIDE} {port} </dev/null >/tmp/update"));
        assert!(well, "{said}");
        sender.join().expect("it is sent");
        machine.shell("edge-runtime update apply /tmp/update")
    }

    /// Whether the plant's temperature has arrived.
    fn temperature(&self, wanted: f64) -> Option<()> {
        let all = self.receiver.all();
        let mut values = all.iter().map(|got| got.envelope["payload"].to_string());
        values.any(|text| text.contains(&format!(":{wanted}")) && text.contains("temperature")).then_some(())
    }

    /// Has the gateway apply an object, and waits for its answer.
    fn apply(&mut self, machine: &Machine, object: &Value) -> Value {
        self.asked += 1;
        let id = format!("a{}", self.asked);
        let command = json!({"id": id, "command": "apply", "object": object}).to_string();
        let said = mosquitto::publish(self.cloud.port(), &["-q", "1", "-t", "edge/gw/down/commands", "-m", &command]);
        assert!(said.status.success(), "{said:?}");
        let answer = machine.until("the command is answered", || {
            self.receiver.replies().into_iter().find(|reply| reply["id"] == id.as_str())
        });
        assert_eq!(answer["outcome"], "ok", "{answer}");
        answer["result"].clone()
    }

    /// Everything acknowledged to the client on the bus arrives, in order, and no number is missing in any stream.
    fn everything_arrives(&self, machine: &Machine, acknowledged: u64) {
        let numbers = || {
            let all = self.receiver.all();
            let uploads = all.iter().filter(|got| got.envelope["subject"] == "upload/c0");
            uploads.filter_map(|got| got.envelope["payload"]["n"].as_u64()).collect::<BTreeSet<u64>>()
        };
        machine.until("the last acknowledged message is in the cloud", || {
            (numbers().last().copied().unwrap_or(0) >= acknowledged).then_some(())
        });
        let arrived = numbers();
        let missing: Vec<u64> = (1..=acknowledged).filter(|n| !arrived.contains(n)).collect();
        assert!(missing.is_empty(), "of {acknowledged} acknowledged messages these are lost: {missing:?}");
        for stream in ["data", "events", "replies"] {
            let books = self.receiver.books(stream);
            assert!(books.lost.is_empty() && books.disorder == 0, "{stream}: {books:?}");
        }
        let books = self.receiver.books("data");
        eprintln!("{acknowledged} acknowledged, {} in the stream, {} repeated, none lost", books.last, books.repeats);
        assert!(books.furthest <= WINDOW, "{books:?}");
    }
}
