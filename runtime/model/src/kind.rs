//! The closed set of object kinds, with the names Kubernetes and KubeEdge give them.

use std::fmt;
use std::str::FromStr;

/// A kind of object. Whoever adds one adds it here, and the compiler finds every place that must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// This gateway itself (`v1`, cluster scoped): capacity, conditions, addresses.
    Node,
    /// Configuration data for pods (`v1`).
    ConfigMap,
    /// Confidential data for pods (`v1`).
    Secret,
    /// What a type of device looks like (`devices.kubeedge.io/v1beta1`).
    DeviceModel,
    /// One device in the field (`devices.kubeedge.io/v1beta1`).
    Device,
    /// A group of containers (`v1`).
    Pod,
    /// Something that happened to an object (`v1`).
    Event,
}

struct Names {
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static str,
    namespaced: bool,
}

impl Kind {
    /// Every kind, in the order in which objects should be brought in: what is referred to comes before what refers to it.
    pub const ALL: [Kind; 7] =
        [Kind::Node, Kind::ConfigMap, Kind::Secret, Kind::DeviceModel, Kind::Device, Kind::Pod, Kind::Event];

    const fn names(self) -> Names {
        const CORE: &str = "v1";
        const DEVICES: &str = "devices.kubeedge.io/v1beta1";
        let (api_version, kind, plural, singular, short, namespaced) = match self {
            Kind::Node => (CORE, "Node", "nodes", "node", "no", false),
            Kind::ConfigMap => (CORE, "ConfigMap", "configmaps", "configmap", "cm", true),
            Kind::Secret => (CORE, "Secret", "secrets", "secret", "secret", true),
            Kind::DeviceModel => (DEVICES, "DeviceModel", "devicemodels", "devicemodel", "dm", true),
            Kind::Device => (DEVICES, "Device", "devices", "device", "dev", true),
            Kind::Pod => (CORE, "Pod", "pods", "pod", "po", true),
            Kind::Event => (CORE, "Event", "events", "event", "ev", true),
        };
        Names { api_version, kind, plural, singular, short, namespaced }
    }

    /// `v1` or `group/version`.
    pub const fn api_version(self) -> &'static str {
        self.names().api_version
    }

    /// The `kind:` of a manifest, such as `ConfigMap`.
    pub const fn name(self) -> &'static str {
        self.names().kind
    }

    /// The REST resource, such as `configmaps`.
    pub const fn plural(self) -> &'static str {
        self.names().plural
    }

    /// The command line's singular, such as `configmap`.
    pub const fn singular(self) -> &'static str {
        self.names().singular
    }

    /// Whether objects of this kind live in a namespace.
    pub const fn namespaced(self) -> bool {
        self.names().namespaced
    }

    /// The kind with this `apiVersion` and `kind`, exactly as spelled in a manifest.
    pub fn from_type(api_version: &str, kind: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.api_version() == api_version && k.name() == kind)
    }

    /// The kind served under this REST resource of this `apiVersion`.
    pub fn from_resource(api_version: &str, plural: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.api_version() == api_version && k.plural() == plural)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not a kind of object; known: {}", Kind::ALL.map(Kind::plural).join(", "))]
pub struct UnknownKind {
    /// The word as given.
    pub word: String,
}

/// Command-line spellings: plural, singular, short name or kind, in any case.
impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Kind, UnknownKind> {
        let lower = word.to_ascii_lowercase();
        Kind::ALL
            .into_iter()
            .find(|k| {
                let n = k.names();
                [n.plural, n.singular, n.short].contains(&lower.as_str())
            })
            .ok_or_else(|| UnknownKind { word: word.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_leads_back_to_its_kind() {
        for kind in Kind::ALL {
            for word in [kind.plural(), kind.singular(), kind.names().short, kind.name()] {
                assert_eq!(word.parse(), Ok(kind), "{word}");
            }
            assert_eq!(Kind::from_type(kind.api_version(), kind.name()), Some(kind));
            assert_eq!(Kind::from_resource(kind.api_version(), kind.plural()), Some(kind));
        }
        assert!("deployments".parse::<Kind>().is_err());
    }
}
