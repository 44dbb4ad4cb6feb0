//! A real image registry (Debian's docker-registry), and a wire in front of it that counts, holds and cuts.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a registry is guarded.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Lines of an htpasswd file (bcrypt).
    pub htpasswd: Option<String>,
    /// Certificate and key, PEM.
    pub tls: Option<(String, String)>,
}

/// A running registry on a port of its own; it is killed when this goes out of scope.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    dir: PathBuf,
}

impl Registry {
    /// Starts one that keeps its blobs in `dir`; what an earlier one has left there it serves.
    ///
    /// # Panics
    /// When docker-registry is not installed or does not come up.
    pub fn start(dir: &Path, guard: &Guard) -> Registry {
        fs::create_dir_all(dir).expect("the registry's folder");
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: 127.0.0.1:0\n",
            dir.display()
        );
        if let Some((certificate, key)) = &guard.tls {
            fs::write(dir.join("cert.pem"), certificate).expect("certificate");
            fs::write(dir.join("key.pem"), key).expect("key");
            let dir = dir.display();
            config.push_str(&format!("  tls: {{certificate: {dir}/cert.pem, key: {dir}/key.pem}}\n"));
        }
        if let Some(htpasswd) = &guard.htpasswd {
            fs::write(dir.join("htpasswd"), htpasswd).expect("htpasswd");
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}\n", dir.display()));
        }
        let path = dir.join("registry.yml");
        fs::write(&path, config).expect("registry.yml");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry must be installed");
        let log = BufReader::new(child.stderr.take().expect("its log"));
        let (say, said) = std::sync::mpsc::channel();
        // Reads the log to its end, so that the registry never waits for us.
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                // `msg="listening on 127.0.0.1:41234"`, with `, tls` for TLS.
                if let Some(rest) = line.split("listening on 127.0.0.1:").nth(1) {
                    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    let _ = say.send(digits.parse::<u16>().unwrap_or(0));
                }
            }
        });
        let port = said.recv_timeout(PATIENCE).expect("docker-registry says where it listens");
        Registry { child, port, dir: dir.to_owned() }
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The file of a blob on its disk.
    pub fn blob(&self, hex: &str) -> PathBuf {
        let prefix = hex.get(..2).unwrap_or_default();
        self.dir.join("docker/registry/v2/blobs/sha256").join(prefix).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Default)]
struct WireState {
    target: AtomicU16,
    served: AtomicU64,
    hold_at: AtomicU64,
    stop: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// A TCP proxy with a port that stays the same whatever is behind it.
pub struct Wire {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    state: Arc<WireState>,
}

impl Wire {
    /// Opens one to a port.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn to(target: u16) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its port").port();
        let state = Arc::new(WireState::default());
        state.target.store(target, Ordering::SeqCst);
        state.hold_at.store(u64::MAX, Ordering::SeqCst);
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let target = accepting.target.load(Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let clones = (client.try_clone(), server.try_clone());
                let (Ok(client2), Ok(server2)) = clones else { continue };
                if let Ok(mut open) = accepting.open.lock() {
                    open.extend([client.try_clone(), server.try_clone()].into_iter().flatten());
                }
                thread::spawn(move || pump(client, server, None));
                let state = Arc::clone(&accepting);
                thread::spawn(move || pump(server2, client2, Some(&state)));
            }
        });
        Wire { port, state }
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Bytes sent to clients so far.
    pub fn served(&self) -> u64 {
        self.state.served.load(Ordering::SeqCst)
    }

    /// Lets nothing more through once that many bytes have been served; `u64::MAX` lets everything through.
    pub fn hold_at(&self, bytes: u64) {
        self.state.hold_at.store(bytes, Ordering::SeqCst);
    }

    /// New connections go there.
    pub fn retarget(&self, port: u16) {
        self.state.target.store(port, Ordering::SeqCst);
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        if let Ok(mut open) = self.state.open.lock() {
            for stream in open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Copies until the end; downstream is counted, and held where it is told to.
fn pump(mut from: TcpStream, mut to: TcpStream, downstream: Option<&WireState>) {
    let mut buffer = [0; 16 << 10];
    'copy: while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        if let Some(state) = downstream {
            while state.served.load(Ordering::SeqCst) >= state.hold_at.load(Ordering::SeqCst) {
                if state.stop.load(Ordering::SeqCst) || to.take_error().is_err() || from.peer_addr().is_err() {
                    break 'copy;
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        if to.write_all(buffer.get(..n).unwrap_or_default()).is_err() {
            break;
        }
        if let Some(state) = downstream {
            state.served.fetch_add(n as u64, Ordering::SeqCst);
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
