//! The queue against a real directory: restarts, limits, failures.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::disk::{Change, Database, Opened, Purpose};

fn message(n: u64) -> Message {
    Message {
        time_ms: n as i64,
        subject: "devices/default/pump/data".to_owned(),
        payload: format!("{{\"n\":{n}}}").into(),
    }
}

/// A message that does not get smaller.
fn noise(n: u64, bytes: usize) -> Message {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let payload = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x & 0xff) as u8
    });
    Message { time_ms: n as i64, subject: String::new(), payload: payload.take(bytes).collect() }
}

fn quick() -> Settings {
    Settings { linger_ms: 0, ..Settings::default() }
}

fn open(dir: &Path, settings: Settings) -> (Queue, Report) {
    Queue::open(dir, settings).unwrap()
}

fn data(queue: &Queue) -> StreamStats {
    *queue.stats().streams.get(Stream::Data)
}

async fn read_all(queue: &Queue, stream: Stream) -> Vec<Entry> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let some = queue.read(stream, after, 100).await.unwrap();
        let Some(last) = some.last() else { return all };
        after = last.seq;
        all.extend(some);
    }
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|e| e.seq).collect()
}

/// Waits for a condition that another thread brings about.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen within a minute");
}

#[tokio::test]
async fn what_is_pushed_comes_back_in_order_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, report) = open(dir.path(), quick());
    assert_eq!(report.opened, Opened::New);
    for n in 1..=50 {
        assert_eq!(queue.push(Stream::Data, message(n)).await.unwrap(), n);
    }
    assert_eq!(queue.push(Stream::Replies, message(7)).await.unwrap(), 1);
    queue.ack(Stream::Data, 20).await.unwrap();
    queue.close().await;
    assert!(matches!(queue.push(Stream::Data, message(0)).await, Err(QueueError::Closed)));

    let (queue, report) = open(dir.path(), quick());
    assert_eq!((report.opened, report.skipped), (Opened::Existing, false));
    assert_eq!(report.queued, PerStream::new(1, 0, 30));
    assert_eq!(queue.acked(Stream::Data), 20);
    let all = read_all(&queue, Stream::Data).await;
    assert_eq!(seqs(&all), (21..=50).collect::<Vec<_>>());
    assert!(all.iter().all(|e| e.message == message(e.seq)));
    assert_eq!(queue.push(Stream::Data, message(51)).await.unwrap(), 51);
    queue.ack(Stream::Data, 51).await.unwrap();
    queue.close().await;

    let (queue, _) = open(dir.path(), quick());
    assert!(read_all(&queue, Stream::Data).await.is_empty());
    assert_eq!(queue.push(Stream::Data, message(52)).await.unwrap(), 52, "numbers are not used again");
    queue.close().await;
}

#[tokio::test]
async fn pushes_at_the_same_time_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path(), Settings { linger_ms: 300, ..Settings::default() });
    let pushes = (0..200).map(|n| queue.push(Stream::Data, message(n)));
    let mut numbers = futures_util::future::try_join_all(pushes).await.unwrap();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    let commits = queue.stats().commits;
    assert!(commits <= 10, "{commits} commits");
    assert_eq!(data(&queue).chunks, 1);
    queue.close().await;
}

#[tokio::test]
async fn small_commits_end_up_in_few_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path(), quick());
    for n in 1..=300 {
        queue.push(Stream::Data, message(n)).await.unwrap();
    }
    let chunks = data(&queue).chunks;
    assert!(chunks <= 3, "{chunks} chunks");
    assert_eq!(read_all(&queue, Stream::Data).await.len(), 300);
    queue.close().await;
}

#[tokio::test]
async fn what_nobody_waits_for_is_written_too() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path(), Settings { lazy_ms: 10, ..Settings::default() });
    queue.try_push(Stream::Events, message(1)).unwrap();
    let mut changes = queue.changes();
    if queue.stats().streams.get(Stream::Events).queued == 0 {
        tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
    }
    queue.try_push(Stream::Events, message(2)).unwrap();
    queue.close().await;
    let (queue, _) = open(dir.path(), quick());
    assert_eq!(seqs(&read_all(&queue, Stream::Events).await), [1, 2]);
    queue.close().await;
}

#[tokio::test]
async fn the_oldest_go_when_the_stream_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings { linger_ms: 0, ..Settings::default() };
    settings.streams.get_mut(Stream::Data).max_bytes = 40_000;
    let (queue, _) = open(dir.path(), settings.clone());
    for n in 1..=50 {
        queue.push(Stream::Data, noise(n, 5000)).await.unwrap();
    }
    let stats = data(&queue);
    assert!(stats.stored_bytes <= 40_000, "{stats:?}");
    assert!(stats.dropped.oldest >= 40);
    assert_eq!(stats.dropped.oldest + stats.queued, 50);
    let left = read_all(&queue, Stream::Data).await;
    assert_eq!(seqs(&left), (stats.dropped.oldest + 1..=50).collect::<Vec<_>>());
    assert_eq!(queue.acked(Stream::Data), stats.dropped.oldest, "sending resumes after what is gone");
    queue.close().await;

    let (queue, _) = open(dir.path(), settings);
    assert_eq!(data(&queue).dropped, stats.dropped, "the count survives");
    assert_eq!(read_all(&queue, Stream::Data).await, left);
    queue.close().await;
}

#[tokio::test]
async fn the_newest_are_refused_when_the_policy_says_so() {
    for policy in [Policy::Refuse, Policy::DropNewest] {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = quick();
        *settings.streams.get_mut(Stream::Data) = StreamSettings { max_age_ms: 0, max_bytes: 9000, policy };
        let (queue, _) = open(dir.path(), settings);
        queue.push(Stream::Data, noise(1, 5000)).await.unwrap();
        queue.push(Stream::Data, noise(2, 5000)).await.unwrap();
        assert!(matches!(queue.push(Stream::Data, noise(3, 5000)).await, Err(QueueError::Full("data"))));
        assert!(matches!(queue.try_push(Stream::Data, noise(3, 5000)), Err(QueueError::Full("data"))));
        let stats = data(&queue);
        let expected = if policy == Policy::Refuse { (2, 0) } else { (0, 2) };
        assert_eq!((stats.refused, stats.dropped.newest), expected);
        queue.ack(Stream::Data, 1).await.unwrap();
        assert_eq!(queue.push(Stream::Data, noise(3, 5000)).await.unwrap(), 3, "there is room again");
        queue.close().await;
    }
}

#[tokio::test]
async fn what_is_too_old_goes_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = quick();
    settings.streams.get_mut(Stream::Data).max_age_ms = 50;
    let (queue, _) = open(dir.path(), settings);
    // When it happened does not matter, only how long it has been here: device clocks are what they are.
    for time_ms in [0, i64::MAX, crate::clock::now_ms()] {
        queue.push(Stream::Data, Message { time_ms, ..message(1) }).await.unwrap();
    }
    queue.push(Stream::Events, message(1)).await.unwrap();
    until("expiry", || data(&queue).dropped.age == 3).await;
    assert_eq!(data(&queue).queued, 0);
    assert_eq!(queue.stats().streams.get(Stream::Events).queued, 1);
    queue.close().await;
}

#[tokio::test]
async fn a_push_that_fails_leaves_the_queue_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path(), quick());
    queue.push(Stream::Data, message(1)).await.unwrap();
    queue.close().await;

    let mut full = quick();
    full.disk.reserve_bytes = u64::MAX / 2;
    let (queue, _) = open(dir.path(), full);
    for _ in 0..3 {
        let Err(QueueError::Disk(error)) = queue.push(Stream::Data, message(2)).await else { panic!("no error") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    queue.try_push(Stream::Data, message(2)).unwrap();
    until("a failed commit", || data(&queue).dropped.disk == 1).await;
    assert!(queue.stats().failing);
    assert_eq!(seqs(&read_all(&queue, Stream::Data).await), [1], "reading goes on");
    queue.ack(Stream::Data, 1).await.unwrap();
    queue.close().await;

    let (queue, report) = open(dir.path(), quick());
    assert_eq!(
        report.queued,
        PerStream::new(0, 0, 0),
        "what was acknowledged was forgotten although the disk was full"
    );
    assert_eq!(queue.push(Stream::Data, message(2)).await.unwrap(), 2);
    queue.close().await;
}

#[tokio::test]
async fn a_damaged_queue_is_set_aside_and_no_number_is_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path(), quick());
    let mut last = 0;
    for n in 0..100 {
        last = queue.push(Stream::Data, message(n)).await.unwrap();
    }
    queue.close().await;
    let db = dir.path().join("db-1/db");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes[20..].fill(0x5a);
    std::fs::write(&db, bytes).unwrap();
    let (queue, report) = open(dir.path(), quick());
    assert!(matches!(report.opened, Opened::SetAside { .. }) && report.skipped, "{report:?}");
    assert!(queue.push(Stream::Data, message(0)).await.unwrap() > last);
    queue.close().await;
}

#[tokio::test]
async fn a_chunk_that_cannot_be_read_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { grow_bytes: 0, ..quick() };
    let (queue, _) = open(dir.path(), settings.clone());
    for n in 1..=5 {
        queue.push(Stream::Data, message(n)).await.unwrap();
    }
    queue.close().await;
    let (mut database, _) = Database::open(dir.path(), settings.disk.clone()).unwrap();
    let put = |n, value: &[u8]| Change::Put(open::key(b'c', Stream::Data, n), value.to_vec());
    database
        .commit(
            Purpose::Add,
            &[put(1, b""), put(3, b"\x01\x01garbage"), Change::Delete(open::key(b'm', Stream::Data, 5))],
        )
        .unwrap();
    database.commit(Purpose::Add, &[Change::Put(open::key(b'm', Stream::Data, 5), b"?".to_vec())]).unwrap();
    database.close();
    let (queue, _) = open(dir.path(), settings);
    assert_eq!(seqs(&read_all(&queue, Stream::Data).await), [2, 4]);
    assert_eq!(data(&queue).dropped.damaged, 2);
    assert_eq!(queue.push(Stream::Data, message(6)).await.unwrap(), 6);
    queue.close().await;
}

#[tokio::test]
async fn large_messages_come_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path(), quick());
    for n in 1..=4 {
        queue.push(Stream::Data, noise(n, 700_000)).await.unwrap();
    }
    let oversized = Message { payload: vec![0; MAX_MESSAGE], ..message(1) };
    assert!(matches!(queue.push(Stream::Data, oversized).await, Err(QueueError::TooLarge { .. })));
    queue.close().await;
    assert_eq!(std::fs::read_dir(dir.path().join("db-1/blobs")).unwrap().count(), 0, "blob files are never synced");
    let (queue, _) = open(dir.path(), quick());
    let all = read_all(&queue, Stream::Data).await;
    assert!(all.iter().all(|e| e.message == noise(e.seq, 700_000)) && all.len() == 4);
    queue.close().await;
}

#[tokio::test]
async fn disk_space_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open(dir.path(), quick());
    let mut last = 0;
    for n in 0..60 {
        last = queue.push(Stream::Data, noise(n, 250_000)).await.unwrap();
    }
    let full = queue.stats().disk_bytes;
    assert!(full > 15_000_000, "{full}");
    queue.ack(Stream::Data, last).await.unwrap();
    until("the file to shrink", || queue.stats().disk_bytes < 4_000_000).await;
    assert_eq!(queue.push(Stream::Data, message(1)).await.unwrap(), last + 1);
    queue.close().await;
    let (queue, _) = open(dir.path(), quick());
    assert_eq!(seqs(&read_all(&queue, Stream::Data).await), [last + 1]);
    queue.close().await;
}

#[tokio::test]
async fn dropping_the_handles_lets_go_of_the_database() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=20 {
        let (queue, _) = open(dir.path(), quick());
        assert_eq!(queue.push(Stream::Data, message(n)).await.unwrap(), n);
    }
}
