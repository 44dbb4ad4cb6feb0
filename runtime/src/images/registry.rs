//! One conversation with one registry (OCI distribution specification): the only file that knows the HTTP client.
//!
//! A session is made for a pull and dropped after it: an idle gateway keeps neither connections nor certificates in
//! memory.
//!
//! Blobs are streamed and bounded. Manifests, token replies and error messages are not: oci-client reads such an answer whole
//! before anybody can measure it, and offers no limit. What bounds them is that a registry has to be named in a pod, an
//! `image pull` or a mirror, and, without `images.insecure-registries`, to own its certificate; a manifest above the 4 MiB of the
//! distribution specification is refused afterwards.

use std::error::Error as StdError;
use std::io;
use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::manifest::{MAX_DOCUMENT, MEDIA_INDEX, MEDIA_MANIFEST};
use super::{Credentials, Digest, Error, Reference, Settings, Version, verify};

/// Manifests we can read, in order of preference.
const ACCEPT: [&str; 4] = [
    MEDIA_MANIFEST,
    MEDIA_INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// A registry and how to talk to it.
pub(super) struct Session {
    client: Client,
    registry: String,
    repository: String,
    auth: RegistryAuth,
}

/// The body of a blob.
pub(super) struct Body {
    /// Whether it starts where it was asked to; otherwise it starts at the beginning.
    pub(super) resumed: bool,
    pub(super) stream: BoxStream<'static, Result<Bytes, io::Error>>,
}

/// The places a reference is looked for: its registry's mirrors, then the registry.
pub(super) fn places(settings: &Settings, reference: &Reference) -> Vec<Reference> {
    let mirrors = settings.mirrors.get(&reference.registry).map(Vec::as_slice).unwrap_or_default();
    let mut places: Vec<Reference> = Vec::new();
    for mirror in mirrors {
        // A mirror may serve several registries under different paths.
        let (registry, prefix) = mirror.trim_end_matches('/').split_once('/').unwrap_or((mirror, ""));
        let repository = match prefix {
            "" => reference.repository.clone(),
            prefix => format!("{prefix}/{}", reference.repository),
        };
        places.push(Reference { registry: registry.to_owned(), repository, version: reference.version.clone() });
    }
    places.push(reference.clone());
    places
}

impl Session {
    /// Prepares a session; nothing is sent yet. Reads certificates: blocks.
    pub(super) fn new(
        settings: &Settings,
        place: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Session, Error> {
        // The TLS library wants to be told once per process which cryptography to use; whoever comes first does it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut authorities = Vec::new();
        for path in &settings.ca_files {
            let bytes = super::disk::read_small(path, MAX_DOCUMENT)?;
            for certificate in CertificateDer::pem_slice_iter(&bytes) {
                let bad = |_| Error::invalid(path.display().to_string(), "is not a PEM file of certificates");
                let data = certificate.map_err(bad)?.to_vec();
                authorities.push(Certificate { encoding: CertificateEncoding::Der, data });
            }
        }
        let insecure = settings.insecure_registries.contains(&place.registry);
        let config = |unverified: bool, authorities| ClientConfig {
            protocol: if insecure { ClientProtocol::Http } else { ClientProtocol::Https },
            accept_invalid_certificates: unverified,
            extra_root_certificates: authorities,
            connect_timeout: Some(settings.connect_timeout),
            read_timeout: Some(settings.read_timeout),
            platform_resolver: None,
            user_agent: concat!("edge-runtime/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = match Client::try_from(config(false, authorities)) {
            // A small root file system may have no authorities at all, which plain HTTP does not need.
            Err(_) if insecure => Client::try_from(config(true, Vec::new())),
            client => client,
        };
        let client = client.map_err(|e| refused(&place.registry, e))?;
        let auth = match credentials.or_else(|| settings.credentials.get(&place.registry).cloned()) {
            Some(Credentials { username, password }) if username.is_empty() => RegistryAuth::Bearer(password),
            Some(Credentials { username, password }) => RegistryAuth::Basic(username, password),
            None => RegistryAuth::Anonymous,
        };
        Ok(Session { client, registry: place.registry.clone(), repository: place.repository.clone(), auth })
    }

    fn name(&self, version: &Version) -> oci_client::Reference {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        match version {
            Version::Tag(tag) => oci_client::Reference::with_tag(registry, repository, tag.clone()),
            Version::Digest(digest) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
        }
    }

    /// Runs a request. The client unwraps what a hostile registry may send (a token with a line feed): a panic is an
    /// error of that registry.
    async fn ask<T>(&self, request: impl Future<Output = Result<T, OciDistributionError>>) -> Result<T, Error> {
        match AssertUnwindSafe(request).catch_unwind().await {
            Ok(answer) => answer.map_err(|e| refused(&self.registry, e)),
            Err(_) => Err(Error::invalid(format!("registry {}", self.registry), "sent an answer that cannot be used")),
        }
    }

    /// Logs in. Without it a refused login would only be seen as a refused request.
    pub(super) async fn login(&self, version: &Version) -> Result<(), Error> {
        let name = self.name(version);
        self.ask(self.client.auth(&name, &self.auth, RegistryOperation::Pull)).await.map(|_| ())
    }

    /// A manifest or index, verified against its digest where the version is one.
    pub(super) async fn manifest(&self, version: &Version) -> Result<Bytes, Error> {
        let name = self.name(version);
        let (bytes, _) = self.ask(self.client.pull_manifest_raw(&name, &self.auth, &ACCEPT)).await?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::TooBig { what: "manifest (bytes)".to_owned(), limit: MAX_DOCUMENT });
        }
        if let Version::Digest(digest) = version {
            verify(&bytes, digest, "manifest")?;
        }
        Ok(bytes)
    }

    /// A small blob, verified.
    pub(super) async fn document(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut body = self.blob(digest, 0).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|e| self.broken(e))?);
            if bytes.len() as u64 > MAX_DOCUMENT {
                return Err(Error::TooBig { what: "image configuration (bytes)".to_owned(), limit: MAX_DOCUMENT });
            }
        }
        verify(&bytes, digest, "image configuration")?;
        Ok(bytes)
    }

    /// A blob from an offset on. What comes is not verified.
    pub(super) async fn blob(&self, digest: &Digest, offset: u64) -> Result<Body, Error> {
        use oci_client::client::BlobResponse;
        let (name, digest) = (self.name(&Version::Digest(*digest)), digest.to_string());
        self.client.store_auth_if_needed(name.resolve_registry(), &self.auth).await;
        if offset == 0 {
            let body = self.ask(self.client.pull_blob_stream(&name, digest.as_str())).await?;
            return Ok(Body { resumed: false, stream: body.stream });
        }
        match self.ask(self.client.pull_blob_stream_partial(&name, digest.as_str(), offset, None)).await? {
            BlobResponse::Full(body) => Ok(Body { resumed: false, stream: body.stream }),
            BlobResponse::Partial(body) => Ok(Body { resumed: true, stream: body.stream }),
        }
    }

    /// The error for a body that broke off.
    pub(super) fn broken(&self, error: io::Error) -> Error {
        Error::Registry { registry: self.registry.clone(), retry: true, source: Box::new(error) }
    }
}

/// Sorts a refusal: not there, not allowed, try again, or final.
fn refused(registry: &str, error: OciDistributionError) -> Error {
    use OciDistributionError as E;
    use OciErrorCode as Code;
    let registry = registry.to_owned();
    let codes: Vec<&Code> = match &error {
        E::RegistryError { envelope, .. } => envelope.errors.iter().map(|e| &e.code).collect(),
        _ => Vec::new(),
    };
    let has = |wanted: &[Code]| codes.iter().any(|c| wanted.contains(c));
    match &error {
        _ if has(&[Code::ManifestUnknown, Code::NameUnknown, Code::NotFound, Code::BlobUnknown]) => {
            Error::Unknown { registry }
        }
        E::ImageManifestNotFoundError(_) | E::ServerError { code: 404, .. } => Error::Unknown { registry },
        E::UnauthorizedError { .. } | E::AuthenticationFailure(_) | E::ServerError { code: 401 | 403, .. } => {
            Error::Unauthorized { registry }
        }
        _ if has(&[Code::Unauthorized, Code::Denied]) => Error::Unauthorized { registry },
        _ => {
            let retry = match &error {
                E::RequestError(e) => !e.is_builder() && !is_untrusted(e),
                E::IoError(_) => true,
                E::ServerError { code, .. } => *code >= 500 || matches!(code, 408 | 416 | 429),
                _ => has(&[Code::Toomanyrequests]),
            };
            Error::Registry { registry, retry, source: Box::new(error) }
        }
    }
}

/// Whether the registry's certificate was refused: waiting does not mend that.
fn is_untrusted(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // An io::Error does not count what it carries as its source.
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = carried.and_then(|e| e.downcast_ref::<rustls::Error>()).or(error.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = error.source().or_else(|| carried.map(|e| e as &(dyn StdError + 'static)));
    }
    false
}
