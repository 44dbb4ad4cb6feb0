//! Which cgroup hierarchies there are, which controllers can be used, and where the containers' groups go.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::devices::{Rule, program};
use crate::engine::spec::Mount;
use crate::engine::sys;

/// The group of all containers where the choice is ours.
const PARENT: &str = "/edge-runtime";
/// Below the parent: where the shims are. No container can have this name: their ids begin with a letter or digit.
const SHIMS: &str = "_shims";
/// Where programs look for their limits.
pub const INNER_ROOT: &str = "/sys/fs/cgroup";
/// What they look at there.
const INNER_CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "cpuset", "pids"];
/// Below the parent, for a moment: a group to try things with.
const PROBE: &str = "_probe";

/// Which kind of cgroups the system runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// One hierarchy per controller, and the unified one beside them without controllers.
    Hybrid,
    /// One for all.
    V2,
}

/// A controller the engine uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Memory limits.
    Memory,
    /// Processor shares and quotas.
    Cpu,
    /// Number of processes.
    Pids,
    /// Access to device nodes: a controller on version 1, a program on version 2.
    Devices,
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
            Controller::Devices => "devices",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something a container was promised and this kernel cannot keep.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The limit on memory is not enforced: the controller is missing (boards often boot with `cgroup_disable=memory`).
    MemoryUnlimited,
    /// Swap is not counted: the limit on memory can be exceeded by swapping.
    SwapUnlimited,
    /// Processor limits are not enforced.
    CpuUnlimited,
    /// The limit on processes is not enforced.
    PidsUnlimited,
    /// Device nodes are guarded by capabilities only.
    DevicesUnguarded,
    /// A capability was asked for that the runtime does not hold itself.
    CapabilityNotHeld(&'static str),
    /// The executable of the shims could not be protected by a read-only mount (before Linux 5.12).
    ExecutableUnsealed,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Condition::CapabilityNotHeld(name) => return write!(f, "capability {name} is not held by the runtime, so containers cannot have it"),
            Condition::MemoryUnlimited => {
                "memory limits are not enforced: the kernel has no memory controller (add cgroup_enable=memory to its command line)"
            }
            Condition::SwapUnlimited => "swap is not counted against memory limits (add swapaccount=1 to the kernel command line)",
            Condition::CpuUnlimited => "processor limits are not enforced: the kernel has no cpu controller",
            Condition::PidsUnlimited => "limits on processes are not enforced: the kernel has no pids controller",
            Condition::DevicesUnguarded => "device nodes are guarded by capabilities only: the kernel has no device control",
            Condition::ExecutableUnsealed => "the runtime's executable is not sealed against containers: the kernel is before 5.12",
        })
    }
}

/// Why there are no cgroups to use.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// None is mounted.
    #[error("no cgroup file system is mounted at /sys/fs/cgroup")]
    NotMounted,
    /// The list of mounts cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No group can be made.
    #[error("cannot create cgroup {}", .path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) mount: PathBuf,
    /// Controllers of version 1, or `name=…`; empty for the unified hierarchy.
    pub(super) names: Vec<String>,
    pub(super) unified: bool,
    /// Our own group in it.
    pub(super) own: String,
}

/// The cgroups of this system and the place of ours.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Which kind.
    pub version: Version,
    pub(super) hierarchies: Vec<Hierarchy>,
    parent: String,
    usable: BTreeSet<Controller>,
    swap: bool,
}

impl Layout {
    /// Looks at the system and makes the parent group. `parent` overrides its place.
    ///
    /// # Errors
    /// [`CgroupError`]: containers cannot be run then.
    pub fn prepare(parent: Option<&str>) -> Result<Layout, CgroupError> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.into(), source });
        let hierarchies = hierarchies(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        let version = version(&hierarchies).ok_or(CgroupError::NotMounted)?;
        let mut layout = Layout { version, hierarchies, parent: PARENT.into(), usable: BTreeSet::new(), swap: false };
        match (parent, version) {
            (Some(parent), _) => layout.parent = format!("/{}", parent.trim_matches('/')),
            (None, Version::V2) => layout.parent = layout.unified_parent()?,
            (None, _) => {}
        }
        layout.make_parent()?;
        layout.find_controllers();
        Ok(layout)
    }

    /// One that has just these controllers.
    #[cfg(test)]
    pub(super) fn with(usable: &[Controller], swap: bool) -> Layout {
        let usable = usable.iter().copied().collect();
        Layout { version: Version::V2, hierarchies: Vec::new(), parent: PARENT.into(), usable, swap }
    }

    /// Removes the parent group, if nothing is in it any more.
    pub fn leave(&self) {
        for hierarchy in &self.hierarchies {
            let dir = join(&hierarchy.mount, &self.parent);
            let _ = fs::remove_dir(dir.join(SHIMS));
            let _ = fs::remove_dir(dir);
        }
    }

    /// The path of a container's group, for the OCI specification.
    pub fn path(&self, id: &str) -> String {
        format!("{}/{id}", self.parent)
    }

    /// The directories of a container's group, one per hierarchy.
    pub fn dirs(&self, id: &str) -> Vec<PathBuf> {
        self.controlled().map(|h| join(&h.mount, &self.path(id))).collect()
    }

    /// The directory of a container's group in the unified hierarchy, when that is what controls it.
    pub fn unified_dir(&self, id: &str) -> Option<PathBuf> {
        self.hierarchies
            .iter()
            .find(|h| h.unified && self.version == Version::V2)
            .map(|h| join(&h.mount, &self.path(id)))
    }

    /// What a container on version 1 sees at `/sys/fs/cgroup` instead of what libcontainer would mount there: its own groups of
    /// the controllers that programs ask about their limits, read-only. libcontainer mounts all of them, in about a hundred system
    /// calls each, and writable, so that a container could raise its own limits. `None` on version 2, where it does well.
    pub fn inner_mounts(&self, id: &str) -> Option<Vec<Mount>> {
        if self.version == Version::V2 {
            return None;
        }
        let options =
            |more: &[&str]| ["nosuid", "nodev", "noexec"].iter().chain(more).map(|o| (*o).to_owned()).collect();
        let mount = |source: String, destination: PathBuf, kind: &str, options| Mount {
            source,
            destination,
            kind: kind.into(),
            options,
        };
        let root = PathBuf::from(INNER_ROOT);
        let mut mounts = vec![mount("cgroup".into(), root.clone(), "tmpfs", options(&["mode=755", "size=64k"]))];
        for hierarchy in self.controlled() {
            let dir = join(&hierarchy.mount, &self.path(id)).display().to_string();
            // Controllers that share a hierarchy are mounted under each name, where others make links.
            for name in hierarchy.names.iter().filter(|name| INNER_CONTROLLERS.contains(&name.as_str())) {
                mounts.push(mount(dir.clone(), root.join(name), "bind", options(&["bind", "ro"])));
            }
        }
        Some(mounts)
    }

    /// The ids of the groups below the parent: those of containers, whoever made them.
    pub fn ids(&self) -> BTreeSet<String> {
        let dirs = self.controlled().filter_map(|h| fs::read_dir(join(&h.mount, &self.parent)).ok());
        let entries = dirs.flatten().flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
        entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| !name.starts_with('_')).collect()
    }

    /// `cgroup.procs` files for the shims: out of the reach of a service manager that ends everything in the runtime's own group.
    pub fn shim_groups(&self) -> Vec<PathBuf> {
        let watched = |h: &&Hierarchy| h.unified || h.names.iter().any(|name| name.starts_with("name="));
        let below = format!("{}/{SHIMS}", self.parent);
        let dirs = self.hierarchies.iter().filter(watched).filter(|h| h.own != "/").map(|h| join(&h.mount, &below));
        dirs.filter(|dir| fs::create_dir_all(dir).is_ok()).map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// Leaves out of a specification the limits this kernel cannot enforce, and says which.
    pub fn prune(&self, spec: &mut Spec) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let Some(resources) = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()) else {
            return conditions;
        };
        if resources.memory().is_some() {
            if !self.usable.contains(&Controller::Memory) {
                resources.set_memory(None);
                conditions.push(Condition::MemoryUnlimited);
            } else if !self.swap {
                if let Some(memory) = resources.memory_mut() {
                    memory.set_swap(None);
                }
                conditions.push(Condition::SwapUnlimited);
            }
        }
        if resources.cpu().is_some() && !self.usable.contains(&Controller::Cpu) {
            resources.set_cpu(None);
            conditions.push(Condition::CpuUnlimited);
        }
        if resources.pids().is_some() && !self.usable.contains(&Controller::Pids) {
            resources.set_pids(None);
            conditions.push(Condition::PidsUnlimited);
        }
        if !self.usable.contains(&Controller::Devices) {
            conditions.push(Condition::DevicesUnguarded);
        }
        conditions
    }

    /// Whether a controller can be used.
    pub fn has(&self, controller: Controller) -> bool {
        self.usable.contains(&controller)
    }

    /// The hierarchies libcontainer puts containers into.
    fn controlled(&self) -> impl Iterator<Item = &Hierarchy> {
        let v2 = self.version == Version::V2;
        self.hierarchies
            .iter()
            .filter(move |h| if v2 { h.unified } else { !h.unified && !h.names.iter().any(|n| n.starts_with("name=")) })
    }

    /// Where containers go on version 2, where a group may hold processes or controlled groups but not both:
    /// beside our own group if a service manager has delegated the one above (`DelegateSubgroup=`), else below the root as
    /// other container runtimes do, else below our own group, which we leave for a child of it.
    fn unified_parent(&self) -> Result<String, CgroupError> {
        let Some(unified) = self.hierarchies.iter().find(|h| h.unified) else { return Err(CgroupError::NotMounted) };
        let above = Path::new(&unified.own).parent().filter(|above| above.parent().is_some());
        if let Some(above) = above.filter(|above| delegated(&join(&unified.mount, &above.to_string_lossy()))) {
            return Ok(format!("{}/containers", above.display()));
        }
        if fs::create_dir_all(join(&unified.mount, PARENT)).is_ok() {
            return Ok(PARENT.into());
        }
        let own = unified.own.trim_end_matches('/');
        let leaf = join(&unified.mount, &format!("{own}/runtime"));
        let moved = fs::create_dir_all(&leaf).and_then(|()| fs::write(leaf.join("cgroup.procs"), "0"));
        moved.map_err(|source| CgroupError::Create { path: leaf, source })?;
        Ok(format!("{own}/containers"))
    }

    fn make_parent(&self) -> Result<(), CgroupError> {
        for hierarchy in self.controlled() {
            let dir = join(&hierarchy.mount, &self.parent);
            fs::create_dir_all(&dir).map_err(|source| CgroupError::Create { path: dir.clone(), source })?;
            if !hierarchy.unified {
                continue;
            }
            // Each level hands its controllers down; one that cannot be handed down is found missing below.
            let mut level = hierarchy.mount.clone();
            let below = Path::new(self.parent.trim_start_matches('/'));
            for name in std::iter::once(None).chain(below.iter().map(Some)) {
                level.extend(name);
                for controller in
                    fs::read_to_string(level.join("cgroup.controllers")).unwrap_or_default().split_ascii_whitespace()
                {
                    let _ = fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"));
                }
            }
        }
        Ok(())
    }

    fn find_controllers(&mut self) {
        let mut usable = BTreeSet::new();
        let mut swap = false;
        for hierarchy in self.controlled() {
            let dir = join(&hierarchy.mount, &self.parent);
            let handed_down = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
            for controller in [Controller::Memory, Controller::Cpu, Controller::Pids, Controller::Devices] {
                let name = controller.name();
                let here = if hierarchy.unified {
                    handed_down.split_ascii_whitespace().any(|c| c == name)
                } else {
                    hierarchy.names.iter().any(|c| c == name)
                };
                if here {
                    usable.insert(controller);
                }
            }
            swap |= dir.join("memory.swap.max").exists() || dir.join("memory.memsw.limit_in_bytes").exists();
        }
        if let Some(dir) = self.unified_dir(PROBE) {
            // Not every kernel is built with cgroup programs: seen by attaching one that allows everything to a group of nobody.
            let all = program(&[Rule::new(None, None, None, "rwm")]);
            let attached = fs::create_dir_all(&dir)
                .and_then(|()| fs::File::open(&dir))
                .and_then(|dir| sys::attach_device_program(dir.as_fd(), &all));
            if attached.is_ok() {
                usable.insert(Controller::Devices);
            }
            let _ = fs::remove_dir(&dir);
        }
        self.usable = usable;
        self.swap = swap;
    }
}

fn join(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// systemd marks what it has delegated (systemd.resource-control(5), `Delegate=`).
fn delegated(dir: &Path) -> bool {
    let mut value = [0; 8];
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|name| matches!(rustix::fs::getxattr(dir, *name, &mut value), Ok(1..)) && value[0] == b'1')
}

/// The mounted hierarchies, from `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let own_in = |names: &[String], unified: bool| {
        let line = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, list, path) = (parts.next()?, parts.next()?, parts.next()?);
            let ours = if unified { list.is_empty() } else { list.split(',').any(|c| names.iter().any(|n| n == c)) };
            ours.then_some(path)
        });
        line.unwrap_or("/").to_owned()
    };
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
        // The same hierarchy may be mounted in other places too, such as in a chroot.
        if !matches!(kind, "cgroup" | "cgroup2") || !mount.starts_with("/sys/fs/cgroup") {
            continue;
        }
        let unified = kind == "cgroup2";
        let generic = ["rw", "ro", "xattr", "nsdelegate", "clone_children", "noprefix"];
        let names: Vec<String> =
            options.split(',').filter(|o| !unified && !generic.contains(o)).map(str::to_owned).collect();
        let own = own_in(&names, unified);
        found.push(Hierarchy { mount, names, unified, own });
    }
    found
}

pub(super) fn version(hierarchies: &[Hierarchy]) -> Option<Version> {
    let unified = hierarchies.iter().any(|h| h.unified);
    let legacy = hierarchies.iter().any(|h| !h.unified && !h.names.iter().all(|n| n.starts_with("name=")));
    match (legacy, unified) {
        (true, true) => Some(Version::Hybrid),
        (true, false) => Some(Version::V1),
        (false, true) => Some(Version::V2),
        (false, false) => None,
    }
}
