//! The power goes at random points while the database grows: nothing acknowledged is lost, everything is in order.
//!
//! The model: the writer runs on an ext4 in a file; it is stopped with SIGSTOP, and a copy of what has reached the device at
//! that moment is mounted (the journal is replayed) and read. What was only in the page cache is gone, as after a power cut.
//! A second test leaves out `fdatasync` and has to find losses: otherwise the first one proves nothing.
//!
//! Needs root and loop devices. `EDGE_POWER_CUTS` (default 20) says how many cuts.

use std::path::Path;
use std::time::Duration;

use edge_tests::filesystem::Image;
use edge_tests::producer::{self, Acknowledged, Producer};

/// The file has to grow all the time: in one that does not, even what is not durable often survives.
const IMAGE: u64 = 1 << 30;

/// Cuts the power `cuts` times while one writer goes on; what each cut left, as `verify` judges it.
fn cut_power(more: &[&str], cuts: u64, mut judge: impl FnMut(u64, Result<u64, String>, &Acknowledged) -> bool) {
    let tool = Path::new(env!("CARGO_BIN_EXE_queue_tool"));
    let (_dir, path) = producer::folder();
    let disk = Image::new(&path, "disk", IMAGE);
    let data = disk.path().join("data");
    std::fs::create_dir(&data).expect("a folder on the image");
    let mut producer = Producer::start(tool, &data, more, Acknowledged::default());
    let mut seen = 0;
    for cut in 0..cuts {
        edge_tests::wait::until("the producer writes", || (producer.acknowledged().messages > seen + 50).then_some(()));
        std::thread::sleep(Duration::from_millis(cut * 7919 % 97));
        producer.stop();
        let known = producer.acknowledged();
        seen = known.messages;
        let left = disk.cut(&path, "cut");
        let verdict = producer::verify(tool, &left.path().join("data"), &known);
        drop(left);
        if !judge(cut, verdict, &known) {
            break;
        }
        producer.go_on();
    }
    // The image cannot be unmounted while somebody writes to it.
    producer.kill();
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let cuts = std::env::var("EDGE_POWER_CUTS").ok().and_then(|c| c.parse().ok()).unwrap_or(20);
    let mut last = 0;
    cut_power(&[], cuts, |cut, verdict, known| {
        last = verdict.unwrap_or_else(|e| panic!("cut {cut} after {} messages: {e}", known.messages));
        true
    });
    assert!(last > cuts * 50, "the queue did not grow: {last}");
}

/// The test of the test: the same code without `fdatasync` has to be caught.
#[test]
fn the_model_notices_when_fdatasync_is_left_out() {
    let (mut found, mut cuts) = (None, 0);
    cut_power(&["--no-sync"], 40, |cut, verdict, _| {
        cuts = cut + 1;
        found = verdict.err();
        found.is_none()
    });
    let found = found.unwrap_or_else(|| panic!("{cuts} cuts without fdatasync came back clean: the model is blind"));
    println!("found at cut {cuts}: {}", found.lines().next().unwrap_or_default());
}
