//! What a container was made from, as a short hash: whether it still is what is wanted can then be told without keeping the
//! old spec.

use std::collections::BTreeMap;

use edge_model::pod::{Container, PodSpec, Volume};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Changed when the meaning of a spec changes in a way that makes running containers wrong.
const VERSION: u32 = 1;

/// The hash of the parts of a spec that make the sandbox: network, host name, ports.
pub fn sandbox(spec: &PodSpec) -> String {
    let ports: Vec<_> = spec.containers.iter().map(|c| &c.ports).collect();
    short(&(VERSION, spec.host_network, &spec.hostname, &spec.host_aliases, ports))
}

/// For each container, the hash of its spec and of the parts of the pod that concern it, the sandbox included.
pub fn containers(spec: &PodSpec) -> BTreeMap<String, String> {
    let sandbox = sandbox(spec);
    let hash = |c: &Container| {
        let volumes: Vec<Option<&Volume>> = c.volume_mounts.iter().map(|m| spec.volume(&m.name)).collect();
        (c.name.clone(), short(&(&sandbox, c, &spec.security_context, volumes)))
    };
    spec.all_containers().map(hash).collect()
}

fn short(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).unwrap_or_default();
    Sha256::digest(json).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn hashes(spec: Value) -> BTreeMap<String, String> {
        containers(&edge_model::pod::check(&spec).unwrap())
    }

    #[test]
    fn only_what_concerns_a_container_changes_its_hash() {
        let spec = json!({
            "containers": [
                {"name": "a", "image": "i:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                {"name": "b", "image": "i:1"},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        let before = hashes(spec.clone());
        let changed = |pointer: &str, value: Value| {
            let mut spec = spec.clone();
            *spec.pointer_mut(pointer).unwrap() = value;
            let after = hashes(spec);
            ["a", "b"].into_iter().filter(|n| before[*n] != after[*n]).collect::<Vec<_>>()
        };
        assert_eq!(changed("/containers/0/image", json!("i:2")), ["a"]);
        assert_eq!(changed("/volumes/0/emptyDir", json!({"medium": "Memory"})), ["a"]);
        assert_eq!(changed("/containers/0/image", json!("i:1")), [""; 0]);
        let mut wider = spec.clone();
        wider["hostNetwork"] = json!(true);
        assert_ne!(hashes(wider)["b"], before["b"]);
        // What only the policy concerns leaves running containers alone.
        let mut patient = spec.clone();
        patient["terminationGracePeriodSeconds"] = json!(1);
        patient["restartPolicy"] = json!("Never");
        assert_eq!(hashes(patient), before);
    }
}
