//! The artefact: one tar file (POSIX ustar) with three members in this order, so that it can be looked into and checked with
//! ordinary tools.
//!
//! ```text
//! manifest.json        what it is: version, target, size and SHA-256 of the executable
//! manifest.json.sig    Ed25519 over the manifest's bytes, 64 bytes
//! edge-runtime.gz      the executable
//! ```
//!
//! Reading is strict and bounded: nothing but the first two headers is looked at before the signature is right, nothing of the
//! executable is used before its size and digest are.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use ring::digest::{Context, SHA256};

use super::keys::{PrivateKey, PublicKey};
use super::manifest::{self, Manifest, Refusal};

/// A block of a tar file.
const BLOCK: usize = 512;
/// The members, in order.
const MEMBERS: [&str; 3] = ["manifest.json", "manifest.json.sig", "edge-runtime.gz"];
/// The bytes of a signature.
const SIGNATURE: u64 = 64;
/// How much is read at once.
const PIECE: usize = 64 << 10;

/// Why an artefact cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// It cannot be read to its end, or what is read cannot be put away.
    #[error("the artefact cannot be unpacked")]
    Io(#[source] io::Error),
    /// It ends too early.
    #[error("the artefact is truncated: copy it again")]
    Truncated,
    /// It is something else.
    #[error("this is no artefact: expected a tar file with {expected} here, as `edge-runtime update pack` makes it")]
    Shape {
        /// The member that should be here.
        expected: &'static str,
    },
    /// There is nobody to trust.
    #[error(
        "no key is trusted, so nothing can be installed: put the maker's public key into {} or into update.public-keys",
        super::keys::FOLDER
    )]
    NoKeys,
    /// Nobody who is trusted has signed it.
    #[error(
        "the artefact is not signed with a key this node trusts ({0} known), or it was changed after it was signed"
    )]
    Signature(usize),
    /// It may not be installed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The executable is not the one that was signed.
    #[error("the executable in the artefact is not the one that was signed: copy it again, or ask where it comes from")]
    Digest,
    /// The executable is for another processor.
    #[error("the executable in the artefact is not for {0}")]
    Processor(String),
}

/// An artefact whose signature is right.
#[derive(Debug)]
pub struct Artefact<R> {
    /// What it says of itself.
    pub manifest: Manifest,
    reader: R,
    packed: u64,
}

impl<R: Read> Artefact<R> {
    /// Reads up to the executable, and checks the signature.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(mut reader: R, keys: &[PublicKey]) -> Result<Artefact<R>, ArtefactError> {
        if keys.is_empty() {
            return Err(ArtefactError::NoKeys);
        }
        let text = member(&mut reader, MEMBERS[0], manifest::LONGEST)?;
        let signature = member(&mut reader, MEMBERS[1], SIGNATURE)?;
        if !keys.iter().any(|key| key.verifies(&text, &signature)) {
            return Err(ArtefactError::Signature(keys.len()));
        }
        let manifest = Manifest::decode(&text)?;
        let packed = header(&mut reader, MEMBERS[2], manifest::LARGEST)?;
        Ok(Artefact { manifest, reader, packed })
    }

    /// Unpacks the executable into `to` and checks that it is the one that was signed; `step` hears of every piece's bytes.
    ///
    /// # Errors
    /// What is wrong; what has been written is then worth nothing.
    pub fn unpack(self, to: &mut impl Write, mut step: impl FnMut(u64)) -> Result<(), ArtefactError> {
        let Artefact { manifest, reader, packed } = self;
        let mut unpacker = GzDecoder::new(reader.take(packed));
        let mut context = Context::new(&SHA256);
        let mut piece = vec![0; PIECE];
        let mut length = 0_u64;
        let mut head = Vec::new();
        loop {
            let count = match unpacker.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ArtefactError::Truncated),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(ArtefactError::Digest),
                Err(error) => return Err(ArtefactError::Io(error)),
            };
            let Some(bytes) = piece.get(..count) else { break };
            if head.len() < 20 {
                head.extend_from_slice(bytes);
            }
            length += u64::try_from(count).unwrap_or(u64::MAX);
            if length > manifest.size {
                return Err(ArtefactError::Digest);
            }
            context.update(bytes);
            to.write_all(bytes).map_err(ArtefactError::Io)?;
            step(u64::try_from(count).unwrap_or_default());
        }
        if length != manifest.size || hex(context.finish().as_ref()) != manifest.sha256 {
            return Err(ArtefactError::Digest);
        }
        match manifest::processor(&head) {
            Some(processor) if manifest.target.starts_with(processor) => Ok(()),
            _ => Err(ArtefactError::Processor(manifest.target)),
        }
    }
}

/// Writes an artefact.
///
/// # Errors
/// What the system says.
pub fn pack(manifest: &Manifest, executable: &[u8], key: &PrivateKey, to: &mut impl Write) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(manifest).map_err(io::Error::other)?;
    text.push(b'\n');
    let signature = key.sign(&text);
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(executable)?;
    for (name, bytes) in MEMBERS.iter().zip([text, signature, packer.finish()?]) {
        to.write_all(&make_header(name, bytes.len()))?;
        to.write_all(&bytes)?;
        to.write_all(&vec![0; padding(bytes.len())])?;
    }
    // Two blocks of zeros are the end.
    to.write_all(&[0; 2 * BLOCK])
}

/// The SHA-256 of what a reader gives, in hexadecimal, and its length.
///
/// # Errors
/// What the system says.
pub fn digest(mut reader: impl Read) -> io::Result<(String, u64)> {
    let (mut context, mut piece, mut length) = (Context::new(&SHA256), vec![0; PIECE], 0);
    loop {
        let count = reader.read(&mut piece)?;
        let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        context.update(bytes);
        length += u64::try_from(count).unwrap_or_default();
    }
    Ok((hex(context.finish().as_ref()), length))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(BLOCK) - length
}

fn exact(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), ArtefactError> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ArtefactError::Truncated,
        _ => ArtefactError::Io(error),
    })
}

/// A whole small member.
fn member(reader: &mut impl Read, name: &'static str, longest: u64) -> Result<Vec<u8>, ArtefactError> {
    let length = usize::try_from(header(reader, name, longest)?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    exact(reader, &mut bytes)?;
    exact(reader, &mut vec![0; padding(length)])?;
    Ok(bytes)
}

/// The size in a header, which must be of a plain file with this name (POSIX.1-2017, pax, "ustar Interchange Format").
fn header(reader: &mut impl Read, name: &'static str, longest: u64) -> Result<u64, ArtefactError> {
    let mut block = [0; BLOCK];
    exact(reader, &mut block)?;
    read_header(&block, name).filter(|size| *size <= longest).ok_or(ArtefactError::Shape { expected: name })
}

fn read_header(block: &[u8; BLOCK], name: &str) -> Option<u64> {
    let field = |from: usize, length: usize| block.get(from..from + length);
    let named = field(0, 100)?.split(|b| *b == 0).next() == Some(name.as_bytes());
    let plain = matches!(block.get(156), Some(b'0' | 0));
    let ours = field(257, 5)? == b"ustar" && field(345, 155)?.iter().all(|b| *b == 0);
    if !(named && plain && ours && octal(field(148, 8)?)? == checksum(block)) {
        return None;
    }
    octal(field(124, 12)?)
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| u64::from_str_radix(text, 8).ok()).flatten()
}

/// The sum of all bytes, those of the checksum itself as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { u64::from(b' ') } else { u64::from(*b) }).sum()
}

fn make_header(name: &str, length: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |from: usize, text: &[u8]| {
        for (to, byte) in block.iter_mut().skip(from).zip(text) {
            *to = *byte;
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{length:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum = checksum(&block);
    for (to, byte) in block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = byte;
    }
    block
}

#[cfg(test)]
#[path = "artefact_tests.rs"]
mod tests;
