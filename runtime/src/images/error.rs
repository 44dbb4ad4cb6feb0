//! What can go wrong with images, and whether trying again can help.

use std::io;
use std::path::{Path, PathBuf};

use super::Digest;

/// Why an image could not be imported, pulled, prepared or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that does not name an image.
    #[error("image reference {text:?} is not valid: {rule}")]
    Reference {
        /// What was given.
        text: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A text that is not a digest this store knows.
    #[error("{0:?} is not a sha256 digest")]
    BadDigest(String),
    /// A container id that cannot be a folder name.
    #[error("container id {0:?} is not valid: letters, digits, '.', '_' and '-', at most 128")]
    BadId(String),
    /// The disk refused.
    #[error("cannot {action} {}", path.display())]
    Disk {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is not enough room on the disk, or would not be, with the reserve left free.
    #[error("disk full: {} needs {needs} bytes, has {has}", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes needed, the reserve included.
        needs: u64,
        /// Bytes free.
        has: u64,
    },
    /// Another process has the store open.
    #[error("image store {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// Content that is not what its name says.
    #[error("{what} has the wrong digest: expected {expected}, found {found}")]
    Digest {
        /// The blob or layer.
        what: String,
        /// What its name says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A document of the image that is not what it should be.
    #[error("{what} is not valid JSON for it")]
    Json {
        /// The document.
        what: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Something in the image breaks a rule of the format.
    #[error("{what}: {rule}")]
    Invalid {
        /// The document, layer or file.
        what: String,
        /// The rule.
        rule: String,
    },
    /// An entry of a layer that was refused.
    #[error("layer {layer}: entry {entry:?} {rule}")]
    Entry {
        /// The layer.
        layer: Digest,
        /// The path inside it.
        entry: String,
        /// The rule it breaks.
        rule: String,
    },
    /// The stream of a layer or archive is damaged.
    #[error("cannot read {what}")]
    Damaged {
        /// The layer or archive.
        what: String,
        /// The reader's reason.
        #[source]
        source: io::Error,
    },
    /// More than the settings allow.
    #[error("{what} is over the limit of {limit}")]
    TooBig {
        /// What is.
        what: String,
        /// The limit, in bytes or pieces as `what` says.
        limit: u64,
    },
    /// The image is for other machines.
    #[error("image is not for {wanted}: it has {}", if found.is_empty() { "nothing" } else { found })]
    Platform {
        /// This machine, such as `linux/arm64`.
        wanted: String,
        /// What there is, separated by commas.
        found: String,
    },
    /// No such image, layer or prepared root.
    #[error("{0} is not in the image store")]
    NotFound(String),
    /// An archive that does not say what its image is called, and nobody else did.
    #[error("archive names no image: give a reference")]
    Unnamed,
    /// The registry could not be reached, broke off, or answered something else than it should.
    #[error("registry {registry} failed")]
    Registry {
        /// Which.
        registry: String,
        /// Whether that may pass.
        retry: bool,
        /// Its answer, or what the network said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry wants to know who is asking, or does not let them.
    #[error("registry {registry} does not allow it: credentials are missing, wrong, or not for this image")]
    Unauthorized {
        /// Which.
        registry: String,
    },
    /// The registry does not have it.
    #[error("registry {registry} does not have the image")]
    Unknown {
        /// Which.
        registry: String,
    },
    /// The layers as they came were not kept.
    #[error("image {0} cannot be exported: its layers were not kept (keep_layer_blobs)")]
    NotKept(Digest),
    /// A root file system could not be mounted.
    #[error("cannot mount the root file system of {container}{}", if hint.is_empty() { "" } else { hint })]
    Mount {
        /// The container.
        container: String,
        /// What would help, when that is known.
        hint: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A decoder gave up on the content with a panic, or the work was stopped.
    #[error("{0} was broken off")]
    Broken(&'static str),
}

impl Error {
    /// Whether the same call may succeed later without anybody changing something: the network or the disk may recover,
    /// a wrong digest or a malformed image will not.
    pub fn can_retry(&self) -> bool {
        match self {
            Error::Registry { retry, .. } => *retry,
            // A tag may be pushed, or rights be given, later.
            Error::Unknown { .. } | Error::Unauthorized { .. } => true,
            Error::Disk { .. } | Error::NoSpace { .. } | Error::Locked(_) | Error::Broken(_) => true,
            _ => false,
        }
    }

    /// Whether another registry with the same image may do better.
    pub(super) fn is_of_registry(&self) -> bool {
        matches!(
            self,
            Error::Registry { .. }
                | Error::Unauthorized { .. }
                | Error::Unknown { .. }
                | Error::Digest { .. }
                | Error::Json { .. }
                | Error::Invalid { .. }
        )
    }

    /// For `map_err`: the disk refused an action on a path.
    pub(super) fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Disk { action, path, source }
    }

    pub(super) fn invalid(what: impl Into<String>, rule: impl Into<String>) -> Error {
        Error::Invalid { what: what.into(), rule: rule.into() }
    }
}
