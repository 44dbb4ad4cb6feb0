//! Watches: one JSON document a line, every change, none left out.
//!
//! Without a resource version the objects that are there come first, as `ADDED`. A watcher that fell too far behind gets an
//! `ERROR` with code 410 and has to list again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edge_model::{Key, Kind, Object};
use hyper::Response;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::body::{self, Body};
use super::failure::Failure;
use super::query::{Query, Selector};
use crate::store::{Change, Filter, Store, Watch};

/// How many initial objects are put into one chunk at most, so that a long list is not one big buffer.
const CHUNK: usize = 64;

struct Watcher {
    watch: Watch,
    selector: Selector,
    /// What the client has been told of and not yet told gone; kept only when a selector can let objects in and out.
    told: HashSet<Key>,
    /// Whether `told` is all the client knows. Not so when it starts from a version of its own.
    knows_told_only: bool,
    initial: VecDeque<Arc<Object>>,
    /// The version at which the initial objects end, to be marked with a bookmark.
    bookmark: Option<(Kind, u64)>,
    deadline: Option<Instant>,
    stop: CancellationToken,
    ended: bool,
}

/// `GET` of a collection with `watch=1`.
pub fn watch(
    store: &Store,
    kind: Kind,
    filter: Filter,
    query: &Query,
    stop: CancellationToken,
) -> Result<Response<Body>, Failure> {
    let selector = Selector::parse(query).map_err(Failure::BadRequest)?;
    let from = query.number("resourceVersion").map_err(Failure::BadRequest)?.filter(|v| *v > 0);
    let seconds = query.number("timeoutSeconds").map_err(Failure::BadRequest)?;
    let sends_initial = from.is_none() || query.is("sendInitialEvents");
    let (initial, version) = if sends_initial {
        let (mut objects, version) = store.list(kind, filter.namespace.as_deref());
        objects.retain(|o| filter.name.as_ref().is_none_or(|n| *n == o.metadata.name) && selector.matches(o));
        (objects, version)
    } else {
        (Vec::new(), from.unwrap_or_default())
    };
    let bookmark = query.is("sendInitialEvents") && query.is("allowWatchBookmarks");
    let watcher = Watcher {
        watch: store.watch(filter, version),
        told: if selector.is_empty() { HashSet::new() } else { initial.iter().map(|o| o.key()).collect() },
        selector,
        knows_told_only: sends_initial,
        initial: initial.into(),
        bookmark: bookmark.then_some((kind, version)),
        deadline: seconds.and_then(|s| Instant::now().checked_add(Duration::from_secs(s))),
        stop,
        ended: false,
    };
    let chunks = futures_util::stream::unfold(watcher, |mut watcher| async {
        let chunk = watcher.next().await?;
        Some((chunk, watcher))
    });
    Ok(body::stream("application/json", chunks))
}

fn event(kind: &str, object: &Value) -> Bytes {
    body::line(&json!({"type": kind, "object": object}))
}

impl Watcher {
    /// The next lines; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !self.initial.is_empty() {
            let some = self.initial.len().min(CHUNK);
            return Some(self.initial.drain(..some).flat_map(|o| event("ADDED", &o.to_json())).collect());
        }
        if let Some((kind, version)) = self.bookmark.take() {
            let metadata = json!({
                "resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"},
            });
            let object = json!({"kind": kind.name(), "apiVersion": kind.api_version(), "metadata": metadata});
            return Some(event("BOOKMARK", &object));
        }
        loop {
            let deadline = self.deadline;
            let over = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                changed = self.watch.next() => changed,
                () = self.stop.cancelled() => return None,
                () = over => return None,
            };
            match changed {
                Ok(changed) => {
                    if let Some(word) = self.word(changed.change, &changed.object) {
                        return Some(event(word, &changed.object.to_json()));
                    }
                }
                Err(error) => {
                    self.ended = true;
                    return Some(event("ERROR", &Failure::from(error).status()));
                }
            }
        }
    }

    /// What a change is for this client; `None` when it is none of its business.
    fn word(&mut self, change: Change, object: &Object) -> Option<&'static str> {
        let plain = match change {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        };
        if self.selector.is_empty() {
            return Some(plain);
        }
        let selected = self.selector.matches(object);
        let key = object.key();
        if change == Change::Deleted || !selected {
            // An object that leaves the selection is gone for the client. When we do not know whether it ever saw it, it is
            // told once more than needed.
            let knew = self.told.remove(&key) || (selected || !self.knows_told_only && change == Change::Modified);
            return knew.then_some("DELETED");
        }
        let is_new = self.told.insert(key);
        Some(if is_new && self.knows_told_only { "ADDED" } else { plain })
    }
}
