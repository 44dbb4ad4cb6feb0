//! Finding the containers an earlier runtime has left.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::error::{EngineError, at};
use super::handle::Handle;
use super::link::Link;
use super::{Containers, SHIM_GRACE, valid_id};
use crate::engine::shim::protocol::{Phase, Reply, Request, START};

/// How long a shim may take to say where its container stands. It is single-threaded, and may be writing a log to slow flash.
pub(super) const ANSWER: Duration = Duration::from_secs(15);

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
            handles.push(self.adopt_one(id).await);
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

    async fn adopt_one(&self, id: &str) -> Handle {
        match tokio::time::timeout(ANSWER, ask(&self.inner.settings.run_dir.join(id))).await {
            Ok(Ok((link, phase))) => {
                let handle = Handle::watch(self.inner.clone(), id.to_owned(), link, None, phase, Vec::new());
                // One that is just starting has its own time limit; whatever comes of it is the handle's to tell.
                let _ = handle.started(self.inner.settings.start_timeout + SHIM_GRACE).await;
                return handle;
            }
            Ok(Err(error)) => tracing::debug!(id, %error, "no shim"),
            Err(_) => tracing::warn!(id, "the shim of a container does not answer"),
        }
        let phase = self.inner.lost_shim(id).await;
        Handle::over(self.inner.clone(), id.to_owned(), phase)
    }
}

/// A connection to the shim of the container in `dir`, and where the container stands.
pub(super) async fn ask(dir: &Path) -> io::Result<(Link, Phase)> {
    let link = Link::connect(dir).await?;
    link.send(&Request::Watch, &[]).await?;
    match link.receive().await? {
        Reply::Phase(phase) => Ok((link, phase)),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer {other:?}"))),
    }
}
