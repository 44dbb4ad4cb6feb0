//! Schema versions of the store's database and the way from each to the next.
//!
//! | version | layout |
//! |---------|--------|
//! | 1 | key `pods/default/web`, value the object as JSON; no schema record |
//! | 2 | key `o/pods/default/web`, value as in [`record`]; the schema version under `m/schema` |
//!
//! Every step is one commit that ends with the new version, and can be repeated: a crash in its middle leaves a prefix, and
//! the next open takes the same step again.

use super::OpenError;
use super::record;
use crate::disk::{Change, Database, Purpose};

/// The version this program writes.
pub const SCHEMA: u32 = 2;

const SCHEMA_KEY: &[u8] = b"m/schema";

/// Brings the database to [`SCHEMA`]; tells from which version, if it was another.
pub(super) fn migrate(database: &mut Database) -> Result<Option<u32>, OpenError> {
    let found = version(database)?;
    match found {
        Some(SCHEMA) => return Ok(None),
        Some(newer) if newer > SCHEMA => return Err(OpenError::Newer { found: newer, known: SCHEMA }),
        Some(_) => one_to_two(database)?,
        None => database.commit(Purpose::Add, &[schema_record()])?,
    }
    Ok(found)
}

fn schema_record() -> Change {
    Change::Put(SCHEMA_KEY.to_vec(), SCHEMA.to_string().into_bytes())
}

/// `None` for an empty database.
fn version(database: &mut Database) -> Result<Option<u32>, OpenError> {
    if let Some(text) = database.get(SCHEMA_KEY)? {
        // A version that is no number was written by nobody we know; the objects are read for what they are worth.
        return Ok(Some(String::from_utf8_lossy(&text).parse().unwrap_or(1)));
    }
    let mut empty = true;
    database.scan(&[], |_, _| {
        empty = false;
        false
    })?;
    Ok(if empty { None } else { Some(1) })
}

fn one_to_two(database: &mut Database) -> Result<(), OpenError> {
    let mut changes = Vec::new();
    database.scan(&[], |key, value| {
        if !key.starts_with(record::OBJECTS) && key != SCHEMA_KEY {
            match record::decode_json(&value) {
                Ok(object) => {
                    changes.push(Change::Put(record::key(&object.key()), record::encode(&object)));
                    changes.push(Change::Delete(key.to_vec()));
                }
                Err(error) => {
                    let key = String::from_utf8_lossy(key);
                    tracing::warn!(%key, %error, "object of schema 1 cannot be read: left behind");
                }
            }
        }
        true
    })?;
    changes.push(schema_record());
    database.commit(Purpose::Add, &changes)?;
    Ok(())
}
