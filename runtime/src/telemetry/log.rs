//! Logs: to journald or standard error, as text or JSON, with levels that can be changed while running.

use std::io::IsTerminal as _;
use std::str::FromStr as _;
use std::sync::{OnceLock, PoisonError, RwLock};

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::{Layer as _, Registry, fmt};

use super::journal;

/// Levels: one for all, and others for parts (`queue` is `edge_runtime::queue`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    general: LevelFilter,
    parts: Vec<(String, LevelFilter)>,
}

/// Crates of others that are chatty at info: they speak from warn on unless named.
const QUIET: [&str; 9] =
    ["rumqttd", "rumqttc", "libcontainer", "libcgroups", "sled", "hyper", "hyper_util", "reqwest", "oci_client"];

impl Levels {
    /// Nothing at all.
    pub const fn off() -> Levels {
        Levels { general: LevelFilter::OFF, parts: Vec::new() }
    }

    /// Reads `info` or `info,queue=debug,libcontainer=trace`.
    ///
    /// # Errors
    /// The word that is no level.
    pub fn parse(text: &str) -> Result<Levels, String> {
        let level = |word: &str| {
            let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
            LevelFilter::from_str(word)
                .ok()
                .filter(|_| known)
                .ok_or_else(|| format!("{word:?} is not a level: expected off, error, warn, info, debug or trace"))
        };
        let mut levels = Levels { general: LevelFilter::INFO, parts: Vec::new() };
        for item in text.split(',').map(str::trim).filter(|s| !s.is_empty()) {
            match item.split_once('=') {
                None => levels.general = level(item)?,
                Some((part, word)) => levels.parts.push((part.trim().to_owned(), level(word.trim())?)),
            }
        }
        Ok(levels)
    }

    fn print(&self) -> String {
        let parts = self.parts.iter().map(|(part, level)| format!(",{part}={level}"));
        std::iter::once(self.general.to_string()).chain(parts).collect()
    }

    fn of(&self, target: &str) -> LevelFilter {
        let ours = target.strip_prefix("edge_runtime::").or_else(|| target.strip_prefix("edge_"));
        let below = |part: &str, t: &str| t == part || t.strip_prefix(part).is_some_and(|rest| rest.starts_with("::"));
        let named = self.parts.iter().rev().find(|(p, _)| below(p, target) || ours.is_some_and(|o| below(p, o)));
        match named {
            Some((_, level)) => *level,
            None if QUIET.iter().any(|q| below(q, target)) => self.general.min(LevelFilter::WARN),
            None => self.general,
        }
    }
}

static LEVELS: OnceLock<RwLock<Levels>> = OnceLock::new();

struct Live;

impl<S> Filter<S> for Live {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        LEVELS.get().is_none_or(|levels| {
            *metadata.level() <= levels.read().unwrap_or_else(PoisonError::into_inner).of(metadata.target())
        })
    }
}

/// Starts logging. Once per process; later calls only change the levels.
pub fn start(levels: Levels, format: &str) {
    if LEVELS.get().is_some() {
        set(levels);
        return;
    }
    let _ = LEVELS.set(RwLock::new(levels));
    let format = match format {
        "auto" if journal::is_stderr() => "journald",
        "auto" => "text",
        other => other,
    };
    // A second global subscriber can only come from a test that has its own; then that one hears everything.
    let _ = match format {
        "journald" => subscriber::set_global_default(Registry::default().with(journal::Journal.with_filter(Live))),
        "json" => subscriber::set_global_default(
            Registry::default()
                .with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_filter(Live)),
        ),
        _ => subscriber::set_global_default(Registry::default().with(
            fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).with_filter(Live),
        )),
    };
}

/// The levels in force, as they could be set again.
pub fn current() -> String {
    LEVELS.get().map_or_else(String::new, |levels| levels.read().unwrap_or_else(PoisonError::into_inner).print())
}

/// Changes the levels of the running process.
pub fn set(levels: Levels) {
    if let Some(lock) = LEVELS.get() {
        *lock.write().unwrap_or_else(PoisonError::into_inner) = levels;
        tracing::callsite::rebuild_interest_cache();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_their_own_levels() {
        let levels = Levels::parse("warn, queue=debug,sled=trace").unwrap();
        assert_eq!(levels.of("edge_runtime::queue::chunk"), LevelFilter::DEBUG);
        assert_eq!(levels.of("edge_runtime::queues"), LevelFilter::WARN);
        assert_eq!(levels.of("sled::pagecache"), LevelFilter::TRACE);
        assert_eq!(levels.print(), "warn,queue=debug,sled=trace");
        assert_eq!(Levels::parse("debug").unwrap().of("rumqttd::router"), LevelFilter::WARN);
        assert!(Levels::parse("loud").unwrap_err().contains("\"loud\" is not a level"));
        assert!(Levels::parse("info,queue=9").is_err());
    }
}
