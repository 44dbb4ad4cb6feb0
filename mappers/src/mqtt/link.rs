//! A device's part of the connection to its broker.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout;

use super::broker::{Brokers, Connection};
use super::config::{CommandTopic, Config};
use super::state::State;
use super::topics::Member;
use crate::AccessError;

/// A device that has been subscribed. It is unsubscribed with this, and the last one of a connection ends it.
pub(super) struct Link {
    connection: Arc<Connection>,
    member: Member,
    /// What has been heard. The connection's task writes, the driver takes.
    pub(super) state: Arc<watch::Sender<State>>,
    pub(super) changes: watch::Receiver<State>,
}

impl Link {
    /// Joins the connection to the broker, which is made if there is none, and subscribes.
    ///
    /// # Errors
    /// [`AccessError::Disconnected`] and [`AccessError::Timeout`].
    pub(super) async fn open(config: &Arc<Config>, brokers: &Brokers) -> Result<Link, AccessError> {
        let (state, changes) = watch::channel(State::new(Arc::clone(config)));
        let state = Arc::new(state);
        let made = timeout(config.timeout, brokers.connection(&config.broker)).await;
        let connection = made.map_err(|_| too_late(config))?.map_err(AccessError::Disconnected)?;
        let member = connection.join(&topics(config), &state);
        let mut link = Link { connection, member, state, changes };
        // What the broker retains of the device's availability comes right behind, if there is any.
        let ready = link.changes.wait_for(|s| s.is_settled() || s.lost.is_some());
        let _ = timeout(config.timeout, ready).await.map(drop);
        let (subscribed, lost) = {
            let state = link.state.borrow();
            (state.subscribed, state.lost.clone())
        };
        match lost {
            Some(why) => Err(AccessError::Disconnected(why)),
            None if !subscribed => Err(too_late(config)),
            None => Ok(link),
        }
    }

    /// Publishes a command with QoS 1.
    ///
    /// # Errors
    /// [`AccessError::Busy`] while the connection takes nothing more.
    pub(super) fn publish(&self, to: &CommandTopic, payload: String) -> Result<(), AccessError> {
        self.connection.publish(to, payload).map_err(|()| AccessError::Busy)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.leave(self.member);
    }
}

/// The error of what took longer than the device's time-out.
pub(super) fn too_late(config: &Config) -> AccessError {
    AccessError::Timeout(u32::try_from(config.timeout.as_millis()).unwrap_or(u32::MAX))
}

/// What the device says anything on, each topic once.
fn topics(config: &Config) -> Vec<String> {
    let availability = config.availability.as_ref().map(|a| a.topic.clone());
    let mut topics: Vec<String> = config.places.iter().filter_map(|p| p.topic.clone()).chain(availability).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}
