//! Tables: what is known about a pod, and the status it shows.

use std::collections::{BTreeMap, BTreeSet};

use edge_model::node::Truth;
use edge_model::pod::PodSpec;
use serde_json::{Value, json};

use super::*;
use crate::engine::pods::plan::{Goal, Process, Refusal};

const NOW: i64 = 1_796_060_067_000;

fn spec(inits: &[&str], containers: &[&str], policy: &str) -> PodSpec {
    let list = |names: &[&str]| -> Vec<Value> { names.iter().map(|n| json!({"name": n, "image": "i:1"})).collect() };
    let spec = json!({"initContainers": list(inits), "containers": list(containers), "restartPolicy": policy});
    edge_model::pod::check(&spec).unwrap()
}

fn known(units: &[(&str, State)], initialized: &[&str]) -> Known {
    let initialized: BTreeSet<String> = initialized.iter().map(|s| (*s).to_owned()).collect();
    let unit = |state: &State| Unit { state: state.clone(), ..Unit::default() };
    Known {
        sandbox: Sandbox::Ready { hash: "s".into(), initialized },
        containers: units.iter().map(|(name, state)| ((*name).to_owned(), unit(state))).collect(),
    }
}

fn show(spec: &PodSpec, known: &Known) -> PodStatus {
    let hashes = spec.all_containers().map(|c| (c.name.clone(), "h".to_owned())).collect::<BTreeMap<_, _>>();
    let wanted = Wanted { spec, hashes: &hashes, sandbox: "s", goal: Goal::Run };
    status(wanted, known, &Facts::default(), &PodStatus::default(), NOW)
}

fn running() -> State {
    State::Running(Process { id: "1".into(), hash: "h".into(), started_at: NOW })
}

fn ended(exit_code: i32, wait: i64) -> State {
    let end = Ended { id: "1".into(), exit_code, finished_at: NOW, wait, retry_at: wait, ..Ended::default() };
    State::Ended(end)
}

#[test]
fn phases() {
    let refused = State::Refused { refusal: Refusal { reason: "ErrImagePull", message: String::new() }, retry_at: NOW };
    let cases = [
        ("Always", vec![], Phase::Pending),
        ("Always", vec![("a", running())], Phase::Pending),
        ("Always", vec![("a", running()), ("b", State::Launching)], Phase::Pending),
        ("Always", vec![("a", running()), ("b", refused)], Phase::Pending),
        ("Always", vec![("a", running()), ("b", running())], Phase::Running),
        ("Always", vec![("a", running()), ("b", ended(1, 10_000))], Phase::Running),
        ("Always", vec![("a", ended(0, 0)), ("b", ended(0, 0))], Phase::Running),
        ("OnFailure", vec![("a", ended(0, 0)), ("b", ended(1, 0))], Phase::Running),
        ("OnFailure", vec![("a", ended(0, 0)), ("b", ended(0, 0))], Phase::Succeeded),
        ("Never", vec![("a", ended(0, 0)), ("b", ended(1, 0))], Phase::Failed),
        ("Never", vec![("a", ended(1, 0)), ("b", running())], Phase::Running),
    ];
    for (policy, units, phase) in cases {
        assert_eq!(show(&spec(&[], &["a", "b"], policy), &known(&units, &[])).phase, phase, "{policy} {units:?}");
    }
    let failed_init = known(&[("i", ended(1, 0))], &[]);
    assert_eq!(show(&spec(&["i"], &["a"], "Never"), &failed_init).phase, Phase::Failed);
    assert_eq!(show(&spec(&["i"], &["a"], "Always"), &failed_init).phase, Phase::Pending);
}

#[test]
fn conditions_and_container_states() {
    let pod = spec(&["i"], &["a"], "Always");
    let status = show(&pod, &known(&[("i", running())], &[]));
    let truth = |s: &PodStatus, kind: &str| s.conditions.iter().find(|c| c.kind == kind).map(|c| c.status);
    assert_eq!(truth(&status, "Initialized"), Some(Truth::False));
    let waiting = |s: &PodStatus| s.container_statuses[0].state.waiting.clone().map(|w| w.reason);
    assert_eq!(waiting(&status), Some("PodInitializing".into()));
    let status = show(&pod, &known(&[("i", ended(0, 0))], &["i"]));
    assert_eq!(truth(&status, "Initialized"), Some(Truth::True));
    assert_eq!(waiting(&status), Some("ContainerCreating".into()));
    assert!(status.init_container_statuses[0].ready);
    let status = show(&pod, &known(&[("i", ended(0, 0)), ("a", running())], &["i"]));
    assert_eq!((truth(&status, "Ready"), status.container_statuses[0].ready), (Some(Truth::True), true));
    assert_eq!(status.container_statuses[0].container_id, "edge://1");
    let status = show(&pod, &known(&[("i", ended(0, 0)), ("a", ended(2, 20_000))], &["i"]));
    assert_eq!(truth(&status, "Ready"), Some(Truth::False));
    assert_eq!(waiting(&status), Some("CrashLoopBackOff".into()));
    assert_eq!(status.container_statuses[0].last_state.terminated.clone().map(|t| t.exit_code), Some(2));
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let pod = spec(&[], &["a"], "Always");
    let hashes = BTreeMap::from([("a".to_owned(), "h".to_owned())]);
    let wanted = Wanted { spec: &pod, hashes: &hashes, sandbox: "s", goal: Goal::Run };
    let first = status(wanted, &known(&[], &[]), &Facts::default(), &PodStatus::default(), NOW);
    let later = status(wanted, &known(&[("a", running())], &[]), &Facts::default(), &first, NOW + 5000);
    let time = |s: &PodStatus, kind: &str| {
        s.conditions.iter().find(|c| c.kind == kind).map(|c| c.last_transition_time.clone())
    };
    assert_eq!(time(&later, "Initialized"), Some(rfc3339(NOW)));
    assert_eq!(time(&later, "Ready"), Some(rfc3339(NOW + 5000)));
}

#[test]
fn a_restarted_runtime_recalls_counts_and_ends() {
    let pod = spec(&[], &["ran", "loop", "done", "new"], "OnFailure");
    let mut before = known(&[("ran", running()), ("loop", ended(3, 40_000)), ("done", ended(0, 0))], &[]);
    if let Some(unit) = before.containers.get_mut("loop") {
        unit.restarts = 3;
    }
    let recalled = recall(&show(&pod, &before), RestartPolicy::OnFailure, NOW + 30_000, 7);
    let state = |name: &str| recalled.containers.get(name).map(|u| u.state.clone());
    let code = |name: &str| match state(name) {
        Some(State::Ended(end)) => Some((end.exit_code, end.reason)),
        _ => None,
    };
    assert_eq!(code("ran"), Some((137, "ContainerStatusUnknown".into())));
    assert_eq!(code("loop").map(|c| c.0), Some(3));
    assert_eq!(code("done").map(|c| c.0), Some(0));
    assert_eq!(state("new"), Some(State::New));
    let looping = &recalled.containers["loop"];
    assert_eq!((looping.restarts, looping.crashes.clone().failed(0)), (3, 80_000));
    assert!(matches!(&looping.state, State::Ended(end) if end.retry_at == 7 + 10_000));
    assert_eq!(recalled.sandbox, Sandbox::None);
}
