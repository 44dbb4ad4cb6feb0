//! `queue_tool` as a child process: what was acknowledged to it, and what is left after it came to a sudden end.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// What was acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// The highest sequence number of the queue.
    pub seq: u64,
    /// How many messages.
    pub messages: u64,
    /// The highest number written to each object of the store.
    pub objects: BTreeMap<String, u64>,
}

impl Acknowledged {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["q", seq] => {
                self.seq = self.seq.max(number(seq));
                self.messages += 1;
            }
            ["s", object, n] => drop(self.objects.insert((*object).to_owned(), number(n))),
            _ => panic!("queue_tool said {line:?}"),
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

/// The tool, writing.
#[derive(Debug)]
pub struct Producer {
    child: Child,
    /// The beginning of a line whose end has not been read yet.
    partial: String,
    acknowledged: Acknowledged,
}

impl Producer {
    /// Starts it; `known` is what runs before it were told.
    pub fn start(tool: &Path, dir: &Path, more: &[&str], known: Acknowledged) -> Producer {
        let mut command = Command::new(tool);
        command.arg("write").arg(dir).args(more).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", tool.display()));
        let stdout = child.stdout.as_ref().expect("its output is a pipe");
        // So that everything that is in the pipe can be read, and no more be waited for.
        rustix::io::ioctl_fionbio(stdout, true).expect("the pipe can be read without waiting");
        Producer { child, partial: String::new(), acknowledged: known }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the producer can be signalled");
    }

    /// Everything acknowledged so far. Panics if the tool has ended by itself.
    pub fn acknowledged(&mut self) -> Acknowledged {
        self.drain();
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("queue_tool ended with {status}");
        }
        self.acknowledged.clone()
    }

    fn drain(&mut self) {
        let Some(stdout) = self.child.stdout.as_mut() else { return };
        let mut bytes = vec![0; 64 << 10];
        while let Ok(n) = stdout.read(&mut bytes) {
            if n == 0 {
                break;
            }
            self.partial.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
        let whole = self.partial.rfind('\n').map_or(0, |at| at + 1);
        for line in self.partial[..whole].lines() {
            self.acknowledged.take(line);
        }
        self.partial.drain(..whole);
    }

    /// Stops it in the middle of whatever it does.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        // The signal is not delivered until the process is seen stopped, every thread of it.
        let stat = format!("/proc/{}/task", self.child.id());
        crate::wait::until("the producer is stopped", || {
            let tasks = std::fs::read_dir(&stat).into_iter().flatten().flatten();
            tasks.map(|t| state(&t.path())).all(|s| s == Some('T')).then_some(())
        });
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it and returns everything that was acknowledged.
    pub fn kill(mut self) -> Acknowledged {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        self.drain();
        std::mem::take(&mut self.acknowledged)
    }
}

fn state(task: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(task.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens what is left, reads all of it and compares it with what was acknowledged; the last sequence number, or what is
/// wrong.
///
/// # Errors
/// Text for people: what the tool said, or what is missing.
pub fn verify(tool: &Path, dir: &Path, acknowledged: &Acknowledged) -> Result<u64, String> {
    let output = Command::new(tool).arg("verify").arg(dir).output();
    let Output { status, stdout, stderr } = output.unwrap_or_else(|e| panic!("{}: {e}", tool.display()));
    if !status.success() {
        return Err(format!("verify ended with {status}: {}", String::from_utf8_lossy(&stderr)));
    }
    let (mut last, mut objects) = (0, BTreeMap::new());
    for line in String::from_utf8_lossy(&stdout).lines() {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["q", "1", end] => last = number(end),
            ["s", object, n] => drop(objects.insert((*object).to_owned(), number(n))),
            _ => return Err(format!("verify said {line:?}")),
        }
    }
    if last < acknowledged.seq {
        return Err(format!("queue ends at {last}, but {} was acknowledged", acknowledged.seq));
    }
    for (object, n) in &acknowledged.objects {
        let found = objects.get(object).copied().unwrap_or(0);
        if found < *n {
            return Err(format!("object {object} is at {found}, but {n} was acknowledged"));
        }
    }
    Ok(last)
}

/// A place for the tool's data.
pub fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new().prefix("edge-disk-").tempdir().expect("a temporary folder");
    let path = dir.path().to_owned();
    (dir, path)
}
