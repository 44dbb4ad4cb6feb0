//! Why the engine could not do something.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::cgroup::CgroupError;
use crate::engine::shim::protocol::FailureKind;
use crate::engine::spec::SpecError;

/// Why the engine could not do something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Containers cannot be run on this system, or not by this user.
    #[error("cannot {what}: {why}; {advice}")]
    NotPossible {
        /// What.
        what: &'static str,
        /// Why not.
        why: String,
        /// What would help.
        advice: String,
    },
    /// There are no control groups to use.
    #[error("containers have no control groups")]
    Cgroup(#[source] CgroupError),
    /// Not an id.
    #[error("{0:?} is not a container id")]
    InvalidId(String),
    /// There is one with this id.
    #[error("container {0} exists")]
    Exists(String),
    /// The container cannot be specified like this.
    #[error("container is not valid")]
    Spec(#[source] SpecError),
    /// It could not be started.
    #[error("cannot start container {id}: {message}")]
    Start {
        /// Which.
        id: String,
        /// What kind of failure: a wrong command is the image's or the pod's, the others are the node's.
        kind: FailureKind,
        /// What happened.
        message: String,
    },
    /// A command could not be run in it.
    #[error("cannot run a command in container {id}: {message}")]
    Exec {
        /// Which container.
        id: String,
        /// What kind of failure.
        kind: FailureKind,
        /// What happened.
        message: String,
    },
    /// A command took too long and was killed.
    #[error("command in container {0} timed out")]
    ExecTimedOut(String),
    /// Its shim cannot be started or spoken to.
    #[error("no connection to the shim of container {id}")]
    Shim {
        /// Which container.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its shim refused.
    #[error("container {id}: {message}")]
    Refused {
        /// Which container.
        id: String,
        /// Why.
        message: String,
    },
    /// A file of the engine's own.
    #[error("cannot use {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl EngineError {
    /// Whether trying the same again later can help: yes for what depends on the node, no for what is wrong with the request.
    pub fn may_pass(&self) -> bool {
        match self {
            EngineError::Start { kind, .. } | EngineError::Exec { kind, .. } => *kind != FailureKind::Command,
            EngineError::Shim { .. }
            | EngineError::File { .. }
            | EngineError::ExecTimedOut(_)
            | EngineError::Cgroup(_) => true,
            EngineError::NotPossible { .. }
            | EngineError::InvalidId(_)
            | EngineError::Exists(_)
            | EngineError::Spec(_)
            | EngineError::Refused { .. } => false,
        }
    }
}

/// Puts a path to an error.
pub(super) fn at<E: Into<io::Error>>(path: &Path) -> impl Fn(E) -> EngineError + '_ {
    move |source| EngineError::File { path: path.to_owned(), source: source.into() }
}
