//! The folder of manifests (`/etc/edge-runtime/manifests`): what is in it is wanted, as long as it is in it.
//!
//! Applied at the start and whenever a file changes. An object whose file, or whose place in the file, is gone is removed;
//! the annotation [`ANNOTATION`] remembers where it came from, also over restarts. A file that is wrong changes nothing and
//! says why, with file and line, in the log, in an Event and in `status`. A folder that is missing changes nothing either:
//! it may be a mount that comes later.
//!
//! A file that has not changed is not applied again while the runtime runs, so that what somebody changed by hand through
//! another door stays until the next start.

mod folder;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use edge_model::event::Reference;
use edge_model::{Key, Kind, Object};
use serde_json::Value;
use tokio::sync::watch as channel;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::backend::{Item, Section};
use crate::events::Recorder;
use crate::store::{Applied, Store, StoreError};
use folder::{Files, Plan};
use watch::Watcher;

/// The annotation of objects that came from a manifest: the file's name.
pub const ANNOTATION: &str = "edge-runtime.io/manifest";

/// The slow look for whatever the kernel does not tell (network file systems, links to links).
const SLOW: Duration = Duration::from_secs(300);
/// The pause before another try when the store or the folder refused.
const AGAIN: Duration = Duration::from_secs(15);

/// Where manifests are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder.
    pub folder: PathBuf,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { folder: PathBuf::from("/etc/edge-runtime/manifests") }
    }
}

/// What became of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileState {
    /// How many of its objects are in force.
    pub objects: usize,
    /// What is wrong, each with file and line; empty when all is well.
    pub problems: Vec<String>,
}

/// What became of all files, for `status`. Cheap to clone.
#[derive(Clone)]
pub struct Seen(channel::Sender<BTreeMap<String, FileState>>);

impl Default for Seen {
    fn default() -> Seen {
        Seen(channel::Sender::new(BTreeMap::new()))
    }
}

impl Seen {
    /// The files as they are now.
    pub fn files(&self) -> BTreeMap<String, FileState> {
        self.0.borrow().clone()
    }

    /// The section of the status document.
    pub fn section(&self) -> Section {
        let seen = self.clone();
        Arc::new(move || {
            let item = |(name, file): (String, FileState)| match file.problems.as_slice() {
                [] => Item::well(name, "Applied").with("objects", file.objects),
                problems => Item::unwell(name, "Refused", problems.join("; ")).with("objects", file.objects),
            };
            seen.files().into_iter().map(item).collect()
        })
    }
}

/// Keeps the store as the folder wants it, until `stop`. Calls `ready` once what is in the folder has been applied.
pub async fn run(
    settings: &Settings,
    store: &Store,
    recorder: &Recorder,
    seen: &Seen,
    ready: impl FnOnce(),
    stop: CancellationToken,
) {
    let mut ready = Some(ready);
    let mut unit = Unit { store, recorder, seen, files: Files::new(), refused: BTreeSet::new() };
    loop {
        let mut watcher = Watcher::new(&settings.folder)
            .inspect_err(|error| tracing::warn!(folder = %settings.folder.display(), %error, "cannot watch the folder"))
            .ok();
        let wholly = unit.look(&settings.folder).await;
        if let Some(ready) = ready.take() {
            ready();
        }
        let changed = async {
            match watcher.as_mut() {
                Some(watcher) => watcher.changed().await,
                None => std::future::pending().await,
            }
        };
        let pause = if wholly { SLOW } else { AGAIN };
        tokio::select! {
            changed = changed => {
                if let Err(error) = changed {
                    tracing::warn!(%error, "cannot watch the folder of manifests");
                    // Without this a watch that fails at once would keep a processor busy.
                    sleep(Duration::from_secs(1)).await;
                }
            }
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

struct Unit<'a> {
    store: &'a Store,
    recorder: &'a Recorder,
    seen: &'a Seen,
    /// The files at the last look.
    files: Files,
    /// Files that have to be applied again although they have not changed: not all of them could be.
    refused: BTreeSet<String>,
}

impl Unit<'_> {
    /// Looks at the folder and brings the store in line. Whether all of it was possible.
    async fn look(&mut self, folder: &Path) -> bool {
        let (path, before) = (folder.to_owned(), std::mem::take(&mut self.files));
        let read = tokio::task::spawn_blocking(move || (folder::read(&path, &before), before)).await;
        let (read, before) = read.unwrap_or_else(|error| (Err(io::Error::other(error)), Files::new()));
        let files = match read {
            Ok(Some(files)) => files,
            Ok(None) => {
                self.files = before;
                return true;
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cannot read the folder of manifests");
                self.files = before;
                return false;
            }
        };
        let unchanged = |name: &str| match (before.get(name), files.get(name)) {
            (Some((old, _)), Some((new, _))) => old == new && !self.refused.contains(name),
            _ => false,
        };
        let plan = folder::plan(&files, &self.owned());
        let failed = self.carry_out(&plan, unchanged).await;
        let states = states(&files, &plan, &failed);
        self.report(&states);
        self.refused = states.iter().filter(|(_, s)| !s.problems.is_empty()).map(|(name, _)| name.clone()).collect();
        self.seen.0.send_replace(states);
        self.files = files;
        failed.is_empty()
    }

    /// The objects that came from the folder, and their files.
    fn owned(&self) -> Vec<(Key, String)> {
        let objects = Kind::ALL.into_iter().flat_map(|kind| self.store.list(kind, None).0);
        objects.filter_map(|o| Some((o.key(), o.metadata.annotations.get(ANNOTATION)?.clone()))).collect()
    }

    /// Removes and applies; what failed, by file (removals under the object's own name).
    async fn carry_out(&self, plan: &Plan<'_>, unchanged: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<String>> {
        let mut failed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for key in &plan.remove {
            match self.store.delete(key, None).await {
                Ok(_) => tracing::info!(object = %key, "removed: it is in no manifest any more"),
                Err(StoreError::NotFound(_)) => {}
                Err(error) => failed.entry(key.to_string()).or_default().push(chain(&error)),
            }
        }
        for (file, object) in plan.apply.iter().filter(|(file, _)| !unchanged(file)) {
            let mut object: Object = (*object).clone();
            object.set_status(Value::Null);
            object.metadata.annotations.insert(ANNOTATION.to_owned(), (*file).to_owned());
            let key = object.key();
            match self.store.apply(object).await {
                Ok((_, Applied::Unchanged)) => {}
                Ok((_, applied)) => tracing::info!(object = %key, file, ?applied, "applied from a manifest"),
                Err(error) => {
                    failed.entry((*file).to_owned()).or_default().push(format!("{file}: {key}: {}", chain(&error)));
                }
            }
        }
        failed
    }

    /// Tells of problems that are new.
    fn report(&self, states: &BTreeMap<String, FileState>) {
        let before = self.seen.files();
        for (name, state) in states {
            let old = before.get(name).map(|s| s.problems.as_slice()).unwrap_or_default();
            if state.problems == old {
                continue;
            }
            let about = Reference {
                kind: "Manifest".to_owned(),
                namespace: edge_model::object::DEFAULT_NAMESPACE.to_owned(),
                name: as_name(name),
                ..Reference::default()
            };
            match state.problems.as_slice() {
                [] => self.recorder.normal(about, "Applied", format!("{name} is right again")),
                problems => self.recorder.warning(about, "Refused", problems.join("; ")),
            }
        }
    }
}

fn states(files: &Files, plan: &Plan<'_>, failed: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, FileState> {
    let state = |name: &String| {
        let mut problems = plan.problems.get(name.as_str()).cloned().unwrap_or_default();
        let refused = failed.get(name).cloned().unwrap_or_default();
        let objects = plan.apply.iter().filter(|(file, _)| file == name).count().saturating_sub(refused.len());
        problems.extend(refused);
        FileState { objects, problems }
    };
    files.keys().map(|name| (name.clone(), state(name))).collect()
}

/// A file's name as the name of an object.
fn as_name(file: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let name: String = file.chars().map(plain).collect();
    name.trim_matches(['-', '.']).to_owned()
}

fn chain(error: &StoreError) -> String {
    crate::supervisor::chain(error)
}
