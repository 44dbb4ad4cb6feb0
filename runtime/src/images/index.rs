//! Which reference means which image: a small JSON file, replaced whole.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Digest, Error, disk};

/// Longest index file read.
const MAX_INDEX: u64 = 16 << 20;

/// The file: reference → what it means.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    /// The format of this file; 1.
    version: u32,
    pub(super) images: BTreeMap<String, Named>,
}

/// What a reference means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Named {
    /// The manifest for this machine.
    pub(super) digest: Digest,
    /// When it got this meaning, UTC milliseconds.
    pub(super) since_ms: i64,
    /// Where it came from; what an index of before does not say was brought by hand.
    #[serde(default)]
    pub(super) origin: Origin,
}

/// Where an image came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Origin {
    /// Brought by hand: nobody but that hand can bring it again, so it is never collected.
    #[default]
    Imported,
    /// Out of a registry, which has it still.
    Pulled,
}

impl Index {
    /// Reads the file. One that is damaged is set aside: the images can be pulled or imported again, while a store that
    /// does not open would keep every pod from starting.
    pub(super) fn load(path: &Path) -> Result<Index, Error> {
        let bytes = match disk::read_small(path, MAX_INDEX) {
            Ok(bytes) => bytes,
            Err(Error::Disk { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Index::new()),
            Err(e) => return Err(e),
        };
        match serde_json::from_slice::<Index>(&bytes) {
            Ok(index) if index.version == 1 => Ok(index),
            parsed => {
                let aside = path.with_extension("json.damaged");
                let error = parsed.err().map(|e| e.to_string());
                tracing::error!(file = %path.display(), set_aside = %aside.display(), error, "image index is damaged");
                std::fs::rename(path, &aside).map_err(Error::disk("set aside", path))?;
                Ok(Index::new())
            }
        }
    }

    fn new() -> Index {
        Index { version: 1, images: BTreeMap::new() }
    }

    pub(super) fn save(&self, temp: &Path, path: &Path) -> Result<(), Error> {
        let what = || "image index".to_owned();
        let bytes = serde_json::to_vec_pretty(self).map_err(|source| Error::Json { what: what(), source })?;
        disk::write_atomic(temp, path, &bytes)
    }
}
