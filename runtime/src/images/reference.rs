//! Image references, normalised as Docker does: `busybox` is `docker.io/library/busybox:latest`.
//!
//! Written by hand rather than with the regular expression of the distribution specification: that one, compiled, takes
//! more memory than the rest of the image store.

use std::fmt;
use std::str::FromStr;

use super::{Digest, Error};

/// A full name of an image: registry, repository, and a tag or a digest (which wins when both were given).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `host[:port]`.
    pub registry: String,
    /// The path in the registry, such as `library/busybox`.
    pub repository: String,
    /// Which version.
    pub version: Version,
}

/// Which version of a repository's image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// By name; may change.
    Tag(String),
    /// By content; never changes.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reference { registry, repository, version } = self;
        match version {
            Version::Tag(tag) => write!(f, "{registry}/{repository}:{tag}"),
            Version::Digest(digest) => write!(f, "{registry}/{repository}@{digest}"),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        let bad = |rule| Error::Reference { text: text.chars().take(300).collect(), rule };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse().map_err(|_| bad("after '@' comes sha256: and 64 hexadecimal digits"))?))
            }
            None => (text, None),
        };
        // Docker's rule: what comes before the first '/' is a registry only if it looks like a host.
        let (registry, rest) = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => ("docker.io", name),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_host(registry) {
            return Err(bad("the registry is not a host with an optional port"));
        }
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if path.len() > 255 {
            return Err(bad("the name is longer than 255 characters"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad("the name must be in lower case"));
        }
        if !path.split('/').all(is_component) {
            return Err(bad("the name is lower case letters and digits, separated by '.', '_', '-' and '/'"));
        }
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(bad("a tag is letters, digits, '_', '.' and '-', at most 128, not starting with '.' or '-'"));
        }
        let official = registry == "docker.io" && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        let version = digest.map_or_else(|| Version::Tag(tag.unwrap_or("latest").to_owned()), Version::Digest);
        Ok(Reference { registry: registry.to_owned(), repository, version })
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        // An IPv6 address in brackets has colons of its own.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    let v6 = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let name = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    name && port
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-` (distribution specification, "name").
fn is_component(part: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.as_bytes().first().is_some_and(alphanumeric) && part.as_bytes().last().is_some_and(alphanumeric);
    ends && part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}
