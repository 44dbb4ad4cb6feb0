//! The user-based security model of version 3 (RFC 3414, RFC 3826, RFC 7860) for messages nobody asked for, purely.
//!
//! The library has it for answers to its own requests: it takes the clock of a message before it has verified the message,
//! and names an answer by a number of its own instead of the sender's.

use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use aes::{Aes128, Aes192, Aes256};
use des::Des;
use des::cipher::{BlockDecrypt as _, BlockEncrypt as _, KeyInit as _};
use edge_model::device::snmp::{Auth, Link, Privacy};
use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};
use snmp2::AsnReader;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;
/// Bits of `msgFlags` (RFC 3412, section 6.4).
const AUTH: u8 = 1;
const PRIVACY: u8 = 2;
const REPORTABLE: u8 = 4;
/// What a password is repeated to (RFC 3414, section A.2).
const STRETCHED: usize = 1 << 20;
/// The largest message taken, in bytes: what fits into a UDP packet.
const MAX_SIZE: u32 = 65_507;

/// How well a message is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Plain,
    Signed,
    Sealed,
}

/// A message of version 3, taken apart and not yet believed.
#[derive(Debug)]
pub(super) struct Message<'a> {
    whole: &'a [u8],
    pub(super) id: u32,
    pub(super) level: Level,
    /// The sender wants to hear when something is wrong with it.
    pub(super) reportable: bool,
    pub(super) engine: &'a [u8],
    pub(super) boots: u32,
    pub(super) time: u32,
    pub(super) user: &'a [u8],
    digest: &'a [u8],
    salt: &'a [u8],
    /// What is inside: context and PDU, or their ciphertext.
    data: &'a [u8],
}

impl<'a> Message<'a> {
    /// `None` when it is none, or of another version or security model.
    pub(super) fn parse(whole: &'a [u8]) -> Option<Message<'a>> {
        let mut outer = AsnReader::from_bytes(whole);
        let mut body = AsnReader::from_bytes(outer.read_raw(SEQUENCE).ok()?);
        if outer.bytes_left() != 0 || body.read_asn_integer().ok()? != 3 {
            return None;
        }
        let mut header = AsnReader::from_bytes(body.read_raw(SEQUENCE).ok()?);
        let id = number(&mut header)?;
        number(&mut header)?;
        let &[flags] = header.read_asn_octetstring().ok()? else { return None };
        let level = match flags & (AUTH | PRIVACY) {
            0 => Level::Plain,
            AUTH => Level::Signed,
            PRIVACY => return None,
            _ => Level::Sealed,
        };
        if header.read_asn_integer().ok()? != 3 {
            return None;
        }
        let mut security = AsnReader::from_bytes(body.read_asn_octetstring().ok()?);
        let mut security = AsnReader::from_bytes(security.read_raw(SEQUENCE).ok()?);
        let engine = security.read_asn_octetstring().ok()?;
        let (boots, time) = (number(&mut security)?, number(&mut security)?);
        let user = security.read_asn_octetstring().ok()?;
        let digest = security.read_asn_octetstring().ok()?;
        let salt = security.read_asn_octetstring().ok()?;
        let data = body.read_raw(if level == Level::Sealed { OCTETS } else { SEQUENCE }).ok()?;
        let reportable = flags & REPORTABLE != 0;
        Some(Message { whole, id, level, reportable, engine, boots, time, user, digest, salt, data })
    }

    /// The whole message with a digest in the place of its own.
    fn with_digest(&self, digest: &[u8]) -> Option<Vec<u8>> {
        let at = self.digest.as_ptr().addr().checked_sub(self.whole.as_ptr().addr())?;
        let mut whole = self.whole.to_vec();
        let place = whole.get_mut(at..at.checked_add(self.digest.len())?)?;
        if place.len() != digest.len() {
            return None;
        }
        place.copy_from_slice(digest);
        Some(whole)
    }

    /// As a sender with this key signs it.
    #[cfg(test)]
    pub(super) fn signed_anew(&self, user: &User, keys: &Keys) -> Option<Vec<u8>> {
        let (auth, _) = user.auth.as_ref()?;
        let mut digest = hmac(*auth, &keys.auth, &self.with_digest(&vec![0; digest_length(*auth)])?);
        digest.truncate(digest_length(*auth));
        self.with_digest(&digest)
    }

    /// Whether it was signed with this key.
    pub(super) fn is_signed(&self, user: &User, keys: &Keys) -> bool {
        let Some((auth, _)) = user.auth else { return false };
        let blank = vec![0; digest_length(auth)];
        let Some(blanked) = self.with_digest(&blank) else { return false };
        let right = hmac(auth, &keys.auth, &blanked);
        // All of it is looked at, so that the time tells nothing.
        self.digest.iter().zip(&right).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    /// Context and PDU; `None` when they cannot be decrypted.
    pub(super) fn open(&self, user: &User, keys: &Keys) -> Option<Vec<u8>> {
        if self.level != Level::Sealed {
            return Some(self.data.to_vec());
        }
        let (privacy, _) = user.privacy.as_ref()?;
        let salt = self.salt.try_into().ok()?;
        let text = crypt(*privacy, &keys.privacy, self.boots, self.time, salt, self.data, false)?;
        // Behind it may be padding.
        AsnReader::from_bytes(&text).read_raw(SEQUENCE).ok().map(<[u8]>::to_vec)
    }
}

/// 0 to 2^31 - 1.
fn number(reader: &mut AsnReader<'_>) -> Option<u32> {
    let number = i32::try_from(reader.read_asn_integer().ok()?).ok()?;
    u32::try_from(number).ok()
}

/// Somebody with passwords, as keys that belong to no engine yet.
#[derive(Debug)]
pub(super) struct User {
    pub(super) name: Vec<u8>,
    auth: Option<(Auth, Vec<u8>)>,
    privacy: Option<(Privacy, Vec<u8>)>,
}

/// The keys of a user at one engine.
#[derive(Debug)]
pub(super) struct Keys {
    auth: Vec<u8>,
    privacy: Vec<u8>,
}

impl Keys {
    /// That of digests.
    #[cfg(test)]
    pub(super) fn signing(&self) -> &[u8] {
        &self.auth
    }

    /// Those of who has no passwords.
    pub(super) const fn none() -> Keys {
        Keys { auth: Vec::new(), privacy: Vec::new() }
    }
}

impl User {
    /// The user of a device. Hashes a mebibyte per password.
    pub(super) fn new(link: &Link) -> User {
        let stretch = |auth: Auth, password: &str| {
            let long: Vec<u8> = password.bytes().cycle().take(STRETCHED).collect();
            hash(auth, &[&long])
        };
        let auth = link.auth.map(|a| (a, stretch(a, &link.auth_password)));
        let privacy = link.auth.zip(link.privacy).map(|(a, p)| (p, stretch(a, &link.privacy_password)));
        User { name: link.user.clone().into_bytes(), auth, privacy }
    }

    /// Somebody without passwords.
    pub(super) fn nobody(name: &[u8]) -> User {
        User { name: name.to_vec(), auth: None, privacy: None }
    }

    pub(super) const fn level(&self) -> Level {
        match (&self.auth, &self.privacy) {
            (None, _) => Level::Plain,
            (Some(_), None) => Level::Signed,
            (Some(_), Some(_)) => Level::Sealed,
        }
    }

    /// The keys at an engine (RFC 3414, section 2.6).
    pub(super) fn keys(&self, engine: &[u8]) -> Keys {
        let Some((auth, key)) = &self.auth else { return Keys::none() };
        let localized = |key: &Vec<u8>| hash(*auth, &[key, engine, key]);
        let mut privacy = self.privacy.as_ref().map(|(_, key)| localized(key)).unwrap_or_default();
        // Too short for the longer ciphers: Blumenthal's way, as for requests.
        while self.privacy.is_some() && privacy.len() < 32 {
            let more = hash(*auth, &[&privacy]);
            privacy.extend(more);
        }
        Keys { auth: localized(key), privacy }
    }
}

/// What is on the outside of an answer.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub(super) id: u32,
    pub(super) level: Level,
    pub(super) engine: &'a [u8],
    pub(super) boots: u32,
    pub(super) time: u32,
    pub(super) salt: [u8; 8],
}

/// A message of a user, with context and PDU inside.
pub(super) fn seal(outside: &Envelope<'_>, user: &User, keys: &Keys, inside: &[u8]) -> Option<Vec<u8>> {
    let auth = user.auth.as_ref().map(|(auth, _)| *auth).filter(|_| outside.level != Level::Plain);
    let scoped = tlv(SEQUENCE, &[inside]);
    let (flags, salt, data) = match (outside.level, &user.privacy) {
        (Level::Plain, _) => (0, &[][..], scoped),
        (Level::Signed, _) => (AUTH, &[][..], scoped),
        (Level::Sealed, None) => return None,
        (Level::Sealed, Some((privacy, _))) => {
            let data = crypt(*privacy, &keys.privacy, outside.boots, outside.time, outside.salt, &scoped, true)?;
            (AUTH | PRIVACY, &outside.salt[..], tlv(OCTETS, &[&data]))
        }
    };
    let header = [integer(outside.id), integer(MAX_SIZE), tlv(OCTETS, &[&[flags]]), integer(3)];
    let security = [
        tlv(OCTETS, &[outside.engine]),
        integer(outside.boots),
        integer(outside.time),
        tlv(OCTETS, &[&user.name]),
        tlv(OCTETS, &[&vec![0; auth.map_or(0, digest_length)]]),
        tlv(OCTETS, &[salt]),
    ];
    let message = tlv(
        SEQUENCE,
        &[
            &integer(3),
            &tlv(SEQUENCE, &[&header.concat()]),
            &tlv(OCTETS, &[&tlv(SEQUENCE, &[&security.concat()])]),
            &data,
        ],
    );
    let Some(auth) = auth else { return Some(message) };
    let mut digest = hmac(auth, &keys.auth, &message);
    digest.truncate(digest_length(auth));
    Message::parse(&message)?.with_digest(&digest)
}

/// Tag, length and value (X.690, section 8.1).
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let mut whole = vec![tag];
    match u8::try_from(value.len()) {
        Ok(short @ 0..=127) => whole.push(short),
        _ => {
            let length = value.len().to_be_bytes();
            let digits = length.iter().copied().skip_while(|b| *b == 0).collect::<Vec<_>>();
            whole.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
            whole.extend(digits);
        }
    }
    whole.extend(value);
    whole
}

/// A number that is not negative.
pub(super) fn integer(number: u32) -> Vec<u8> {
    let mut digits: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
    if digits.first().is_none_or(|b| *b > 127) {
        digits.insert(0, 0);
    }
    tlv(INTEGER, &[&digits])
}

fn hash(auth: Auth, parts: &[&[u8]]) -> Vec<u8> {
    // Two generations of the same trait are in the tree; a generic function would have one of them.
    macro_rules! digest {
        ($hash:ty) => {{
            let mut hash = <$hash>::new();
            for part in parts {
                hash.update(part);
            }
            hash.finalize().to_vec()
        }};
    }
    match auth {
        Auth::Md5 => digest!(Md5),
        Auth::Sha => digest!(Sha1),
        Auth::Sha224 => digest!(Sha224),
        Auth::Sha256 => digest!(Sha256),
        Auth::Sha384 => digest!(Sha384),
        Auth::Sha512 => digest!(Sha512),
    }
}

/// How much of the digest is sent.
const fn digest_length(auth: Auth) -> usize {
    match auth {
        Auth::Md5 | Auth::Sha => 12,
        Auth::Sha224 => 16,
        Auth::Sha256 => 24,
        Auth::Sha384 => 32,
        Auth::Sha512 => 48,
    }
}

/// RFC 2104. Keys are hashes, and shorter than a block.
fn hmac(auth: Auth, key: &[u8], data: &[u8]) -> Vec<u8> {
    let block = if matches!(auth, Auth::Sha384 | Auth::Sha512) { 128 } else { 64 };
    let pad = |with: u8| -> Vec<u8> { (0..block).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect() };
    hash(auth, &[&pad(0x5c), &hash(auth, &[&pad(0x36), data])])
}

/// Encrypts, or decrypts. `None` when the key is too short or the length is no multiple of a block.
fn crypt(
    privacy: Privacy,
    key: &[u8],
    boots: u32,
    time: u32,
    salt: [u8; 8],
    data: &[u8],
    encrypt: bool,
) -> Option<Vec<u8>> {
    macro_rules! cfb {
        ($cipher:ty, $length:literal) => {{
            let cipher = <$cipher>::new_from_slice(key.get(..$length)?).ok()?;
            let block = |block: [u8; 16]| {
                let mut block = block.into();
                cipher.encrypt_block(&mut block);
                block.into()
            };
            Some(feedback(block, boots, time, salt, data, encrypt))
        }};
    }
    match privacy {
        Privacy::Des => chained(key, salt, data, encrypt),
        Privacy::Aes => cfb!(Aes128, 16),
        Privacy::Aes192 => cfb!(Aes192, 24),
        Privacy::Aes256 => cfb!(Aes256, 32),
    }
}

/// Cipher feedback with 128 bits (RFC 3826, section 3.1).
fn feedback(
    block: impl Fn([u8; 16]) -> [u8; 16],
    boots: u32,
    time: u32,
    salt: [u8; 8],
    data: &[u8],
    encrypt: bool,
) -> Vec<u8> {
    let mut last = [0; 16];
    last[..4].copy_from_slice(&boots.to_be_bytes());
    last[4..8].copy_from_slice(&time.to_be_bytes());
    last[8..].copy_from_slice(&salt);
    let mut out = Vec::with_capacity(data.len());
    for chunk in data.chunks(16) {
        let stream = block(last);
        let done: Vec<u8> = chunk.iter().zip(stream).map(|(a, b)| a ^ b).collect();
        for (to, from) in last.iter_mut().zip(if encrypt { &done } else { chunk }) {
            *to = *from;
        }
        out.extend(done);
    }
    out
}

/// Cipher block chaining of DES (RFC 3414, section 8.1.1).
fn chained(key: &[u8], salt: [u8; 8], data: &[u8], encrypt: bool) -> Option<Vec<u8>> {
    let cipher = Des::new_from_slice(key.get(..8)?).ok()?;
    let before: [u8; 8] = key.get(8..16)?.try_into().ok()?;
    let xor = |a: [u8; 8], b: [u8; 8]| std::array::from_fn(|i| a.get(i).unwrap_or(&0) ^ b.get(i).unwrap_or(&0));
    let mut last: [u8; 8] = xor(before, salt);
    let mut padded = data.to_vec();
    if encrypt {
        padded.resize(data.len().next_multiple_of(8), 0);
    }
    let mut out = Vec::with_capacity(padded.len());
    for chunk in padded.chunks(8) {
        let chunk: [u8; 8] = chunk.try_into().ok()?;
        if encrypt {
            let mut block = xor(chunk, last).into();
            cipher.encrypt_block(&mut block);
            last = block.into();
            out.extend(last);
        } else {
            let mut block = chunk.into();
            cipher.decrypt_block(&mut block);
            out.extend::<[u8; 8]>(xor(block.into(), last));
            last = chunk;
        }
    }
    Some(out)
}
