//! Topics and filters: what is valid and what matches (MQTT 5.0, section 4.7; the same rules as 3.1.1).

/// The most levels a filter may have: deeper ones only make the subscription tree deep.
pub const LEVELS_MAX: usize = 128;

/// Whether `topic` may be published to: not empty, no wildcard, no NUL, at most 65,535 bytes.
pub fn valid_topic(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= usize::from(u16::MAX) && !topic.contains(['+', '#', '\0'])
}

/// Whether `filter` may be subscribed to: `+` and `#` only as whole levels, `#` only as the last one, at most
/// [`LEVELS_MAX`] levels.
pub fn valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > usize::from(u16::MAX) || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    let mut depth = 0;
    while let Some(level) = levels.next() {
        depth += 1;
        let wild = level.contains(['+', '#']);
        if depth > LEVELS_MAX || (wild && level.len() > 1) || (level == "#" && levels.peek().is_some()) {
            return false;
        }
    }
    true
}

/// Whether an MQTT topic filter matches a topic. Wildcards at the first level never match topics that start with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filters, mut levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), levels.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(l)) if f == l => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_topics_by_the_standard() {
        for good in ["a", "/", "a/+", "+", "#", "a/#", "+/+/#", "$SYS/#", "ü/ä", "a//b", "/a"] {
            assert!(valid_filter(good), "{good}");
        }
        for bad in ["", "a#", "a/#/b", "a+", "a/b+/c", "#/a", "a\0b", "a#b", &"a/".repeat(LEVELS_MAX)] {
            assert!(!valid_filter(bad), "{bad}");
        }
        for bad in ["", "a/+", "#", "a\0", &"x".repeat(65_536)] {
            assert!(!valid_topic(bad), "{bad}");
        }
        assert!(valid_topic("$hw/events/a") && valid_topic("/") && valid_topic("é"));
    }

    #[test]
    fn matching_by_the_standard() {
        let yes = [
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("#", "a/b"),
            ("+", "a"),
            ("/+", "/a"),
            ("+/+", "/a"),
            ("a/+/c", "a//c"),
            ("$hw/#", "$hw/events/x"),
            ("$hw/events/device/+/twin/update", "$hw/events/device/é/twin/update"),
        ];
        let no = [("+", "/a"), ("a/+", "a"), ("a/b", "a/b/"), ("#", "$hw/a"), ("+/a", "$hw/a"), ("a/+/c", "a/b/c/d")];
        for (filter, topic) in yes {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in no {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }
}
