//! Logs written as a shim writes them, read with every option, over rotations, and followed to the end.

use std::fs::{self, OpenOptions};
use std::io::Write;

use edge_model::Object;
use edge_model::pod::status::{ContainerState, ContainerStatus};
use serde_json::json;

use super::*;
use crate::store::Durability;

struct Bench {
    temp: tempfile::TempDir,
    store: Store,
    uid: String,
}

impl Bench {
    async fn new() -> Bench {
        let store = Store::in_memory();
        let pod = store.create(Object::new(Kind::Pod, "", "web", json!({}))).await.unwrap();
        Bench { temp: tempfile::tempdir().unwrap(), store, uid: pod.metadata.uid.clone() }
    }

    fn path(&self, container: &str, restarts: u32) -> PathBuf {
        file(self.temp.path(), "default", "web", &self.uid, container, restarts)
    }

    fn write(&self, container: &str, restarts: u32, lines: &[&str]) {
        let path = self.path(container, restarts);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        for line in lines {
            file.write_all(line.as_bytes()).unwrap();
            file.write_all(b"\n").unwrap();
        }
    }

    fn rotate(&self, container: &str) {
        let path = self.path(container, 0);
        let name = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
        // Nothing is deleted: whether the reader keeps up is not what is tested.
        for n in (1..20).rev() {
            let _ = fs::rename(name(n), name(n + 1));
        }
        fs::rename(&path, name(1)).unwrap();
    }

    async fn status(&self, state: ContainerState, restart_count: u32) {
        let container = ContainerStatus { name: "a".into(), state, restart_count, ..ContainerStatus::default() };
        let status = PodStatus { container_statuses: vec![container], ..PodStatus::default() };
        let value = serde_json::to_value(status).unwrap();
        let key = Key::new(Kind::Pod, "", "web");
        self.store.set_status(&key, &self.uid, value, Durability::Lazy).await.unwrap();
    }

    fn logs(&self) -> Logs {
        Logs::new(self.temp.path(), self.store.clone())
    }

    async fn read(&self, container: Option<&str>, options: Options) -> Result<String, LogError> {
        let mut stream = self.logs().open("default", "web", container, options).await?;
        let mut text = Vec::new();
        while let Some(bytes) = stream.next().await {
            text.extend_from_slice(&bytes?);
        }
        Ok(String::from_utf8(text).unwrap())
    }
}

const LINES: [&str; 5] = [
    "2026-11-30T17:34:27.000000001Z stdout F one",
    "2026-11-30T17:34:28.000000001Z stdout P tw",
    "2026-11-30T17:34:28.000000002Z stdout F o",
    "\0\0\0 damaged",
    "2026-11-30T17:34:29.5Z stderr F three  spaced",
];

#[tokio::test]
async fn options_choose_the_lines() {
    let bench = Bench::new().await;
    bench.write("a", 0, &LINES);
    let since = edge_model::time::parse_rfc3339("2026-11-30T17:34:28Z");
    let cases = [
        (Options::default(), "one\ntwo\nthree  spaced\n"),
        (Options { tail_lines: Some(2), ..Options::default() }, "two\nthree  spaced\n"),
        (Options { tail_lines: Some(0), ..Options::default() }, ""),
        (Options { tail_lines: Some(9), ..Options::default() }, "one\ntwo\nthree  spaced\n"),
        (Options { since_ms: since, ..Options::default() }, "two\nthree  spaced\n"),
        (Options { since_ms: since, tail_lines: Some(1), ..Options::default() }, "three  spaced\n"),
        (Options { limit_bytes: Some(5), ..Options::default() }, "one\nt"),
        (
            Options { timestamps: true, tail_lines: Some(2), ..Options::default() },
            "2026-11-30T17:34:28.000000001Z two\n2026-11-30T17:34:29.5Z three  spaced\n",
        ),
    ];
    for (options, expected) in cases {
        assert_eq!(bench.read(Some("a"), options.clone()).await.unwrap(), expected, "{options:?}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let bench = Bench::new().await;
    let fails = |container: Option<&'static str>, previous: bool| {
        let bench = &bench;
        async move { bench.read(container, Options { previous, ..Options::default() }).await.unwrap_err().to_string() }
    };
    assert_eq!(fails(None, false).await, "pod default/web has no log on this node");
    bench.write("a", 0, &LINES);
    assert_eq!(fails(None, true).await, "container a has no previous log");
    bench.write("b", 1, &LINES);
    assert_eq!(fails(None, false).await, "a container must be named, one of: a, b");
    assert_eq!(fails(Some("c"), false).await, "a container must be named, one of: a, b");
    assert_eq!(fails(Some("b"), true).await, "container b has no previous log");
}

#[tokio::test]
async fn the_newest_log_and_the_one_before() {
    let bench = Bench::new().await;
    for restarts in [2, 9, 10] {
        bench.write("a", restarts, &[&format!("2026-11-30T17:34:27Z stdout F run {restarts}")]);
    }
    assert_eq!(bench.read(None, Options::default()).await.unwrap(), "run 10\n");
    assert_eq!(bench.read(None, Options { previous: true, ..Options::default() }).await.unwrap(), "run 9\n");
    // The pod is gone from the store, its log is still there.
    bench.store.delete(&Key::new(Kind::Pod, "", "web"), None).await.unwrap();
    assert_eq!(bench.read(None, Options { follow: true, ..Options::default() }).await.unwrap(), "run 10\n");
}

#[tokio::test]
async fn rotated_files_are_one_log() {
    let bench = Bench::new().await;
    for n in 0..4 {
        if n > 0 {
            bench.rotate("a");
        }
        bench.write(
            "a",
            0,
            &[&format!("2026-11-30T17:34:27Z stdout F {n}a"), &format!("2026-11-30T17:34:27Z stdout F {n}b")],
        );
    }
    assert_eq!(bench.read(None, Options::default()).await.unwrap(), "0a\n0b\n1a\n1b\n2a\n2b\n3a\n3b\n");
    assert_eq!(bench.read(None, Options { tail_lines: Some(3), ..Options::default() }).await.unwrap(), "2b\n3a\n3b\n");
}

#[tokio::test]
async fn a_followed_log_ends_with_its_container_and_loses_nothing_to_rotation() {
    let bench = Bench::new().await;
    bench.status(ContainerState::running("2026-11-30T17:34:27Z".into()), 0).await;
    bench.write("a", 0, &["2026-11-30T17:34:27Z stdout F 0"]);
    let options = Options { follow: true, ..Options::default() };
    let mut stream = bench.logs().open("default", "web", None, options).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first, "0\n");
    let write = async {
        for n in 1..50 {
            if n % 7 == 0 {
                bench.rotate("a");
            }
            bench.write("a", 0, &[&format!("2026-11-30T17:34:27Z stdout F {n}")]);
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
        bench.status(ContainerState::terminated(edge_model::pod::status::Terminated::default()), 0).await;
    };
    let read = async {
        let mut text = Vec::new();
        while let Some(bytes) = stream.next().await {
            text.extend_from_slice(&bytes.unwrap());
        }
        String::from_utf8(text).unwrap()
    };
    let ((), text) = tokio::join!(write, read);
    assert_eq!(text.lines().map(str::to_owned).collect::<Vec<_>>(), (1..50).map(|n| n.to_string()).collect::<Vec<_>>());
}
