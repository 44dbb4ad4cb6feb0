//! `doctor`: looks at the machine as a person would who is called because a gateway does not work.
//!
//! Each module has facts (values, collected by a thin layer that never fails) and checks (pure functions of facts, so that their
//! tests are tables). A check says what was found and, in a sentence, what to do about it. What cannot be looked at, for lack of
//! rights or because it does not apply, is skipped with the reason; nothing is changed anywhere.

pub mod board;
pub mod certificates;
pub mod der;
pub mod files;
pub mod kernel;
pub mod network;
pub mod ports;
pub mod service;
pub mod storage;
pub mod time;

use std::path::PathBuf;

use serde::Serialize;

use crate::config::{Config, ConfigError, Merged};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and may not for long, or not fully.
    Warn,
    /// Something will not work.
    Fail,
    /// It could not be looked at, or does not matter here.
    Skip,
}

impl Verdict {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, or what it is for, in a sentence.
    pub advice: String,
}

impl Check {
    /// A check.
    pub fn new(name: &'static str, verdict: Verdict, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, verdict, found: found.into(), advice: advice.into() }
    }
}

/// Collects several findings into one check: the worst decides.
#[derive(Debug, Default)]
pub struct Findings {
    bad: Vec<(Verdict, String, String)>,
    good: Vec<String>,
}

impl Findings {
    /// Something is as it should be.
    pub fn good(&mut self, found: impl Into<String>) {
        self.good.push(found.into());
    }

    /// Something is not.
    pub fn bad(&mut self, verdict: Verdict, found: impl Into<String>, advice: impl Into<String>) {
        self.bad.push((verdict, found.into(), advice.into()));
    }

    /// The check; `nothing` is what it says when there was nothing to look at.
    pub fn check(self, name: &'static str, purpose: &str, nothing: &str) -> Check {
        let worst = [Verdict::Fail, Verdict::Warn].into_iter().find(|v| self.bad.iter().any(|(bad, ..)| bad == v));
        match worst {
            Some(verdict) => {
                let found: Vec<&str> = self.bad.iter().map(|(_, found, _)| found.as_str()).collect();
                let mut advice: Vec<&str> = Vec::new();
                for (_, _, words) in self.bad.iter().filter(|(bad, ..)| *bad == verdict) {
                    if !advice.contains(&words.as_str()) {
                        advice.push(words);
                    }
                }
                Check::new(name, verdict, found.join("; "), advice.join("; "))
            }
            None if !self.good.is_empty() => Check::new(name, Verdict::Ok, self.good.join(", "), purpose),
            None => match self.bad.into_iter().next() {
                Some((_, found, advice)) => Check::new(name, Verdict::Skip, found, advice),
                None => Check::new(name, Verdict::Skip, nothing, purpose),
            },
        }
    }
}

/// What is looked at, and how far.
pub struct Patient<'a> {
    /// The configuration of this machine, or what is wrong with it.
    pub config: Result<&'a (Config, Merged), &'a ConfigError>,
    /// The board that was asked for: a name or `auto`.
    pub board: String,
    /// Configuration files that are read.
    pub files: Vec<PathBuf>,
    /// The socket of the node that runs, if one does.
    pub socket: PathBuf,
    /// Whether the network is left out.
    pub offline: bool,
}

/// Looks at everything. Blocks: names are looked up, ports tried.
pub fn examine(patient: &Patient<'_>) -> Vec<Check> {
    let node = service::Running::look(&patient.socket);
    let mut checks = vec![service::configuration(patient.config.err())];
    checks.extend(kernel::checks(&kernel::Facts::look()));
    checks.extend(time::checks(&time::Facts::look()));
    match patient.config {
        Ok((config, merged)) => {
            checks.extend(storage::checks(&storage::Facts::look(&config.paths.state), config.board.write_budget));
            checks.push(certificates::check(&certificates::Facts::look(config)));
            checks.push(files::keys(&files::Facts::look(&files::private(config))));
            checks.push(files::folders(&files::Facts::look(&files::open(config, &patient.files))));
            checks.push(ports::check(&ports::Facts::look(config, node.pid)));
            checks.extend(board::checks(&board::Facts::look(&patient.board, config, merged)));
            checks.extend(network::checks(&network::Facts::look(config, patient.offline)));
            checks.push(service::updates(&service::Updates::look(config)));
        }
        Err(_) => {
            let left =
                ["storage", "storage wear", "write budget", "certificates", "private keys", "permissions", "ports"];
            let more = ["board", "memory", "serial ports", "bluetooth", "watchdog", "network", "cloud name", "updates"];
            let why = "the configuration is not right";
            let skip = |name| Check::new(name, Verdict::Skip, why, "correct the configuration first");
            checks.extend(left.into_iter().chain(more).map(skip));
        }
    }
    checks.push(service::unit(&service::Unit::look()));
    checks.push(service::daemon(&node));
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let mut all = Findings::default();
        all.good("a");
        assert_eq!(all.check("x", "purpose", "").verdict, Verdict::Ok);
        let mut all = Findings::default();
        all.good("a");
        all.bad(Verdict::Warn, "b", "mend b");
        all.bad(Verdict::Fail, "c", "mend c");
        all.bad(Verdict::Fail, "d", "mend c");
        assert_eq!(all.check("x", "", ""), Check::new("x", Verdict::Fail, "b; c; d", "mend c"));
        assert_eq!(Findings::default().check("x", "p", "none"), Check::new("x", Verdict::Skip, "none", "p"));
    }
}
