//! Power cuts: what was acknowledged is there afterwards, whole. Needs root and loop devices.
//!
//! As for the queue: the writer is stopped in the middle of whatever it does, and what has reached the device by then is
//! looked at as another file system. kill -9 would show nothing of this, the kernel keeps what a process has written.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use edge_runtime::images::{BuildFile, ImageConfig, ImageStore, Settings};
use edge_tests::filesystem::Image;
use edge_tests::image::noise;
use edge_tests::wait::until;
use tempfile::TempDir;

use super::pull::Process;

/// Where the writer writes: the store, and the list of what was acknowledged, which stands on another disk.
const CHILD: &str = "EDGE_IMAGES_WRITE";
/// How many images the writer keeps; older ones are removed and collected.
const KEPT: usize = 6;
const CYCLES: usize = 10;

fn settings() -> Settings {
    Settings { reserve_bytes: 0, ..Settings::default() }
}

fn content(number: usize) -> Vec<u8> {
    noise(60_000 + number, number as u64)
}

/// Not a test of its own: the writer, until it is killed.
#[tokio::test]
async fn writer_in_a_process_of_its_own() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let (dir, list) = line.split_once(' ').unwrap();
    let store = ImageStore::open(dir, settings()).await.unwrap();
    let mut list = fs::File::create(list).unwrap();
    let source = tempfile::NamedTempFile::new().unwrap();
    for number in 0.. {
        fs::write(source.path(), content(number)).unwrap();
        let file = BuildFile { path: "/data".into(), source: source.path().into(), mode: 0o644 };
        store.build(&format!("app:{number}"), vec![file], ImageConfig::default()).await.unwrap();
        store.tag(&format!("app:{number}"), "app:current").await.unwrap();
        writeln!(list, "{number}").unwrap();
        if let Some(old) = number.checked_sub(KEPT) {
            store.remove(&format!("app:{old}")).await.unwrap();
            store.gc().await.unwrap();
        }
    }
}

fn acknowledged(list: &Path) -> Option<usize> {
    let text = fs::read_to_string(list).ok()?;
    text.rsplit_once('\n')?.0.lines().last()?.parse().ok()
}

fn signal(process: &Process, signal: &str) {
    let done = Command::new("kill").args([signal, &process.0.id().to_string()]).status().unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn acknowledged_images_survive_power_cuts() {
    let dir = TempDir::new().unwrap();
    let disk = Image::new(dir.path(), "images", 96 << 20);
    let list = dir.path().join("list");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "power::writer_in_a_process_of_its_own"]);
    command.env(CHILD, format!("{} {}", disk.path().join("store").display(), list.display()));
    let process = Process(command.stdout(Stdio::null()).spawn().unwrap());
    let mut last = 0;
    for cycle in 0..CYCLES {
        // Some more each time, so that the cuts fall into different moments.
        let enough = last + 1 + cycle % 3;
        until("more images are acknowledged", || acknowledged(&list).filter(|n| *n >= enough));
        signal(&process, "-STOP");
        last = acknowledged(&list).unwrap();
        let cut = disk.cut(dir.path(), "cut");
        signal(&process, "-CONT");
        let store = ImageStore::open(cut.path().join("store"), settings()).await.unwrap();
        assert!(!cut.path().join("store/index.json.damaged").exists());
        for number in last.saturating_sub(KEPT - 2)..=last {
            let image = store.resolve(&format!("app:{number}")).await.unwrap();
            let image = image.unwrap_or_else(|| panic!("app:{number} of {last} is lost after cut {cycle}"));
            let layer = cut.path().join("store/layers").join(image.layers[0].hex());
            assert!(fs::read(layer.join("fs/data")).unwrap() == content(number), "app:{number} is damaged");
        }
        assert!(store.resolve("app:current").await.unwrap().is_some());
        // Whatever else is there is whole as well.
        for image in store.list().await.unwrap() {
            let layer = cut.path().join("store/layers").join(image.layers[0].hex());
            let tag = image.references.iter().find_map(|r| r.rsplit(':').next()?.parse::<usize>().ok());
            if let Some(number) = tag {
                assert!(fs::read(layer.join("fs/data")).unwrap() == content(number));
            }
        }
    }
}
