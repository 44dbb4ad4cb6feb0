//! A producer that says what was acknowledged to it, and a checker: run by the tests, which kill it or cut its power.
//!
//! ```text
//! queue_tool write  DIR [--no-sync]   pushes to DIR/queue and writes objects to DIR/store until it is killed; prints
//!                                     `q SEQ` and `s OBJECT N` for everything acknowledged
//! queue_tool idle   DIR               opens both, writes a little, and then does nothing: for looking at memory and wake-ups
//! queue_tool verify DIR               opens both; prints `q FIRST LAST` and `s OBJECT N` lines, or fails
//! ```
//! With `--no-sync` the kernel answers `fdatasync` with success and does nothing: the product's own code, without the one
//! call that makes it durable. What the tests then find shows that they can find anything.

use std::io::Write;
use std::path::Path;

use edge_model::{Key, Kind, Object};
use edge_runtime::disk::Opened;
use edge_runtime::{queue, store};
use queue::{Message, Queue, Stream};
use serde_json::json;
use store::Store;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["write", dir] => write(Path::new(dir)),
        ["write", dir, "--no-sync"] => {
            forget_fdatasync()?;
            write(Path::new(dir))
        }
        ["idle", dir] => idle(Path::new(dir)),
        ["verify", dir] => verify(Path::new(dir)),
        _ => Err("usage: queue_tool write DIR [--no-sync] | idle DIR | verify DIR".into()),
    }
}

/// `n` in a payload of 200 to 2,200 bytes that cannot be made smaller, so that the file grows fast.
fn message(n: u64) -> Message {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = 200 + (x >> 33) % 2000;
    let mut payload = n.to_be_bytes().to_vec();
    payload.extend((0..length).map(|_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_be_bytes()[0]
    }));
    Message { time_ms: 0, subject: "t".to_owned(), payload }
}

fn settings() -> queue::Settings {
    let mut settings = queue::Settings { linger_ms: 1, disk_percent: 80, ..queue::Settings::default() };
    for stream in Stream::ALL {
        settings.streams.get_mut(stream).max_bytes = 1 << 30;
    }
    settings
}

#[tokio::main(flavor = "current_thread")]
async fn write(dir: &Path) -> Result<(), Failure> {
    let (queue, _) = Queue::open(&dir.join("queue"), settings())?;
    let (store, _) = Store::open(&dir.join("store"), store::Settings::default())?;
    let mut tasks = tokio::task::JoinSet::new();
    for producer in 0..8u64 {
        let queue = queue.clone();
        tasks.spawn(async move {
            for n in 0u64.. {
                let seq = queue.push(Stream::Data, message(n * 8 + producer)).await.map_err(|e| e.to_string())?;
                say(&format!("q {seq}"));
            }
            Ok::<(), String>(())
        });
    }
    for name in ["a", "b", "c"] {
        let store = store.clone();
        tasks.spawn(async move {
            let before = store.get(&key(name)).and_then(|o| o.spec()["n"].as_u64()).unwrap_or(0);
            for n in before + 1.. {
                let filler = "x".repeat(usize::try_from(n * 37 % 3000).unwrap_or(0));
                let object = Object::new(Kind::ConfigMap, "", name, json!({ "n": n, "filler": filler }));
                store.apply(object).await.map_err(|e| e.to_string())?;
                say(&format!("s {name} {n}"));
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn idle(dir: &Path) -> Result<(), Failure> {
    let (queue, _) = Queue::open(&dir.join("queue"), settings())?;
    let (store, _) = Store::open(&dir.join("store"), store::Settings::default())?;
    for n in 0..20 {
        queue.push(Stream::Data, message(n)).await?;
        store.apply(Object::new(Kind::ConfigMap, "", "a", json!({ "n": n }))).await?;
    }
    say("idle");
    std::future::pending().await
}

fn key(name: &str) -> Key {
    Key::new(Kind::ConfigMap, "", name)
}

/// One write call a line: what is in the pipe was acknowledged.
fn say(line: &str) {
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

#[tokio::main(flavor = "current_thread")]
async fn verify(dir: &Path) -> Result<(), Failure> {
    let (queue, report) = Queue::open(&dir.join("queue"), settings())?;
    if matches!(report.opened, Opened::SetAside { .. }) || report.skipped {
        return Err(format!("queue: {report:?}").into());
    }
    let (first, mut last) = (queue.acked(Stream::Data) + 1, queue.acked(Stream::Data));
    loop {
        let some = queue.read(Stream::Data, last, 1000).await?;
        if some.is_empty() {
            break;
        }
        for entry in some {
            if entry.seq != last + 1 {
                return Err(format!("queue: {} follows {last}", entry.seq).into());
            }
            let number = entry.message.payload.first_chunk::<8>().map(|n| u64::from_be_bytes(*n));
            if number.map(message).as_ref() != Some(&entry.message) {
                return Err(format!("queue: message {} is not what was pushed", entry.seq).into());
            }
            last = entry.seq;
        }
    }
    let stats = queue.stats();
    if stats.streams.get(Stream::Data).dropped.total() > 0 {
        return Err(format!("queue: {stats:?}").into());
    }
    say(&format!("q {first} {last}"));
    queue.close().await;

    let (store, report) = Store::open(&dir.join("store"), store::Settings::default())?;
    if matches!(report.opened, Opened::SetAside { .. }) || report.unreadable > 0 || report.restored > 0 {
        return Err(format!("store: {report:?}").into());
    }
    for name in ["a", "b", "c"] {
        if let Some(object) = store.get(&key(name)) {
            say(&format!("s {name} {}", object.spec()["n"]));
        }
    }
    store.close().await;
    Ok(())
}

/// From here on `fdatasync` succeeds without doing anything, for this process and its threads.
fn forget_fdatasync() -> Result<(), Failure> {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules = [(libc::SYS_fdatasync, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(0), arch)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter_all_threads(&program)?;
    Ok(())
}
