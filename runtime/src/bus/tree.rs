//! Who has subscribed to what: a tree with one node per level of a filter, so that a publication costs its own depth and not
//! the number of subscriptions.

use std::collections::HashMap;

/// Names a subscriber for as long as it lives; never used again.
pub type SubscriberId = u64;

/// The subscriptions, each with what its subscriber asked for.
#[derive(Debug)]
pub struct Tree<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    children: HashMap<Box<str>, Node<T>>,
    here: HashMap<SubscriberId, T>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Tree { root: Node::default(), len: 0 }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node { children: HashMap::new(), here: HashMap::new() }
    }
}

impl<T> Tree<T> {
    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a subscription, or replaces the one with the same filter and subscriber; returns what it replaced. The filter has
    /// to be valid: the depth of the tree is bounded by that.
    pub fn insert(&mut self, filter: &str, id: SubscriberId, value: T) -> Option<T> {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        let old = node.here.insert(id, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a subscription out, and the nodes nobody needs any more.
    pub fn remove(&mut self, filter: &str, id: SubscriberId) -> Option<T> {
        let old = self.root.remove(&mut filter.split('/'), id);
        self.len -= usize::from(old.is_some());
        old
    }

    /// Calls `found` for every subscription that matches the topic; one subscriber can be found several times.
    pub fn matching<'a>(&'a self, topic: &str, found: &mut impl FnMut(SubscriberId, &'a T)) {
        // Wildcards at the first level never match `$` topics (MQTT 5.0, section 4.7.2).
        self.root.matching(Some(topic), !topic.starts_with('$'), found);
    }
}

impl<T> Node<T> {
    fn remove(&mut self, levels: &mut std::str::Split<'_, char>, id: SubscriberId) -> Option<T> {
        let Some(level) = levels.next() else { return self.here.remove(&id) };
        let child = self.children.get_mut(level)?;
        let old = child.remove(levels, id);
        if child.here.is_empty() && child.children.is_empty() {
            self.children.remove(level);
        }
        old
    }

    /// `rest` is what of the topic is still to be matched; `None` past its end. Recursion ends with the tree, not with the
    /// topic, so that a topic of a thousand levels costs nothing.
    fn matching<'a>(&'a self, rest: Option<&str>, wild: bool, found: &mut impl FnMut(SubscriberId, &'a T)) {
        let mut report = |node: &'a Node<T>| node.here.iter().for_each(|(id, value)| found(*id, value));
        if wild && let Some(all) = self.children.get("#") {
            report(all);
        }
        let Some(rest) = rest else { return report(self) };
        let (level, rest) = rest.split_once('/').map_or((rest, None), |(level, rest)| (level, Some(rest)));
        if let Some(child) = self.children.get(level) {
            child.matching(rest, true, found);
        }
        if wild && let Some(child) = self.children.get("+") {
            child.matching(rest, true, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::{matches, valid_filter};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The tree finds exactly what the plain matcher says, and is empty once everything is taken out.
        #[test]
        fn the_tree_agrees_with_the_matcher(
            filters in proptest::collection::vec("(\\+|[ab$]{0,2})(/(\\+|[ab]{0,1})){0,3}(/#)?", 1..20),
            topics in proptest::collection::vec("[ab$]{0,2}(/[ab]{0,1}){0,4}", 1..10),
        ) {
            let mut tree = Tree::default();
            let filters: Vec<String> = filters.into_iter().filter(|f| valid_filter(f)).collect();
            for (id, filter) in (0..).zip(&filters) {
                tree.insert(filter, id, ());
            }
            for topic in topics.iter().filter(|t| !t.is_empty()) {
                let mut found = Vec::new();
                tree.matching(topic, &mut |id, ()| found.push(id));
                found.sort_unstable();
                let expected: Vec<u64> =
                    (0..).zip(&filters).filter(|(_, f)| matches(f, topic)).map(|(id, _)| id).collect();
                prop_assert_eq!(found, expected, "{}", topic);
            }
            prop_assert_eq!(tree.len(), filters.len());
            for (id, filter) in (0..).zip(&filters) {
                prop_assert!(tree.remove(filter, id).is_some());
                prop_assert!(tree.remove(filter, id).is_none());
            }
            prop_assert!(tree.root.children.is_empty() && tree.len() == 0);
        }
    }
}
