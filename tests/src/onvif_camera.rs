//! A camera that speaks ONVIF: PyPI's ipycam, which checks who asks, with ONVIF's own WSDL looking at every request.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::binary::root;
use crate::pymodbus::{once, run};

/// Python with the camera, below `.cache`.
fn python() -> PathBuf {
    let venv = once("venv-onvif", |place| {
        let _ = std::fs::remove_dir_all(place);
        run(Command::new("python3").args(["-m", "venv"]).arg(place), "python3 with venv (python3-venv)");
        let mut pip = Command::new(place.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"])
            .arg(root().join("tests/requirements-onvif.txt"));
        run(&mut pip, "PyPI, once");
    });
    venv.join("bin/python")
}

/// A running camera. Dropping it kills it.
pub struct Camera {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Where its services are, on loopback.
    pub port: u16,
}

impl Camera {
    /// Starts one with the options the script documents.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(options: &Value) -> Camera {
        let mut command = Command::new(python());
        command.arg(root().join("tests/peers/onvif_camera.py")).arg(options.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let (stdin, stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the camera did not start: {line:?}"));
        Camera { child, stdin, stdout, port }
    }

    fn control(&mut self, command: &Value) -> Value {
        writeln!(self.stdin, "{command}").expect("it listens");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The names of the requests since the last time.
    ///
    /// # Panics
    /// When one of them is not as ONVIF's WSDL says.
    pub fn requests(&mut self) -> Vec<String> {
        let seen: Vec<(String, Option<String>)> =
            serde_json::from_value(self.control(&json!({"op": "requests"}))).expect("requests");
        let wrong: Vec<_> = seen.iter().filter(|(_, fault)| fault.is_some()).collect();
        assert!(wrong.is_empty(), "not as the WSDL says: {wrong:?}");
        seen.into_iter().map(|(name, _)| name).collect()
    }

    /// How it is from now on.
    pub fn set(&mut self, key: &str, value: Value) {
        self.control(&json!({"op": "set", key: value}));
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
