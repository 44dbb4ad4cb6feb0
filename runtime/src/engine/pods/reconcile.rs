//! Watches the pods of the store and keeps one worker for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use edge_model::{Kind, Object};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::launch::chain;
use super::worker::{Desired, Worker};
use super::{Context, Error, record, report};
use crate::engine::containers::Handle;
use crate::store::{Change, Durability, Filter, Store, StoreError, WatchEvent};

/// So long after the last change of a pod its code and memory are not needed any more.
const QUIET: Duration = Duration::from_secs(3);

/// Looks after the pods until `stop`; the containers then go on without us, and the next run takes them over.
///
/// # Errors
/// [`Error::Adopt`] when what is running cannot be seen: nothing is touched then.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) -> Result<(), Error> {
    let found = ctx.containers.adopt().await.map_err(Error::Adopt)?;
    let mut reconciler = Reconciler::new(ctx, found, stop.child_token());
    reconciler.remove_strange_roots().await;
    reconciler.ctx.network.refresh().await;
    let mut from = reconciler.list();
    reconciler.find_orphans();
    let mut watch = reconciler.ctx.store.watch(Filter::default(), from);
    // When the memory that starting and ending containers took is given back.
    let mut quiet = None;
    loop {
        let trim = async {
            match quiet {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = watch.next() => match event {
                Ok(event) => {
                    if event.object.kind == Kind::Pod {
                        quiet = Some(Instant::now() + QUIET);
                    }
                    reconciler.take(&event);
                }
                Err(StoreError::Expired(_)) => {
                    from = reconciler.list();
                    watch = reconciler.ctx.store.watch(Filter::default(), from);
                }
                Err(error) => tracing::warn!(error = chain(&error), "the store cannot be watched"),
            },
            Some(ended) = reconciler.workers.join_next() => match ended {
                Ok(uid) => reconciler.ended(&uid),
                // Nobody follows its containers any more: the next run takes them all over.
                Err(error) => {
                    reconciler.leave().await;
                    return Err(Error::Worker(error));
                }
            },
            () = trim => {
                crate::sys::trim_memory();
                crate::sys::forget_start_code();
                quiet = None;
            }
            () = stop.cancelled() => break,
        }
    }
    reconciler.leave().await;
    Ok(())
}

/// Stands in for [`run`] on a node that cannot run containers: every pod says why it waits.
pub async fn run_without(store: &Store, node: &str, why: &str, stop: CancellationToken) {
    loop {
        let (pods, version) = store.list(Kind::Pod, None);
        for pod in pods.iter().filter(|p| is_for(p, node)) {
            let status = report::waiting("ContainersNotPossible", why);
            let Ok(value) = serde_json::to_value(status) else { continue };
            let written = store.set_status(&pod.key(), &pod.metadata.uid, value, Durability::Lazy).await;
            if let Err(error) = written {
                tracing::warn!(pod = %pod.key(), error = chain(&error), "a status could not be written");
            }
        }
        let mut watch = store.watch(Filter::kind(Kind::Pod), version);
        tokio::select! {
            // Whatever happened, the whole list is gone through again: it is short, and there is nothing else to do.
            _ = watch.next() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Whether a pod is for this node to run.
fn is_for(object: &Object, node: &str) -> bool {
    let named = object.spec().get("nodeName").and_then(|n| n.as_str()).unwrap_or("");
    named.is_empty() || named == node
}

struct Reconciler {
    ctx: Arc<Context>,
    /// What is wanted of each pod, by uid.
    pods: BTreeMap<String, watch::Sender<Desired>>,
    workers: JoinSet<String>,
    /// Containers of an earlier runtime whose pod has not been seen yet, by uid.
    found: BTreeMap<String, Vec<Handle>>,
    stop: CancellationToken,
}

impl Reconciler {
    fn new(ctx: Arc<Context>, handles: Vec<Handle>, stop: CancellationToken) -> Reconciler {
        let mut found: BTreeMap<String, Vec<Handle>> = BTreeMap::new();
        for handle in handles {
            match record::parse_id(handle.id()) {
                Some((uid, ..)) => found.entry(uid.to_owned()).or_default().push(handle),
                // The engine may be used for other things than pods.
                None => tracing::warn!(id = handle.id(), "a container that belongs to no pod is left alone"),
            }
        }
        Reconciler { ctx, pods: BTreeMap::new(), workers: JoinSet::new(), found, stop }
    }

    /// Removes root file systems without a container: the runtime was killed between making and using them.
    async fn remove_strange_roots(&self) {
        let known: BTreeSet<&str> = self.found.values().flatten().map(Handle::id).collect();
        let roots = match self.ctx.images.prepared().await {
            Ok(roots) => roots,
            Err(error) => {
                tracing::warn!(error = chain(&error), "root file systems of an earlier runtime cannot be seen");
                return;
            }
        };
        for root in roots {
            let ours = record::parse_id(&root.container_id).is_some();
            if ours && !known.contains(root.container_id.as_str()) {
                tracing::info!(id = root.container_id, "a root file system without a container is removed");
                if let Err(error) = self.ctx.images.release(&root.container_id).await {
                    tracing::warn!(id = root.container_id, error = chain(&error), "it could not be removed");
                }
            }
        }
    }

    /// Takes in all pods there are, and the absence of all others; gives the version to watch from.
    fn list(&mut self) -> u64 {
        let (pods, version) = self.ctx.store.list(Kind::Pod, None);
        let uids: BTreeSet<String> = pods.iter().map(|p| p.metadata.uid.clone()).collect();
        for object in pods {
            self.want(object);
        }
        for (uid, pod) in &self.pods {
            if !uids.contains(uid) {
                pod.send_modify(|d| d.object = None);
            }
        }
        for pod in self.pods.values() {
            pod.send_modify(|d| d.related += 1);
        }
        version
    }

    fn take(&mut self, event: &WatchEvent) {
        match (event.object.kind, event.change) {
            (Kind::Pod, Change::Deleted) => self.gone(&event.object),
            (Kind::Pod, Change::Added | Change::Modified) => self.want(Arc::clone(&event.object)),
            (Kind::ConfigMap | Kind::Secret, _) => self.related(&event.object.metadata.namespace),
            _ => {}
        }
    }

    fn want(&mut self, object: Arc<Object>) {
        if !is_for(&object, &self.ctx.settings.node_name) {
            self.gone(&object);
            return;
        }
        let uid = object.metadata.uid.clone();
        match self.pods.get(&uid) {
            Some(pod) => {
                pod.send_modify(|d| d.object = Some(object));
            }
            None => self.work(&uid, Some(object)),
        }
    }

    fn gone(&self, object: &Object) {
        if let Some(pod) = self.pods.get(&object.metadata.uid) {
            pod.send_modify(|d| d.object = None);
        }
    }

    /// Tells the pods of a namespace that a ConfigMap or Secret has changed.
    fn related(&self, namespace: &str) {
        for pod in self.pods.values() {
            pod.send_if_modified(|d| {
                let concerned = d.object.as_ref().is_some_and(|o| o.metadata.namespace == namespace);
                d.related += u64::from(concerned);
                concerned
            });
        }
    }

    fn work(&mut self, uid: &str, object: Option<Arc<Object>>) {
        let (sender, desired) = watch::channel(Desired { object, related: 0 });
        let found = self.found.remove(uid).unwrap_or_default();
        let worker = Worker::new(Arc::clone(&self.ctx), uid, desired, found);
        let (stop, uid) = (self.stop.clone(), uid.to_owned());
        self.pods.insert(uid.clone(), sender);
        self.workers.spawn(async move {
            // Boxed: the future of a worker is large, and there is one per pod.
            Box::pin(worker.run(stop)).await;
            uid
        });
    }

    /// What is left of pods that are no longer wanted: deleted while no runtime was there to see it.
    fn find_orphans(&mut self) {
        let mut uids: BTreeSet<String> = self.found.keys().cloned().collect();
        for base in [&self.ctx.settings.run_dir, &self.ctx.settings.state_dir] {
            let entries = std::fs::read_dir(base.join("pods")).into_iter().flatten().flatten();
            uids.extend(entries.filter_map(|e| e.file_name().into_string().ok()));
        }
        for uid in uids {
            if !self.pods.contains_key(&uid) {
                tracing::warn!(uid, "a pod that is no longer wanted has left something: it is cleaned up");
                self.work(&uid, None);
            }
        }
    }

    fn ended(&mut self, uid: &str) {
        let Some(sender) = self.pods.remove(uid) else { return };
        // Wanted again before the worker had noticed (it named another node for a while).
        let object = sender.borrow().object.clone();
        if object.is_some() {
            self.work(uid, object);
        }
    }

    /// Ends the workers; the containers go on.
    async fn leave(&mut self) {
        self.stop.cancel();
        while self.workers.join_next().await.is_some() {}
    }
}
