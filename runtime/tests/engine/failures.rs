//! What cannot be started says why, and leaves nothing.

use std::fs;
use std::time::Duration;

use edge_runtime::engine::containers::{EngineError, Request, probe};
use edge_runtime::engine::shim::protocol::FailureKind;
use edge_runtime::engine::spec::Mount;

use crate::bench::{Bench, until};

async fn refused(bench: &Bench, request: Request) -> (FailureKind, String) {
    let id = request.id.clone();
    let error = bench.containers.start(request).await.err().expect("an error");
    assert!(!bench.dir.path().join("run").join(&id).exists(), "nothing is left of {id}");
    match error {
        EngineError::Start { kind, message, .. } => (kind, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn commands_that_cannot_be_run() {
    let bench = Bench::new();
    let root = bench.root();
    fs::write(root.join("bin/script"), "#!/no/such/interpreter\n").unwrap();
    fs::write(root.join("bin/data"), "\x7fELF nonsense").unwrap();
    fs::write(root.join("bin/private"), "").unwrap();
    let mode = |name: &str, mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(root.join("bin").join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("script", 0o755);
    mode("data", 0o755);
    mode("private", 0o644);
    let cases: [(&[&str], &str); 6] = [
        (&["no-such-program"], "executable no-such-program not found in PATH"),
        (&["/bin/no-such"], "cannot execute /bin/no-such: No such file or directory"),
        (&["/bin"], "cannot execute /bin: it is a directory"),
        (&["/bin/private"], "cannot execute /bin/private: permission denied"),
        (&["/bin/script"], "cannot execute /bin/script: No such file or directory"),
        (&["/bin/data"], "cannot execute /bin/data: Exec format error"),
    ];
    for (n, (args, expected)) in cases.into_iter().enumerate() {
        let (kind, message) = refused(&bench, bench.request(&format!("bad-{n}"), args)).await;
        assert_eq!(kind, FailureKind::Command, "{message}");
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    }
}

#[tokio::test]
async fn set_ups_that_cannot_be_made() {
    let bench = Bench::new();
    let mut request = bench.request("mount", &["true"]);
    request.spec.mounts.push(Mount::bind("/no/such/source", "/data", false));
    let (kind, message) = refused(&bench, request).await;
    assert_eq!(kind, FailureKind::Setup);
    assert!(message.contains("/no/such/source") || message.contains("No such file"), "{message}");

    let mut request = bench.request("root", &["true"]);
    request.spec.rootfs = bench.dir.path().join("missing");
    let (kind, message) = refused(&bench, request).await;
    assert_eq!(kind, FailureKind::Setup);
    assert!(message.contains("No such file"), "{message}");

    let mut request = bench.request("sysctl", &["true"]);
    request.spec.sysctls.insert("net.no.such".into(), "1".into());
    assert_eq!(refused(&bench, request).await.0, FailureKind::Setup);
}

#[tokio::test]
async fn a_start_that_takes_too_long_is_ended_with_everything_it_began() {
    let bench = Bench::new();
    let seconds = format!("4711{}", std::process::id());
    let mut request = bench.request("slow", &["sleep", &seconds]);
    request.start_timeout = Some(Duration::from_millis(1));
    let (kind, message) = refused(&bench, request).await;
    assert_eq!(kind, FailureKind::TimedOut, "{message}");
    let left = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|p| fs::read_to_string(p.path().join("cmdline")).ok());
        lines.filter(|line| line.contains(bench.dir.path().to_str().unwrap()) || line.contains(&seconds)).count() == 0
    };
    until("the end of the shim and of what it had begun", left).await;
}

#[tokio::test]
async fn ids_are_checked() {
    let bench = Bench::new();
    for id in ["", ".", "..", "../x", "a/b", "-a", "_shims", "a b", "ü", &"a".repeat(129)] {
        let error = bench.containers.start(bench.request(id, &["true"])).await.err().expect("an error");
        assert!(matches!(error, EngineError::InvalidId(_)), "{id:?}: {error:?}");
    }
    let long = "a".repeat(128);
    let first = bench.start(&long, &["sleep", "1000"]).await;
    let error = bench.containers.start(bench.request(&long, &["true"])).await.err().expect("an error");
    assert!(matches!(error, EngineError::Exists(_)));
    assert!(first.end().is_none(), "the one that exists is not touched");
    first.delete().await;
}

#[test]
fn without_root_it_says_what_it_cannot_do() {
    // User ids belong to threads in Linux: only this one is somebody else.
    let refused = std::thread::spawn(|| {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root");
        probe().expect_err("not as nobody")
    });
    let error = refused.join().unwrap();
    assert!(matches!(error, EngineError::NotPossible { .. }));
    assert_eq!(
        error.to_string(),
        "cannot run containers: the runtime does not run as root; start edge-runtime as root; everything else works without"
    );
    probe().unwrap();
}
