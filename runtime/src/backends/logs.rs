//! Logs behind the API.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::api::backend::{self, BackendError, LogRequest, Reply};
use crate::engine::logs::{LogError, Logs, Options};
use crate::supervisor::chain;

/// The logs of containers, as the API asks for them.
pub struct PodLogs(pub Logs);

impl backend::Logs for PodLogs {
    fn open(&self, request: LogRequest) -> Reply<'_, BoxStream<'static, Result<Bytes, BackendError>>> {
        Box::pin(async move {
            let options = Options {
                follow: request.follow,
                tail_lines: request.tail_lines.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
                previous: request.previous,
                since_ms: request.since_ms,
                timestamps: request.timestamps,
                limit_bytes: request.limit_bytes,
            };
            let container = request.container.as_deref();
            let log = self.0.open(&request.namespace, &request.pod, container, options).await.map_err(explain)?;
            let lines = stream::unfold(log, |mut log| async move {
                let part = log.next().await?;
                Some((part.map_err(explain), log))
            });
            Ok(lines.boxed())
        })
    }
}

fn explain(error: LogError) -> BackendError {
    let message = chain(&error);
    match error {
        LogError::NoPod { .. } | LogError::NoPrevious(_) => BackendError::NotFound(message),
        LogError::NoContainer { .. } => BackendError::Invalid(message),
        LogError::Io { .. } => BackendError::Failed(message),
    }
}
