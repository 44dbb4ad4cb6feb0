//! What a restarted runtime has to know about a running pod, in small files in memory: gone after a reboot, as the containers
//! are. Written before what they describe is made, so that kill -9 at any point leaves nothing unexplained.
//!
//! ```text
//! <run>/pods/<uid>/sandbox.json              the sandbox: hash, address, which init containers are done
//!                 /containers/<name>.json    the newest container of that name
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::network::Attachment;

/// The sandbox of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Whose it is.
    pub namespace: String,
    /// Whose it is.
    pub name: String,
    /// The hash of the spec it was made from.
    pub hash: String,
    /// The boot it was made in.
    pub boot: String,
    /// The init containers that have ended with 0 in it.
    pub initialized: BTreeSet<String>,
    /// The pod's address and host ports; none on the node's own network.
    pub network: Attachment,
    /// Seconds between SIGTERM and SIGKILL, for a pod whose object is gone.
    pub grace: u32,
}

/// The newest container of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its identity in the engine.
    pub id: String,
    /// The hash of the spec it was made from.
    pub hash: String,
    /// The digest of its image.
    pub image_id: String,
    /// The signal that asks it to end.
    pub stop_signal: i32,
}

/// The identity of a container in the engine: whose, which, and the how manieth.
pub fn container_id(uid: &str, container: &str, restarts: u32) -> String {
    format!("{uid}.{container}.{restarts}")
}

/// Takes such an identity apart: uid, container, restarts. `None` for what is not a pod's.
pub fn parse_id(id: &str) -> Option<(&str, &str, u32)> {
    let (rest, restarts) = id.rsplit_once('.')?;
    let (uid, container) = rest.rsplit_once('.')?;
    (!uid.is_empty() && edge_model::name::is_label(container)).then_some((uid, container, restarts.parse().ok()?))
}

/// Where the sandbox of a pod is described.
pub fn sandbox_path(run: &Path) -> PathBuf {
    run.join("sandbox.json")
}

/// The networks of the pods whose sandbox was made in this boot, by uid.
pub fn networks(pods: &Path, boot: &str) -> BTreeMap<String, Attachment> {
    let entries = fs::read_dir(pods).into_iter().flatten().flatten();
    let attachment = |entry: fs::DirEntry| {
        let record: SandboxRecord = read(&sandbox_path(&entry.path()))?;
        let attached = record.boot == boot && record.network.ip.is_some();
        attached.then_some((entry.file_name().into_string().ok()?, record.network))
    };
    entries.filter_map(attachment).collect()
}

/// Where the newest container of a name is described.
pub fn container_path(run: &Path, container: &str) -> PathBuf {
    run.join("containers").join(format!("{container}.json"))
}

/// Replaces a record as a whole.
///
/// # Errors
/// The system's.
pub fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let temporary = path.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(value).map_err(io::Error::other)?)?;
    fs::rename(temporary, path)
}

/// Reads a record; `None` when there is none that can be read.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_come_apart_again() {
        let uid = "0b3f8a5e-1111-4222-8333-944445555666";
        let longest = "c".repeat(63);
        let id = container_id(uid, &longest, u32::MAX);
        assert!(id.len() <= 128);
        assert_eq!(parse_id(&id), Some((uid, longest.as_str(), u32::MAX)));
        for other in ["", "a", "a.b", "a.b.c", ".b.1", "a.B.1", "a.b.-1"] {
            assert_eq!(parse_id(other), None, "{other}");
        }
    }
}
