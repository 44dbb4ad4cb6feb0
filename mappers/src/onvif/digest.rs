//! HTTP's own digest (RFC 7616), for cameras that do not take a WS-Security token. Purely.

use md5::{Digest as _, Md5};
use sha2::{Digest as _, Sha256};

/// What answers a challenge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a str,
    pub(super) method: &'a str,
    pub(super) uri: &'a str,
    /// Random, never the same twice.
    pub(super) cnonce: &'a str,
}

impl Answer<'_> {
    /// The value of `Authorization` for the best of a server's challenges (values of `WWW-Authenticate`); `None` when none of
    /// them is understood.
    pub(super) fn to<'c>(self, challenges: impl Iterator<Item = &'c str>) -> Option<String> {
        let mut all: Vec<_> = challenges.filter_map(parameters).filter_map(|p| self.one(&p)).collect();
        // The stronger algorithm, if there is a choice.
        all.sort_by_key(|(strong, _)| !strong);
        all.into_iter().next().map(|(_, header)| header)
    }

    /// The answer to one challenge, and whether its algorithm is the strong one.
    fn one(self, challenge: &[(String, String)]) -> Option<(bool, String)> {
        let get = |name: &str| challenge.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let algorithm = get("algorithm").unwrap_or("MD5");
        let hash: fn(String) -> String = match algorithm.to_ascii_uppercase().as_str() {
            "MD5" => |text| hex(&Md5::digest(text)),
            "SHA-256" => |text| hex(&Sha256::digest(text)),
            _ => return None,
        };
        let (realm, nonce) = (get("realm")?, get("nonce")?);
        let Answer { user, password, method, uri, cnonce } = self;
        let (who, what) = (hash(format!("{user}:{realm}:{password}")), hash(format!("{method}:{uri}")));
        let (response, more) = match get("qop") {
            // RFC 2069, of which old firmware is.
            None => (hash(format!("{who}:{nonce}:{what}")), String::new()),
            Some(qop) if qop.split(',').any(|q| q.trim().eq_ignore_ascii_case("auth")) => (
                hash(format!("{who}:{nonce}:00000001:{cnonce}:auth:{what}")),
                format!(", qop=auth, nc=00000001, cnonce=\"{cnonce}\""),
            ),
            Some(_) => return None,
        };
        let opaque = get("opaque").map(|o| format!(", opaque=\"{}\"", quoted(o))).unwrap_or_default();
        let header = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", algorithm={algorithm}, \
             response=\"{response}\"{more}{opaque}",
            quoted(user),
            quoted(realm),
            quoted(nonce)
        );
        Some((algorithm.eq_ignore_ascii_case("SHA-256"), header))
    }
}

/// The parameters of a challenge of this scheme, names in small letters.
fn parameters(challenge: &str) -> Option<Vec<(String, String)>> {
    let (scheme, mut rest) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Digest") {
        return None;
    }
    let mut all = Vec::new();
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let value;
        (value, rest) = match after.strip_prefix('"') {
            Some(inside) => unquoted(inside)?,
            None => after.split_once(',').map_or((after.trim().to_owned(), ""), |(v, r)| (v.trim().to_owned(), r)),
        };
        all.push((name.trim_matches([',', ' ', '\t']).to_ascii_lowercase(), value));
    }
    Some(all)
}

/// A quoted text up to its end, and what comes after it.
fn unquoted(inside: &str) -> Option<(String, &str)> {
    let (mut text, mut escaped) = (String::new(), false);
    for (at, c) in inside.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return Some((text, inside.get(at + 1..)?)),
            c => {
                text.push(c);
                escaped = false;
            }
        }
    }
    None
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANSWER: Answer<'_> = Answer {
        user: "Mufasa",
        password: "Circle of Life",
        method: "GET",
        uri: "/dir/index.html",
        cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    };

    #[test]
    fn the_examples_of_the_specification() {
        // RFC 7616, section 3.9.1.
        let challenge = |algorithm: &str| {
            format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            )
        };
        let (md5, sha) = (challenge("MD5"), challenge("SHA-256"));
        let header = ANSWER.to([md5.as_str()].into_iter()).unwrap();
        assert!(header.contains("response=\"8ca523f5e9506fed4657c9700eebdbec\""), "{header}");
        let header = ANSWER.to(["Basic realm=\"x\"", &md5, &sha].into_iter()).unwrap();
        let strong = "response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\"";
        assert!(header.contains(strong), "{header}");
    }

    #[test]
    fn what_is_not_understood_is_not_answered() {
        for challenge in [
            "",
            "Basic realm=\"a\"",
            "Digest realm=\"a\"",
            "Digest realm=\"a",
            "Digest realm=a, nonce=b, algorithm=MD5-sess",
            "Digest realm=a, nonce=b, qop=\"auth-int\"",
        ] {
            assert_eq!(ANSWER.to([challenge].into_iter()), None, "{challenge}");
        }
        let header = ANSWER.to(["digest nonce=\"a\\\"b\" , REALM=c"].into_iter()).unwrap();
        assert!(header.contains("nonce=\"a\\\"b\"") && !header.contains("qop"), "{header}");
    }

    proptest! {
        #[test]
        fn no_challenge_is_too_strange(text in "Digest [a-z=\", \\\\é]{0,60}") {
            let _ = ANSWER.to([text.as_str()].into_iter());
        }
    }
}
