//! Running a program to its end, with a deadline.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wait::DEADLINE;

/// What a program said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Output {
    /// Panics with everything the program said unless it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert!(self.status.success(), "{self}");
        self
    }

    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.status, self.stdout, self.stderr
        )
    }
}

/// Runs `program` with `args` and `input` on its standard input; kills it and panics after [`DEADLINE`].
#[track_caller]
pub fn run(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = impl AsRef<OsStr>>, input: &str) -> Output {
    let mut command = Command::new(program);
    command.args(args);
    finish(&mut command, input, DEADLINE)
}

/// Runs a prepared command to its end; kills it and panics after `deadline`.
#[track_caller]
pub fn finish(command: &mut Command, input: &str, deadline: Duration) -> Output {
    let line = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let mut stdin = child.stdin.take();
    let input = input.as_bytes().to_vec();
    let feed = std::thread::spawn(move || {
        if let Some(pipe) = stdin.as_mut() {
            // A program that ends without reading its input closes the pipe: that is its right.
            let _ = pipe.write_all(&input);
        }
    });
    let status = wait_for(&mut child, deadline);
    let killed = status.is_none();
    let status = status.unwrap_or_else(|| {
        let _ = child.kill();
        child.wait().expect("a killed program ends")
    });
    let _ = feed.join();
    let text = |pipe: JoinHandle<Vec<u8>>| String::from_utf8_lossy(&pipe.join().unwrap_or_default()).into_owned();
    let output = Output { command: line, status, stdout: text(stdout), stderr: text(stderr) };
    assert!(!killed, "not ended after {deadline:?}: {output}");
    output
}

/// Waits for the end of a child at most `deadline`; `None` when it still runs.
pub fn wait_for(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if start.elapsed() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_goes_in_and_output_comes_out() {
        let output = run("sh", ["-c", "cat; echo no >&2; exit 3"], "yes\n");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code()), ("yes\n", "no\n", Some(3)));
    }

    #[test]
    #[should_panic(expected = "not ended after")]
    fn a_program_that_hangs_is_killed() {
        finish(Command::new("sleep").arg("1000"), "", Duration::from_millis(50));
    }
}
