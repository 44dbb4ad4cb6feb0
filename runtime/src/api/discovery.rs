//! What there is, for clients that ask first (kubectl, the client libraries).

use edge_model::Kind;
use serde_json::{Value, json};

use super::route::Discovery;

/// The discovery document.
pub fn document(what: &Discovery) -> Value {
    match what {
        Discovery::CoreVersions => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        Discovery::Groups => {
            let mut groups: Vec<&str> =
                Kind::ALL.iter().filter_map(|k| k.api_version().split_once('/')).map(|(g, _)| g).collect();
            groups.dedup();
            let groups: Vec<Value> = groups.into_iter().map(group).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        Discovery::Group(name) => {
            let mut document = group(name);
            document["kind"] = json!("APIGroup");
            document["apiVersion"] = json!("v1");
            document
        }
        Discovery::Resources(api_version) => resources(api_version),
    }
}

fn group(name: &str) -> Value {
    let mut versions: Vec<&str> = Kind::ALL
        .iter()
        .map(|k| k.api_version())
        .filter(|v| v.split_once('/').is_some_and(|(g, _)| g == name))
        .collect();
    versions.dedup();
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|v| json!({"groupVersion": v, "version": v.split_once('/').map_or(v, |(_, version)| version)}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn resources(api_version: &str) -> Value {
    let mut list = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|k| k.api_version() == api_version) {
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
        list.push(json!({
            "name": kind.plural(), "singularName": kind.singular(), "namespaced": kind.namespaced(), "kind": kind.name(),
            "verbs": verbs,
        }));
        let part = |part: &str, verbs: &[&str]| {
            json!({
                "name": format!("{}/{part}", kind.plural()), "singularName": "", "namespaced": kind.namespaced(),
                "kind": kind.name(), "verbs": verbs,
            })
        };
        list.push(part("status", &["get", "patch", "update"]));
        match kind {
            Kind::Pod => list.push(part("log", &["get"])),
            Kind::Device => list.push(part("properties", &["get", "update"])),
            _ => {}
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": list})
}

/// `/version`: the Kubernetes API level whose paths and patches are served, and our own version. Client libraries insist on
/// fields that say how a Go program was built; they are empty.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "31", "gitVersion": format!("v1.31.0+edge-runtime-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        "edgeRuntime": env!("CARGO_PKG_VERSION"),
    })
}
