//! How an object lies in the database and in the snapshot: a version byte, then postcard around the JSON body.
//!
//! The body stays JSON because it has no fixed schema; what the store itself needs stands beside it.

use edge_model::{Key, Object};
use serde::{Deserialize, Serialize};

use crate::disk::Change;

/// The first byte of every record. A new layout gets a new number and an arm in [`decode`].
const LAYOUT: u8 = 2;

/// Where objects begin in the database.
pub(super) const OBJECTS: &[u8] = b"o/";

/// Where the version of the newest committed change stands.
pub(super) const VERSION: &[u8] = b"m/version";

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    version: u64,
    json: &'a [u8],
}

/// Why a record is not an object.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("layout {0} is unknown")]
    Layout(u8),
    #[error("record is empty")]
    Empty,
    #[error("record is damaged")]
    Postcard(#[source] postcard::Error),
    #[error("body is not JSON")]
    Json(#[source] serde_json::Error),
    #[error("body is not an object")]
    Object(#[source] edge_model::object::ObjectError),
}

/// `o/pods/default/web`.
pub(super) fn key(key: &Key) -> Vec<u8> {
    [OBJECTS, key.to_string().as_bytes()].concat()
}

/// The change that notes the version of a commit.
pub(super) fn version(version: u64) -> Change {
    Change::Put(VERSION.to_vec(), version.to_string().into_bytes())
}

/// The record of an object.
pub(super) fn encode(object: &Object) -> Vec<u8> {
    let json = object.to_json().to_string();
    let record = Record { version: object.metadata.version(), json: json.as_bytes() };
    // Serialising into a growing vector cannot fail for a number and bytes.
    postcard::to_extend(&record, vec![LAYOUT]).unwrap_or_default()
}

/// The object of a record.
pub(super) fn decode(bytes: &[u8]) -> Result<Object, RecordError> {
    match bytes.split_first() {
        Some((&LAYOUT, body)) => {
            let record: Record<'_> = postcard::from_bytes(body).map_err(RecordError::Postcard)?;
            let mut object = decode_json(record.json)?;
            object.metadata.resource_version = record.version.to_string();
            Ok(object)
        }
        Some((&other, _)) => Err(RecordError::Layout(other)),
        None => Err(RecordError::Empty),
    }
}

/// The object of a bare JSON body.
pub(super) fn decode_json(json: &[u8]) -> Result<Object, RecordError> {
    let value = serde_json::from_slice(json).map_err(RecordError::Json)?;
    Object::from_json(value).map_err(RecordError::Object)
}
