//! Which path is what. Kubernetes' REST paths for objects, a few of our own for the node.

use edge_model::Kind;

use super::query::decode;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Objects of a kind, in one namespace or in all.
    Collection {
        /// The kind.
        kind: Kind,
        /// The namespace; `None` for all of them, and for kinds without.
        namespace: Option<String>,
    },
    /// One object.
    Object {
        /// The kind.
        kind: Kind,
        /// The namespace; empty for kinds without.
        namespace: String,
        /// The name.
        name: String,
        /// What of it.
        part: Part,
    },
    /// `/api`, `/api/v1`, `/apis`, `/apis/<group>`, `/apis/<group>/<version>`: what there is.
    Discovery(Discovery),
    /// `/version`.
    Version,
    /// `/status`.
    Status,
    /// `/metrics`.
    Metrics,
    /// `/healthz`, `/livez`.
    Healthz,
    /// `/readyz`.
    Readyz,
    /// `/loglevel`.
    LogLevel,
    /// `/images`, or `/images/<reference>`.
    Images(Option<String>),
    /// `/images/pull`.
    Pull,
    /// `/images/import`.
    Import,
    /// `/update`.
    Update,
    /// `/update/restart`.
    Restart,
}

/// A part of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// `/status`.
    Status,
    /// `/log` of a pod.
    Log,
    /// `/properties` of a device, or one of them.
    Properties(Option<String>),
}

/// A discovery document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/<group>`.
    Group(String),
    /// `/api/v1` or `/apis/<group>/<version>`.
    Resources(String),
}

impl Route {
    /// What a path names; `None` when it names nothing.
    pub fn parse(path: &str) -> Option<Route> {
        let steps: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(decode).collect();
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        let route = match steps.as_slice() {
            ["version"] => Route::Version,
            ["status"] => Route::Status,
            ["metrics"] => Route::Metrics,
            ["healthz" | "livez"] => Route::Healthz,
            ["readyz"] => Route::Readyz,
            ["loglevel"] => Route::LogLevel,
            ["update"] => Route::Update,
            ["update", "restart"] => Route::Restart,
            ["images"] => Route::Images(None),
            ["images", "pull"] => Route::Pull,
            ["images", "import"] => Route::Import,
            // References hold slashes: `docker.io/library/nginx:1`.
            ["images", reference @ ..] => Route::Images(Some(reference.join("/"))),
            ["api"] => Route::Discovery(Discovery::CoreVersions),
            ["apis"] => Route::Discovery(Discovery::Groups),
            ["apis", group] if is_group(group) => Route::Discovery(Discovery::Group((*group).to_owned())),
            ["api", version, rest @ ..] => return resource(version, rest),
            ["apis", group, version, rest @ ..] => return resource(&format!("{group}/{version}"), rest),
            _ => return None,
        };
        Some(route)
    }
}

fn is_group(group: &str) -> bool {
    Kind::ALL.iter().any(|k| k.api_version().split_once('/').is_some_and(|(g, _)| g == group))
}

fn resource(api_version: &str, rest: &[&str]) -> Option<Route> {
    let kind = |plural: &str| Kind::from_resource(api_version, plural);
    match rest {
        [] => {
            let known = Kind::ALL.iter().any(|k| k.api_version() == api_version);
            known.then(|| Route::Discovery(Discovery::Resources(api_version.to_owned())))
        }
        ["namespaces", namespace, plural, rest @ ..] => {
            let kind = kind(plural).filter(|k| k.namespaced())?;
            match rest {
                [] => Some(Route::Collection { kind, namespace: Some((*namespace).to_owned()) }),
                [name, part @ ..] => object(kind, namespace, name, part),
            }
        }
        [plural] => kind(plural).map(|kind| Route::Collection { kind, namespace: None }),
        [plural, name, part @ ..] => {
            let kind = kind(plural).filter(|k| !k.namespaced())?;
            object(kind, "", name, part)
        }
    }
}

fn object(kind: Kind, namespace: &str, name: &str, part: &[&str]) -> Option<Route> {
    let part = match (kind, part) {
        (_, []) => Part::Whole,
        (_, ["status"]) => Part::Status,
        (Kind::Pod, ["log"]) => Part::Log,
        (Kind::Device, ["properties"]) => Part::Properties(None),
        (Kind::Device, ["properties", property]) => Part::Properties(Some((*property).to_owned())),
        _ => return None,
    };
    Some(Route::Object { kind, namespace: namespace.to_owned(), name: name.to_owned(), part })
}

/// The path of objects of a kind, or of one.
pub fn path(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> String {
    let root = if kind.api_version().contains('/') { "/apis" } else { "/api" };
    let mut path = format!("{root}/{}", kind.api_version());
    if let Some(namespace) = namespace.filter(|_| kind.namespaced()) {
        path = format!("{path}/namespaces/{}", super::query::encode(namespace));
    }
    path = format!("{path}/{}", kind.plural());
    name.map_or(path.clone(), |name| format!("{path}/{}", super::query::encode(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(kind: Kind, namespace: &str, name: &str, part: Part) -> Option<Route> {
        Some(Route::Object { kind, namespace: namespace.into(), name: name.into(), part })
    }

    #[test]
    fn kubernetes_paths() {
        let collection = |kind, ns: Option<&str>| Some(Route::Collection { kind, namespace: ns.map(str::to_owned) });
        let devices = "/apis/devices.kubeedge.io/v1beta1";
        let cases = [
            ("/api/v1/pods".to_owned(), collection(Kind::Pod, None)),
            ("/api/v1/namespaces/a/pods/".to_owned(), collection(Kind::Pod, Some("a"))),
            ("/api/v1/namespaces/a/pods/b".to_owned(), object(Kind::Pod, "a", "b", Part::Whole)),
            ("/api/v1/namespaces/a/pods/b/log".to_owned(), object(Kind::Pod, "a", "b", Part::Log)),
            ("/api/v1/namespaces/a/pods/b/status".to_owned(), object(Kind::Pod, "a", "b", Part::Status)),
            ("/api/v1/nodes/gw".to_owned(), object(Kind::Node, "", "gw", Part::Whole)),
            ("/api/v1/pods/b".to_owned(), None),
            ("/api/v1/namespaces/a/nodes/b".to_owned(), None),
            ("/api/v1/namespaces/a/configmaps/b/log".to_owned(), None),
            ("/api/v2/pods".to_owned(), None),
            (
                format!("{devices}/namespaces/a/devices/b/properties/c%2Fd"),
                object(Kind::Device, "a", "b", Part::Properties(Some("c/d".into()))),
            ),
            (format!("{devices}/pods"), None),
            (devices.to_owned(), Some(Route::Discovery(Discovery::Resources("devices.kubeedge.io/v1beta1".into())))),
            ("/apis/apps".to_owned(), None),
            (
                "/images/docker.io/library/nginx:1".to_owned(),
                Some(Route::Images(Some("docker.io/library/nginx:1".into()))),
            ),
            ("/".to_owned(), None),
        ];
        for (text, route) in cases {
            assert_eq!(Route::parse(&text), route, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_object_has_a_path(index in 0..Kind::ALL.len(), ns in "[a-z]{1,4}", name in "[a-z./% ]{1,6}") {
            let kind = Kind::ALL[index];
            let expected = object(kind, if kind.namespaced() { &ns } else { "" }, &name, Part::Whole);
            prop_assert_eq!(Route::parse(&path(kind, Some(&ns), Some(&name))), expected);
        }

        #[test]
        fn garbage_never_panics(text in "[/%a-z0-9]{0,40}") {
            let _ = Route::parse(&text);
        }
    }
}
