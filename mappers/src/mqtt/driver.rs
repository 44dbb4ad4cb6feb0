//! Reads, writes and what comes by itself.

use std::future::pending;
use std::sync::Arc;

use edge_model::reading::Value;
use tokio::time::{Instant, sleep_until, timeout};

use super::broker::Brokers;
use super::config::Config;
use super::link::{Link, too_late};
use crate::payload::same;
use crate::{AccessError, Sample, device};

/// See the module.
pub struct Driver {
    config: Arc<Config>,
    brokers: Arc<Brokers>,
    link: Option<Link>,
}

impl Driver {
    pub(super) const fn new(config: Arc<Config>, brokers: Arc<Brokers>) -> Driver {
        Driver { config, brokers, link: None }
    }

    /// The device's part of the connection, made anew when it was lost.
    async fn link(&mut self) -> Result<&mut Link, AccessError> {
        let open = match self.link.take() {
            Some(link) if link.state.borrow().lost.is_none() => link,
            _ => Link::open(&self.config, &self.brokers).await?,
        };
        Ok(self.link.insert(open))
    }
}

impl device::Driver for Driver {
    async fn read(&mut self, points: &[usize]) -> Result<Vec<Sample>, AccessError> {
        let whole = points.len() == self.config.places.len();
        let link = self.link().await?;
        let now = Instant::now();
        let mut answer = Ok(Vec::new());
        link.state.send_if_modified(|s| {
            s.expire(now);
            answer = s.health().map(|()| s.samples(points));
            if whole {
                // All of it is in the answer.
                s.take_news();
            }
            false
        });
        answer
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<Value, AccessError> {
        let config = Arc::clone(&self.config);
        let place = config.places.get(point).ok_or_else(|| AccessError::Unknown(point.to_string()))?;
        let Some(command) = &place.command else {
            return Err(AccessError::Refused("it has no command topic".to_owned()));
        };
        let link = self.link().await?;
        link.state.borrow().health()?;
        let before = link.state.borrow().heard(point).0;
        link.publish(command, place.format.write(&command.template, value))?;
        if !command.read_back {
            return Ok(value.clone());
        }
        let mut heard = link.changes.clone();
        let said = heard.wait_for(|s| {
            let (turn, now) = s.heard(point);
            s.health().is_err() || turn > before && now.is_some_and(|now| same(value, now))
        });
        if let Ok(state) = timeout(config.timeout, said).await {
            let state = state.map_err(|_| AccessError::Disconnected("closed".to_owned()))?;
            state.health()?;
            return Ok(state.heard(point).1.cloned().unwrap_or_else(|| value.clone()));
        }
        // What it says meanwhile is something else, or it says nothing at all.
        match link.state.borrow().heard(point) {
            (turn, Some(found)) if turn > before => {
                Err(AccessError::Mismatch { wrote: value.to_string(), found: found.to_string() })
            }
            _ => Err(too_late(&config)),
        }
    }

    async fn event(&mut self) -> Result<Vec<Sample>, AccessError> {
        let Some(link) = &mut self.link else { return pending().await };
        loop {
            // Nothing is awaited between taking the news and handing it over.
            let (mut news, mut health, mut end) = (Vec::new(), Ok(()), None);
            let now = Instant::now();
            link.changes.mark_unchanged();
            link.state.send_if_modified(|s| {
                s.expire(now);
                (news, health, end) = (s.take_news(), s.health(), s.next_end());
                false
            });
            health?;
            if !news.is_empty() {
                return Ok(news);
            }
            let expiry = async {
                match end {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // The sender is ours, so there is always one.
                _ = link.changes.changed() => {}
                () = expiry => {}
            }
        }
    }

    async fn back(&mut self) {
        let Some(link) = &mut self.link else { return pending().await };
        // A lost connection is made anew when the pause is over; a device that says it is back need not wait for that.
        if link.changes.wait_for(|s| s.health().is_ok()).await.is_err() {
            pending::<()>().await;
        }
    }
}
