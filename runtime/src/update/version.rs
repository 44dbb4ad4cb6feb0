//! Versions and which of two is newer, after Semantic Versioning 2.0.0, sections 2, 9 and 11.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest version text, in bytes.
const LONGEST: usize = 64;

/// A version: `1.2.3`, `1.2.3-rc.1`, `1.2.3+build`. What follows `+` plays no part in comparing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

/// What is compared, in this order. A release is newer than all of its pre-releases.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    numbers: [u64; 3],
    released: bool,
    pre: Vec<Part>,
}

/// A part of a pre-release: numbers are older than words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

/// Text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version: expected numbers such as 1.2.3 or 1.2.3-rc.1, at most {LONGEST} characters")]
pub struct NotAVersion(String);

impl Version {
    /// This program's.
    pub fn own() -> Version {
        // Cargo takes nothing but a version for a package's version.
        Version(env!("CARGO_PKG_VERSION").to_owned())
    }

    /// Reads a version.
    ///
    /// # Errors
    /// [`NotAVersion`].
    pub fn parse(text: &str) -> Result<Version, NotAVersion> {
        match rank(text) {
            Some(_) => Ok(Version(text.to_owned())),
            None => Err(NotAVersion(text.chars().take(LONGEST).collect())),
        }
    }
}

fn rank(text: &str) -> Option<Rank> {
    let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    if text.len() > LONGEST || build.is_some_and(|b| !b.split('.').all(plain)) {
        return None;
    }
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let number = |s: &str| (plain(s) && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u64>().ok()).flatten();
    let mut numbers = [0; 3];
    let mut parts = core.split('.');
    for slot in &mut numbers {
        *slot = number(parts.next()?)?;
    }
    if parts.next().is_some() {
        return None;
    }
    let part = |s: &str| plain(s).then(|| number(s).map_or_else(|| Part::Word(s.to_owned()), Part::Number));
    let pre = pre.map_or(Some(Vec::new()), |pre| pre.split('.').map(part).collect())?;
    Some(Rank { numbers, released: pre.is_empty(), pre })
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        rank(&self.0).cmp(&rank(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Version {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Version, NotAVersion> {
        Version::parse(&text)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.0
    }
}

impl std::str::FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Version, NotAVersion> {
        Version::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_is_that_of_the_specification() {
        // Section 11 of Semantic Versioning, with releases around it.
        let ordered = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
        ];
        for pair in ordered.windows(2) {
            assert!(Version::parse(pair[0]).unwrap() < Version::parse(pair[1]).unwrap(), "{pair:?}");
        }
        assert_eq!(Version::parse("1.0.0+a").unwrap(), Version::parse("1.0.0+b").unwrap());
        assert_eq!(Version::own().to_string(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "1.2.3-", "1.2.3+", "1.2.-3", "+1.2.3", " 1.2.3"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
        assert!(Version::parse(&format!("1.2.3-{}", "a".repeat(64))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            if let Ok(version) = Version::parse(&text) {
                prop_assert_eq!(version.to_string(), text);
            }
        }
    }
}
