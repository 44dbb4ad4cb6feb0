//! How to log in to registries, also as Docker and Kubernetes write it down (`.dockerconfigjson`).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::{Error, Reference};

/// How to log in to a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name; empty when `password` is a bearer token.
    pub username: String,
    /// The password or token; never shown.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "registrytoken")]
    token: String,
}

impl Credentials {
    /// Finds the entry for an image in a Docker configuration, as in a Secret of type
    /// `kubernetes.io/dockerconfigjson`. The longest matching entry wins, as in Kubernetes.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Invalid`] for an entry that cannot be decoded. What it says is not repeated in them.
    pub fn from_docker_config(json: &[u8], reference: &Reference) -> Result<Option<Credentials>, Error> {
        let what = "docker configuration";
        let config: DockerConfig = serde_json::from_slice(json)
            // The parser's message may quote the document, and that is a secret.
            .map_err(|e| Error::invalid(what, format!("is not valid: line {}, column {}", e.line(), e.column())))?;
        let matches = |key: &str| -> Option<usize> {
            let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key).trim_end_matches('/');
            // Docker's own entries end in the version of an API long gone.
            let key = key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key);
            let (host, path) = key.split_once('/').unwrap_or((key, ""));
            let host = if host == "index.docker.io" { "docker.io" } else { host };
            let rest = reference.repository.strip_prefix(path)?;
            let whole = path.is_empty() || rest.is_empty() || rest.starts_with('/');
            (is_host(host, &reference.registry) && whole).then_some(key.len())
        };
        let best = config.auths.iter().filter_map(|(key, auth)| Some((matches(key)?, auth))).max_by_key(|(n, _)| *n);
        let Some((_, auth)) = best else { return Ok(None) };
        if !auth.token.is_empty() {
            return Ok(Some(Credentials { username: String::new(), password: auth.token.clone() }));
        }
        if auth.auth.is_empty() {
            return Ok(Some(Credentials { username: auth.username.clone(), password: auth.password.clone() }));
        }
        let bad = || Error::invalid(what, "has an auth that is not base64 of user:password");
        let bytes = STANDARD.decode(&auth.auth).or_else(|_| STANDARD_NO_PAD.decode(&auth.auth)).map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (username, password) = text.split_once(':').ok_or_else(bad)?;
        Ok(Some(Credentials { username: username.to_owned(), password: password.to_owned() }))
    }
}

/// Kubernetes allows `*` for one label of the host.
fn is_host(pattern: &str, host: &str) -> bool {
    let (mut patterns, mut labels) = (pattern.split('.'), host.split('.'));
    loop {
        match (patterns.next(), labels.next()) {
            (None, None) => return true,
            (Some(p), Some(l)) if p == l || p == "*" => {}
            _ => return false,
        }
    }
}
