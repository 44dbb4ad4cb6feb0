//! libmodbus, the second implementation: a small C program compiled once.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::pymodbus::{once, run};

/// The compiled program.
pub fn program() -> PathBuf {
    // Another source is another program.
    let mut hasher = DefaultHasher::new();
    include_str!("../peers/libmodbus_peer.c").hash(&mut hasher);
    once(&format!("libmodbus_peer-{:016x}", hasher.finish()), |place| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/libmodbus_peer.c");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-o"]).arg(place).arg(source).arg("-lmodbus");
        run(&mut cc, "a C compiler and libmodbus-dev");
    })
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    /// Where it listens, on loopback.
    pub port: u16,
}

impl Server {
    /// Starts one on a free port: 1000 of each table, register `i` holds `i`, bit `i` is `i % 3 == 0`. `pinned` to a core.
    pub fn start(pinned: Option<usize>) -> Server {
        let mut command = match pinned {
            None => Command::new(program()),
            Some(core) => {
                let mut taskset = Command::new("taskset");
                taskset.args(["-c", &core.to_string()]).arg(program());
                taskset
            }
        };
        command.arg("serve");
        Server::of(command)
    }

    /// Starts the same as unit 1 on a serial line.
    pub fn start_rtu(path: &Path) -> Server {
        let mut command = Command::new(program());
        command.arg("serve-rtu").arg(path);
        Server::of(command)
    }

    fn of(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("libmodbus starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("its port");
        let port = line.trim().parse().expect("a port");
        Server { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
