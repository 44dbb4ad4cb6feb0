//! The documents of an image: manifest, index and configuration, of OCI and of Docker, which differ in names only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, Error};

/// Longest manifest, index or configuration: registries refuse larger ones.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
pub(super) const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const MEDIA_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A pointer to a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor { media_type: media_type.to_owned(), digest, size, platform: None, annotations: None }
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// Which machines an image is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) variant: Option<String>,
}

impl Platform {
    /// This machine's, in Go's names as images use them.
    pub(super) fn native() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// Whether an image for this platform runs here. The only variant of arm64 there is is v8.
    fn runs_on(&self, here: &Platform) -> bool {
        let variant = self.variant.as_deref().unwrap_or_default();
        self.os == here.os && self.architecture == here.architecture && matches!(variant, "" | "v8" | "v1")
    }

    fn show(&self) -> String {
        let variant = self.variant.as_ref().filter(|v| !v.is_empty()).map(|v| format!("/{v}")).unwrap_or_default();
        format!("{}/{}{variant}", self.os, self.architecture)
    }
}

/// A manifest, or an index of manifests: `layers` tells them apart, media types are often left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) layers: Option<Vec<Descriptor>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) manifests: Option<Vec<Descriptor>>,
}

/// A parsed document.
pub(super) enum Parsed {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// An image manifest.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

impl Document {
    pub(super) fn parse(bytes: &[u8], what: &str) -> Result<Parsed, Error> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { what: what.to_owned(), source })?;
        if document.schema_version != 2 {
            return Err(Error::invalid(what, format!("schema version {} is not 2", document.schema_version)));
        }
        match document {
            Document { manifests: Some(manifests), layers: None, .. } => Ok(Parsed::Index(manifests)),
            Document { config: Some(config), layers: Some(layers), manifests: None, .. } => {
                Ok(Parsed::Manifest(Manifest { config, layers }))
            }
            _ => Err(Error::invalid(what, "is neither an image manifest nor an index")),
        }
    }

    /// The manifest of an image made here.
    pub(super) fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Document {
        let media_type = Some(MEDIA_MANIFEST.to_owned());
        Document { schema_version: 2, media_type, config: Some(config), layers: Some(layers), manifests: None }
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|source| Error::Json { what: "manifest".to_owned(), source })
    }
}

/// The entry of an index for this machine.
pub(super) fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, Error> {
    let here = Platform::native();
    let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.runs_on(&here));
    if let Some(found) = manifests.iter().find(fits) {
        return Ok(found);
    }
    match manifests {
        // An index of one that says nothing: the image's configuration will tell.
        [only] if only.platform.is_none() => Ok(only),
        _ => {
            // Attestations stand in the index as platform unknown.
            let mut found: Vec<_> = manifests.iter().filter_map(|d| d.platform.as_ref()).map(Platform::show).collect();
            found.retain(|p| !p.starts_with("unknown"));
            Err(Error::Platform { wanted: here.show(), found: found.join(", ") })
        }
    }
}

/// How an image wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its first arguments; Kubernetes' `command` replaces it.
    pub entrypoint: Vec<String>,
    /// Arguments after the entrypoint; Kubernetes' `args` replaces it.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Where to start; empty means `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// Signal to stop it, such as `SIGTERM`, when the image says one.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports it listens on, such as `80/tcp`.
    pub exposed_ports: Vec<String>,
}

/// The configuration document (OCI image specification, config).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ConfigFile {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) variant: Option<String>,
    #[serde(default)]
    pub(super) config: Option<Run>,
    pub(super) rootfs: Rootfs,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Rootfs {
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) diff_ids: Option<Vec<Digest>>,
}

/// Docker writes `null` for every empty list, hence the options.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Run {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cmd: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) working_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stop_signal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
}

impl ConfigFile {
    /// Parses, and refuses an image for other machines.
    pub(super) fn parse(bytes: &[u8], what: &str) -> Result<ConfigFile, Error> {
        let config: ConfigFile =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { what: what.to_owned(), source })?;
        let (here, variant) = (Platform::native(), config.variant.clone());
        let image = Platform { architecture: config.architecture.clone(), os: config.os.clone(), variant };
        // Hand-made images often say nothing.
        let says_nothing = image.architecture.is_empty() && image.os.is_empty();
        if !says_nothing && !image.runs_on(&here) {
            return Err(Error::Platform { wanted: here.show(), found: image.show() });
        }
        Ok(config)
    }

    pub(super) fn diff_ids(&self) -> &[Digest] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    pub(super) fn image_config(&self) -> ImageConfig {
        let run = self.config.clone().unwrap_or_default();
        ImageConfig {
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            env: run.env.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            user: run.user.unwrap_or_default(),
            stop_signal: run.stop_signal.filter(|s| !s.is_empty()),
            labels: run.labels.unwrap_or_default(),
            exposed_ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
        }
    }

    /// The document of an image made here.
    pub(super) fn native(config: &ImageConfig, diff_ids: Vec<Digest>) -> ConfigFile {
        let here = Platform::native();
        let ports = config.exposed_ports.iter().map(|p| (p.clone(), serde_json::Value::Object(Default::default())));
        ConfigFile {
            architecture: here.architecture,
            os: here.os,
            variant: None,
            config: Some(Run {
                entrypoint: Some(config.entrypoint.clone()),
                cmd: Some(config.cmd.clone()),
                env: Some(config.env.clone()),
                working_dir: Some(config.working_dir.clone()),
                user: Some(config.user.clone()),
                stop_signal: config.stop_signal.clone(),
                labels: Some(config.labels.clone()),
                exposed_ports: Some(ports.collect()),
            }),
            rootfs: Rootfs { kind: "layers".to_owned(), diff_ids: Some(diff_ids) },
        }
    }
}
