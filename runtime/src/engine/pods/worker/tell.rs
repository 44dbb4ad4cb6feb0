//! The status of a pod is written and told.

use edge_model::pod::status::PodStatus;
use edge_model::topic::Topic;

use super::super::launch::chain;
use super::super::monotonic_ms;
use super::super::plan::{Goal, Wanted};
use super::super::report::{self, Facts};
use super::{AGAIN, Worker};
use crate::bus::Retain;
use crate::clock::now_ms;
use crate::store::{Durability, StoreError};

/// From this many restarts on, a crash loop's states reach the disk lazily: each round would otherwise be three writes.
const LAZY_RESTARTS: u32 = 5;

impl Worker {
    /// Writes the status if it has changed, and tells the bus.
    pub(super) async fn report(&mut self) {
        self.again_at = None;
        if self.goal == Goal::Remove {
            return;
        }
        let object = self.desired.borrow().object.clone();
        let Some(object) = object else { return };
        let before: PodStatus = serde_json::from_value(object.status().clone()).unwrap_or_default();
        let status = match &self.pod {
            None => self.status.clone(),
            Some(pod) => {
                self.facts.host_ip = self.ctx.host_ip();
                let facts = Facts {
                    pod_ip: if pod.spec.host_network { self.facts.host_ip.clone() } else { self.facts.pod_ip.clone() },
                    ..self.facts.clone()
                };
                let wanted = Wanted { spec: &pod.spec, hashes: &pod.hashes, sandbox: &pod.sandbox, goal: Goal::Run };
                report::status(wanted, &self.known, &facts, &self.status, now_ms())
            }
        };
        if status == self.status && status == before {
            return;
        }
        let Ok(value) = serde_json::to_value(&status) else { return };
        let durability = durability(&self.status, &status);
        if let Ok(payload) = serde_json::to_vec(&status) {
            let topic = Topic::PodState(object.metadata.namespace.clone(), object.metadata.name.clone());
            self.ctx.bus.publish(&topic, payload, Retain::Yes);
        }
        match self.ctx.store.set_status(&object.key(), &self.uid, value, durability).await {
            Ok(_) => self.status = status,
            // The news that it is gone is under way.
            Err(StoreError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(pod = %object.key(), error = chain(&error), "a status could not be written");
                self.again_at = Some(monotonic_ms() + AGAIN);
            }
        }
    }
}

/// Transitions are on disk before anybody relies on them; waiting, and the rounds of a long crash loop, are not worth a write.
fn durability(before: &PodStatus, after: &PodStatus) -> Durability {
    let all = |s: &PodStatus| {
        let containers = s.init_container_statuses.iter().chain(&s.container_statuses);
        containers.map(|c| (c.name.clone(), c.container_id.clone(), c.state.terminated.is_some())).collect::<Vec<_>>()
    };
    let looping = after.container_statuses.iter().any(|c| c.restart_count > LAZY_RESTARTS);
    if before.phase != after.phase || (all(before) != all(after) && !looping) {
        Durability::Now
    } else {
        Durability::Lazy
    }
}
