//! The peers that run beside the node.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use edge_tests::ports::{self, Port};

/// A mosquitto with its own defaults on a port of its own.
#[derive(Debug)]
pub struct Mosquitto {
    child: Child,
    port: Port,
}

impl Mosquitto {
    /// Starts it and waits for nothing.
    pub fn launch() -> Mosquitto {
        let port = ports::free();
        let mut command = Command::new("/usr/sbin/mosquitto");
        command.args(["-p", &port.to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("mosquitto starts; tests/packages.txt names its package");
        Mosquitto { child, port }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether an MQTT broker accepts a client there now: CONNECT, answered by CONNACK with code 0.
pub fn accepts(address: SocketAddr) -> bool {
    let attempt = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // MQTT 3.1.1, clean session, keep-alive 60 s, client identifier "b" (section 3.1).
        stream.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'b'])?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok(answer == [0x20, 2, 0, 0])
    };
    attempt().unwrap_or(false)
}
