//! The containers that run now, for those who want to run a command in one or see what it uses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::cgroup::Stats;
use crate::engine::containers::Handle;

/// Namespace, pod, container.
type Name = (String, String, String);

/// The containers of pods that run now; cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    running: Arc<Mutex<BTreeMap<Name, Handle>>>,
}

/// What one container uses now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// What it uses.
    pub stats: Stats,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Handle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, namespace: &str, pod: &str, container: &str, handle: Handle) {
        self.lock().insert((namespace.to_owned(), pod.to_owned(), container.to_owned()), handle);
    }

    /// Forgets a container, unless another has taken its name since.
    pub(super) fn remove(&self, namespace: &str, pod: &str, container: &str, id: &str) {
        let name = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        let mut running = self.lock();
        if running.get(&name).is_some_and(|h| h.id() == id) {
            running.remove(&name);
        }
    }

    /// A container that runs; the pod's only one when none is named.
    pub fn find(&self, namespace: &str, pod: &str, container: Option<&str>) -> Option<Handle> {
        let running = self.lock();
        let mut of_pod = running.iter().filter(|((ns, p, _), _)| ns == namespace && p == pod);
        match container {
            Some(name) => of_pod.find(|((_, _, c), _)| c == name).map(|(_, h)| h.clone()),
            None => match (of_pod.next(), of_pod.next()) {
                (Some((_, only)), None) => Some(only.clone()),
                _ => None,
            },
        }
    }

    /// What every running container uses, in order of names. Reads small files of the kernel.
    pub fn usage(&self) -> Vec<Usage> {
        let running: Vec<(Name, Handle)> = self.lock().iter().map(|(n, h)| (n.clone(), h.clone())).collect();
        let usage = |((namespace, pod, container), handle): (Name, Handle)| {
            let stats = handle.stats();
            Usage { namespace, pod, container, stats }
        };
        running.into_iter().map(usage).collect()
    }
}
