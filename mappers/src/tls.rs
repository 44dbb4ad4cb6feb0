//! TLS towards devices and brokers of the field: who is trusted.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Where distributions keep the authorities they trust (Debian and Yocto, Fedora, Alpine).
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Checks the authorities a device's description names, as PEM text.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check(pem: &str) -> Result<(), String> {
    roots(pem.as_bytes()).map(drop)
}

/// A client that trusts the authorities in `pem`, or those of the system. Reads a file then: not for the reactor.
///
/// # Errors
/// Why nobody can be trusted.
pub(crate) fn client(pem: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let roots = match pem {
        Some(pem) => roots(pem.as_bytes())?,
        None => {
            let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|p| p.exists());
            let bundle = bundle.ok_or("no authorities to trust: name them in ca, or install ca-certificates")?;
            let pem = std::fs::read(bundle).map_err(|e| format!("{}: {e}", bundle.display()))?;
            roots(&pem)?
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.map_err(|e| format!("is not valid PEM: {e}"))?);
    if roots.is_empty() { Err("holds no certificate in PEM form".to_owned()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_said() {
        assert_eq!(check("nothing"), Err("holds no certificate in PEM form".into()));
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(check(broken).unwrap_err().starts_with("is not valid PEM"));
    }
}
