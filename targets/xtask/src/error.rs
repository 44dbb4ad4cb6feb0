//! What can go wrong in a task, and running programs so that it is told.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a task failed.
#[derive(Debug)]
pub enum Error {
    /// The command line is wrong.
    Usage(String),
    /// A program could not be started, or ended badly.
    Program(String, String),
    /// A file could not be read or written.
    File(PathBuf, std::io::Error),
    /// A file says something that cannot be.
    Content(PathBuf, String),
    /// The executable is not what was promised.
    Promise(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) | Error::Promise(text) => f.write_str(text),
            Error::Program(command, text) => write!(f, "{command}: {text}"),
            Error::File(path, error) => write!(f, "{}: {error}", path.display()),
            Error::Content(path, text) => write!(f, "{}: {text}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

/// Reads a text file.
pub fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| Error::File(path.to_owned(), error))
}

/// Runs a command whose output is the user's.
pub fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|error| Error::Program(format!("{command:?}"), error.to_string()))?;
    if status.success() { Ok(()) } else { Err(Error::Program(format!("{command:?}"), status.to_string())) }
}

/// Runs a command and gives its standard output.
pub fn output(command: &mut Command) -> Result<String, Error> {
    let output = command.output().map_err(|error| Error::Program(format!("{command:?}"), error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Program(format!("{command:?}"), format!("{}: {}", output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
