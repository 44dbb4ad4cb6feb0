//! From a container of a pod and its image to what the engine starts. Pure.

use std::path::{Path, PathBuf};

use edge_model::pod::{Container, PodSpec, SeccompType};

use super::env;
use super::user::{Database, UserError};
use crate::engine::spec::{Capabilities, ContainerSpec, Limits, Mount, Namespace, Seccomp};
use crate::engine::volumes::Attached;
use crate::images::ImageConfig;

/// The period over which processor time is limited, in microseconds (the kernel's and Kubernetes' default).
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel refuses a smaller quota, in microseconds.
const CPU_QUOTA_MIN_US: u64 = 1_000;
/// Kubernetes' least share of the processor.
const CPU_SHARES_MIN: u64 = 2;

/// What a container is made from.
pub struct Parts<'a> {
    /// The pod.
    pub pod: &'a PodSpec,
    /// The container.
    pub container: &'a Container,
    /// How its image wants to be run.
    pub image: &'a ImageConfig,
    /// The image's users.
    pub users: &'a Database,
    /// Its root file system.
    pub rootfs: &'a Path,
    /// Its volumes.
    pub attached: Attached,
    /// The variables the pod sets.
    pub variables: Vec<(String, String)>,
    /// The host name.
    pub hostname: &'a str,
    /// The directory with the pod's `hosts`, `hostname` and `resolv.conf`.
    pub files: &'a Path,
    /// The pod's network namespace.
    pub netns: &'a Path,
    /// Most processes and threads.
    pub pids: Option<u32>,
    /// Memory of the node, in bytes.
    pub node_memory: u64,
    /// Whether pods may be privileged.
    pub allow_privileged: bool,
}

/// Why a container cannot be made as it is described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Its user is not known.
    #[error(transparent)]
    User(#[from] UserError),
    /// It must not run as root, but would.
    #[error("runAsNonRoot is set, and the container would run as user 0: set runAsUser")]
    Root,
    /// It wants to be privileged.
    #[error("privileged containers are not allowed by the configuration of this node")]
    Privileged,
    /// There is nothing to run.
    #[error("neither the pod nor the image says what to run: set command")]
    NoCommand,
}

/// The specification of a container.
///
/// # Errors
/// [`ShapeError`]: only a change of the pod, the image or the node's configuration helps.
pub fn shape(parts: Parts<'_>) -> Result<ContainerSpec, ShapeError> {
    let security = parts.container.security_context.clone().unwrap_or_default();
    let pod_security = parts.pod.security_context.clone().unwrap_or_default();
    let uid = security.run_as_user.or(pod_security.run_as_user);
    let gid = security.run_as_group.or(pod_security.run_as_group);
    let user = parts.users.resolve(&parts.image.user, uid, gid)?;
    if security.run_as_non_root.or(pod_security.run_as_non_root) == Some(true) && user.uid == 0 {
        return Err(ShapeError::Root);
    }
    let privileged = security.privileged == Some(true);
    if privileged && !parts.allow_privileged {
        return Err(ShapeError::Privileged);
    }
    let args = env::command(parts.container, &parts.image.entrypoint, &parts.image.cmd, &parts.variables);
    if args.is_empty() {
        return Err(ShapeError::NoCommand);
    }
    let mut first = vec![format!("HOSTNAME={}", parts.hostname)];
    first.extend(user.home.map(|home| format!("HOME={home}")));
    first.extend(parts.image.env.iter().cloned());
    let mut groups = user.groups;
    groups.extend(pod_security.fs_group);
    groups.extend(&pod_security.supplemental_groups);
    groups.sort_unstable();
    groups.dedup();
    let profile = security.seccomp_profile.or(pod_security.seccomp_profile).map(|p| p.kind);
    let capabilities = security.capabilities.unwrap_or_default();
    let host = parts.pod.host_network;
    let image_dir = if parts.image.working_dir.is_empty() { "/" } else { &parts.image.working_dir };
    Ok(ContainerSpec {
        args,
        env: env::over_image(&first, parts.variables),
        cwd: PathBuf::from(parts.container.working_dir.as_deref().unwrap_or(image_dir)),
        uid: user.uid,
        gid: user.gid,
        additional_gids: groups,
        rootfs: parts.rootfs.to_owned(),
        readonly_rootfs: security.read_only_root_filesystem == Some(true),
        hostname: (!host).then(|| parts.hostname.to_owned()),
        mounts: mounts(parts.container, parts.attached.mounts, parts.files),
        devices: parts.attached.devices,
        capabilities: Capabilities { add: capabilities.add, drop: capabilities.drop },
        privileged,
        no_new_privileges: !privileged,
        seccomp: if profile == Some(SeccompType::Unconfined) { Seccomp::Unconfined } else { Seccomp::Default },
        limits: limits(parts.container, parts.pids),
        network: if host { Namespace::Host } else { Namespace::Join(parts.netns.to_owned()) },
        uts: if host { Namespace::Host } else { Namespace::New },
        oom_score_adj: Some(oom_score(parts.container, parts.node_memory)),
        ..ContainerSpec::default()
    })
}

/// The pod's own files, unless the container mounts something in their place, and its volumes, outer ones first.
fn mounts(container: &Container, volumes: Vec<Mount>, files: &Path) -> Vec<Mount> {
    let taken = |path: &str| container.volume_mounts.iter().any(|m| m.mount_path.trim_end_matches('/') == path);
    let own = [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];
    let own = own.into_iter().filter(|(_, inside)| !taken(inside));
    let mut all: Vec<Mount> = volumes;
    all.extend(own.map(|(name, inside)| Mount::bind(files.join(name), inside, false)));
    all.sort_by_key(|m| m.destination.components().count());
    all
}

fn limits(container: &Container, pids: Option<u32>) -> Limits {
    let Some(resources) = &container.resources else { return Limits { pids, ..Limits::default() } };
    let (limits, requests) = (&resources.limits, &resources.requests);
    let milli = |q: &edge_model::quantity::Quantity| u64::try_from(q.milli_value()).unwrap_or(0);
    // 0 means no limit, as in Kubernetes.
    let quota = limits.cpu.as_ref().map(milli).filter(|m| *m > 0);
    let quota = quota.map(|m| m.saturating_mul(CPU_PERIOD_US / 1000).max(CPU_QUOTA_MIN_US));
    let share = requests.cpu.as_ref().or(limits.cpu.as_ref()).map(milli);
    Limits {
        memory_bytes: limits.memory.and_then(|q| u64::try_from(q.value()).ok()).filter(|b| *b > 0),
        cpu_quota_us: quota,
        cpu_period_us: quota.map(|_| CPU_PERIOD_US),
        cpu_shares: share.map(|m| (m.saturating_mul(1024) / 1000).clamp(CPU_SHARES_MIN, 262_144)),
        pids,
    }
}

/// Who goes first when the node's memory is out: containers before the runtime, those that asked for nothing before those
/// that asked for much (Kubernetes' formula for burstable pods; less than 2 would need a privilege).
fn oom_score(container: &Container, node_memory: u64) -> i32 {
    let resources = container.resources.clone().unwrap_or_default();
    let asked = resources.requests.memory.or(resources.limits.memory).and_then(|q| u64::try_from(q.value()).ok());
    match asked {
        None => 1000,
        Some(bytes) => {
            let share = bytes.saturating_mul(1000) / node_memory.max(1);
            i32::try_from(1000u64.saturating_sub(share)).unwrap_or(1000).clamp(2, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn try_shape(pod: Value, image: &ImageConfig, allow_privileged: bool) -> Result<ContainerSpec, ShapeError> {
        let pod = edge_model::pod::check(&pod).unwrap();
        shape(Parts {
            pod: &pod,
            container: &pod.containers[0],
            image,
            users: &Database { passwd: "app:x:1000:1000::/home/app:/bin/sh".into(), group: String::new() },
            rootfs: Path::new("/root"),
            attached: Attached {
                mounts: pod.containers[0]
                    .volume_mounts
                    .iter()
                    .map(|m| Mount::bind("/x", &m.mount_path, false))
                    .collect(),
                devices: Vec::new(),
            },
            variables: vec![("A".into(), "pod".into())],
            hostname: "web",
            files: Path::new("/files"),
            netns: Path::new("/netns"),
            pids: Some(100),
            node_memory: 1 << 30,
            allow_privileged,
        })
    }

    fn pod(container: Value) -> Value {
        let mut c = container;
        c["name"] = json!("c");
        c["image"] = json!("i:1");
        json!({"containers": [c], "volumes": [{"name": "v", "emptyDir": {}}]})
    }

    fn image() -> ImageConfig {
        let env = vec!["PATH=/bin".to_owned(), "A=image".to_owned()];
        ImageConfig {
            entrypoint: vec!["/app".into()],
            env,
            user: "app".into(),
            working_dir: "/srv".into(),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn the_image_and_the_pod_together() {
        let spec = try_shape(pod(json!({})), &image(), false).unwrap();
        assert_eq!((spec.uid, spec.gid, spec.cwd.to_str()), (1000, 1000, Some("/srv")));
        let var = |name: &str| spec.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(
            (var("A"), var("HOME"), var("HOSTNAME"), var("PATH")),
            (Some("pod"), Some("/home/app"), Some("web"), Some("/bin"))
        );
        assert_eq!(spec.network, Namespace::Join("/netns".into()));
        assert!(spec.no_new_privileges && !spec.privileged && !spec.readonly_rootfs);
        let mut host = pod(json!({}));
        host["hostNetwork"] = json!(true);
        let spec = try_shape(host, &image(), false).unwrap();
        assert_eq!((spec.network, spec.uts, spec.hostname), (Namespace::Host, Namespace::Host, None));
    }

    #[test]
    fn limits_become_the_kernels_numbers() {
        let resources = json!({"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m"}});
        let spec = try_shape(pod(json!({"resources": resources})), &image(), false).unwrap();
        let expected = Limits {
            memory_bytes: Some(64 << 20),
            cpu_quota_us: Some(25_000),
            cpu_period_us: Some(100_000),
            cpu_shares: Some(102),
            pids: Some(100),
        };
        assert_eq!(spec.limits, expected);
        assert_eq!(spec.oom_score_adj, Some(938));
        let tiny =
            try_shape(pod(json!({"resources": {"limits": {"cpu": "1m", "memory": 0}}})), &image(), false).unwrap();
        assert_eq!(
            (tiny.limits.cpu_quota_us, tiny.limits.cpu_shares, tiny.limits.memory_bytes),
            (Some(1000), Some(2), None)
        );
        assert_eq!(try_shape(pod(json!({})), &image(), false).unwrap().oom_score_adj, Some(1000));
    }

    #[test]
    fn mounts_are_ordered_and_the_pods_own_files_give_way() {
        let mounts = json!([{"name": "v", "mountPath": "/data/deep/er"}, {"name": "v", "mountPath": "/data"}, {"name": "v", "mountPath": "/etc/hosts"}]);
        let spec = try_shape(pod(json!({"volumeMounts": mounts})), &image(), false).unwrap();
        let places: Vec<_> = spec.mounts.iter().map(|m| (m.source.as_str(), m.destination.to_str().unwrap())).collect();
        let expected = [
            ("/x", "/data"),
            ("/x", "/etc/hosts"),
            ("/files/hostname", "/etc/hostname"),
            ("/files/resolv.conf", "/etc/resolv.conf"),
            ("/x", "/data/deep/er"),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let root = ImageConfig { user: String::new(), ..image() };
        let cases = [
            (json!({"securityContext": {"runAsNonRoot": true}}), &root, ShapeError::Root),
            (json!({"securityContext": {"privileged": true}}), &root, ShapeError::Privileged),
            (json!({}), &ImageConfig::default(), ShapeError::NoCommand),
            (
                json!({}),
                &ImageConfig { user: "who".into(), ..image() },
                ShapeError::User(UserError::User("who".into())),
            ),
        ];
        for (container, image, error) in cases {
            assert_eq!(try_shape(pod(container.clone()), image, false), Err(error), "{container}");
        }
        let spec = try_shape(pod(json!({"securityContext": {"privileged": true}})), &root, true).unwrap();
        assert!(spec.privileged && !spec.no_new_privileges);
        assert!(
            try_shape(pod(json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 5}})), &root, true).is_ok()
        );
    }
}
