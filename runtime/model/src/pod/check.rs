//! The checks that types cannot express: names, references, paths, and values of which only one is supported.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Component, Path};

use serde_json::Value;

use super::check_probe;
use super::container::{Container, EnvFrom, EnvVar, ResourceList, VolumeMount};
use super::{HostPath, KeyToPath, PodSpec, Volume};
use crate::name::is_label;
use crate::object::ObjectError;
use crate::quantity::Quantity;

/// The longest grace a pod may ask for, in seconds: a shutdown of the node has to end some day.
const GRACE_MAX: u32 = 3600;
/// The longest path, in bytes (Linux' `PATH_MAX` with its terminator taken off).
const PATH_MAX: usize = 4095;
/// A DNS label, in words.
const LABEL: &str = "lower-case letters, digits and '-', at most 63 characters";
/// Kubernetes' names of capabilities: Linux' without `CAP_`.
const CAPABILITIES: &str = "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN \
    DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD \
    NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT \
    SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM";

pub(super) type Checked = Result<(), ObjectError>;

/// Reads and checks the `spec` of a Pod. A field that is null counts as absent, as in Kubernetes.
///
/// # Errors
/// The first field that is unknown, of the wrong type, or has a value that is not supported, as a dotted path below `spec`,
/// with what would be right.
pub fn check(spec: &Value) -> Result<PodSpec, ObjectError> {
    if !spec.is_object() {
        return Err(error("spec", "is missing: a pod needs at least spec.containers"));
    }
    let spec: PodSpec = serde_path_to_error::deserialize(&without_nulls(spec)).map_err(|e| {
        let path = match e.path().to_string().as_str() {
            "." => "spec".to_owned(),
            path => format!("spec.{path}"),
        };
        error(path, e.inner())
    })?;
    pod(&spec)?;
    Ok(spec)
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

pub(super) fn error(path: impl Into<String>, message: impl Display) -> ObjectError {
    ObjectError { path: path.into(), message: message.to_string() }
}

/// Refuses a value other than the ones that say what happens anyway.
fn only<T: PartialEq + Display>(path: &str, given: Option<&T>, allowed: &[T], why: &str) -> Checked {
    match given {
        Some(value) if !allowed.contains(value) => {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            Err(error(path, format!("{value} is not supported, only {}: {why}", allowed.join(" or "))))
        }
        _ => Ok(()),
    }
}

pub(super) fn only_text(path: &str, given: Option<&String>, allowed: &[&str], why: &str) -> Checked {
    only(path, given.map(String::as_str).as_ref(), allowed, why)
}

pub(super) fn within(path: &str, given: Option<u32>, least: u32, most: u32) -> Checked {
    match given {
        Some(n) if n < least || n > most => Err(error(path, format!("{n} is out of range: {least} to {most}"))),
        _ => Ok(()),
    }
}

fn pod(spec: &PodSpec) -> Checked {
    within("spec.terminationGracePeriodSeconds", spec.termination_grace_period_seconds, 0, GRACE_MAX)?;
    within("spec.activeDeadlineSeconds", spec.active_deadline_seconds, 1, u32::MAX)?;
    if let Some(name) = spec.hostname.as_ref().filter(|h| !is_label(h)) {
        return Err(error("spec.hostname", format!("{name:?} is not a host name: {LABEL}")));
    }
    only_text(
        "spec.dnsPolicy",
        spec.dns_policy.as_ref(),
        &["Default", "ClusterFirst"],
        "pods get the node's resolvers",
    )?;
    only_text("spec.schedulerName", spec.scheduler_name.as_ref(), &["default-scheduler"], "there is one node")?;
    only_text(
        "spec.serviceAccountName",
        spec.service_account_name.as_ref(),
        &["default", ""],
        "there are no accounts",
    )?;
    only_text("spec.serviceAccount", spec.service_account.as_ref(), &["default", ""], "there are no accounts")?;
    let token = spec.automount_service_account_token.as_ref();
    only("spec.automountServiceAccountToken", token, &[false], "there are no accounts")?;
    let preemption = spec.preemption_policy.as_ref();
    only_text("spec.preemptionPolicy", preemption, &["PreemptLowerPriority"], "nothing is preempted")?;
    only("spec.priority", spec.priority.as_ref(), &[0], "all pods are equal")?;
    only("spec.hostPID", spec.host_pid.as_ref(), &[false], "pods have their own processes")?;
    only("spec.hostIPC", spec.host_ipc.as_ref(), &[false], "pods have their own IPC")?;
    let share = spec.share_process_namespace.as_ref();
    only("spec.shareProcessNamespace", share, &[false], "containers have their own processes")?;
    for (i, secret) in spec.image_pull_secrets.iter().enumerate() {
        if !crate::name::is_subdomain(&secret.name) {
            return Err(error(format!("spec.imagePullSecrets[{i}].name"), format!("{:?} is not a name", secret.name)));
        }
    }
    let mut names = BTreeSet::new();
    for (i, v) in spec.volumes.iter().enumerate() {
        volume(&format!("spec.volumes[{i}]"), v)?;
        unique(&format!("spec.volumes[{i}].name"), &v.name, &mut names)?;
    }
    if spec.containers.is_empty() {
        return Err(error("spec.containers", "a pod needs at least one container"));
    }
    let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for (list, containers) in [("initContainers", &spec.init_containers), ("containers", &spec.containers)] {
        for (i, c) in containers.iter().enumerate() {
            let path = format!("spec.{list}[{i}]");
            unique(&format!("{path}.name"), &c.name, &mut names)?;
            container(&path, c, spec)?;
            check_probe::probes(&path, c, list == "initContainers")?;
            host_ports(&path, c, &mut ports)?;
        }
    }
    Ok(())
}

fn unique<'a>(path: &str, name: &'a str, seen: &mut BTreeSet<&'a str>) -> Checked {
    if !is_label(name) {
        return Err(error(path, format!("{name:?} is not a name: {LABEL}")));
    }
    if !seen.insert(name) {
        return Err(error(path, format!("{name:?} is used twice")));
    }
    Ok(())
}

fn volume(path: &str, volume: &Volume) -> Checked {
    let sources = usize::from(volume.host_path.is_some())
        + usize::from(volume.empty_dir.is_some())
        + usize::from(volume.config_map.is_some())
        + usize::from(volume.secret.is_some());
    if sources != 1 {
        let message = format!("has {sources} sources; exactly one of hostPath, emptyDir, configMap, secret is needed");
        return Err(error(path, message));
    }
    if let Some(HostPath { path: host, .. }) = &volume.host_path {
        absolute(&format!("{path}.hostPath.path"), host)?;
    }
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref()) {
        not_negative(&format!("{path}.emptyDir.sizeLimit"), limit)?;
    }
    if let Some(map) = &volume.config_map {
        files(&format!("{path}.configMap"), "name", &map.name, map.default_mode, &map.items)?;
    }
    if let Some(secret) = &volume.secret {
        files(&format!("{path}.secret"), "secretName", &secret.secret_name, secret.default_mode, &secret.items)?;
    }
    Ok(())
}

fn files(path: &str, field: &str, name: &str, mode: Option<u32>, items: &[KeyToPath]) -> Checked {
    object_name(&format!("{path}.{field}"), name)?;
    within(&format!("{path}.defaultMode"), mode, 0, 0o777)?;
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}.items[{i}]");
        relative(&format!("{path}.path"), &item.path)?;
        within(&format!("{path}.mode"), item.mode, 0, 0o777)?;
    }
    Ok(())
}

fn object_name(path: &str, name: &str) -> Checked {
    if crate::name::is_subdomain(name) {
        Ok(())
    } else {
        Err(error(path, format!("{name:?} is not the name of an object")))
    }
}

fn absolute(path: &str, given: &str) -> Checked {
    let parts = Path::new(given).components();
    let good = given.starts_with('/') && given.len() <= PATH_MAX && !given.contains('\0');
    if good && parts.skip(1).all(|c| matches!(c, Component::Normal(_))) {
        return Ok(());
    }
    Err(error(path, format!("{given:?} is not an absolute path without '..'")))
}

fn relative(path: &str, given: &str) -> Checked {
    let parts = Path::new(given).components();
    let good = !given.is_empty() && given.len() <= PATH_MAX && !given.contains('\0');
    if good && parts.clone().all(|c| matches!(c, Component::Normal(_))) && !given.starts_with("..") {
        return Ok(());
    }
    Err(error(path, format!("{given:?} is not a relative path without '..'")))
}

fn not_negative(path: &str, quantity: &Quantity) -> Checked {
    if quantity.is_negative() { Err(error(path, format!("{quantity} is below zero"))) } else { Ok(()) }
}

fn container(path: &str, c: &Container, spec: &PodSpec) -> Checked {
    if c.image.is_empty() || c.image.contains(char::is_whitespace) {
        return Err(error(format!("{path}.image"), format!("{:?} is not an image reference", c.image)));
    }
    let unread = "termination messages are not read";
    let message = c.termination_message_path.as_ref();
    only_text(&format!("{path}.terminationMessagePath"), message, &["/dev/termination-log"], unread)?;
    let policy = c.termination_message_policy.as_ref();
    only_text(&format!("{path}.terminationMessagePolicy"), policy, &["File"], unread)?;
    let attached = "nothing can be attached to a running container";
    only(&format!("{path}.stdin"), c.stdin.as_ref(), &[false], attached)?;
    only(&format!("{path}.stdinOnce"), c.stdin_once.as_ref(), &[false], attached)?;
    only(&format!("{path}.tty"), c.tty.as_ref(), &[false], attached)?;
    for (field, text) in [("command", &c.command), ("args", &c.args)] {
        if let Some(i) = text.iter().position(|t| t.contains('\0')) {
            return Err(error(format!("{path}.{field}[{i}]"), "contains a zero byte"));
        }
    }
    if let Some(dir) = &c.working_dir {
        absolute(&format!("{path}.workingDir"), dir)?;
    }
    for (i, e) in c.env.iter().enumerate() {
        variable(&format!("{path}.env[{i}]"), e)?;
    }
    for (i, e) in c.env_from.iter().enumerate() {
        source(&format!("{path}.envFrom[{i}]"), e)?;
    }
    if let Some(resources) = &c.resources {
        limits(&format!("{path}.resources"), &resources.limits, &resources.requests)?;
    }
    let mut places = BTreeSet::new();
    for (i, m) in c.volume_mounts.iter().enumerate() {
        mount(&format!("{path}.volumeMounts[{i}]"), m, spec, &mut places)?;
    }
    confinement(path, c)
}

fn confinement(path: &str, c: &Container) -> Checked {
    let Some(security) = &c.security_context else { return Ok(()) };
    let path = format!("{path}.securityContext");
    let escalation = security.allow_privilege_escalation.as_ref();
    only(&format!("{path}.allowPrivilegeEscalation"), escalation, &[false], "containers run with no-new-privileges")?;
    only_text(&format!("{path}.procMount"), security.proc_mount.as_ref(), &["Default"], "/proc is masked")?;
    let Some(capabilities) = &security.capabilities else { return Ok(()) };
    for (field, names) in [("add", &capabilities.add), ("drop", &capabilities.drop)] {
        for (i, name) in names.iter().enumerate() {
            if !CAPABILITIES.split_ascii_whitespace().any(|known| known == name) {
                let hint = "Linux' names without CAP_, such as NET_BIND_SERVICE, or ALL";
                return Err(error(
                    format!("{path}.capabilities.{field}[{i}]"),
                    format!("{name:?} is not known: {hint}"),
                ));
            }
        }
    }
    Ok(())
}

fn variable_name(path: &str, name: &str) -> Checked {
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
    if good {
        Ok(())
    } else {
        Err(error(path, format!("{name:?} is not a name: printable ASCII without '=' and blanks")))
    }
}

fn variable(path: &str, v: &EnvVar) -> Checked {
    variable_name(&format!("{path}.name"), &v.name)?;
    if v.value.as_ref().is_some_and(|t| t.contains('\0')) {
        return Err(error(format!("{path}.value"), "contains a zero byte"));
    }
    let Some(from) = &v.value_from else { return Ok(()) };
    let path = format!("{path}.valueFrom");
    let sources = usize::from(from.config_map_key_ref.is_some())
        + usize::from(from.secret_key_ref.is_some())
        + usize::from(from.field_ref.is_some());
    if sources != 1 || v.value.is_some() {
        return Err(error(
            path,
            "needs exactly one of configMapKeyRef, secretKeyRef, fieldRef, and no value beside it",
        ));
    }
    for (field, key) in [("configMapKeyRef", &from.config_map_key_ref), ("secretKeyRef", &from.secret_key_ref)] {
        if let Some(key) = key {
            object_name(&format!("{path}.{field}.name"), &key.name)?;
        }
    }
    let version = from.field_ref.as_ref().and_then(|f| f.api_version.as_ref());
    only_text(&format!("{path}.fieldRef.apiVersion"), version, &["v1"], "that is the pod's version")
}

fn source(path: &str, from: &EnvFrom) -> Checked {
    match (&from.config_map_ref, &from.secret_ref) {
        (Some(map), None) => object_name(&format!("{path}.configMapRef.name"), &map.name)?,
        (None, Some(secret)) => object_name(&format!("{path}.secretRef.name"), &secret.name)?,
        _ => return Err(error(path, "needs exactly one of configMapRef and secretRef")),
    }
    match &from.prefix {
        Some(prefix) => variable_name(&format!("{path}.prefix"), prefix),
        None => Ok(()),
    }
}

fn limits(path: &str, limits: &ResourceList, requests: &ResourceList) -> Checked {
    let pairs = [("cpu", &limits.cpu, &requests.cpu), ("memory", &limits.memory, &requests.memory)];
    for (name, limit, request) in pairs {
        for (list, quantity) in [("limits", limit), ("requests", request)] {
            if let Some(quantity) = quantity {
                not_negative(&format!("{path}.{list}.{name}"), quantity)?;
            }
        }
        if let (Some(limit), Some(request)) = (limit, request)
            && request > limit
        {
            return Err(error(
                format!("{path}.requests.{name}"),
                format!("{request} is more than the limit of {limit}"),
            ));
        }
    }
    Ok(())
}

fn mount<'a>(path: &str, m: &'a VolumeMount, spec: &PodSpec, places: &mut BTreeSet<&'a str>) -> Checked {
    if spec.volume(&m.name).is_none() {
        let known: Vec<&str> = spec.volumes.iter().map(|v| v.name.as_str()).collect();
        let message = format!("{:?} is not a volume of this pod; it has: {}", m.name, known.join(", "));
        return Err(error(format!("{path}.name"), message));
    }
    absolute(&format!("{path}.mountPath"), &m.mount_path)?;
    if m.mount_path.contains(':') || Path::new(&m.mount_path).components().count() < 2 {
        return Err(error(format!("{path}.mountPath"), "cannot be the root and cannot contain ':'"));
    }
    if !places.insert(m.mount_path.trim_end_matches('/')) {
        return Err(error(format!("{path}.mountPath"), format!("{:?} is used twice", m.mount_path)));
    }
    if let Some(below) = &m.sub_path {
        relative(&format!("{path}.subPath"), below)?;
    }
    only_text(
        &format!("{path}.mountPropagation"),
        m.mount_propagation.as_ref(),
        &["None"],
        "mounts stay where they are made",
    )
}

/// Two containers cannot have the same port of the node; Kubernetes sees that when it schedules, we have to look ourselves.
fn host_ports(path: &str, c: &Container, taken: &mut BTreeSet<(u16, bool)>) -> Checked {
    for (i, port) in c.ports.iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        if port.container_port == 0 {
            return Err(error(format!("{path}.containerPort"), "is missing or 0: 1 to 65535"));
        }
        if port.name.as_ref().is_some_and(|n| !is_label(n) || n.len() > 15) {
            return Err(error(
                format!("{path}.name"),
                "is not a port name: lower-case letters, digits and '-', at most 15",
            ));
        }
        let Some(host) = port.host_port else { continue };
        if host == 0 {
            return Err(error(format!("{path}.hostPort"), "is 0: 1 to 65535, or leave it out"));
        }
        if !taken.insert((host, port.protocol == super::container::Protocol::Udp)) {
            return Err(error(format!("{path}.hostPort"), format!("{host} is used twice")));
        }
    }
    Ok(())
}
