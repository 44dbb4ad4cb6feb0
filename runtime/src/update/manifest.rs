//! What an artefact says of itself, and whether it may be installed here. Everything in it is covered by the signature.

use serde::{Deserialize, Serialize};

use super::version::Version;

/// The format this program writes and the only one it reads.
const FORMAT: u32 = 1;
/// The product it must be for.
const PRODUCT: &str = "edge-runtime";
/// The longest manifest, in bytes.
pub const LONGEST: u64 = 64 << 10;
/// The largest executable, in bytes.
pub const LARGEST: u64 = 256 << 20;

/// What an artefact says of itself. Fields that are not known are left alone: a later release may say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    format: u32,
    product: String,
    /// The version of the executable.
    pub version: Version,
    /// The target triple it was built for.
    pub target: String,
    /// The executable's size in bytes, unpacked.
    pub size: u64,
    /// The executable's SHA-256, unpacked, in hexadecimal.
    pub sha256: String,
    /// The schema of the object store it writes.
    pub store_schema: u32,
    /// The oldest version it may be installed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<Version>,
}

/// What is known of an executable before it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its version.
    pub version: Version,
    /// Its target triple.
    pub target: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// The schema of the object store it writes.
    pub store_schema: u32,
    /// The oldest version it may be installed over.
    pub minimum_version: Option<Version>,
}

/// What an artefact is measured against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The version that is in use.
    pub current: Version,
    /// The target triple of this machine.
    pub target: String,
    /// Whether an older version may be installed.
    pub allow_downgrade: bool,
    /// The schema of the object store in use.
    pub store_schema: u32,
}

/// Why an artefact may not be installed here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no manifest.
    #[error("the manifest is not understood: {0}")]
    Json(String),
    /// A later format.
    #[error("the artefact has format {0}, this release knows {FORMAT}: install a release in between first")]
    Format(u32),
    /// Something else altogether.
    #[error("the artefact is for {0:?}, not for {PRODUCT:?}")]
    Product(String),
    /// Another machine.
    #[error("the artefact is for {found}, this node is {expected}: pack the executable of this target")]
    Target {
        /// The artefact's.
        found: String,
        /// This node's.
        expected: String,
    },
    /// An unreasonable size.
    #[error("the artefact's executable has {0} bytes: expected 1 to {LARGEST}")]
    Size(u64),
    /// A digest that is none.
    #[error("the manifest's sha256 is not 64 hexadecimal digits")]
    Digest,
    /// An older version.
    #[error("{found} is older than {current}, which is in use: to install it nevertheless, add --allow-downgrade")]
    Downgrade {
        /// The artefact's.
        found: Version,
        /// The one in use.
        current: Version,
    },
    /// The version that is in use already.
    #[error("{0} is in use already: to install it again, add --allow-downgrade")]
    Same(Version),
    /// Too great a step.
    #[error(
        "{found} can only be installed over {minimum} or later, not over {current}: install a release in between first"
    )]
    TooOld {
        /// The artefact's.
        found: Version,
        /// What it asks for.
        minimum: Version,
        /// The one in use.
        current: Version,
    },
    /// It could not read the objects.
    #[error(
        "{found} reads object stores up to schema {knows}, and this node's has {schema}: it would start without its objects"
    )]
    Store {
        /// The artefact's.
        found: Version,
        /// What it reads.
        knows: u32,
        /// What is on disk.
        schema: u32,
    },
}

impl Manifest {
    /// The manifest of an executable.
    pub fn new(facts: Facts) -> Manifest {
        let Facts { version, target, size, sha256, store_schema, minimum_version } = facts;
        let product = PRODUCT.to_owned();
        Manifest { format: FORMAT, product, version, target, size, sha256, store_schema, minimum_version }
    }

    /// Reads a manifest whose signature is right.
    ///
    /// # Errors
    /// What makes it unusable anywhere.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, Refusal> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Any {
            format: u32,
        }
        let json = |e: serde_json::Error| Refusal::Json(e.to_string());
        let Any { format } = serde_json::from_slice(bytes).map_err(json)?;
        if format != FORMAT {
            return Err(Refusal::Format(format));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
        if manifest.product != PRODUCT {
            return Err(Refusal::Product(manifest.product.chars().take(60).collect()));
        }
        if !(1..=LARGEST).contains(&manifest.size) {
            return Err(Refusal::Size(manifest.size));
        }
        if manifest.sha256.len() != 64 || !manifest.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Refusal::Digest);
        }
        Ok(manifest)
    }

    /// Whether it may be installed here.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, policy: &Policy) -> Result<(), Refusal> {
        let (found, current) = (self.version.clone(), policy.current.clone());
        if self.target != policy.target {
            let found = self.target.chars().take(60).collect();
            return Err(Refusal::Target { found, expected: policy.target.clone() });
        }
        if self.store_schema < policy.store_schema {
            return Err(Refusal::Store { found, knows: self.store_schema, schema: policy.store_schema });
        }
        if !policy.allow_downgrade && self.version < current {
            return Err(Refusal::Downgrade { found, current });
        }
        if !policy.allow_downgrade && self.version == current {
            return Err(Refusal::Same(found));
        }
        match &self.minimum_version {
            Some(minimum) if *minimum > current => Err(Refusal::TooOld { found, minimum: minimum.clone(), current }),
            _ => Ok(()),
        }
    }
}

/// The target triple of this executable.
pub const fn own_target() -> &'static str {
    match (cfg!(target_arch = "aarch64"), cfg!(target_env = "musl")) {
        (true, false) => "aarch64-unknown-linux-gnu",
        (true, true) => "aarch64-unknown-linux-musl",
        (false, false) => "x86_64-unknown-linux-gnu",
        (false, true) => "x86_64-unknown-linux-musl",
    }
}

/// The processor an executable is for, from its first bytes: the word a target triple begins with (ELF specification, `e_ident`
/// and `e_machine`; 62 is x86-64, 183 AArch64). `None` for anything else.
pub fn processor(head: &[u8]) -> Option<&'static str> {
    // 64 bits, least significant byte first.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    match head.get(18..20)? {
        [62, 0] => Some("x86_64"),
        [183, 0] => Some("aarch64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest(version: &str) -> Manifest {
        Manifest::new(Facts {
            version: version.parse().unwrap(),
            target: own_target().into(),
            size: 7,
            sha256: "0".repeat(64),
            store_schema: 2,
            minimum_version: Some("0.9.0".parse().unwrap()),
        })
    }

    #[test]
    fn what_may_be_installed() {
        let policy = |current: &str, allow_downgrade| Policy {
            current: current.parse().unwrap(),
            target: own_target().into(),
            allow_downgrade,
            store_schema: 2,
        };
        let check = |version: &str, current: &str, down| {
            manifest(version).check(&policy(current, down)).map_err(|e| e.to_string())
        };
        assert_eq!(check("1.1.0", "1.0.0", false), Ok(()));
        assert_eq!(check("1.0.0", "1.1.0", true), Ok(()));
        for (version, current, words) in [
            ("1.0.0", "1.1.0", "--allow-downgrade"),
            ("1.0.0", "1.0.0", "in use already"),
            ("1.0.0", "0.8.0", "over 0.9.0 or later"),
        ] {
            let error = check(version, current, false).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let newer_store = Policy { store_schema: 3, ..policy("1.0.0", true) };
        assert!(manifest("1.1.0").check(&newer_store).unwrap_err().to_string().contains("has 3"));
        let elsewhere = Policy { target: "riscv".into(), ..policy("1.0.0", true) };
        assert!(matches!(manifest("1.1.0").check(&elsewhere), Err(Refusal::Target { .. })));
    }

    #[test]
    fn what_is_written_is_read_and_more_may_be_there() {
        let mut json = serde_json::to_value(manifest("1.0.0")).unwrap();
        assert_eq!(Manifest::decode(json.to_string().as_bytes()).unwrap(), manifest("1.0.0"));
        json["notes"] = "later".into();
        Manifest::decode(json.to_string().as_bytes()).unwrap();
        for (key, value) in [
            ("format", serde_json::json!(2)),
            ("product", "x".into()),
            ("size", 0.into()),
            ("size", (LARGEST + 1).into()),
            ("sha256", "0".repeat(63).into()),
            ("sha256", "g".repeat(64).into()),
            ("version", "one".into()),
        ] {
            let mut bad = json.clone();
            bad[key] = value;
            assert!(Manifest::decode(bad.to_string().as_bytes()).is_err(), "{key}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Manifest::decode(&bytes).is_err());
            let _ = processor(&bytes);
        }
    }
}
