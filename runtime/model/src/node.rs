//! Node: this gateway as an object – what it has, where it is reached, and what is not well with it.
//!
//! Source: Kubernetes API reference, "Node v1".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// Yes, no, or not known yet: the value of a condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not.
    False,
    /// Nobody knows yet.
    #[default]
    Unknown,
}

impl From<bool> for Truth {
    fn from(yes: bool) -> Truth {
        if yes { Truth::True } else { Truth::False }
    }
}

/// One condition of a node or a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Which, such as `Ready` or `DiskPressure`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: Truth,
    /// Since when, RFC 3339.
    pub last_transition_time: String,
    /// Why, one word in CamelCase.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where a node is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `Hostname` or `InternalIP`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub address: String,
}

/// What a node is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeInfo {
    /// `amd64`, `arm64`, as images name it.
    pub architecture: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// The name of the system.
    pub os_image: String,
    /// `linux`.
    pub operating_system: String,
    /// The version of the runtime that runs the containers.
    pub container_runtime_version: String,
    /// The version of the runtime that plays the kubelet.
    pub kubelet_version: String,
    /// The machine's id.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// This boot's id.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

/// The status of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// What there is: `cpu`, `memory`, `pods`.
    pub capacity: BTreeMap<String, Quantity>,
    /// What of it pods may have.
    pub allocatable: BTreeMap<String, Quantity>,
    /// What is well and what is not.
    pub conditions: Vec<Condition>,
    /// Where it is reached.
    pub addresses: Vec<Address>,
    /// What it is made of.
    pub node_info: NodeInfo,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_have_the_names_of_kubernetes() {
        let status = NodeStatus {
            capacity: BTreeMap::from([("memory".into(), Quantity::bytes(1 << 29))]),
            conditions: vec![Condition { kind: "Ready".into(), status: true.into(), ..Condition::default() }],
            ..NodeStatus::default()
        };
        let value = serde_json::to_value(&status).unwrap();
        assert_eq!(value["capacity"], json!({"memory": "512Mi"}));
        assert_eq!(value["conditions"][0]["status"], "True");
        assert_eq!(value["nodeInfo"]["bootID"], "");
        assert_eq!(serde_json::from_value::<NodeStatus>(value).unwrap(), status);
    }
}
