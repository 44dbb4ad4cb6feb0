//! The objects once more, in one file that is replaced as a whole: what the store comes back from when its database will not
//! open.
//!
//! The file is `EDGEOBJ`, a version byte, the CRC-32 of the rest, and zlib around postcard. It is written some minutes after
//! a change and at shutdown, so it may lack the last changes; the doors bring their objects again anyway. What was deleted
//! since is noted beside it (`tombstones`) before the deletion is acknowledged, and never comes back. Events are left out.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use edge_model::{Kind, Object};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::record;
use crate::disk;

const MAGIC: &[u8; 8] = b"EDGEOBJ\x01";

/// No snapshot is larger than this when unpacked: what claims to be is not one of ours.
const MAX_BYTES: u64 = 256 << 20;

/// Whether objects of this kind are worth bringing back.
pub(super) fn keeps(kind: Kind) -> bool {
    kind != Kind::Event
}

/// All objects at one version of the store.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    /// The version of the newest change in it.
    pub version: u64,
    /// The objects.
    pub objects: Vec<Arc<Object>>,
}

/// Replaces the snapshot.
pub(super) fn write(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    disk::write_atomically(path, &encode(snapshot)?)
}

/// The snapshot; an empty one of version 0 when there is none.
pub(super) fn read(path: &Path) -> io::Result<Snapshot> {
    match std::fs::read(path) {
        Ok(bytes) => decode(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Snapshot::default()),
        Err(error) => Err(error),
    }
}

fn encode(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&snapshot.version.to_le_bytes())?;
    for object in snapshot.objects.iter().filter(|o| keeps(o.kind)) {
        let record = record::encode(object);
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        packer.write_all(&length.to_le_bytes())?;
        packer.write_all(&record)?;
    }
    let body = packer.finish()?;
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    Ok([MAGIC.as_slice(), &crc.sum().to_le_bytes(), &body].concat())
}

fn decode(bytes: &[u8]) -> io::Result<Snapshot> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or_else(|| bad("not a snapshot of objects"))?;
    let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| bad("snapshot is too short"))?;
    let mut sum = flate2::Crc::new();
    sum.update(body);
    if sum.sum() != u32::from_le_bytes(*crc) {
        return Err(bad("snapshot is damaged"));
    }
    let mut unpacked = Vec::new();
    ZlibDecoder::new(body).take(MAX_BYTES).read_to_end(&mut unpacked)?;
    let (version, mut rest) = unpacked.split_first_chunk::<8>().ok_or_else(|| bad("snapshot has no version"))?;
    let mut objects = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (record, tail) = tail.split_at_checked(length).ok_or_else(|| bad("snapshot ends in the middle"))?;
        match record::decode(record) {
            Ok(object) => objects.push(Arc::new(object)),
            Err(error) => tracing::warn!(%error, "object of the snapshot cannot be read: left out"),
        }
        rest = tail;
    }
    Ok(Snapshot { version: u64::from_le_bytes(*version), objects })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn some() -> Snapshot {
        let objects = (0..10)
            .map(|i| {
                let mut object = Object::new(Kind::ConfigMap, "", &format!("c{i}"), json!({"n": i}));
                object.metadata.resource_version = (i + 1).to_string();
                Arc::new(object)
            })
            .collect();
        Snapshot { version: 77, objects }
    }

    #[test]
    fn what_is_written_is_read_but_for_events() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("objects.snapshot");
        assert_eq!(read(&path).unwrap(), Snapshot::default());
        let mut all = some();
        all.objects.push(Arc::new(Object::new(Kind::Event, "", "e", json!({}))));
        write(&path, &all).unwrap();
        assert_eq!(read(&path).unwrap(), some());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn a_flipped_bit_is_noticed(at in 0usize..100, bit in 0u8..8) {
            let mut bytes = encode(&some()).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
