//! The way to the broker: TCP or TLS, and who the node says it is. Files are read at each connection, so that a renewed
//! certificate is used without a restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_model::topic::CloudTopic;
use rumqttc::{LastWill, MqttOptions, QoS, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::settings::{Address, Settings};

/// Where distributions keep the authorities they trust (Debian and Yocto, Fedora, Alpine).
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The largest command that is read, in bytes.
pub const COMMAND_MAX: usize = 4 << 20;

/// Why a connection cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file holds no certificate or key, or a broken one.
    #[error("{path}: {what}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Certificate and key do not go together, or are of a kind that cannot be used.
    #[error("client certificate {path} cannot be used")]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// There is no file of trusted authorities.
    #[error("no authorities to trust: set cloud.ca-file, or install ca-certificates")]
    NoAuthorities,
    /// The host is neither a name nor an IP address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
}

/// The client's options for one connection. Reads files: not for the reactor.
///
/// # Errors
/// Any [`TransportError`].
pub fn options(settings: &Settings, address: &Address) -> Result<MqttOptions, TransportError> {
    let client_id = settings.client_id.clone().unwrap_or_else(|| settings.node.clone());
    let mut options = MqttOptions::new(client_id, address.host.clone(), address.port);
    options
        .set_keep_alive(settings.keep_alive)
        // The broker keeps commands while the node is away.
        .set_clean_session(false)
        // A command is acknowledged when it has been carried out and its answer is on disk.
        .set_manual_acks(true)
        .set_inflight(settings.window)
        .set_max_packet_size(COMMAND_MAX, settings.message_max_bytes + 1024)
        .set_last_will(LastWill {
            topic: CloudTopic::Link.below(&settings.base()),
            message: super::session::presence(&settings.node, "offline", crate::clock::now_ms()).into(),
            qos: QoS::AtLeastOnce,
            retain: true,
        });
    if let Some(user) = &settings.user {
        let password = match &settings.password_file {
            Some(path) => String::from_utf8(read(path)?)
                .map_err(|_| TransportError::Pem { path: path.clone(), what: "is not text".to_owned() })?,
            None => String::new(),
        };
        options.set_credentials(user, password.trim_end_matches(['\r', '\n']));
    }
    if address.tls {
        // rumqttc checks the certificate against this name.
        ServerName::try_from(address.host.as_str()).map_err(|_| TransportError::Name(address.host.clone()))?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls(settings)?))));
    }
    Ok(options)
}

/// Reads every file that a connection would read, and checks that certificate and key go together; connects nowhere.
///
/// # Errors
/// Any [`TransportError`].
pub fn check_files(settings: &Settings) -> Result<(), TransportError> {
    match settings.check() {
        Ok(Some(address)) => options(settings, &address).map(|_| ()),
        _ => Ok(()),
    }
}

fn tls(settings: &Settings) -> Result<ClientConfig, TransportError> {
    let bundle = match &settings.ca_file {
        Some(path) => path.clone(),
        None => {
            let found = SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|p| p.exists());
            found.ok_or(TransportError::NoAuthorities)?
        }
    };
    let mut roots = RootCertStore::empty();
    let (_, broken) = roots.add_parsable_certificates(certificates(&bundle)?);
    if roots.is_empty() {
        let what = format!("none of its {broken} certificates can be used");
        return Err(TransportError::Pem { path: bundle, what });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let identity_error = |path: &Path, source| TransportError::Identity { path: path.to_owned(), source };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| identity_error(&bundle, source))?
        .with_root_certificates(roots);
    match (&settings.certificate_file, &settings.key_file) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|source| identity_error(certificate, source)),
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TransportError> {
    std::fs::read(path).map_err(|source| TransportError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let pem = read(path)?;
    let fail = |what: String| TransportError::Pem { path: path.to_owned(), what };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(fail("holds no certificate in PEM form".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(fail(format!("is not valid PEM: {error}"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TransportError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| TransportError::Pem { path: path.to_owned(), what: format!("holds no private key: {error}") })
}

/// Whether the broker has sent more than [`COMMAND_MAX`].
pub fn too_large(error: &rumqttc::ConnectionError) -> bool {
    use rumqttc::{ConnectionError, StateError, mqttbytes};
    let ConnectionError::MqttState(StateError::Deserialization(error)) = error else { return false };
    matches!(error, mqttbytes::Error::PayloadSizeLimitExceeded(_))
}

/// What a failed connection means, in words for whoever reads the status; and whether it never left the node.
pub fn explain(error: &rumqttc::ConnectionError) -> (String, bool) {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError as E, StateError as S};
    let text = match error {
        E::ConnectionRefused(code) => {
            let why = match code {
                Code::BadUserNamePassword => "user name or password refused",
                Code::NotAuthorized => "not authorised",
                Code::BadClientId => "client identifier refused",
                Code::RefusedProtocolVersion => "MQTT 3.1.1 refused",
                Code::ServiceUnavailable | Code::Success => "not available",
            };
            format!("broker: {why}")
        }
        E::NetworkTimeout => "no answer to the connection in time".to_owned(),
        E::FlushTimeout => "the broker takes nothing any more".to_owned(),
        E::Tls(error) => format!("TLS: {error}").replace("TLS: I/O: ", "TLS: "),
        E::Io(error) => error.to_string(),
        E::MqttState(S::AwaitPingResp) => "the broker has fallen silent".to_owned(),
        E::MqttState(S::ConnectionAborted) => "closed by the broker".to_owned(),
        E::MqttState(S::Deserialization(error)) => format!("{error}"),
        other => other.to_string(),
    };
    let local = match error {
        E::Io(error) => {
            matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable)
                // What getaddrinfo reports has no kind of its own.
                || error.raw_os_error().is_none() && error.to_string().contains("lookup")
        }
        _ => false,
    };
    (text, local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let address = Address { host: "a".into(), port: 1, tls: true };
        let fails = |settings: &Settings| options(settings, &address).map(|_| ()).unwrap_err().to_string();
        let base = Settings { node: "n".into(), ..Settings::default() };
        let missing = Settings { ca_file: Some("/nowhere/ca.pem".into()), ..base.clone() };
        assert_eq!(fails(&missing), "cannot read /nowhere/ca.pem");
        let empty = put("empty.pem", "nothing\n");
        let none = Settings { ca_file: Some(empty.clone()), ..base.clone() };
        assert_eq!(fails(&none), format!("{}: holds no certificate in PEM form", empty.display()));
        let broken = put("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
        let none = Settings { ca_file: Some(broken.clone()), ..base.clone() };
        assert!(fails(&none).starts_with(&format!("{}: is not valid PEM", broken.display())));
        let garbage = put("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let none = Settings { ca_file: Some(garbage.clone()), ..base };
        assert_eq!(fails(&none), format!("{}: none of its 1 certificates can be used", garbage.display()));
    }
}
