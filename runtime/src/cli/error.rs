//! Why a verb failed, and the exit code that says so (`sysexits.h` where it has one).

use std::io;
use std::path::PathBuf;

use edge_model::manifest::ManifestError;
use serde_json::Value;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The node refused.
    #[error("{message}")]
    Refused {
        /// What it said.
        message: String,
        /// Its whole `Status`.
        status: Box<Value>,
    },
    /// Something asked for is not there or not right.
    #[error("{0}")]
    No(String),
    /// Manifests that cannot be used, each with its place.
    #[error("{}", lines(.0))]
    Manifests(Vec<ManifestError>),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The configuration of this machine is wrong.
    #[error("the configuration is not right\n{0}")]
    Config(crate::config::ConfigError),
    /// Nobody listens.
    #[error(
        "the node cannot be reached at {socket}; start it with `systemctl start edge-runtime`, or `edge-runtime` itself, \
         or name another socket with --socket"
    )]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke in the middle of an answer.
    #[error("the connection to the node broke")]
    Broken(#[source] hyper::Error),
    /// The node answered something that is not understood.
    #[error("the node's answer is not understood: {0}")]
    Answer(String),
    /// The terminal or file written to refused.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

fn lines(errors: &[ManifestError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl From<crate::config::ConfigError> for CliError {
    fn from(error: crate::config::ConfigError) -> CliError {
        CliError::Config(error)
    }
}

impl CliError {
    /// The exit code: 1 the node (or a manifest) says no, 64 usage, 69 not reachable, 78 the configuration, 70 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Refused { .. } | CliError::No(_) | CliError::Manifests(_) | CliError::File { .. } => 1,
            CliError::Usage(_) => 64,
            CliError::Unreachable { .. } => 69,
            CliError::Config(_) => 78,
            CliError::Broken(_) | CliError::Answer(_) | CliError::Output(_) => 70,
        }
    }

    /// Whether only the reader of our output has gone (`| head`): nothing to complain about.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The message with all its causes, for a person.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}
