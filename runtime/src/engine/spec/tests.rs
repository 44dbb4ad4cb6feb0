//! Tests of the specification: what is confined by default, and what loosens it.

use super::*;

fn minimal() -> ContainerSpec {
    ContainerSpec { args: vec!["true".into()], rootfs: "/rootfs".into(), ..ContainerSpec::default() }
}

#[test]
fn the_default_is_confined() {
    let spec = build(&minimal()).unwrap();
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.no_new_privileges(), Some(true));
    let caps = process.capabilities().as_ref().unwrap();
    assert_eq!(caps.bounding().as_ref().unwrap().len(), 13);
    assert!(!caps.bounding().as_ref().unwrap().contains(&oci_spec::runtime::Capability::Mknod));
    assert!(caps.inheritable().as_ref().is_none_or(|set| set.is_empty()));
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
    let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    assert_eq!(rules.len(), 1);
    assert!(!rules[0].allow());
    assert!(process.env().as_ref().unwrap()[0].starts_with("PATH="));
    assert!(linux.masked_paths().as_ref().unwrap().iter().any(|p| p == "/proc/kcore"));
}

#[test]
fn capabilities_are_dropped_then_added() {
    let mut spec = minimal();
    spec.capabilities = Capabilities { add: vec!["CAP_NET_ADMIN".into()], drop: vec!["all".into()] };
    assert_eq!(spec.capability_set().unwrap().into_iter().collect::<Vec<_>>(), ["NET_ADMIN"]);
    spec.capabilities.add = vec!["FLY".into()];
    assert!(matches!(build(&spec), Err(SpecError::Capability(name)) if name == "FLY"));
    for name in ALL_CAPABILITIES {
        spec.capabilities.add = vec![name.into()];
        build(&spec).unwrap();
    }
}

#[test]
fn refuses_what_cannot_be() {
    assert!(matches!(build(&ContainerSpec::default()), Err(SpecError::NoCommand)));
    assert!(matches!(build(&ContainerSpec { rootfs: "x".into(), ..minimal() }), Err(SpecError::Root(_))));
    assert!(matches!(build(&ContainerSpec { cwd: "x".into(), ..minimal() }), Err(SpecError::WorkingDirectory(_))));
    let env = vec![("A=B".to_owned(), String::new())];
    assert!(matches!(build(&ContainerSpec { env, ..minimal() }), Err(SpecError::Variable(_))));
    let limits = Limits { memory_bytes: Some(u64::MAX), ..Limits::default() };
    assert!(matches!(build(&ContainerSpec { limits, ..minimal() }), Err(SpecError::Range { .. })));
}

#[test]
fn a_mount_of_a_basic_place_takes_it() {
    let mut spec = minimal();
    spec.mounts.push(Mount::tmpfs("/dev/shm", 1 << 20));
    let built = build(&spec).unwrap();
    let shm: Vec<_> =
        built.mounts().as_ref().unwrap().iter().filter(|m| m.destination().ends_with("dev/shm")).collect();
    assert_eq!(shm.len(), 1);
    assert!(shm[0].options().as_ref().unwrap().iter().any(|o| o == "size=1048576"));
}

#[test]
fn the_host_network_has_no_network_namespace() {
    let spec = ContainerSpec { network: Namespace::Host, ipc: Namespace::Join("/proc/7/ns/ipc".into()), ..minimal() };
    let built = build(&spec).unwrap();
    let all = built.linux().as_ref().unwrap().namespaces().as_ref().unwrap();
    assert!(!all.iter().any(|n| n.typ() == oci_spec::runtime::LinuxNamespaceType::Network));
    let ipc = all.iter().find(|n| n.typ() == oci_spec::runtime::LinuxNamespaceType::Ipc).unwrap();
    assert_eq!(ipc.path().as_deref(), Some(std::path::Path::new("/proc/7/ns/ipc")));
}
