//! Names of objects and labels, by Kubernetes' rules.
//!
//! Source: Kubernetes documentation, "Object Names and IDs": DNS subdomain names (RFC 1123), labels (RFC 1123).

/// The longest DNS label, in bytes (RFC 1123).
pub const LABEL_MAX: usize = 63;
/// The longest DNS subdomain name, in bytes (RFC 1123).
pub const SUBDOMAIN_MAX: usize = 253;

/// Whether `s` is a DNS label: `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 bytes. Namespaces and containers are named so.
pub fn is_label(s: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = s.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= LABEL_MAX
        && bytes.iter().all(|b| edge(b) || *b == b'-')
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
}

/// Whether `s` is a DNS subdomain name: labels joined by dots, at most 253 bytes. Most objects are named so.
pub fn is_subdomain(s: &str) -> bool {
    s.len() <= SUBDOMAIN_MAX && s.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains() {
        for good in ["a", "a-b", "0", "x1", &"a".repeat(63)] {
            assert!(is_label(good), "{good}");
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "ü", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
            assert!(!is_subdomain(bad), "{bad}");
        }
        assert!(is_subdomain("a.b-c.d"));
        assert!(!is_subdomain("a..b"));
        assert!(!is_subdomain(&format!("{}.a", "a.".repeat(126))));
    }
}
