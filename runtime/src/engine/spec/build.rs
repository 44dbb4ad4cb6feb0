//! Builds the OCI specification out of a [`ContainerSpec`].

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::str::FromStr;

use oci_spec::OciSpecError;
use oci_spec::runtime as oci;

use super::{ContainerSpec, Device, Limits, Mount, Namespace, Rlimit, SpecError};

/// The search path of a container that names none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of `/proc` and `/sys` would tell or change the host: Docker's list.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The OCI runtime specification of a container.
///
/// # Errors
/// Any [`SpecError`]: the specification is checked as far as that can be done without looking at the host.
pub fn build(spec: &ContainerSpec) -> Result<oci::Spec, SpecError> {
    if spec.args.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoCommand);
    }
    if !spec.rootfs.is_absolute() {
        return Err(SpecError::Root(spec.rootfs.clone()));
    }
    if !spec.cwd.is_absolute() {
        return Err(SpecError::WorkingDirectory(spec.cwd.clone()));
    }
    let root =
        oci::RootBuilder::default().path(&spec.rootfs).readonly(spec.readonly_rootfs).build().map_err(oci_error)?;
    let mut builder = oci::SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .process(process(spec)?)
        .mounts(mounts(spec)?)
        .linux(linux(spec)?)
        .hostname("");
    if let (Some(name), Namespace::New) = (&spec.hostname, &spec.uts) {
        builder = builder.hostname(name);
    }
    let mut built = builder.build().map_err(oci_error)?;
    if built.hostname().as_ref().is_some_and(String::is_empty) {
        built.set_hostname(None);
    }
    Ok(built)
}

fn oci_error(error: OciSpecError) -> SpecError {
    SpecError::Oci(error)
}

fn process(spec: &ContainerSpec) -> Result<oci::Process, SpecError> {
    let mut env = Vec::with_capacity(spec.env.len() + 1);
    if !spec.env.iter().any(|(name, _)| name == "PATH") {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(SpecError::Variable(name.clone()));
        }
        env.push(format!("{name}={value}"));
    }
    let user = oci::UserBuilder::default()
        .uid(spec.uid)
        .gid(spec.gid)
        .additional_gids(spec.additional_gids.clone())
        .build()
        .map_err(oci_error)?;
    let mut builder = oci::ProcessBuilder::default()
        .terminal(false)
        .args(spec.args.clone())
        .env(env)
        .cwd(&spec.cwd)
        .user(user)
        .capabilities(capabilities(&spec.capability_set()?)?)
        .rlimits(spec.rlimits.iter().map(rlimit).collect::<Result<Vec<_>, _>>()?)
        .no_new_privileges(spec.no_new_privileges && !spec.privileged);
    if let Some(adjust) = spec.oom_score_adj {
        builder = builder.oom_score_adj(adjust);
    }
    builder.build().map_err(oci_error)
}

/// Replaces the capabilities of a specification's process.
///
/// # Errors
/// [`SpecError::Capability`].
pub fn set_capabilities(spec: &mut oci::Spec, names: &BTreeSet<&'static str>) -> Result<(), SpecError> {
    let capabilities = capabilities(names)?;
    if let Some(process) = spec.process_mut() {
        process.set_capabilities(Some(capabilities));
    }
    Ok(())
}

fn capabilities(names: &BTreeSet<&'static str>) -> Result<oci::LinuxCapabilities, SpecError> {
    let mut set = HashSet::new();
    for name in names {
        set.insert(oci::Capability::from_str(name).map_err(|_| SpecError::Capability((*name).to_owned()))?);
    }
    // Nothing inheritable and nothing ambient: a program run by another user gains nothing (CVE-2022-24769).
    oci::LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
        .map_err(oci_error)
}

fn rlimit(limit: &Rlimit) -> Result<oci::PosixRlimit, SpecError> {
    let kind = oci::PosixRlimitType::from_str(&limit.name).map_err(|_| SpecError::Rlimit(limit.name.clone()))?;
    oci::PosixRlimitBuilder::default().typ(kind).soft(limit.soft).hard(limit.hard).build().map_err(oci_error)
}

/// The file systems every container has, then the caller's.
fn mounts(spec: &ContainerSpec) -> Result<Vec<oci::Mount>, SpecError> {
    let readonly = if spec.privileged { "rw" } else { "ro" };
    let shm = format!("size={}", spec.shm_bytes);
    let basic: [(&str, &str, &str, &[&str]); 7] = [
        ("proc", "/proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("tmpfs", "/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("devpts", "/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        ("shm", "/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        ("mqueue", "/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("sysfs", "/sys", "sysfs", &["nosuid", "noexec", "nodev", readonly]),
        ("cgroup", "/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", readonly]),
    ];
    let mut all = Vec::with_capacity(basic.len() + spec.mounts.len());
    for (source, destination, kind, options) in basic {
        // A caller's mount of the same place takes it, such as a /dev/shm shared by the containers of a pod.
        if !spec.mounts.iter().any(|m| m.destination == Path::new(destination)) {
            let options = options.iter().map(|o| (*o).to_owned()).collect();
            all.push(mount(&Mount {
                source: source.into(),
                destination: destination.into(),
                kind: kind.into(),
                options,
            })?);
        }
    }
    for wanted in &spec.mounts {
        all.push(mount(wanted)?);
    }
    Ok(all)
}

fn mount(mount: &Mount) -> Result<oci::Mount, SpecError> {
    if !mount.destination.is_absolute() {
        return Err(SpecError::Destination(mount.destination.clone()));
    }
    oci::MountBuilder::default()
        .source(&mount.source)
        .destination(&mount.destination)
        .typ(&mount.kind)
        .options(mount.options.clone())
        .build()
        .map_err(oci_error)
}

fn linux(spec: &ContainerSpec) -> Result<oci::Linux, SpecError> {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let (masked, readonly) = if spec.privileged { (vec![], vec![]) } else { (strings(&MASKED), strings(&READONLY)) };
    let mut namespaces = Vec::new();
    for (kind, wanted) in [
        (oci::LinuxNamespaceType::Mount, &Namespace::New),
        (oci::LinuxNamespaceType::Cgroup, &Namespace::New),
        (oci::LinuxNamespaceType::Pid, &spec.pid),
        (oci::LinuxNamespaceType::Ipc, &spec.ipc),
        (oci::LinuxNamespaceType::Uts, &spec.uts),
        (oci::LinuxNamespaceType::Network, &spec.network),
    ] {
        let builder = oci::LinuxNamespaceBuilder::default().typ(kind);
        match wanted {
            Namespace::Host => {}
            Namespace::New => namespaces.push(builder.build().map_err(oci_error)?),
            Namespace::Join(path) => namespaces.push(builder.path(path).build().map_err(oci_error)?),
        }
    }
    let sysctl: HashMap<String, String> = spec.sysctls.clone().into_iter().collect();
    oci::LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(resources(spec)?)
        .devices(spec.devices.iter().map(device_node).collect::<Result<Vec<_>, _>>()?)
        .cgroups_path(&spec.cgroup_path)
        .sysctl(sysctl)
        .masked_paths(masked)
        .readonly_paths(readonly)
        .build()
        .map_err(oci_error)
}

fn device_node(device: &Device) -> Result<oci::LinuxDevice, SpecError> {
    oci::LinuxDeviceBuilder::default()
        .path(&device.path)
        .typ(device_type(device))
        .major(i64::from(device.major))
        .minor(i64::from(device.minor))
        .file_mode(device.mode)
        .uid(device.uid)
        .gid(device.gid)
        .build()
        .map_err(oci_error)
}

const fn device_type(device: &Device) -> oci::LinuxDeviceType {
    if device.block { oci::LinuxDeviceType::B } else { oci::LinuxDeviceType::C }
}

fn resources(spec: &ContainerSpec) -> Result<oci::LinuxResources, SpecError> {
    // Everything is denied, then allowed one by one; libcontainer appends the usual nodes (null, zero, tty, …).
    let everything =
        oci::LinuxDeviceCgroupBuilder::default().allow(spec.privileged).typ(oci::LinuxDeviceType::A).access("rwm");
    let mut rules = vec![everything.build().map_err(oci_error)?];
    for device in &spec.devices {
        let rule = oci::LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(device_type(device))
            .major(i64::from(device.major))
            .minor(i64::from(device.minor))
            .access(&device.access);
        rules.push(rule.build().map_err(oci_error)?);
    }
    let mut builder = oci::LinuxResourcesBuilder::default().devices(rules);
    let Limits { memory_bytes, cpu_quota_us, cpu_period_us, cpu_shares, pids } = spec.limits;
    if let Some(bytes) = memory_bytes {
        let limit = signed("memory limit", bytes)?;
        // Swap equal to memory means no swap on top: on flash it would wear, and it would hide the limit.
        builder =
            builder.memory(oci::LinuxMemoryBuilder::default().limit(limit).swap(limit).build().map_err(oci_error)?);
    }
    if cpu_quota_us.is_some() || cpu_shares.is_some() {
        let mut cpu = oci::LinuxCpuBuilder::default();
        if let Some(quota) = cpu_quota_us {
            cpu = cpu.quota(signed("processor quota", quota)?).period(cpu_period_us.unwrap_or(100_000));
        }
        if let Some(shares) = cpu_shares {
            cpu = cpu.shares(shares.clamp(2, 262_144));
        }
        builder = builder.cpu(cpu.build().map_err(oci_error)?);
    }
    if let Some(limit) = pids {
        builder = builder.pids(oci::LinuxPidsBuilder::default().limit(i64::from(limit)).build().map_err(oci_error)?);
    }
    builder.build().map_err(oci_error)
}

fn signed(field: &'static str, value: u64) -> Result<i64, SpecError> {
    i64::try_from(value).map_err(|_| SpecError::Range { field, value })
}
