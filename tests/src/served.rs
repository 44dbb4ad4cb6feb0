//! The local API in the test's own process, on a socket of its own, with curl as a client that is not ours.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use edge_runtime::api::{Api, Backends, MetricsListener, Settings, Socket};
use edge_runtime::store::Store;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::wait::DEADLINE;

/// An API on a socket of its own, on a runtime of its own, ended when dropped.
pub struct Served {
    runtime: Option<tokio::runtime::Runtime>,
    /// Ends it.
    pub stop: CancellationToken,
    /// The objects it serves.
    pub store: Store,
    /// What it was set up with.
    pub settings: Settings,
    /// Where metrics are served.
    pub metrics: Option<String>,
    _folder: tempfile::TempDir,
}

/// Serves an empty store with these backends and changed settings.
pub fn serve_with(backends: Backends, change: impl FnOnce(&mut Settings)) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings {
        socket: folder.path().join("run/api.sock"),
        metrics: Some("127.0.0.1:0".parse().unwrap()),
        ..Settings::default()
    };
    change(&mut settings);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (stop, store) = (CancellationToken::new(), Store::in_memory());
    let api = Api::new(store.clone(), backends);
    let metrics = runtime.block_on(MetricsListener::bind(&settings)).unwrap();
    let address = metrics.as_ref().map(|m| m.address().unwrap().to_string());
    if let Some(metrics) = metrics {
        let (api, stop) = (api.clone(), stop.clone());
        runtime.spawn(async move { metrics.serve(&api, stop).await });
    }
    let socket = runtime.block_on(async { Socket::bind(&settings) }).unwrap();
    let token = stop.clone();
    runtime.spawn(async move { socket.serve(&api, token).await });
    Served { runtime: Some(runtime), stop, store, settings, metrics: address, _folder: folder }
}

/// Serves an empty store.
pub fn serve() -> Served {
    serve_with(Backends::default(), |_| {})
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(DEADLINE);
        }
    }
}

impl Served {
    /// A request of curl's, to be completed.
    pub fn curl_command(&self, method: &str, path: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "-g", "--max-time", "60", "-X", method, "--unix-socket"]).arg(&self.settings.socket);
        command.arg(format!("http://node{path}"));
        command
    }

    /// Sends a request; the code and the body.
    pub fn send(&self, method: &str, path: &str, media_type: &str, body: &str) -> (u16, Value) {
        let mut command = self.curl_command(method, path);
        command.args(["-w", "\n%{http_code}", "-H", &format!("content-type: {media_type}")]);
        command.args(["--data-binary", "@-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this test needs curl");
        child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        answer(child)
    }

    /// Sends JSON; the code and the body.
    pub fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.send(method, path, "application/json", &body.to_string())
    }

    /// Gets; the code and the body.
    pub fn get(&self, path: &str) -> (u16, Value) {
        let mut command = self.curl_command("GET", path);
        answer(command.args(["-w", "\n%{http_code}"]).stdout(Stdio::piped()).spawn().expect("this test needs curl"))
    }

    /// Deletes; the code and the body.
    pub fn delete(&self, path: &str) -> (u16, Value) {
        let mut command = self.curl_command("DELETE", path);
        answer(command.args(["-w", "\n%{http_code}"]).stdout(Stdio::piped()).spawn().expect("this test needs curl"))
    }

    /// A streaming request of which lines can be read.
    pub fn stream(&self, path: &str) -> Lines {
        let mut command = self.curl_command("GET", path);
        let mut child = command.arg("-N").stdout(Stdio::piped()).spawn().expect("this test needs curl");
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        Lines { child, out }
    }

    /// Starts a task on the API's own runtime.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.as_ref().unwrap().spawn(future)
    }

    /// Runs a future on the API's own runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(future)
    }
}

/// The code and the body out of what curl printed.
fn answer(child: Child) -> (u16, Value) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    let value = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
    (code.parse().unwrap(), value)
}

/// A streamed answer, ended when dropped.
pub struct Lines {
    child: Child,
    out: std::io::BufReader<std::process::ChildStdout>,
}

impl Lines {
    /// The next line; nothing at the end.
    #[expect(clippy::should_implement_trait, reason = "it blocks, and its end is not for good")]
    pub fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.out, &mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap_or_else(|_| json!(line)))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
