//! A full disk: writers get an error that says so, nothing that was there is lost, restarting works, and everything goes on
//! once there is space again.
//!
//! Needs root and loop devices: the disk is a small ext4 in a file.

use std::io::ErrorKind;

use edge_model::{Key, Kind, Object};
use edge_runtime::disk::Opened;
use edge_runtime::queue::{Message, Queue, QueueError, Settings, Stream};
use edge_runtime::store::{self, Store, StoreError};
use edge_tests::filesystem::{Image, fill};
use edge_tests::producer::folder;
use serde_json::json;

/// A message that does not get smaller when it is packed.
fn message(n: u64, bytes: usize) -> Message {
    let mut x = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    let payload = next.take(bytes / 8).flatten().collect();
    Message { time_ms: 0, subject: "t".to_owned(), payload }
}

fn object(name: &str, n: u64) -> Object {
    Object::new(Kind::ConfigMap, "", name, json!({ "n": n }))
}

fn is_full(error: &QueueError) -> bool {
    matches!(error, QueueError::Disk(source) if source.kind() == ErrorKind::StorageFull)
}

async fn seqs(queue: &Queue) -> Vec<u64> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let some = queue.read(Stream::Data, after, 100).await.expect("reading needs no space");
        let Some(last) = some.last() else { return all };
        after = last.seq;
        all.extend(some.iter().map(|e| e.seq));
    }
}

#[tokio::test]
async fn a_disk_that_others_fill_gives_errors_and_then_recovers() {
    let (_dir, path) = folder();
    let disk = Image::new(&path, "disk", 48 << 20);
    let settings = Settings { linger_ms: 0, ..Settings::default() };
    let (queue, _) = Queue::open(&disk.path().join("queue"), settings.clone()).expect("opens");
    let (objects, _) = Store::open(&disk.path().join("store"), store::Settings::default()).expect("opens");
    for n in 1..=100 {
        queue.push(Stream::Data, message(n, 900)).await.expect("there is space");
    }
    let a = objects.create(object("a", 1)).await.expect("there is space");

    let filler = disk.path().join("filler");
    fill(&filler);
    for _ in 0..3 {
        let refused = queue.push(Stream::Data, message(0, 900)).await.expect_err("the disk is full");
        assert!(is_full(&refused), "{refused:?}");
        let refused = objects.apply(object("a", 2)).await.expect_err("the disk is full");
        assert!(matches!(&refused, StoreError::Disk(e) if e.kind() == ErrorKind::StorageFull), "{refused:?}");
    }
    assert_eq!(objects.get(&a.key()), Some(a.clone()), "what failed is not seen");
    assert_eq!(seqs(&queue).await, (1..=100).collect::<Vec<_>>(), "reading goes on");
    queue.ack(Stream::Data, 60).await.expect("acknowledging needs no space");

    // Restart while it is full.
    queue.close().await;
    objects.close().await;
    let (queue, report) = Queue::open(&disk.path().join("queue"), settings).expect("opens on a full disk");
    assert_eq!((report.opened, report.skipped), (Opened::Existing, false));
    let (objects, report) =
        Store::open(&disk.path().join("store"), store::Settings::default()).expect("opens when full");
    assert_eq!((report.opened, report.objects), (Opened::Existing, 1));
    let left = seqs(&queue).await;
    assert_eq!(left.last(), Some(&100));
    assert!(left.first().is_some_and(|first| *first <= 61), "{left:?}");

    std::fs::remove_file(&filler).expect("the filler goes");
    assert_eq!(queue.push(Stream::Data, message(101, 900)).await.expect("there is space again"), 101);
    let changed = objects.apply(object("a", 3)).await.expect("there is space again").0;
    assert_eq!(objects.get(&Key::new(Kind::ConfigMap, "", "a")), Some(changed));
    queue.close().await;
    objects.close().await;
}

#[tokio::test]
async fn a_queue_that_outgrows_its_disk_gives_errors_and_space_comes_back() {
    let (_dir, path) = folder();
    let disk = Image::new(&path, "disk", 48 << 20);
    // Limits as somebody might set them who did not look at the disk: the reserve has to do.
    let mut settings = Settings { linger_ms: 0, disk_percent: 100, ..Settings::default() };
    settings.streams.get_mut(Stream::Data).max_bytes = 1 << 40;
    let (queue, _) = Queue::open(&disk.path().join("queue"), settings.clone()).expect("opens");
    let big = |n: u64| message(n, 100_000);
    let mut last = 0;
    let refused = loop {
        match queue.push(Stream::Data, big(last + 1)).await {
            Ok(seq) => last = seq,
            Err(error) => break error,
        }
        assert!(last < 100_000, "the disk does not get full");
        if queue.stats().streams.get(Stream::Data).dropped.oldest > 0 {
            break QueueError::Full("data");
        }
    };
    let dropped = queue.stats().streams.get(Stream::Data).dropped.oldest;
    assert!(is_full(&refused) || dropped > 0, "{refused:?}");
    assert_eq!(seqs(&queue).await, (dropped + 1..=last).collect::<Vec<_>>());
    queue.ack(Stream::Data, last).await.expect("acknowledging needs no space");
    let state = || format!("{:?} {:?}", queue.stats(), edge_runtime::disk::space_of(disk.path()));
    let shrunk = || (queue.stats().disk_bytes < (8 << 20)).then_some(());
    for _ in 0..6000 {
        if shrunk().is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(shrunk().is_some(), "no space came back: {}", state());
    assert_eq!(queue.push(Stream::Data, big(0)).await.expect("there is space again"), last + 1);
    queue.close().await;
}
