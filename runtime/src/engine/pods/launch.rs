//! Launching one container: image, variables, volumes, root file system, start.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_model::configmap;
use edge_model::event::{EventType, Reference};
use edge_model::pod::container::{Container, FieldPath, PullPolicy};
use edge_model::{Key, Kind, Object};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::env::{self, Lookup, Sources};
use super::plan::Refusal;
use super::record::{self, ContainerRecord};
use super::shape::{Parts, shape};
use super::user::Database;
use super::worker::Pod;
use crate::engine::containers::{EngineError, Handle, Request};
use crate::engine::logs;
use crate::engine::shim::protocol::FailureKind;
use crate::engine::volumes::{self, Objects, PodDirs};
use crate::images::{Credentials, Error, Image, PullEvent, PullOptions, RootOptions};

/// How long a registry may take to say what a tag means now, when the image is here already.
const ANSWER: Duration = Duration::from_secs(5);

/// The key of a Secret that holds a Docker configuration (Kubernetes, "Secrets", `kubernetes.io/dockerconfigjson`).
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// A launch under way.
pub(super) struct Launch {
    pub(super) ctx: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) dirs: PodDirs,
    pub(super) container: Container,
    pub(super) hash: String,
    pub(super) restarts: u32,
    pub(super) ip: Option<Ipv4Addr>,
    /// Ends the launch as long as nothing has been started.
    pub(super) cancel: CancellationToken,
}

/// A container that runs now.
pub(super) struct Launched {
    pub(super) handle: Handle,
    pub(super) record: ContainerRecord,
}

/// Why a container was not launched.
pub(super) enum NotLaunched {
    /// It is not wanted any more.
    Cancelled,
    /// Something it needs is not there; it is tried again.
    Refused(Refusal),
    /// Its program cannot be run: that counts as an end.
    Failed {
        /// 127 when there is no such program, else 126, as a shell says it.
        exit_code: i32,
        /// For people.
        message: String,
        /// The digest of the image.
        image_id: String,
    },
}

fn refuse(reason: &'static str, message: impl ToString) -> NotLaunched {
    NotLaunched::Refused(Refusal { reason, message: message.to_string() })
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Launch {
    /// Runs to the end; only the part before the start can be cancelled.
    pub(super) async fn run(self) -> Result<Launched, NotLaunched> {
        let image = tokio::select! {
            image = self.image() => image?,
            () = self.cancel.cancelled() => return Err(NotLaunched::Cancelled),
        };
        let id = record::container_id(&self.pod.object.metadata.uid, &self.container.name, self.restarts);
        let options = RootOptions { writable_dir: None, read_only: self.is_read_only() };
        let root = self.ctx.images.prepare(&image, &id, options).await;
        let root = root.map_err(|e| refuse("CreateContainerError", chain(&e)))?;
        let started = self.start(&id, &image, &root.path).await;
        if started.is_err()
            && let Err(error) = self.ctx.images.release(&id).await
        {
            tracing::warn!(id, error = chain(&error), "a root file system could not be removed");
        }
        started
    }

    fn is_read_only(&self) -> bool {
        self.container.security_context.as_ref().and_then(|s| s.read_only_root_filesystem) == Some(true)
    }

    async fn image(&self) -> Result<Image, NotLaunched> {
        let reference = &self.container.image;
        let here = self.ctx.images.resolve(reference).await;
        let here = here.map_err(|e| refuse("InvalidImageName", chain(&e)))?;
        match (here, self.container.pull_policy()) {
            (Some(image), PullPolicy::IfNotPresent | PullPolicy::Never) => Ok(image),
            (None, PullPolicy::Never) => Err(refuse(
                "ErrImageNeverPull",
                format!("image {reference} is not on this node, and is not to be pulled"),
            )),
            (here, _) => self.pull(here).await,
        }
    }

    /// Pulls the image. One that is here already is used when the registry does not answer: a node without a network starts
    /// what it has.
    async fn pull(&self, here: Option<Image>) -> Result<Image, NotLaunched> {
        let reference = &self.container.image;
        let answered = Arc::new(Notify::new());
        let tell = Arc::clone(&answered);
        let progress = move |event: PullEvent| {
            if matches!(event, PullEvent::Found { .. }) {
                tell.notify_one();
            }
        };
        let options = PullOptions { credentials: self.credentials(), progress: Some(Arc::new(progress)) };
        let mut pull = Box::pin(self.ctx.images.pull(reference, options));
        let pulled = match &here {
            None => {
                self.event(EventType::Normal, "Pulling", format!("pulling image {reference}"));
                Some(pull.await)
            }
            Some(_) => tokio::select! {
                pulled = &mut pull => Some(pulled),
                () = answered.notified() => Some(pull.await),
                () = tokio::time::sleep(ANSWER) => None,
            },
        };
        match (pulled, here) {
            (Some(Ok(image)), None) => {
                self.event(EventType::Normal, "Pulled", format!("pulled image {reference}"));
                Ok(image)
            }
            (Some(Ok(image)), Some(_)) => Ok(image),
            (Some(Err(error @ Error::Reference { .. })), _) => Err(refuse("InvalidImageName", chain(&error))),
            (Some(Err(error)), None) => Err(refuse("ErrImagePull", chain(&error))),
            (Some(Err(error)), Some(here)) => {
                self.event(
                    EventType::Warning,
                    "PullFailed",
                    format!("using image {reference} as it is: {}", chain(&error)),
                );
                Ok(here)
            }
            (None, here) => {
                let message = format!("using image {reference} as it is: the registry does not answer");
                self.event(EventType::Warning, "PullFailed", message.clone());
                here.ok_or_else(|| refuse("ErrImagePull", message))
            }
        }
    }

    /// How to log in to the image's registry, from the first of the pod's `imagePullSecrets` that knows it. One that is not
    /// there or not right is told, and the pull tried without it, as in Kubernetes.
    fn credentials(&self) -> Option<Credentials> {
        let reference = self.container.image.parse().ok()?;
        let (_, secret) = lookups(&self.ctx, &self.pod.object.metadata.namespace);
        for name in self.pod.spec.image_pull_secrets.iter().map(|s| s.name.as_str()) {
            let json = match secret(name) {
                Ok(Some(mut data)) => data.remove(DOCKER_CONFIG).ok_or_else(|| format!("it has no {DOCKER_CONFIG}")),
                Ok(None) => Err("not found".to_owned()),
                Err(error) => Err(error),
            };
            let found = json.and_then(|json| Credentials::from_docker_config(&json, &reference).map_err(|e| chain(&e)));
            match found {
                Ok(Some(credentials)) => return Some(credentials),
                Ok(None) => {}
                Err(why) => {
                    let message = format!("secret {name:?} is not used to pull {}: {why}", self.container.image);
                    self.event(EventType::Warning, "FailedToRetrieveImagePullSecret", message);
                }
            }
        }
        None
    }

    fn event(&self, kind: EventType, reason: &'static str, message: String) {
        let about = Reference::to(&self.pod.object).container(&self.container.name);
        self.ctx.events.record(about, kind, reason, message);
    }

    async fn start(&self, id: &str, image: &Image, root: &Path) -> Result<Launched, NotLaunched> {
        let (spec, log_path) = self.prepare(root, image).await?;
        if self.cancel.is_cancelled() {
            return Err(NotLaunched::Cancelled);
        }
        let record = ContainerRecord {
            id: id.to_owned(),
            hash: self.hash.clone(),
            image_id: image.digest.to_string(),
            stop_signal: image.config.stop_signal.as_deref().and_then(signal).unwrap_or(libc::SIGTERM),
        };
        let path = record::container_path(&self.dirs.run, &self.container.name);
        record::write(&path, &record)
            .map_err(|e| refuse("CreateContainerError", format!("{}: {e}", path.display())))?;
        let request = Request {
            id: id.to_owned(),
            spec,
            log_path: Some(log_path),
            log_max_bytes: Some(self.ctx.settings.log_max_bytes),
            start_timeout: None,
        };
        match self.ctx.containers.start(request).await {
            Ok(handle) => Ok(Launched { handle, record }),
            Err(EngineError::Start { kind: FailureKind::Command, message, .. }) => {
                let missing = message.contains("not found") || message.contains("No such file");
                let exit_code = if missing { 127 } else { 126 };
                Err(NotLaunched::Failed { exit_code, message, image_id: record.image_id })
            }
            Err(error @ EngineError::Spec(_)) => Err(refuse("CreateContainerConfigError", chain(&error))),
            Err(error) => Err(refuse("RunContainerError", chain(&error))),
        }
    }

    /// Everything that touches the disk, where it may block.
    async fn prepare(
        &self,
        root: &Path,
        image: &Image,
    ) -> Result<(crate::engine::spec::ContainerSpec, std::path::PathBuf), NotLaunched> {
        let (ctx, pod, dirs) = (Arc::clone(&self.ctx), Arc::clone(&self.pod), self.dirs.clone());
        let (container, restarts, ip) = (self.container.clone(), self.restarts, self.ip);
        let (root, image) = (root.to_owned(), image.config.clone());
        let work = move || {
            let variables =
                variables(&ctx, &pod, &container, ip).map_err(|e| refuse("CreateContainerConfigError", e))?;
            let attached = volumes::attach(&pod.spec, &container, &dirs);
            let attached = attached.map_err(|e| refuse("CreateContainerConfigError", chain(&e)))?;
            let hostname = super::files::hostname(&pod.spec, &pod.object.metadata.name);
            let files = dirs.run.join("files");
            let written = super::files::write(&files, &pod.spec, &hostname, ip, ctx.network.gateway());
            written.map_err(|e| refuse("CreateContainerError", format!("{}: {e}", files.display())))?;
            let log = log_file(&ctx, &pod.object, &container.name, restarts);
            let log = log.map_err(|e| refuse("CreateContainerError", format!("log directory: {e}")))?;
            let shaped = shape(Parts {
                pod: &pod.spec,
                container: &container,
                image: &image,
                users: &Database::read(&root),
                rootfs: &root,
                attached,
                variables,
                hostname: &hostname,
                files: &files,
                netns: &super::netns_path(&dirs),
                pids: ctx.settings.pids_limit,
                node_memory: ctx.node_memory,
                allow_privileged: ctx.settings.allow_privileged,
            });
            let spec = shaped.map_err(|e| refuse("CreateContainerConfigError", e))?;
            volumes::make_dir(&root, &spec.cwd).map_err(|e| {
                refuse("CreateContainerError", format!("working directory {}: {e}", spec.cwd.display()))
            })?;
            Ok((spec, log))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(refuse("CreateContainerError", error)),
        }
    }
}

/// The log of this start, with room made for it: only the one before it is kept.
fn log_file(ctx: &Context, pod: &Object, container: &str, restarts: u32) -> std::io::Result<std::path::PathBuf> {
    let meta = &pod.metadata;
    let path = |n: u32| logs::file(&ctx.settings.log_dir, &meta.namespace, &meta.name, &meta.uid, container, n);
    let current = path(restarts);
    let Some(dir) = current.parent() else { return Ok(current) };
    std::fs::create_dir_all(dir)?;
    let keep: Vec<String> =
        [Some(restarts), restarts.checked_sub(1)].iter().flatten().map(|n| format!("{n}.log")).collect();
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let old = name.to_str().is_some_and(|n| !keep.iter().any(|k| n.starts_with(k.as_str())));
        if old {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(current)
}

fn variables(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    ip: Option<Ipv4Addr>,
) -> Result<Vec<(String, String)>, env::EnvError> {
    let meta = &pod.object.metadata;
    let field = |path: FieldPath| match path {
        FieldPath::Name => meta.name.clone(),
        FieldPath::Namespace => meta.namespace.clone(),
        FieldPath::Uid => meta.uid.clone(),
        FieldPath::NodeName => ctx.settings.node_name.clone(),
        FieldPath::HostIp => ctx.host_ip(),
        FieldPath::PodIp => ip.map_or_else(|| ctx.host_ip(), |ip| ip.to_string()),
    };
    let (map, secret) = lookups(ctx, &meta.namespace);
    env::variables(container, &Sources { config_map: &map, secret: &secret, field: &field })
}

/// How ConfigMaps and Secrets of a namespace are looked up.
fn lookups<'a>(ctx: &'a Context, namespace: &'a str) -> (impl Fn(&str) -> Lookup + 'a, impl Fn(&str) -> Lookup + 'a) {
    let map = move |name: &str| match ctx.store.get(&Key::new(Kind::ConfigMap, namespace, name)) {
        Some(object) => configmap::config_map(&object.fields).map(Some).map_err(|e| e.to_string()),
        None => Ok(None),
    };
    let secret = move |name: &str| match ctx.store.get(&Key::new(Kind::Secret, namespace, name)) {
        Some(object) => configmap::secret(&object.fields).map(Some).map_err(|e| e.to_string()),
        None => Ok(None),
    };
    (map, secret)
}

/// Makes the volumes of a pod, or brings them up to date. Blocks.
pub(super) fn make_volumes(ctx: &Context, pod: &Pod, dirs: &PodDirs) -> Result<(), volumes::VolumeError> {
    let (map, secret) = lookups(ctx, &pod.object.metadata.namespace);
    volumes::set_up(&pod.spec, dirs, &Objects { config_map: &map, secret: &secret })
}

/// The number of a signal by its name, with or without `SIG`, or by number.
fn signal(name: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 9] = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("TERM", libc::SIGTERM),
        ("WINCH", libc::SIGWINCH),
        ("PWR", libc::SIGPWR),
    ];
    let bare = name.trim().to_ascii_uppercase();
    let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
    if let Some(offset) = bare.strip_prefix("RTMIN+") {
        // The C library keeps the first two real-time signals to itself: SIGRTMIN is 34 there and in every image.
        return offset.parse().ok().filter(|n| (0..=30).contains(n)).map(|n: i32| 34 + n);
    }
    let number = bare.parse().ok().filter(|n| (1..=64).contains(n));
    number.or_else(|| NAMES.iter().find(|(n, _)| *n == bare).map(|(_, n)| *n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_have_names_and_numbers() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGNONE", None),
            ("0", None),
            ("99", None),
        ];
        for (name, number) in cases {
            assert_eq!(signal(name), number, "{name}");
        }
    }
}
