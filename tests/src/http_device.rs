//! A device with an HTTP interface, on Python's own server: it can be told to be silent, stubborn or gone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A running device. Dropping it kills it.
pub struct HttpDevice {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Where it listens, on loopback.
    pub port: u16,
}

impl HttpDevice {
    /// Starts one with the options the script documents.
    ///
    /// # Panics
    /// When Python is missing.
    pub fn start(options: &Value) -> HttpDevice {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/http_device.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(options.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3");
        let (stdin, stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the device did not start: {line:?}"));
        HttpDevice { child, stdin, stdout, port }
    }

    fn control(&mut self, command: &Value) -> Value {
        writeln!(self.stdin, "{command}").expect("it listens");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The requests since the last time: method and path.
    pub fn requests(&mut self) -> Vec<(String, String)> {
        serde_json::from_value(self.control(&json!({"op": "requests"}))).expect("requests")
    }

    /// How it is from now on.
    pub fn set(&mut self, key: &str, value: Value) {
        self.control(&json!({"op": "set", key: value}));
    }
}

impl Drop for HttpDevice {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
