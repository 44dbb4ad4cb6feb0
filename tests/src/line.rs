//! A serial line without wires: two pseudo terminals joined by socat. What one end sends the other receives, at no speed in
//! particular: a pseudo terminal ignores baud rate and parity.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::wait::until_true;

/// A line with its two ends. Dropping it pulls the plug.
pub struct Line {
    socat: Child,
    folder: TempDir,
    /// socat ends when nobody has an end open any more.
    _open: Vec<File>,
}

impl Line {
    /// Joins two new ends.
    ///
    /// # Panics
    /// Without socat.
    pub fn new() -> Line {
        let folder = tempfile::tempdir().expect("a folder");
        let end = |name: &str| format!("pty,rawer,link={}", folder.path().join(name).display());
        let mut command = Command::new("socat");
        command.args([end("a"), end("b")]).stdin(Stdio::null());
        let socat = command.spawn().expect("socat starts; this test needs socat");
        let mut line = Line { socat, folder, _open: Vec::new() };
        until_true("both ends of the line", || line.a().exists() && line.b().exists());
        let open = |path| File::options().read(true).write(true).open(path).expect("an end");
        line._open = vec![open(line.a()), open(line.b())];
        line
    }

    /// One end.
    pub fn a(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    /// The other end.
    pub fn b(&self) -> PathBuf {
        self.folder.path().join("b")
    }
}

impl Default for Line {
    fn default() -> Line {
        Line::new()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.socat.kill();
        let _ = self.socat.wait();
    }
}
