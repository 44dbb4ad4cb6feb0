//! Finding the containers an earlier runtime has left.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::error::{EngineError, at};
use super::handle::Handle;
use super::link::Link;
use super::{Containers, valid_id};
use crate::engine::shim::protocol::{START, STATE};

/// How long a shim may take to say where its container stands once a connection is made. It is single-threaded, and may be
/// writing a log to slow flash.
const ANSWER: Duration = Duration::from_secs(30);

impl Containers {
    /// Every container an earlier runtime has left: running ones as they are, those that have ended meanwhile with their exit
    /// codes, those whose shim is gone as ended. What never became a container is removed.
    ///
    /// # Errors
    /// The directory of the containers cannot be read.
    pub async fn adopt(&self) -> Result<Vec<Handle>, EngineError> {
        let run_dir = &self.inner.settings.run_dir;
        let mut handles = Vec::new();
        let mut known = BTreeSet::new();
        for entry in fs::read_dir(run_dir).map_err(at(run_dir))? {
            let name = entry.map_err(at(run_dir))?.file_name();
            let Some(id) = name.to_str().filter(|id| valid_id(id).is_ok()) else { continue };
            if !run_dir.join(id).join(START).exists() {
                // The earlier runtime was killed before it had started the shim.
                self.inner.discard(id).await;
                continue;
            }
            known.insert(id.to_owned());
            handles.push(self.adopt_one(id).await?);
        }
        // A group without a directory is a container nobody can speak to any more.
        for id in self.inner.layout.ids().difference(&known) {
            if valid_id(id).is_ok() {
                tracing::warn!(id, "killing what is left of an unknown container");
                self.inner.discard(id).await;
            }
        }
        Ok(handles)
    }

    async fn adopt_one(&self, id: &str) -> Result<Handle, EngineError> {
        let dir = self.inner.settings.run_dir.join(id);
        match Link::connect(&dir).await {
            Ok(link) => {
                let handle = Handle::watch(self.inner.clone(), id.to_owned(), link, None, Vec::new());
                // One that is just starting is told apart from one that does not answer by its own time limit.
                match handle.started(self.inner.settings.start_timeout.max(ANSWER)).await {
                    Err(
                        error @ EngineError::Start {
                            kind: crate::engine::shim::protocol::FailureKind::TimedOut, ..
                        },
                    ) if handle.end().is_none() => Err(error),
                    _ => Ok(handle),
                }
            }
            Err(error) => {
                tracing::debug!(id, %error, state = dir.join(STATE).exists(), "no shim");
                let phase = self.inner.lost_shim(id).await;
                Ok(Handle::over(self.inner.clone(), id.to_owned(), phase))
            }
        }
    }
}
