//! The queue beside SQLite (WAL, synchronous=FULL) on the same small disk in one run: bytes that reach the device per byte
//! queued, and messages a second, at commits of 1, 10 and 100 messages. `cargo bench -p edge-tests --bench queue`.
//!
//! The disk is an ext4 in a file on a loop device, so that the device's own counter tells what is written, journal and all.
//! Needs root. `EDGE_BENCH_MESSAGES` is how many messages each row gets (20,000; a commit of 1 gets a twentieth),
//! `EDGE_BENCH_BATCHES` which commits.

use std::path::Path;
use std::time::Instant;

use edge_runtime::queue::{Message, Queue, Settings, Stream};
use edge_tests::filesystem::Image;
use edge_tests::producer::folder;

/// What one row of the table says.
struct Row {
    name: &'static str,
    batch: usize,
    device: u64,
    payload: u64,
    seconds: f64,
    messages: usize,
}

fn main() {
    let messages = std::env::var("EDGE_BENCH_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000usize);
    let batches: Vec<usize> = match std::env::var("EDGE_BENCH_BATCHES") {
        Ok(list) => list.split(',').filter_map(|n| n.trim().parse().ok()).collect(),
        Err(_) => vec![1, 10, 100],
    };
    println!("## Queue: device bytes per payload byte, and messages a second\n");
    println!("| | commit of | device/payload | messages/s | against SQLite: bytes | speed |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for batch in batches {
        let messages = if batch == 1 { messages / 20 } else { messages };
        let sqlite = on_disk("SQLite, kept", batch, messages, |dir| in_sqlite(dir, batch, messages, false));
        let kept = on_disk("queue, kept", batch, messages, |dir| in_queue(dir, batch, messages, false, 6));
        print(&sqlite, &sqlite);
        print(&kept, &sqlite);
        let plain = on_disk("queue, kept, unpacked", batch, messages, |dir| in_queue(dir, batch, messages, false, 0));
        print(&plain, &sqlite);
        let sqlite = on_disk("SQLite, delivered", batch, messages, |dir| in_sqlite(dir, batch, messages, true));
        let passed = on_disk("queue, delivered", batch, messages, |dir| in_queue(dir, batch, messages, true, 6));
        print(&sqlite, &sqlite);
        print(&passed, &sqlite);
    }
    backlog(50 * messages);
}

fn print(row: &Row, peer: &Row) {
    let amplification = |r: &Row| r.device as f64 / r.payload as f64;
    let rate = |r: &Row| r.messages as f64 / r.seconds;
    println!(
        "| {} | {} | {:.2} | {:.0} | {:.2} x | {:.2} x |",
        row.name,
        row.batch,
        amplification(row),
        rate(row),
        amplification(row) / amplification(peer),
        rate(row) / rate(peer)
    );
}

/// A reading as the field sends it: about 200 bytes, most of them the same every time.
fn message(n: usize) -> Message {
    let wobble = (n as f64 * 0.37).sin() * 3.0 + (n * 7919 % 101) as f64 / 100.0;
    let payload = format!(
        r#"{{"device":"pump-{}","namespace":"default","property":"{}","time":"2026-11-30T17:{:02}:{:02}.{:03}Z","quality":"good","value":{:.3},"unit":"{}","model":"acme-p200","site":"hall-3"}}"#,
        n % 20,
        ["pressure", "temperature", "flow", "speed"][n % 4],
        n / 6000 % 60,
        n / 100 % 60,
        n * 10 % 1000,
        20.0 + wobble,
        ["bar", "Cel", "m3/h", "1/min"][n % 4],
    );
    Message { time_ms: n as i64, subject: format!("devices/default/pump-{}/data", n % 20), payload: payload.into() }
}

fn on_disk(name: &'static str, batch: usize, messages: usize, run: impl FnOnce(&Path) -> f64) -> Row {
    let (_dir, path) = folder();
    let disk = Image::new(&path, "disk", 512 << 20);
    rustix::fs::sync();
    let before = disk.written();
    let seconds = run(disk.path());
    // What the last commits left to the kernel is written by their being there, too.
    rustix::fs::sync();
    let payload = (0..messages).map(|n| message(n).payload.len() as u64).sum();
    Row { name, batch, device: disk.written() - before, payload, seconds, messages }
}

/// Pushes in batches that share a commit; `deliver` reads and acknowledges each batch after it.
fn in_queue(dir: &Path, batch: usize, messages: usize, deliver: bool, pack_level: u32) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // The batch is there at once, so waiting for more would only make it slower.
        let settings = Settings { linger_ms: 0, pack_level, ..Settings::default() };
        let (queue, _) = Queue::open(&dir.join("queue"), settings).expect("opens");
        let start = Instant::now();
        for first in (0..messages).step_by(batch) {
            let last = (first + batch).min(messages) - 1;
            for n in first..last {
                queue.try_push(Stream::Data, message(n)).expect("there is room");
            }
            let seq = queue.push(Stream::Data, message(last)).await.expect("is written");
            if deliver {
                let read = queue.read(Stream::Data, queue.acked(Stream::Data), batch).await.expect("reads");
                assert_eq!(read.last().map(|e| e.seq), Some(seq));
                queue.ack(Stream::Data, seq).await.expect("acknowledges");
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        queue.close().await;
        seconds
    })
}

/// The same with what one would use instead: a table with a key that counts, a transaction for each batch.
fn in_sqlite(dir: &Path, batch: usize, messages: usize, deliver: bool) -> f64 {
    let mut db = rusqlite::Connection::open(dir.join("queue.sqlite")).expect("opens");
    db.pragma_update(None, "journal_mode", "WAL").expect("WAL");
    db.pragma_update(None, "synchronous", "FULL").expect("FULL");
    let table = "CREATE TABLE q (seq INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER, subject TEXT, payload BLOB)";
    db.execute_batch(table).expect("a table");
    let start = Instant::now();
    let mut delivered = 0i64;
    for first in (0..messages).step_by(batch) {
        let transaction = db.transaction().expect("a transaction");
        {
            let insert = "INSERT INTO q (time, subject, payload) VALUES (?1, ?2, ?3)";
            let mut insert = transaction.prepare_cached(insert).expect("a statement");
            for n in first..(first + batch).min(messages) {
                let Message { time_ms, subject, payload } = message(n);
                insert.execute((time_ms, subject, payload)).expect("is written");
            }
            // As the queue does: what was acknowledged goes with the next commit.
            transaction.execute("DELETE FROM q WHERE seq <= ?1", [delivered]).expect("deletes");
        }
        transaction.commit().expect("commits");
        if deliver {
            let mut read =
                db.prepare_cached("SELECT seq, payload FROM q WHERE seq > ?1 ORDER BY seq").expect("a query");
            let mut rows = read.query([delivered]).expect("reads");
            while let Some(row) = rows.next().expect("reads") {
                delivered = row.get(0).expect("a number");
                let _: Vec<u8> = row.get(1).expect("bytes");
            }
        }
    }
    start.elapsed().as_secs_f64()
}

/// A million messages that wait: what they take, how long it takes to open, and how fast they leave.
fn backlog(messages: usize) {
    let (_dir, path) = folder();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let settings = Settings { linger_ms: 0, ..Settings::default() };
        let (queue, _) = Queue::open(&path, settings.clone()).expect("opens");
        for n in 0..messages {
            if n % 300 == 299 {
                queue.push(Stream::Data, message(n)).await.expect("is written");
            } else {
                queue.try_push(Stream::Data, message(n)).expect("there is room");
            }
        }
        queue.close().await;
        let before = resident();
        let start = Instant::now();
        let (queue, _) = Queue::open(&path, settings).expect("opens");
        let opened = start.elapsed();
        let stats = *queue.stats().streams.get(Stream::Data);
        let (memory, file) = (resident().saturating_sub(before), queue.stats().disk_bytes);
        let (start, mut after) = (Instant::now(), 0);
        loop {
            let some = queue.read(Stream::Data, after, 500).await.expect("reads");
            let Some(last) = some.last() else { break };
            after = last.seq;
            queue.ack(Stream::Data, after).await.expect("acknowledges");
        }
        let drained = start.elapsed().as_secs_f64();
        println!("\n## Queue: a backlog\n");
        println!("| messages | payload MB | file MB | open ms | memory KiB | drain messages/s | file after MB |");
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        let mega = |bytes: u64| bytes as f64 / 1e6;
        edge_tests::wait::until_holds("the file shrinks", || queue.stats().disk_bytes < (16 << 20)).await;
        println!(
            "| {} | {:.1} | {:.1} | {} | {memory} | {:.0} | {:.1} |",
            stats.queued,
            mega(stats.payload_bytes),
            mega(file),
            opened.as_millis(),
            stats.queued as f64 / drained,
            mega(queue.stats().disk_bytes)
        );
        queue.close().await;
    });
}

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
