//! What the probes of a running container have said, when the next is due, and what follows. Pure.
//!
//! ```text
//!   Starting ── startup probe succeeded (or there is none) ──► Unready ◄── readiness ──► Ready
//!      │                                                           │                      │
//!      └── startup probe failed ──► ended                          └── liveness failed ───┴──► ended
//! ```
//!
//! Times are milliseconds of the monotonic clock, as in [`super::plan`].

use edge_model::pod::Container;
use edge_model::pod::probe::Probe;

use super::plan::Health;

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Holds the others back until it has succeeded.
    Startup,
    /// Its failure ends the container.
    Liveness,
    /// Whether the container is ready.
    Readiness,
}

impl Which {
    /// Its name in Kubernetes' events.
    pub fn name(self) -> &'static str {
        match self {
            Which::Startup => "Startup",
            Which::Liveness => "Liveness",
            Which::Readiness => "Readiness",
        }
    }
}

/// One probe and what it has said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Track {
    which: Which,
    probe: Probe,
    due: i64,
    under_way: bool,
    successes: u32,
    failures: u32,
}

/// The probes of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probes {
    /// The container they are about, in the engine.
    pub id: String,
    health: Health,
    tracks: Vec<Track>,
}

/// What follows from a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, or another health.
    GoOn,
    /// The failure that makes the count full: the container is to be ended.
    End,
}

impl Probes {
    /// The probes of a container that has run since `since`. `health` is what was known of it: [`Health::Starting`] when it
    /// has just been started; what an earlier runtime had found out holds until a probe says otherwise.
    pub fn new(id: &str, container: &Container, since: i64, health: Health) -> Probes {
        let all = [
            (Which::Startup, &container.startup_probe),
            (Which::Liveness, &container.liveness_probe),
            (Which::Readiness, &container.readiness_probe),
        ];
        let given = all.into_iter().filter_map(|(which, probe)| Some((which, probe.clone()?)));
        let track = |(which, probe): (Which, Probe)| Track {
            which,
            due: since + probe.initial_delay_ms(),
            probe,
            under_way: false,
            successes: 0,
            failures: 0,
        };
        let mut probes = Probes { id: id.to_owned(), health, tracks: given.map(track).collect() };
        let has = |which| probes.tracks.iter().any(|t| t.which == which);
        let (startup, readiness) = (has(Which::Startup), has(Which::Readiness));
        probes.health = match health {
            Health::Starting if startup => Health::Starting,
            Health::Starting | Health::Unready if readiness => Health::Unready,
            _ => Health::Ready,
        };
        probes
    }

    /// What they say of the container.
    pub fn health(&self) -> Health {
        self.health
    }

    /// The probes whose time has come; they are under way from now on.
    pub fn due(&mut self, now: i64) -> Vec<(Which, Probe)> {
        let health = self.health;
        let due = self.tracks.iter_mut().filter(|t| t.is_asked(health) && !t.under_way && t.due <= now);
        let start = |track: &mut Track| {
            track.under_way = true;
            track.due = now + track.probe.period_ms();
            (track.which, track.probe.clone())
        };
        due.map(start).collect()
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<i64> {
        self.tracks.iter().filter(|t| t.is_asked(self.health) && !t.under_way).map(|t| t.due).min()
    }

    /// A probe could not be made, which says nothing about the container.
    pub fn unknown(&mut self, which: Which) {
        if let Some(track) = self.tracks.iter_mut().find(|t| t.which == which) {
            track.under_way = false;
        }
    }

    /// Takes a result; gives what follows, and how often in a row it has failed now.
    pub fn take(&mut self, which: Which, success: bool) -> (Verdict, u32) {
        let readiness = self.tracks.iter().any(|t| t.which == Which::Readiness);
        let Some(track) = self.tracks.iter_mut().find(|t| t.which == which) else { return (Verdict::GoOn, 0) };
        track.under_way = false;
        if success {
            (track.successes, track.failures) = (track.successes.saturating_add(1), 0);
        } else {
            (track.successes, track.failures) = (0, track.failures.saturating_add(1));
        }
        let failures = track.failures;
        let (passed, failed) = (track.successes >= track.probe.successes(), failures >= track.probe.failures());
        match which {
            Which::Startup if passed => self.health = if readiness { Health::Unready } else { Health::Ready },
            Which::Readiness if passed => self.health = Health::Ready,
            Which::Readiness if failed => self.health = Health::Unready,
            Which::Startup | Which::Liveness if failed => return (Verdict::End, failures),
            _ => {}
        }
        (Verdict::GoOn, failures)
    }
}

impl Track {
    fn is_asked(&self, health: Health) -> bool {
        (health == Health::Starting) == (self.which == Which::Startup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn probes(fields: Value, health: Health) -> Probes {
        let mut container = json!({"name": "c", "image": "i:1"});
        for (name, value) in fields.as_object().unwrap() {
            container[name] = value.clone();
        }
        let spec = edge_model::pod::check(&json!({"containers": [container]})).unwrap();
        Probes::new("1", &spec.containers[0], 1000, health)
    }

    fn tcp(more: Value) -> Value {
        let mut probe = json!({"tcpSocket": {"port": 80}});
        for (name, value) in more.as_object().unwrap() {
            probe[name] = value.clone();
        }
        probe
    }

    fn names(due: Vec<(Which, Probe)>) -> Vec<&'static str> {
        due.into_iter().map(|(which, _)| which.name()).collect()
    }

    #[test]
    fn a_container_without_probes_is_ready_at_once() {
        let p = probes(json!({}), Health::Starting);
        assert_eq!((p.health(), p.next()), (Health::Ready, None));
    }

    #[test]
    fn readiness_follows_its_thresholds_and_ends_nothing() {
        let fields = json!({"readinessProbe": tcp(json!({"successThreshold": 2, "failureThreshold": 2}))});
        let mut p = probes(fields, Health::Starting);
        let expected = [
            (true, Health::Unready),
            (true, Health::Ready),
            (false, Health::Ready),
            (true, Health::Ready),
            (false, Health::Ready),
            (false, Health::Unready),
            (false, Health::Unready),
            (true, Health::Unready),
            (true, Health::Ready),
        ];
        for (i, (success, health)) in expected.into_iter().enumerate() {
            assert_eq!(p.take(Which::Readiness, success).0, Verdict::GoOn);
            assert_eq!(p.health(), health, "result {i}");
        }
    }

    #[test]
    fn the_others_wait_for_the_startup_probe() {
        let fields = json!({
            "startupProbe": tcp(json!({"periodSeconds": 2})),
            "livenessProbe": tcp(json!({})),
            "readinessProbe": tcp(json!({"initialDelaySeconds": 60})),
        });
        let mut p = probes(fields.clone(), Health::Starting);
        assert_eq!((p.health(), p.next()), (Health::Starting, Some(1000)));
        assert_eq!(names(p.due(1000)), ["Startup"]);
        assert_eq!((p.next(), p.due(9000)), (None, vec![]), "one at a time");
        assert_eq!(p.take(Which::Startup, false), (Verdict::GoOn, 1));
        assert_eq!(p.next(), Some(3000));
        assert_eq!(names(p.due(3000)), ["Startup"]);
        p.take(Which::Startup, true);
        assert_eq!((p.health(), p.next()), (Health::Unready, Some(1000)));
        assert_eq!(names(p.due(5000)), ["Liveness"]);
        assert_eq!(p.next(), Some(61_000));
        // After a restart of the runtime the startup probe is not asked again.
        assert_eq!(probes(fields.clone(), Health::Ready).health(), Health::Ready);
        assert_eq!(names(probes(fields, Health::Unready).due(1000)), ["Liveness"]);
    }

    #[test]
    fn a_full_count_of_failures_ends_the_container() {
        for (field, which) in [("startupProbe", Which::Startup), ("livenessProbe", Which::Liveness)] {
            let mut p = probes(json!({field: tcp(json!({"failureThreshold": 2}))}), Health::Starting);
            assert_eq!(p.take(which, false), (Verdict::GoOn, 1));
            p.unknown(which);
            assert_eq!(p.take(which, false), (Verdict::End, 2), "what is not known changes no count");
        }
    }
}
