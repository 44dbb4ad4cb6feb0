//! Images behind the API: lists, and pulls and imports that tell how far they are.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use futures_util::{FutureExt as _, Stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::backend::{BackendError, Images, Progress, Reply};
use crate::images::{Error, Image, ImageStore, PullEvent, PullOptions, Source};
use crate::supervisor::chain;

/// Steps that may wait for a slow client; more are left out, since the next one says as much.
const STEPS: usize = 64;
/// Parts of an upload that may wait for the thread that unpacks.
const PARTS: usize = 4;
/// How much of a digest people read.
const SHORT: usize = 19;

/// The image store, as the API asks for it.
pub struct StoredImages(pub ImageStore);

impl Images for StoredImages {
    fn list(&self) -> Reply<'_, Vec<Value>> {
        Box::pin(async move {
            let images = self.0.list().await.map_err(explain)?;
            Ok(images.iter().map(document).collect())
        })
    }

    fn pull(&self, reference: String) -> Reply<'_, Progress> {
        let store = self.0.clone();
        Box::pin(async move {
            let (steps, events) = mpsc::channel(STEPS);
            let progress = Arc::new(move |event: PullEvent| {
                // A slow reader misses steps, never the result.
                let _ = steps.try_send(step(&event));
            });
            let work = async move {
                let options = PullOptions { progress: Some(progress), ..PullOptions::default() };
                let image = store.pull(&reference, options).await.map_err(explain)?;
                Ok(json!({"status": "pulled", "image": reference, "digest": image.digest.to_string()}))
            };
            Ok(Steps { work: Some(work.boxed()), events }.boxed())
        })
    }

    fn import(&self, name: Option<String>, archive: BoxStream<'static, io::Result<Bytes>>) -> Reply<'_, Progress> {
        let store = self.0.clone();
        Box::pin(async move {
            let (steps, events) = mpsc::channel(STEPS);
            let (parts, received) = mpsc::channel(PARTS);
            let work = async move {
                let reader = Upload { received, part: Bytes::new() };
                let unpack = store.import(Source::Reader(Box::new(reader)), name.as_deref());
                // Both together: the thread that unpacks reads what this task receives.
                let (_, images) = tokio::join!(feed(archive, parts, steps), unpack);
                let images = images.map_err(explain)?;
                let names: Vec<&String> = images.iter().flat_map(|i| &i.references).collect();
                let digest = images.first().map(|i| i.digest.to_string());
                Ok(json!({"status": "imported", "image": names.first(), "images": names, "digest": digest}))
            };
            Ok(Steps { work: Some(work.boxed()), events }.boxed())
        })
    }

    fn remove<'a>(&'a self, reference: &'a str) -> Reply<'a, ()> {
        Box::pin(async move {
            self.0.remove(reference).await.map_err(explain)?;
            self.0.gc().await.map_err(explain)?;
            Ok(())
        })
    }
}

fn document(image: &Image) -> Value {
    let name = image.references.first().cloned().unwrap_or_default();
    json!({"name": name, "references": image.references, "digest": image.digest.to_string(), "size": image.size})
}

fn step(event: &PullEvent) -> Value {
    let short = |digest: &crate::images::Digest| digest.to_string().chars().take(SHORT).collect::<String>();
    match event {
        PullEvent::Found { digest, layers } => {
            json!({"status": "found", "digest": digest.to_string(), "layers": layers.len()})
        }
        PullEvent::Layer { digest, done, total } => {
            json!({"status": "downloading", "id": short(digest), "current": done, "total": total})
        }
        PullEvent::Unpacked { digest } => json!({"status": "unpacked", "id": short(digest)}),
        PullEvent::Retry { error, pause } => {
            json!({"status": format!("{error}; trying again in {} s", pause.as_secs_f32())})
        }
    }
}

fn explain(error: Error) -> BackendError {
    let message = chain(&error);
    match error {
        Error::NotFound(_) => BackendError::NotFound(message),
        Error::Reference { .. } => BackendError::Invalid(message),
        error if error.can_retry() => BackendError::Unavailable(message),
        _ => BackendError::Failed(message),
    }
}

/// Hands an upload on to the thread that unpacks it.
async fn feed(
    mut archive: BoxStream<'static, io::Result<Bytes>>,
    parts: mpsc::Sender<io::Result<Bytes>>,
    steps: mpsc::Sender<Value>,
) {
    let mut sent = 0_usize;
    while let Some(part) = archive.next().await {
        sent += part.as_ref().map_or(0, Bytes::len);
        let _ = steps.try_send(json!({"status": "importing", "current": sent}));
        if parts.send(part).await.is_err() {
            // The other end has all it needs, or has failed.
            return;
        }
    }
}

/// The thread's end of an upload.
struct Upload {
    received: mpsc::Receiver<io::Result<Bytes>>,
    part: Bytes,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.received.blocking_recv() {
                Some(part) => self.part = part?,
                None => return Ok(0),
            }
        }
        let n = self.part.len().min(buffer.len());
        self.part.copy_to_slice(buffer.get_mut(..n).unwrap_or_default());
        Ok(n)
    }
}

/// Work together with the steps it tells of. Dropping it breaks the work off.
struct Steps {
    work: Option<BoxFuture<'static, Result<Value, BackendError>>>,
    events: mpsc::Receiver<Value>,
}

impl Stream for Steps {
    type Item = Result<Value, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(Some(step)) = self.events.poll_recv(context) {
            return Poll::Ready(Some(Ok(step)));
        }
        let Some(work) = &mut self.work else { return Poll::Ready(None) };
        match work.poll_unpin(context) {
            Poll::Ready(result) => {
                self.work = None;
                Poll::Ready(Some(result))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
