//! Commands in a running container.

use std::fs;
use std::time::Duration;

use edge_runtime::engine::containers::{EngineError, ExecRequest, Handle};
use edge_runtime::engine::shim::protocol::FailureKind;

use crate::bench::{Bench, PATIENCE, alive, shim_of, until};

fn command(args: &[&str]) -> ExecRequest {
    ExecRequest { args: args.iter().map(|a| (*a).to_owned()).collect(), ..ExecRequest::default() }
}

/// Children of a process, zombies included.
fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|n| n.parse().unwrap()).collect()
}

async fn run(handle: &Handle, args: &[&str], input: &[u8]) -> (i32, String, String) {
    let result = handle.exec(&command(args), input, 1 << 20, PATIENCE).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (result.exit.code, text(&result.stdout), text(&result.stderr))
}

#[tokio::test]
async fn output_input_and_exit_code() {
    let bench = Bench::new();
    let mut request = bench.request("host", &["sleep", "1000"]);
    request.spec.env = vec![("A".into(), "1".into()), ("B".into(), "2".into())];
    let handle = bench.containers.start(request).await.unwrap();
    assert_eq!(
        run(&handle, &["sh", "-c", "echo out; echo err >&2; exit 5"], b"").await,
        (5, "out\n".into(), "err\n".into())
    );
    assert_eq!(run(&handle, &["cat"], b"through").await, (0, "through".into(), String::new()));
    let mut request = command(&["sh", "-c", "echo $A $B; id -u; pwd; cat /proc/1/comm"]);
    request.env = vec![("B".into(), "3".into())];
    (request.cwd, request.user) = (Some("/tmp".into()), Some((1000, 1000)));
    let result = handle.exec(&request, b"", 1024, PATIENCE).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&result.stdout), "1 3\n1000\n/tmp\nsleep\n");
    let result = handle.exec(&command(&["seq", "10000"]), b"", 100, PATIENCE).await.unwrap();
    assert_eq!((result.stdout.len(), result.truncated, result.exit.code), (100, true, 0));
    let ended = handle.exec(&command(&["sh", "-c", "kill -9 $$"]), b"", 100, PATIENCE).await.unwrap().exit;
    assert_eq!((ended.code, ended.signal), (137, Some(9)));
    handle.delete().await;
    assert!(handle.exec(&command(&["true"]), b"", 100, PATIENCE).await.is_err());
}

/// A failed command once left zombies that made the container unkillable.
#[tokio::test]
async fn failed_commands_say_why_and_leave_no_zombies() {
    let bench = Bench::new();
    let handle = bench.start("host", &["sleep", "1000"]).await;
    let shim = shim_of(&handle);
    let first = handle.running().unwrap().pid;
    for _ in 0..5 {
        let error = handle.exec(&command(&["no-such"]), b"", 100, PATIENCE).await.unwrap_err();
        match error {
            EngineError::Exec { kind, message, .. } => {
                assert_eq!(kind, FailureKind::Command);
                assert!(message.contains("executable no-such not found in PATH"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    until("the sweep of all but the first process", || children(shim) == [first]).await;
    assert_eq!(
        fs::read_dir(bench.dir.path().join("run/host"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("exec-"))
            .count(),
        0
    );
    handle.delete().await;
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed() {
    let bench = Bench::new();
    let handle = bench.start("host", &["sleep", "1000"]).await;
    let shim = shim_of(&handle);
    let first = handle.running().unwrap().pid;
    let error =
        handle.exec(&command(&["sh", "-c", "sleep 500; echo"]), b"", 100, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, EngineError::ExecTimedOut(_)), "{error:?}");
    until("the end of the command", || children(shim) == [first]).await;
    assert!(alive(first));
    handle.delete().await;
}

#[tokio::test]
async fn many_commands_at_once() {
    let bench = Bench::new();
    let handle = bench.start("host", &["sleep", "1000"]).await;
    let tasks: Vec<_> = (0..10)
        .map(|n: i32| {
            let handle = handle.clone();
            tokio::spawn(async move { run(&handle, &["sh", "-c", &format!("echo {n}; exit {n}")], b"").await })
        })
        .collect();
    for (n, task) in (0..).zip(tasks) {
        assert_eq!(task.await.unwrap(), (n, format!("{n}\n"), String::new()));
    }
    handle.delete().await;
}
