//! Modbus/TCP Security (V3.6): the same frames inside TLS, a certificate on both sides, port 802.

use std::io;
use std::path::Path;
use std::sync::Arc;

use edge_model::device::modbus::Tls;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Secures a connection. The files are read each time, so that renewed certificates count from the next connection on.
///
/// # Errors
/// Files that cannot be read or used, with their names; a device whose certificate does not fit.
pub async fn secure(stream: TcpStream, host: &str, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let name = if tls.server_name.is_empty() { host } else { &tls.server_name };
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| io::Error::other(format!("{name:?} is no name a certificate could have")))?;
    TlsConnector::from(Arc::new(config(tls)?)).connect(name, stream).await
}

fn config(tls: &Tls) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&tls.ca)?);
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    if tls.certificate.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.key)?).map_err(|e| unusable(&tls.key, &e.to_string()))?;
    let chain = certificates(&tls.certificate)?;
    builder.with_client_auth_cert(chain, key).map_err(|e| unusable(&tls.certificate, &e.to_string()))
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    std::fs::read(Path::new(path)).map_err(|e| unusable(path, &e.to_string()))
}

fn certificates(path: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(unusable(path, "no certificate in PEM form")),
        Err(e) => Err(unusable(path, &e.to_string())),
    }
}

fn unusable(path: &str, why: &str) -> io::Error {
    io::Error::other(format!("{path}: {why}"))
}
