//! Keys: Ed25519 (RFC 8032), public ones as PEM (RFC 8410) or in base64, private ones as PKCS#8.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// Where the node looks for public keys beside its configuration.
pub const FOLDER: &str = "/etc/edge-runtime/update-keys.d";
/// The longest key file read, in bytes.
const LONGEST: u64 = 16 << 10;
/// What precedes the 32 bytes of a public key in its DER (RFC 8410, section 10.1).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What precedes the 32 bytes of a private key in its DER (RFC 8410, section 7; version 1, which OpenSSL reads).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key's file.
    #[error("cannot read the key {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Text that is no public key.
    #[error(
        "{0} is no Ed25519 public key: expected PEM, or 32 bytes in base64, as `edge-runtime update keygen` makes them"
    )]
    Public(String),
    /// A file that holds no private key.
    #[error("{0} is no Ed25519 private key in PKCS#8, as `edge-runtime update keygen` makes it")]
    Private(PathBuf),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a key")]
    Random,
}

/// A key that artefacts may be signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base64())
    }
}

impl PublicKey {
    /// Reads PEM or base64; `what` names it in the error.
    ///
    /// # Errors
    /// [`KeyError::Public`].
    pub fn parse(text: &str, what: &str) -> Result<PublicKey, KeyError> {
        let key = || {
            let bytes = unarmour(text, "PUBLIC KEY").or_else(|| STANDARD.decode(text.trim()).ok())?;
            let raw = bytes.strip_prefix(&SPKI).unwrap_or(&bytes);
            raw.try_into().ok().map(PublicKey)
        };
        key().ok_or_else(|| KeyError::Public(what.to_owned()))
    }

    /// Its 32 bytes in base64, for the configuration.
    pub fn base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// As PEM.
    pub fn pem(&self) -> String {
        armour("PUBLIC KEY", &[SPKI.as_slice(), &self.0].concat())
    }

    /// Whether it made this signature of these bytes.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

/// The keys this node trusts: those of the configuration, then the files of a folder in order of name.
///
/// # Errors
/// A key that cannot be read: to leave it out in silence would only be noticed when it is needed.
pub fn trusted(configured: &[String], folder: &Path) -> Result<Vec<PublicKey>, KeyError> {
    let mut keys = Vec::new();
    for text in configured {
        let shown: String = text.chars().take(60).collect();
        keys.push(PublicKey::parse(text, &format!("update.public-keys: {shown:?}"))?);
    }
    let mut files: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(KeyError::File { path: folder.to_owned(), source }),
    };
    files.sort();
    for path in files {
        keys.push(PublicKey::parse(&read(&path)?, &path.display().to_string())?);
    }
    Ok(keys)
}

fn read(path: &Path) -> Result<String, KeyError> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    file.map(|_| text).map_err(|source| KeyError::File { path: path.to_owned(), source })
}

/// A key that signs.
pub struct PrivateKey {
    pair: Ed25519KeyPair,
}

impl PrivateKey {
    /// Reads PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`KeyError::File`], [`KeyError::Private`].
    pub fn read(path: &Path) -> Result<PrivateKey, KeyError> {
        let text = read(path)?;
        let pair = unarmour(&text, "PRIVATE KEY").and_then(|der| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok());
        pair.map(|pair| PrivateKey { pair }).ok_or_else(|| KeyError::Private(path.to_owned()))
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// The key that its signatures are checked with.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        // A public key of Ed25519 has 32 bytes.
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }
}

/// A new pair: the private key as PEM, and the public one.
///
/// # Errors
/// [`KeyError::Random`].
pub fn generate() -> Result<(String, PublicKey), KeyError> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::Random)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Random)?;
    let der = [PKCS8.as_slice(), &seed].concat();
    Ok((armour("PRIVATE KEY", &der), PrivateKey { pair }.public()))
}

fn armour(label: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    // RFC 7468, section 2: lines of 64 characters. Base64 is ASCII.
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The bytes of the first PEM block with this label.
pub fn unarmour(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_generated_signs_and_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let (private, public) = generate().unwrap();
        fs::write(&path, private).unwrap();
        let key = PrivateKey::read(&path).unwrap();
        assert_eq!(key.public(), public);
        for text in [public.pem(), public.base64()] {
            assert_eq!(PublicKey::parse(&text, "a").unwrap(), public);
        }
        let signature = key.sign(b"message");
        assert!(public.verifies(b"message", &signature) && !public.verifies(b"massage", &signature));
        assert!(!generate().unwrap().1.verifies(b"message", &signature));
    }

    #[test]
    fn keys_come_from_the_configuration_and_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (generate().unwrap().1, generate().unwrap().1);
        fs::write(dir.path().join("b.pem"), b.pem()).unwrap();
        assert_eq!(trusted(&[a.base64()], dir.path()).unwrap(), [a, b]);
        assert!(trusted(&[], &dir.path().join("nowhere")).unwrap().is_empty());
        fs::write(dir.path().join("c.pem"), "nonsense").unwrap();
        assert!(trusted(&[], dir.path()).unwrap_err().to_string().contains("c.pem"));
    }

    proptest! {
        #[test]
        fn garbage_is_no_key(text in ".{0,80}") {
            let _ = PublicKey::parse(&text, "a");
            let _ = unarmour(&text, "PUBLIC KEY");
        }
    }
}
