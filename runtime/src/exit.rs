//! Exit codes, after BSD's `sysexits.h` where it has a word for it.

use std::process::ExitCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well, or the daemon was asked to stop.
    Clean,
    /// The daemon refused what a verb asked for.
    Refused,
    /// The command line is wrong.
    Usage,
    /// A verb could not reach the daemon.
    Unavailable,
    /// The daemon cannot go on.
    Fatal,
    /// Another runtime owns the state directory or the socket.
    Busy,
    /// The configuration is wrong.
    Config,
    /// A second signal forced the end before the orderly shutdown was through.
    Forced,
}

impl Exit {
    /// The number the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Clean => 0,
            Exit::Refused => 1,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Fatal => 70,
            Exit::Busy => 75,
            Exit::Config => 78,
            Exit::Forced => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
