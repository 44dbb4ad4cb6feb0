//! The logs of pods, as the shims write them: found, filtered, followed.
//!
//! ```text
//! <logs>/<namespace>_<pod>_<uid>/<container>/<restart>.log       the current file
//!                                            <restart>.log.1     the one before, and so on
//! ```
//!
//! Source: the layout and the line format are those of the Kubernetes container runtime interface (CRI), so that log
//! collectors find their way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use edge_model::pod::PodStatus;
use edge_model::{Key, Kind};

use crate::store::Store;

mod line;
mod reader;
#[cfg(test)]
mod tests;

use line::Filter;
use reader::Reader;

/// How often a followed log is looked at when it has nothing new. Only while somebody follows.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is asked of a log, with the names of Kubernetes' `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<usize>,
    /// The log of the container before its last restart.
    pub previous: bool,
    /// Only lines since then, UTC milliseconds.
    pub since_ms: Option<i64>,
    /// Put the time before every line.
    pub timestamps: bool,
    /// End after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No pod of that name has a log here.
    #[error("pod {namespace}/{pod} has no log on this node")]
    NoPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// The pod has no such container, or none was named and there are several.
    #[error("a container must be named, one of: {known}")]
    NoContainer {
        /// The containers that have logs.
        known: String,
    },
    /// The container has not been restarted, or its earlier log is gone.
    #[error("container {0} has no previous log")]
    NoPrevious(String),
    /// A file could not be read.
    #[error("cannot read log {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The directory of a pod's logs.
pub fn pod_dir(logs: &Path, namespace: &str, pod: &str, uid: &str) -> PathBuf {
    logs.join(format!("{namespace}_{pod}_{uid}"))
}

/// The log file of a container after so many restarts.
pub fn file(logs: &Path, namespace: &str, pod: &str, uid: &str, container: &str, restarts: u32) -> PathBuf {
    pod_dir(logs, namespace, pod, uid).join(container).join(format!("{restarts}.log"))
}

/// The logs of this node.
#[derive(Clone)]
pub struct Logs {
    dir: PathBuf,
    store: Store,
}

impl Logs {
    /// The logs below a directory; the store says when a followed container has ended.
    pub fn new(dir: impl Into<PathBuf>, store: Store) -> Logs {
        Logs { dir: dir.into(), store }
    }

    /// Opens the log of a container; the pod's only container when none is named.
    ///
    /// # Errors
    /// [`LogError`], naming what is missing.
    pub async fn open(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        options: Options,
    ) -> Result<LogStream, LogError> {
        let object = self.store.get(&Key::new(Kind::Pod, namespace, pod));
        let status = object.as_ref().and_then(|o| serde_json::from_value(o.status().clone()).ok());
        let find = Find {
            dir: self.dir.clone(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.map(str::to_owned),
            uid: object.as_ref().map(|o| o.metadata.uid.clone()),
            status: status.unwrap_or_default(),
        };
        let wanted = options.clone();
        let (found, reader) = blocking(&self.dir, move || {
            let found = find.run(wanted.previous)?;
            let filter = Filter::new(&wanted);
            let reader = Reader::open(&found.path, filter, wanted.tail_lines)?;
            Ok((found, reader))
        })
        .await?;
        let left = options.limit_bytes.unwrap_or(u64::MAX);
        let key = Key::new(Kind::Pod, namespace, pod);
        Ok(LogStream { store: self.store.clone(), key, found, reader: Some(reader), follow: options.follow, left })
    }
}

/// What is looked for.
struct Find {
    dir: PathBuf,
    namespace: String,
    pod: String,
    container: Option<String>,
    uid: Option<String>,
    status: PodStatus,
}

/// What was found.
#[derive(Debug, Clone)]
struct Found {
    path: PathBuf,
    container: String,
    uid: String,
    restarts: u32,
}

impl Find {
    fn run(self, previous: bool) -> Result<Found, LogError> {
        let prefix = format!("{}_{}_", self.namespace, self.pod);
        let uid = match &self.uid {
            Some(uid) => Some(uid.clone()),
            None => newest(&self.dir, |name| name.strip_prefix(&prefix).map(str::to_owned)),
        };
        let uid = uid.ok_or_else(|| LogError::NoPod { namespace: self.namespace.clone(), pod: self.pod.clone() })?;
        let dir = pod_dir(&self.dir, &self.namespace, &self.pod, &uid);
        let known = names(&dir);
        let container = match (&self.container, known.as_slice()) {
            (Some(name), _) if known.contains(name) => name.clone(),
            (None, [only]) => only.clone(),
            (_, []) => return Err(LogError::NoPod { namespace: self.namespace, pod: self.pod }),
            _ => return Err(LogError::NoContainer { known: known.join(", ") }),
        };
        // A container that has written nothing yet has no file.
        let told = self.status.container(&container).map(|c| c.restart_count);
        let written = names(&dir.join(&container)).iter().filter_map(|n| n.strip_suffix(".log")?.parse().ok()).max();
        let restarts: Option<u32> = told.into_iter().chain(written).max();
        let restarts = if previous { restarts.and_then(|r| r.checked_sub(1)) } else { restarts };
        let restarts = restarts.ok_or_else(|| LogError::NoPrevious(container.clone()))?;
        let path = file(&self.dir, &self.namespace, &self.pod, &uid, &container, restarts);
        if previous && !path.exists() {
            return Err(LogError::NoPrevious(container));
        }
        Ok(Found { path, container, uid, restarts })
    }
}

/// The names in a directory, in order; none when it cannot be read.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The most recently made of the entries that `pick` accepts.
fn newest(dir: &Path, pick: impl Fn(&str) -> Option<String>) -> Option<String> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let picked = entries.filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, pick(e.file_name().to_str()?)?)));
    picked.max().map(|(_, name)| name)
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let failed = |e: tokio::task::JoinError| LogError::Io { path: path.to_owned(), source: std::io::Error::other(e) };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// The lines of a log, as bytes to be passed on.
pub struct LogStream {
    store: Store,
    key: Key,
    found: Found,
    /// Away while it is read.
    reader: Option<Reader>,
    follow: bool,
    left: u64,
}

impl LogStream {
    /// The next lines, whole ones, at most about 64 KiB; `None` at the end. Not cancel safe: a dropped call ends the stream.
    pub async fn next(&mut self) -> Option<Result<Bytes, LogError>> {
        loop {
            if self.left == 0 {
                return None;
            }
            // Asked before the file is read: what is written between the two is still read.
            let over = !self.follow || !self.is_running();
            match self.read().await? {
                Err(error) => return Some(Err(error)),
                Ok(mut bytes) if !bytes.is_empty() => {
                    bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.left -= bytes.len() as u64;
                    return Some(Ok(Bytes::from(bytes)));
                }
                Ok(_) if over => return None,
                Ok(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn read(&mut self) -> Option<Result<Vec<u8>, LogError>> {
        let mut reader = self.reader.take()?;
        let work = move || {
            let bytes = reader.read()?;
            Ok((reader, bytes))
        };
        match blocking(&self.found.path, work).await {
            Ok((reader, bytes)) => {
                self.reader = Some(reader);
                Some(Ok(bytes))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Whether the container whose log this is may still write.
    fn is_running(&self) -> bool {
        let Some(object) = self.store.get(&self.key).filter(|o| o.metadata.uid == self.found.uid) else { return false };
        let Ok(status) = serde_json::from_value::<PodStatus>(object.status().clone()) else { return false };
        match status.container(&self.found.container) {
            Some(c) if c.restart_count == self.found.restarts => c.state.running.is_some(),
            // It is being started: the status follows.
            Some(c) => c.restart_count < self.found.restarts,
            None => false,
        }
    }
}
