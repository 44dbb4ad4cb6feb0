//! From a link that comes back to the first message in the cloud, ours and a mosquitto bridge's, in the same outages.
//!
//! Node and bridge are in a network namespace of their own, behind one cable (a veth pair); the cloud's broker is outside.
//! A cable is pulled and put back, or the broker is stopped and started again; both ends keep publishing meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use edge_tests::daemon::Node;

use crate::table::{Table, millis};

/// How long each outage lasts: longer than a keep-alive of 5 s and a few rounds of TCP's own retransmission.
const OUTAGE: Duration = Duration::from_secs(20);
/// How long is waited for a message before the round counts as that long.
const PATIENCE: Duration = Duration::from_secs(120);
/// The cloud's end of the cable, and the node's.
const CLOUD: Ipv4Addr = Ipv4Addr::new(10, 213, 7, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 213, 7, 2);
/// The ports of the cloud's broker and of the bridging one.
const PORT: u16 = 18_883;
const BRIDGE: u16 = 18_884;

const DEVICE: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: tank}
spec:
  protocol: virtual
  properties:
    - {name: level, type: DOUBLE, accessMode: ReadOnly, visitors: {protocolName: virtual, configData: {generator: sine}}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: tank}
spec:
  deviceModelRef: {name: tank}
  protocol: {protocolName: virtual, configData: {seed: 1}}
  properties:
    - {name: level, collectCycle: 200, reportCycle: 200, reportToCloud: true}
";

/// Measures `rounds` outages of each kind.
pub fn run(rounds: usize) {
    let cable = Cable::lay();
    let folder = tempfile::tempdir().expect("a folder");
    let mut cloud = Some(broker(&cable, false, folder.path(), &cloud_config()));
    wait_for(|| TcpStream::connect((CLOUD, PORT)).is_ok());
    let _bridge = broker(&cable, true, folder.path(), &bridge_config());
    let inside = cable.inside();
    let mut node = Node::new()
        .binary(edge_tests::binary::edge_runtime(), &inside.iter().map(String::as_str).collect::<Vec<_>>())
        .config(&format!("[cloud]\naddress = \"mqtt://{CLOUD}:{PORT}\"\nkeep-alive-seconds = 5\n"));
    node.start();
    node.apply(DEVICE);
    let _publisher = publisher(&cable);
    let heard = subscribe();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut table = Table::new("Link back until delivering again", &["what", "ms, median (95 %)"]);
    for kind in ["cable", "broker"] {
        for _ in 0..rounds {
            wait_both(&heard, Instant::now());
            let start = if kind == "cable" {
                cable.plug(false);
                std::thread::sleep(OUTAGE);
                cable.plug(true);
                Instant::now()
            } else {
                drop(cloud.take());
                std::thread::sleep(OUTAGE);
                cloud = Some(broker(&cable, false, folder.path(), &cloud_config()));
                wait_for(|| TcpStream::connect((CLOUD, PORT)).is_ok());
                Instant::now()
            };
            let (own, peer) = wait_both(&heard, start);
            ours.push(own);
            theirs.push(peer);
        }
        let what = if kind == "cable" { "a cable is put back" } else { "the cloud's broker is back" };
        table.row(&[&format!("edge-runtime: {what}"), &millis(&mut ours)]);
        table.row(&[&format!("mosquitto bridge: {what}"), &millis(&mut theirs)]);
        ours.clear();
        theirs.clear();
    }
    node.stop();
    table.print();
}

/// How long after `start` a message of ours and one of the bridge's came.
fn wait_both(heard: &Receiver<(bool, Instant)>, start: Instant) -> (Duration, Duration) {
    let (mut ours, mut theirs) = (None, None);
    while let (None, _) | (_, None) = (ours, theirs) {
        let Some(left) = PATIENCE.checked_sub(start.elapsed()) else { break };
        let Ok((own, at)) = heard.recv_timeout(left) else { break };
        let Some(after) = at.checked_duration_since(start) else { continue };
        let first = if own { &mut ours } else { &mut theirs };
        first.get_or_insert(after);
    }
    (ours.unwrap_or(PATIENCE), theirs.unwrap_or(PATIENCE))
}

/// Listens at the cloud; tells whose message came, and when. The subscriber is on the broker's own side of the cable.
fn subscribe() -> Receiver<(bool, Instant)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        loop {
            let mut command = Command::new("mosquitto_sub");
            command.args(["-h", &CLOUD.to_string(), "-p", &PORT.to_string(), "-k", "5", "-q", "1", "-F", "%t"]);
            command.args(["-i", "books", "-c", "-t", "edge/+/up/#", "-t", "peer"]);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
            let mut child = Running(child.expect("mosquitto_sub; tests/packages.txt names its package"));
            let lines = child.0.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines);
            for topic in lines.map_while(Result::ok) {
                if sender.send((topic != "peer", Instant::now())).is_err() {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    receiver
}

/// Publishes to the bridge as often as the node's device reports.
fn publisher(cable: &Cable) -> Running {
    let mut command = cable.command("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &BRIDGE.to_string(), "-q", "1", "-t", "peer", "-l"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("mosquitto_pub");
    let mut stdin = child.stdin.take().expect("its standard input");
    std::thread::spawn(move || {
        while writeln!(stdin, "1.5").is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    Running(child)
}

fn cloud_config() -> String {
    format!("listener {PORT} {CLOUD}\nallow_anonymous true\npersistence false\n")
}

/// The bridge as mosquitto.conf(5) describes it, with the quickest restart it allows beside its defaults.
fn bridge_config() -> String {
    format!(
        "listener {BRIDGE} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nconnection cloud\n\
         address {CLOUD}:{PORT}\ntopic peer out 1\nkeepalive_interval 5\nrestart_timeout 1\n"
    )
}

fn broker(cable: &Cable, inside: bool, folder: &std::path::Path, config: &str) -> Running {
    let path = folder.join(if inside { "bridge.conf" } else { "cloud.conf" });
    std::fs::write(&path, config).expect("a configuration");
    let mut command = if inside { cable.command("/usr/sbin/mosquitto") } else { Command::new("/usr/sbin/mosquitto") };
    command.arg("-c").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().expect("mosquitto starts; tests/packages.txt names its package"))
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "it never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that ends when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace behind one cable.
struct Cable {
    name: String,
}

impl Cable {
    fn lay() -> Cable {
        let cable = Cable { name: format!("edge-bench-{}", std::process::id()) };
        let (ns, out) = (cable.name.as_str(), cable.outer());
        ip(&["netns", "add", ns]);
        ip(&["link", "add", &out, "type", "veth", "peer", "name", "eth0", "netns", ns]);
        ip(&["addr", "add", &format!("{CLOUD}/30"), "dev", &out]);
        ip(&["link", "set", &out, "up"]);
        for args in [
            vec!["addr", "add", &format!("{NODE}/30"), "dev", "eth0"],
            vec!["link", "set", "lo", "up"],
            vec!["link", "set", "eth0", "up"],
        ] {
            ip(&[&["-n", ns], args.as_slice()].concat());
        }
        cable
    }

    /// A link has a short name.
    fn outer(&self) -> String {
        format!("eb{}", std::process::id())
    }

    /// Pulled at the node's end: the cloud's address stays where its broker listens.
    fn plug(&self, up: bool) {
        ip(&["-n", &self.name, "link", "set", "eth0", if up { "up" } else { "down" }]);
    }

    fn inside(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.name), "--".to_owned()]
    }

    fn command(&self, program: &str) -> Command {
        let inside = self.inside();
        let mut words = inside.iter();
        let mut command = Command::new(words.next().map_or("nsenter", String::as_str));
        command.args(words).arg(program);
        command
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for args in [["link", "del", &self.outer()], ["netns", "del", &self.name]] {
            let _ = Command::new("ip").args(args).stderr(Stdio::null()).status();
        }
    }
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).status().expect("ip; tests/packages.txt names its package");
    assert!(done.success(), "ip {args:?}");
}
