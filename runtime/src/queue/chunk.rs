//! A chunk: the messages of one commit (or a few small ones) of one stream, packed into one value.
//!
//! Layout byte, packing byte, then the messages one after another in postcard. Sequence numbers are not stored: a chunk's
//! messages follow each other from the number in its key.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::Message;

/// The first byte of every chunk.
const LAYOUT: u8 = 1;

/// The second byte: the messages as they are, for what does not get smaller.
const PLAIN: u8 = 0;
/// The second byte: raw deflate (RFC 1951).
const DEFLATE: u8 = 1;

/// What unpacks to more is not one of ours.
const MAX_UNPACKED: u64 = 64 << 20;

/// Why bytes are not a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a chunk of the queue")]
pub(super) struct Damaged;

/// Packs messages, with `level` from 0 (not at all) to 9.
pub(super) fn encode<'a>(messages: impl IntoIterator<Item = &'a Message>, level: u32) -> Vec<u8> {
    let mut plain = vec![LAYOUT, PLAIN];
    for message in messages {
        // Serialising numbers, text and bytes into a growing vector cannot fail.
        plain = postcard::to_extend(message, plain).unwrap_or_default();
    }
    if level > 0
        && let Some(body) = plain.get(2..)
        && let Ok(packed) = pack(body, level)
        && packed.len() < plain.len()
    {
        return packed;
    }
    plain
}

fn pack(body: &[u8], level: u32) -> std::io::Result<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(vec![LAYOUT, DEFLATE], Compression::new(level.min(9)));
    encoder.write_all(body)?;
    encoder.finish()
}

/// The first `count` messages of a chunk. There may be more when a crash came between the chunk and its entry in the index;
/// those were never acknowledged.
pub(super) fn decode(bytes: &[u8], count: usize) -> Result<Vec<Message>, Damaged> {
    let unpacked;
    let mut rest = match bytes {
        [LAYOUT, PLAIN, body @ ..] => body,
        [LAYOUT, DEFLATE, body @ ..] => {
            unpacked = unpack(body)?;
            unpacked.as_slice()
        }
        _ => return Err(Damaged),
    };
    let mut messages = Vec::new();
    while messages.len() < count {
        let (message, tail) = postcard::take_from_bytes(rest).map_err(|_| Damaged)?;
        messages.push(message);
        rest = tail;
    }
    Ok(messages)
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut unpacked = Vec::with_capacity(body.len().saturating_mul(4).min(256 << 10));
    DeflateDecoder::new(body).take(MAX_UNPACKED).read_to_end(&mut unpacked).map_err(|_| Damaged)?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages() -> impl Strategy<Value = Vec<Message>> {
        let message = (any::<i64>(), "[a-z/]{0,40}", proptest::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(time_ms, subject, payload)| Message { time_ms, subject, payload });
        proptest::collection::vec(message, 0..40)
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(messages in messages(), level in 0u32..10) {
            let bytes = encode(&messages, level);
            prop_assert_eq!(decode(&bytes, messages.len()), Ok(messages.clone()));
            prop_assert_eq!(decode(&bytes, messages.len() / 2).unwrap(), messages[..messages.len() / 2].to_vec());
        }

        #[test]
        fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), packing in 0u8..2, count in 0usize..9) {
            let _ = decode(&bytes, count);
            if let [layout, kind, ..] = bytes.as_mut_slice() {
                (*layout, *kind) = (LAYOUT, packing);
            }
            let _ = decode(&bytes, count);
        }

        #[test]
        fn a_cut_chunk_is_an_error_or_shorter(messages in messages(), cut in 0usize..100) {
            let bytes = encode(&messages, 6);
            let cut = &bytes[..cut.min(bytes.len())];
            if let Ok(back) = decode(cut, messages.len()) {
                prop_assert_eq!(back, messages);
            }
        }
    }
}
