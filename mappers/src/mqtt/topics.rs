//! Which topics a shared connection has, and for whom, purely.
//!
//! ```text
//!         somebody wants it          sent            the broker took it
//!  none ────────────────────► Wanted ─────► Asked(n) ──────────────────► members that wait for n or less have it
//!    ▲                          ▲                                 │
//!    └── nobody wants it any more: unsubscribed                   └── one more wants it: asked again, because only a
//!                                                                     subscription brings what the broker retains
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// Topics in one packet at most: with the longest of them it still fits into what the node's own bus takes.
const BATCH: usize = 100;

/// A device on a connection.
pub(super) type Member = u64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Topics {
    wanted: BTreeMap<String, Want>,
    /// Topics nobody wants any more that the broker still sends.
    unwanted: Vec<String>,
    /// Of each member what has not been subscribed yet, with the first batch that will have it.
    waiting: BTreeMap<Member, BTreeMap<String, u64>>,
    /// The number of the last batch.
    batch: u64,
}

#[derive(Debug, Default)]
struct Want {
    members: BTreeSet<Member>,
    /// It has to be sent.
    fresh: bool,
    /// It was sent.
    asked: bool,
}

/// What is to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) subscribe: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
}

/// Topics that were sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    number: u64,
    topics: Vec<String>,
}

impl Topics {
    /// A device wants these from now on.
    pub(super) fn join(&mut self, member: Member, topics: &[String]) {
        for topic in topics {
            let want = self.wanted.entry(topic.clone()).or_default();
            want.members.insert(member);
            want.fresh = true;
            // The broker still sends what it has not been told to stop.
            let before = self.unwanted.len();
            self.unwanted.retain(|t| t != topic);
            want.asked |= self.unwanted.len() < before;
            self.waiting.entry(member).or_default().insert(topic.clone(), self.batch + 1);
        }
    }

    /// A device is gone.
    pub(super) fn leave(&mut self, member: Member) {
        self.waiting.remove(&member);
        let unwanted = &mut self.unwanted;
        self.wanted.retain(|topic, want| {
            want.members.remove(&member);
            let keep = !want.members.is_empty();
            if !keep && want.asked {
                unwanted.push(topic.clone());
            }
            keep
        });
    }

    /// What is to be sent next; of subscriptions also the batch they are. `None` when there is nothing.
    pub(super) fn next(&mut self) -> Option<(Change, Option<Batch>)> {
        let mut change = Change::default();
        change.unsubscribe.extend(self.unwanted.drain(..self.unwanted.len().min(BATCH)));
        for (topic, want) in self.wanted.iter_mut().filter(|(_, w)| w.fresh).take(BATCH) {
            (want.fresh, want.asked) = (false, true);
            change.subscribe.push(topic.clone());
        }
        if change == Change::default() {
            return None;
        }
        let batch = (!change.subscribe.is_empty()).then(|| {
            self.batch += 1;
            Batch { number: self.batch, topics: change.subscribe.clone() }
        });
        Some((change, batch))
    }

    /// The broker took a batch, but for the topics whose turn in `refused` is true. Gives the members that have all they
    /// want now, and those that cannot.
    pub(super) fn taken(&mut self, batch: &Batch, refused: &[bool]) -> (Vec<Member>, Vec<Member>) {
        let (mut complete, mut denied) = (Vec::new(), BTreeSet::new());
        let no = |index: usize| refused.get(index).copied().unwrap_or(false);
        for (index, topic) in batch.topics.iter().enumerate() {
            for (member, waiting) in &mut self.waiting {
                // Who came later waits for a later batch.
                if waiting.get(topic).is_none_or(|first| *first > batch.number) {
                    continue;
                }
                waiting.remove(topic);
                if no(index) {
                    denied.insert(*member);
                }
            }
        }
        self.waiting.retain(|member, waiting| {
            if waiting.is_empty() && !denied.contains(member) {
                complete.push(*member);
            }
            !waiting.is_empty()
        });
        (complete, denied.into_iter().collect())
    }

    /// Whether a device waits for a subscription.
    pub(super) fn is_waiting(&self, member: Member) -> bool {
        self.waiting.contains_key(&member)
    }

    /// For whom a topic is.
    pub(super) fn members(&self, topic: &str) -> impl Iterator<Item = Member> {
        self.wanted.get(topic).into_iter().flat_map(|w| w.members.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn change(subscribe: &[&str], unsubscribe: &[&str]) -> Change {
        Change { subscribe: names(subscribe), unsubscribe: names(unsubscribe) }
    }

    #[test]
    fn what_several_want_is_subscribed_once_and_kept_until_the_last_is_gone() {
        let mut topics = Topics::default();
        topics.join(1, &names(&["a", "bridge"]));
        topics.join(2, &names(&["b", "bridge"]));
        let (first, batch) = topics.next().unwrap();
        assert_eq!(first, change(&["a", "b", "bridge"], &[]));
        assert_eq!(topics.next(), None);
        assert_eq!(topics.taken(&batch.unwrap(), &[]), (vec![1, 2], vec![]));
        assert_eq!(topics.members("bridge").collect::<Vec<_>>(), [1, 2]);
        topics.leave(1);
        assert_eq!(topics.next().unwrap().0, change(&[], &["a"]));
        topics.leave(2);
        assert_eq!(topics.next().unwrap().0, change(&[], &["b", "bridge"]));
        assert_eq!((topics.next(), topics.members("bridge").count()), (None, 0));
    }

    #[test]
    fn who_comes_later_asks_again_and_waits_for_that_answer() {
        let mut topics = Topics::default();
        topics.join(1, &names(&["a"]));
        let first = topics.next().unwrap().1.unwrap();
        topics.join(2, &names(&["a"]));
        assert_eq!(topics.taken(&first, &[false]), (vec![1], vec![]), "that answer was not for the second");
        let (again, second) = topics.next().unwrap();
        assert_eq!(again, change(&["a"], &[]));
        assert_eq!(topics.taken(&second.unwrap(), &[false]), (vec![2], vec![]));
    }

    #[test]
    fn a_refusal_is_for_those_who_wanted_that_topic() {
        let mut topics = Topics::default();
        topics.join(1, &names(&["a"]));
        topics.join(2, &names(&["a", "secret"]));
        let batch = topics.next().unwrap().1.unwrap();
        assert_eq!(topics.taken(&batch, &[false, true]), (vec![1], vec![2]));
    }

    #[test]
    fn who_leaves_before_anything_was_sent_leaves_nothing() {
        let mut topics = Topics::default();
        topics.join(1, &names(&["a"]));
        topics.leave(1);
        assert_eq!(topics.next(), None);
        // Gone and back again before the broker was told.
        topics.join(1, &names(&["a"]));
        let _ = topics.next();
        topics.leave(1);
        topics.join(2, &names(&["a"]));
        topics.leave(2);
        assert_eq!(topics.next().unwrap().0, change(&[], &["a"]), "what was sent is taken back");
    }

    #[test]
    fn many_go_in_batches() {
        let mut topics = Topics::default();
        let all: Vec<String> = (0..250).map(|i| format!("t{i:03}")).collect();
        topics.join(1, &all);
        let batches: Vec<Batch> = std::iter::from_fn(|| topics.next()?.1).collect();
        assert_eq!(batches.iter().map(|b| b.topics.len()).collect::<Vec<_>>(), [100, 100, 50]);
        let complete: Vec<_> = batches.iter().map(|b| topics.taken(b, &[]).0).collect();
        assert_eq!(complete, [vec![], vec![], vec![1]]);
    }
}
