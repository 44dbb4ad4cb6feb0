//! PodStatus: what became of a pod.
//!
//! Source: Kubernetes API reference, "PodStatus v1 core", and "Pod Lifecycle" for phases and conditions.

use serde::{Deserialize, Serialize};

use crate::node::Condition;

/// The status of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Where the pod is in its life.
    pub phase: Phase,
    /// `PodReadyToStartContainers`, `Initialized`, `ContainersReady`, `Ready`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Why the pod is in its phase, one word in CamelCase.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why the pod is in its phase, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The node's address.
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    /// The pod's address.
    #[serde(rename = "podIP", skip_serializing_if = "String::is_empty")]
    pub pod_ip: String,
    /// When the node took it up, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start_time: String,
    /// The init containers, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// The containers, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
}

impl PodStatus {
    /// The status of the container with this name, init containers included.
    pub fn container(&self, name: &str) -> Option<&ContainerStatus> {
        self.init_container_statuses.iter().chain(&self.container_statuses).find(|c| c.name == name)
    }
}

/// Where a pod is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Taken up, but not every container has started once.
    #[default]
    Pending,
    /// At least one container runs, or is about to be started again.
    Running,
    /// Every container ended with 0 and none is started again.
    Succeeded,
    /// Every container ended, at least one not with 0, and none is started again.
    Failed,
}

/// The status of one container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// The name of the container in the spec.
    pub name: String,
    /// What it does now.
    pub state: ContainerState,
    /// How it ended the last time.
    #[serde(skip_serializing_if = "ContainerState::is_empty")]
    pub last_state: ContainerState,
    /// Whether it runs and its readiness probe, if it has one, says so; for init containers, whether it ended with 0.
    pub ready: bool,
    /// Whether it runs and its startup probe, if it has one, has succeeded.
    pub started: bool,
    /// How often it was started again.
    pub restart_count: u32,
    /// The image reference of the spec.
    pub image: String,
    /// The digest of the image that is used.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// The identity of the running, or last, container: `edge://<id>`.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
}

/// What a container does: exactly one of the three.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    /// It is about to be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// It runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// It ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

impl ContainerState {
    /// Waiting, with the reason.
    pub fn waiting(reason: &str, message: &str) -> ContainerState {
        let waiting = Waiting { reason: reason.to_owned(), message: message.to_owned() };
        ContainerState { waiting: Some(waiting), ..ContainerState::default() }
    }

    /// Running since then.
    pub fn running(started_at: String) -> ContainerState {
        ContainerState { running: Some(Running { started_at }), ..ContainerState::default() }
    }

    /// Ended.
    pub fn terminated(end: Terminated) -> ContainerState {
        ContainerState { terminated: Some(end), ..ContainerState::default() }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == ContainerState::default()
    }
}

/// Why a container does not run yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Waiting {
    /// `ContainerCreating`, `PodInitializing`, `ErrImagePull`, `ImagePullBackOff`, `CrashLoopBackOff`, …
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Since when a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// RFC 3339.
    pub started_at: String,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// The exit code; 128 + the signal when a signal ended it.
    pub exit_code: i32,
    /// The signal that ended it; 0 when none did.
    #[serde(skip_serializing_if = "is_zero")]
    pub signal: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub started_at: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub finished_at: String,
    /// The identity of the container that ended.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}
