//! Bluetooth without a controller: a D-Bus of our own with a stand-in for bluetoothd, a machine with the real one, and the
//! program that is tried on both.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::root;
use crate::pymodbus::{once, run};

/// Far longer than anything should take, also on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Python with what the Bluetooth tests need, below `.cache`.
pub fn python() -> PathBuf {
    let venv = once("venv-bluetooth", |place| {
        let _ = std::fs::remove_dir_all(place);
        run(Command::new("python3").args(["-m", "venv"]).arg(place), "python3 with venv (python3-venv)");
        let mut pip = Command::new(place.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(root().join("tests/requirements.txt"));
        run(&mut pip, "PyPI, once");
    });
    venv.join("bin/python")
}

/// The program under test, which stands beside this test's own.
pub fn program() -> PathBuf {
    let mut path = std::env::current_exe().expect("this test's path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("bluetooth_tool");
    assert!(path.exists(), "{} is not there; cargo builds it with the tests of this package", path.display());
    path
}

/// Something that answers lines of JSON, each with one.
struct Lines {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Lines {
    fn start(command: &mut Command) -> Lines {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (stdin, stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        Lines { child, stdin, stdout: BufReader::new(stdout) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        line
    }

    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.stdin, "{command}").expect("it listens");
        let answer: Value = serde_json::from_str(&self.line()).expect("it answers in JSON");
        assert!(answer["error"].is_null(), "{command}: {answer}");
        answer
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A D-Bus of our own, with a stand-in for bluetoothd on it.
pub struct Double {
    lines: Lines,
    bus: Lines,
    /// The address of the bus.
    pub address: String,
    _folder: TempDir,
}

impl Double {
    /// Starts both.
    pub fn start() -> Double {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("bus.conf");
        let socket = folder.path().join("bus");
        let policy = r#"<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
            <allow eavesdrop="true"/></policy>"#;
        let text = format!(
            "<busconfig><type>custom</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>{policy}</busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).expect("a configuration");
        let mut bus = Command::new("dbus-daemon");
        bus.arg(format!("--config-file={}", config.display())).args(["--nofork", "--nopidfile", "--print-address=1"]);
        let mut bus = Lines::start(&mut bus);
        let address = bus.line().trim().to_owned();
        assert!(address.starts_with("unix:"), "no dbus-daemon (package dbus-daemon): {address:?}");
        let script = root().join("tests/bluetooth/double.py");
        let mut lines = Lines::start(Command::new(python()).arg(script).arg(&address));
        assert_eq!(lines.line().trim(), "\"ready\"", "the double did not start");
        Double { lines, bus, address, _folder: folder }
    }

    /// Tells it something, or asks: see tests/bluetooth/double.py.
    pub fn tell(&mut self, command: Value) -> Value {
        self.lines.ask(&command)
    }

    /// Has a device advertise until `done`, as devices do: over and over.
    #[track_caller]
    pub fn advertise_until(&mut self, advertisement: &Value, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        let mut command = advertisement.clone();
        command["op"] = json!("advertise");
        while !done() {
            assert!(start.elapsed() < PATIENCE, "advertised in vain: {advertisement}");
            self.tell(command.clone());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the bus itself.
    pub fn end_bus(&mut self) {
        let _ = self.bus.child.kill();
        let _ = self.bus.child.wait();
    }

    /// The program on this bus.
    pub fn program(&self) -> Program {
        let mut command = Command::new(program());
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let (stdin, stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        Program::new(Box::new(stdin), stdout, Some(child))
    }
}

/// A running program with devices.
pub struct Program {
    to: Box<dyn Write + Send>,
    lines: mpsc::Receiver<Value>,
    child: Option<Child>,
    /// By device: whether it is online and why not, and the last of each property.
    devices: Value,
    /// Every value there was, in order: device, property, value.
    pub history: Vec<(String, String, Value)>,
    answers: Value,
    ended: bool,
    next: u64,
}

impl Program {
    /// A program behind these two ends.
    pub fn new(to: Box<dyn Write + Send>, from: impl Read + Send + 'static, child: Option<Child>) -> Program {
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let Ok(json) = serde_json::from_str(&line) else { continue };
                if sender.send(json).is_err() {
                    return;
                }
            }
        });
        let (devices, answers) = (json!({}), json!({}));
        let program = Program { to, lines, child, devices, history: Vec::new(), answers, ended: false, next: 0 };
        let ready = program.lines.recv_timeout(PATIENCE * 2).expect("the program is ready");
        assert_eq!(ready["ready"], true);
        program
    }

    fn send(&mut self, command: &Value) {
        writeln!(self.to, "{command}").and_then(|()| self.to.flush()).expect("the program listens");
    }

    /// The devices from now on: name, device, model.
    pub fn set(&mut self, devices: &[Value]) {
        self.send(&json!({"op": "set", "devices": devices}));
    }

    /// Kills a process beside the program.
    pub fn kill(&mut self, process: &str) {
        self.send(&json!({"op": "kill", "process": process}));
    }

    fn take(&mut self, wait: Duration) {
        let Ok(line) = self.lines.recv_timeout(wait) else { return };
        let batch = &line["batch"];
        if let Some(device) = batch["device"].as_str() {
            let known = &mut self.devices[device];
            known["online"] = batch["online"].clone();
            known["reason"] = batch["reason"].clone();
            for (property, value) in batch["readings"].as_object().into_iter().flatten() {
                known["readings"][property] = value.clone();
                self.history.push((device.to_owned(), property.clone(), value.clone()));
            }
        }
        if let Some(id) = line["answer"].as_u64() {
            self.answers[id.to_string()] = line.clone();
        }
        self.ended |= line["ended"] == true;
    }

    /// What is known of a device now.
    pub fn device(&mut self, name: &str) -> Value {
        self.take(Duration::from_millis(5));
        self.devices[name].clone()
    }

    /// Waits until a device is so.
    #[track_caller]
    pub fn until(&mut self, name: &str, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
        let start = Instant::now();
        while !is(&self.devices[name]) {
            assert!(start.elapsed() < PATIENCE, "{name} never {what}: {}", self.devices);
            self.take(Duration::from_millis(50));
        }
        self.devices[name].clone()
    }

    /// Waits until a property has this value.
    #[track_caller]
    pub fn until_value(&mut self, name: &str, property: &str, value: Value) -> Value {
        self.until(name, &format!("had {property} = {value}"), |d| d["readings"][property] == value)
    }

    /// Reads or writes: `Ok` with the readings, or the error's text.
    #[track_caller]
    pub fn call(&mut self, mut command: Value) -> Result<Value, String> {
        self.next += 1;
        command["id"] = json!(self.next);
        let id = self.next.to_string();
        self.send(&command);
        let start = Instant::now();
        while self.answers[&id].is_null() {
            assert!(start.elapsed() < PATIENCE, "no answer to {command}");
            self.take(Duration::from_millis(50));
        }
        let answer = self.answers[&id].take();
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["readings"].clone()),
        }
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn end(mut self) {
        self.send(&json!({"op": "end"}));
        let start = Instant::now();
        while !self.ended {
            assert!(start.elapsed() < PATIENCE, "the program does not end");
            self.take(Duration::from_millis(50));
        }
        if let Some(child) = &mut self.child {
            assert!(child.wait().expect("it ends").success());
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A device with its model for [`Program::set`]: link data, then `(property, type, access, visitor data)`.
pub fn device(name: &str, link: Value, properties: &[(&str, &str, &str, Value)]) -> Value {
    let own = properties.iter().map(|(n, _, _, data)| {
        json!({"name": n, "collectCycle": 100, "visitors": {"protocolName": "bluetooth", "configData": data}})
    });
    let own: Vec<Value> = own.collect();
    let of_model = properties.iter().map(|(n, t, a, _)| json!({"name": n, "type": t, "accessMode": a}));
    let of_model: Vec<Value> = of_model.collect();
    json!({
        "name": name,
        "device": {
            "deviceModelRef": {"name": "m"},
            "protocol": {"protocolName": "bluetooth", "configData": link},
            "properties": own,
        },
        "model": {"protocol": "bluetooth", "properties": of_model},
    })
}

/// The machine with the real bluetoothd, whose controller and devices are played by bumble on this side.
pub struct Machine {
    qemu: Child,
    air: Lines,
    /// The program in the machine.
    pub program: Option<Program>,
    folder: TempDir,
}

impl Machine {
    /// Starts it, and the program in it. The first one on a machine prepares kernel and emulator, below `.cache`.
    pub fn start() -> Machine {
        let parts = once("bluetooth-vm", |place| {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.current_dir(root()).args(["xtask", "image", "--bluetooth-vm", "--out"]).arg(place);
            run(&mut cargo, "Debian's packages, once, for the Bluetooth machine");
        });
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        // The program comes as an archive of its own behind the base: the kernel unpacks one after the other.
        std::fs::create_dir(at("more")).expect("a folder");
        std::fs::copy(program(), at("more/program")).expect("the program");
        let pack =
            "cd more && strip program 2>/dev/null; find . | cpio --quiet --create --format=newc | gzip -1 > ../more.gz";
        run(Command::new("sh").args(["-c", pack]).current_dir(folder.path()), "cpio");
        let mut image = std::fs::read(parts.join("initrd.base")).expect("the base");
        image.extend(std::fs::read(at("more.gz")).expect("the program's archive"));
        std::fs::write(at("initrd"), image).expect("the image");

        // The machine waits for its controller: one that is slow to come would not hear what it is told first.
        let socket = |name: &str, wait| format!("socket,id={name},server=on,wait={wait},path={}", at(name).display());
        let mut qemu = Command::new(parts.join("qemu.sh"));
        qemu.args(["-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(parts.join("vmlinuz")).arg("-initrd").arg(at("initrd"));
        qemu.args(["-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on"]);
        qemu.args(["-chardev", &format!("file,id=log,path={}", at("log").display()), "-serial", "chardev:log"]);
        qemu.args(["-chardev", &socket("talk", "off"), "-chardev", &socket("hci", "on")]);
        qemu.args(["-serial", "chardev:hci", "-serial", "chardev:talk"]);
        let qemu = qemu.stdin(Stdio::null()).spawn().expect("qemu starts");
        let start = Instant::now();
        while !(at("hci").exists() && at("talk").exists()) {
            assert!(start.elapsed() < PATIENCE, "qemu did not open its lines");
            std::thread::sleep(Duration::from_millis(20));
        }
        let script = root().join("tests/bluetooth/air.py");
        let mut air = Lines::start(Command::new(python()).arg(script).arg(at("hci")));
        assert_eq!(air.line().trim(), "\"ready\"", "the air did not start");
        let mut machine = Machine { qemu, air, program: None, folder };
        let talk = std::os::unix::net::UnixStream::connect(machine.folder.path().join("talk")).expect("the line");
        let from = talk.try_clone().expect("both ways");
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Program::new(Box::new(talk), from, None)));
        match made {
            Ok(program) => machine.program = Some(program),
            Err(_) => panic!("the machine did not come up:\n{}", machine.log()),
        }
        machine
    }

    /// Tells the devices on the air something, or asks: see tests/bluetooth/air.py.
    pub fn tell(&mut self, command: Value) -> Value {
        self.air.ask(&command)
    }

    /// What the machine has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap_or_default()).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the machine:\n{}", self.log());
        }
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
