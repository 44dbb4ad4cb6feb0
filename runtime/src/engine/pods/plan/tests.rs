//! Tables for [`super::decide`]: a pod, what is known about it, and what is to be done.

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

/// A pod with init containers `i`, `j` and containers `a`, `b`, and a restart policy.
struct Bench {
    spec: PodSpec,
    hashes: BTreeMap<String, String>,
    known: Known,
    goal: Goal,
}

impl Bench {
    fn new(inits: &[&str], containers: &[&str], policy: &str) -> Bench {
        let list =
            |names: &[&str]| -> Vec<Value> { names.iter().map(|n| json!({"name": n, "image": "i:1"})).collect() };
        let spec = json!({"initContainers": list(inits), "containers": list(containers), "restartPolicy": policy});
        let spec = edge_model::pod::check(&spec).unwrap();
        let hashes = spec.all_containers().map(|c| (c.name.clone(), "h".to_owned())).collect();
        let mut bench = Bench { spec, hashes, known: Known::default(), goal: Goal::Run };
        bench.sandbox(&[]);
        bench
    }

    fn sandbox(&mut self, initialized: &[&str]) {
        let initialized = initialized.iter().map(|s| (*s).to_owned()).collect();
        self.known.sandbox = Sandbox::Ready { hash: "s".into(), initialized };
    }

    fn is(&mut self, name: &str, state: State) -> &mut Unit {
        let unit = self.known.containers.entry(name.to_owned()).or_default();
        unit.state = state;
        unit
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted { spec: &self.spec, hashes: &self.hashes, sandbox: "s", goal: self.goal }
    }

    fn decide(&self) -> Decision {
        decide(self.wanted(), &self.known, NOW)
    }

    fn actions(&self) -> Vec<Action> {
        self.decide().actions
    }
}

fn running(hash: &str) -> State {
    State::Running(Process { id: "1".into(), hash: hash.into(), started_at: 0 })
}

fn stopping(kill_at: i64, killed: bool) -> State {
    State::Stopping { process: Process::default(), kill_at, killed, unhealthy: false }
}

fn ended(exit_code: i32, retry_at: i64) -> State {
    State::Ended(Ended { hash: "h".into(), exit_code, retry_at, ..Ended::default() })
}

fn launch(name: &str, restarts: u32) -> Action {
    Action::Launch { container: name.into(), restarts }
}

fn terminate(name: &str) -> Action {
    Action::Terminate { container: name.into() }
}

#[test]
fn the_sandbox_comes_first() {
    let mut pod = Bench::new(&[], &["a"], "Always");
    pod.known.sandbox = Sandbox::None;
    assert_eq!(pod.actions(), [Action::SetUp]);
    pod.known.sandbox = Sandbox::Failed { message: String::new(), retry_at: NOW + 5 };
    assert_eq!(pod.decide(), Decision { actions: vec![], wake_at: Some(NOW + 5) });
    pod.known.sandbox = Sandbox::Failed { message: String::new(), retry_at: NOW };
    assert_eq!(pod.actions(), [Action::SetUp]);
    pod.sandbox(&[]);
    assert_eq!(pod.actions(), [launch("a", 0)]);
}

#[test]
fn an_old_sandbox_is_emptied_before_it_is_made_anew() {
    let mut pod = Bench::new(&[], &["a", "b"], "Always");
    pod.known.sandbox = Sandbox::Ready { hash: "old".into(), initialized: BTreeSet::new() };
    pod.is("a", running("old"));
    pod.is("b", stopping(NOW + 1, false));
    assert_eq!(pod.decide(), Decision { actions: vec![terminate("a")], wake_at: Some(NOW + 1) });
    pod.is("a", ended(0, NOW + 10));
    pod.is("b", ended(0, NOW + 10));
    assert_eq!(pod.actions(), [Action::SetUp]);
}

#[test]
fn init_containers_run_in_order_and_each_to_success() {
    let mut pod = Bench::new(&["i", "j"], &["a"], "Always");
    assert_eq!(pod.actions(), [launch("i", 0)]);
    pod.is("i", running("h"));
    assert_eq!(pod.actions(), []);
    pod.is("i", ended(1, NOW + 7));
    assert_eq!(pod.decide(), Decision { actions: vec![], wake_at: Some(NOW + 7) });
    pod.is("i", ended(1, NOW));
    assert_eq!(pod.actions(), [launch("i", 1)]);
    pod.is("i", ended(0, NOW));
    pod.sandbox(&["i"]);
    assert_eq!(pod.actions(), [launch("j", 0)]);
    pod.sandbox(&["i", "j"]);
    assert_eq!(pod.actions(), [launch("a", 0)]);
    // After a reboot the sandbox is new: they run again, although they have ended well before.
    pod.is("i", ended(0, NOW + 99));
    pod.is("a", ended(137, 0));
    pod.sandbox(&[]);
    assert_eq!(pod.actions(), [launch("i", 1)]);
}

#[test]
fn what_matches_is_never_touched() {
    let mut pod = Bench::new(&["i"], &["a", "b"], "Always");
    pod.sandbox(&["i"]);
    pod.is("a", running("h"));
    pod.is("b", State::Launching);
    assert_eq!(pod.decide(), Decision::default());
}

#[test]
fn the_restart_policy_decides() {
    let cases = [
        ("Always", 0, Some(launch("a", 1))),
        ("Always", 1, Some(launch("a", 1))),
        ("OnFailure", 0, None),
        ("OnFailure", 1, Some(launch("a", 1))),
        ("Never", 0, None),
        ("Never", 1, None),
    ];
    for (policy, code, expected) in cases {
        let mut pod = Bench::new(&[], &["a"], policy);
        pod.is("a", ended(code, NOW));
        assert_eq!(pod.actions(), Vec::from_iter(expected.clone()), "{policy} {code}");
        assert_eq!(is_over(pod.wanted(), &pod.known), expected.is_none(), "{policy} {code}");
        pod.is("a", ended(code, NOW + 3));
        assert_eq!(pod.decide().wake_at, expected.map(|_| NOW + 3), "{policy} {code}");
    }
}

#[test]
fn a_failed_init_container_ends_a_pod_that_is_never_restarted() {
    let mut pod = Bench::new(&["i"], &["a"], "Never");
    pod.is("i", ended(1, NOW));
    assert!(is_over(pod.wanted(), &pod.known));
    assert_eq!(pod.decide(), Decision::default());
}

#[test]
fn a_pod_that_is_over_gets_no_sandbox_after_a_reboot() {
    let mut pod = Bench::new(&[], &["a"], "Never");
    pod.known.sandbox = Sandbox::None;
    pod.is("a", ended(0, 0));
    assert_eq!(pod.decide(), Decision::default());
}

#[test]
fn a_changed_spec_recreates_only_the_containers_concerned() {
    let mut pod = Bench::new(&[], &["a", "b"], "Never");
    pod.is("a", running("old"));
    pod.is("b", running("h"));
    assert_eq!(pod.actions(), [terminate("a")]);
    pod.is("a", stopping(NOW + 4, false));
    assert_eq!(pod.decide(), Decision { actions: vec![], wake_at: Some(NOW + 4) });
    pod.is("a", stopping(NOW, false));
    assert_eq!(pod.actions(), [Action::Kill { container: "a".into() }]);
    pod.is("a", stopping(NOW, true));
    assert_eq!(pod.decide(), Decision::default());
    // Ended because it was replaced: it starts at once, whatever policy and back-off say.
    pod.is("a", State::Ended(Ended { hash: "old".into(), exit_code: 143, retry_at: NOW + 9, ..Ended::default() }));
    assert_eq!(pod.actions(), [launch("a", 1)]);
}

#[test]
fn a_container_that_left_the_spec_is_stopped() {
    let mut pod = Bench::new(&[], &["a"], "Always");
    pod.is("a", running("h"));
    pod.is("gone", running("h"));
    assert_eq!(pod.actions(), [terminate("gone")]);
}

#[test]
fn a_refused_launch_is_tried_again_later() {
    let mut pod = Bench::new(&[], &["a"], "Never");
    let refused =
        |retry_at| State::Refused { refusal: Refusal { reason: "ErrImagePull", message: String::new() }, retry_at };
    pod.is("a", refused(NOW + 10_000));
    assert_eq!(pod.decide(), Decision { actions: vec![], wake_at: Some(NOW + 10_000) });
    pod.is("a", refused(NOW));
    assert_eq!(pod.actions(), [launch("a", 0)]);
    pod.is("a", refused(NOW)).last = Some(Ended::default());
    assert_eq!(pod.actions(), [launch("a", 1)]);
}

#[test]
fn a_pod_that_is_to_go_stops_everything_and_then_is_taken_away() {
    let mut pod = Bench::new(&["i"], &["a", "b"], "Always");
    pod.sandbox(&["i"]);
    pod.goal = Goal::Remove;
    pod.is("a", running("h"));
    pod.is("b", State::Launching);
    assert_eq!(pod.actions(), [terminate("a")]);
    pod.is("a", stopping(NOW + 1, false));
    pod.is("b", ended(1, NOW));
    assert_eq!(pod.decide(), Decision { actions: vec![], wake_at: Some(NOW + 1) });
    pod.is("a", ended(143, NOW));
    assert_eq!(pod.actions(), [Action::TearDown]);
    pod.goal = Goal::Halt;
    assert_eq!(pod.decide(), Decision::default());
    pod.is("a", running("h"));
    assert_eq!(pod.actions(), [terminate("a")]);
    pod.goal = Goal::Remove;
    pod.known = Known::default();
    assert_eq!(pod.actions(), [Action::TearDown]);
}
