//! The database alone: locks, damage, full disks, compaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn put(key: &str, value: &[u8]) -> Change {
    Change::Put(key.as_bytes().to_vec(), value.to_vec())
}

fn all(database: &mut Database) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    database
        .scan(&[], |key, value| {
            found.push((String::from_utf8_lossy(key).into_owned(), value.len()));
            true
        })
        .unwrap();
    found
}

/// Keeps every core busy while it lives.
struct Load(Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Load {
    fn new(threads: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = || {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
        };
        let threads = (0..threads).map(|_| spin()).collect();
        Load(stop, threads)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// A lock that sled lets go of late was once taken for damage, and good databases were set aside.
#[test]
fn reopening_at_once_never_looks_like_damage() {
    let dir = tempfile::tempdir().unwrap();
    let _load = Load::new(8);
    for n in 0..200u32 {
        let (mut database, opened) = Database::open(dir.path(), Settings::default()).unwrap();
        assert_eq!(opened, if n == 0 { Opened::New } else { Opened::Existing }, "round {n}");
        assert_eq!(database.get(b"n").unwrap(), n.checked_sub(1).map(|n| n.to_be_bytes().to_vec()));
        database.commit(Purpose::Add, &[put("n", &n.to_be_bytes())]).unwrap();
        if n % 2 == 0 {
            database.close();
        }
    }
}

#[test]
fn a_database_in_use_is_not_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { lock_wait_ms: 50, ..Settings::default() };
    let (mut first, _) = Database::open(dir.path(), settings.clone()).unwrap();
    first.commit(Purpose::Add, &[put("a", b"1")]).unwrap();
    let refused = Database::open(dir.path(), settings.clone()).unwrap_err();
    assert!(matches!(refused, DiskError::InUse { .. }), "{refused}");
    first.commit(Purpose::Add, &[put("a", b"2")]).unwrap();
    first.close();
    let (mut again, opened) = Database::open(dir.path(), settings).unwrap();
    assert_eq!(opened, Opened::Existing);
    assert_eq!(again.get(b"a").unwrap().unwrap(), b"2");
}

#[test]
fn waiting_for_the_previous_owner_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = Database::open(dir.path(), Settings::default()).unwrap();
    let path = dir.path().to_owned();
    let second = std::thread::spawn(move || Database::open(&path, Settings::default()).unwrap().1);
    std::thread::sleep(std::time::Duration::from_millis(100));
    first.close();
    assert_eq!(second.join().unwrap(), Opened::Existing);
}

#[test]
fn values_of_any_size_are_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut database, _) = Database::open(dir.path(), Settings::default()).unwrap();
    for size in [0, 1, 6_000, 100_000, 2_000_000, 7_000, 0, 50_000] {
        let value: Vec<u8> = (0..=250).cycle().take(size).collect();
        database.commit(Purpose::Add, &[put("k", &value), put("other", b"x")]).unwrap();
        assert_eq!(database.get(b"k").unwrap().unwrap(), value);
        assert_eq!(all(&mut database), [("k".to_owned(), size), ("other".to_owned(), 1)]);
    }
    database.commit(Purpose::Tidy, &[Change::Delete(b"k".to_vec())]).unwrap();
    assert_eq!(all(&mut database), [("other".to_owned(), 1)]);
    assert_eq!(std::fs::read_dir(dir.path().join("db-1/blobs")).unwrap().count(), 0);
}

#[test]
fn damage_of_every_file_is_survived() {
    for victim in ["db", "conf", "snap", "ready"] {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..3 {
            let (mut database, _) = Database::open(dir.path(), Settings::default()).unwrap();
            database.commit(Purpose::Add, &[put(&format!("k{n}"), &[n; 100])]).unwrap();
            database.close();
        }
        let db = dir.path().join("db-1");
        for entry in std::fs::read_dir(&db).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with(victim) && path.is_file() {
                let len = std::fs::read(&path).unwrap().len();
                std::fs::write(&path, vec![0xa5; len]).unwrap();
            }
        }
        let (mut database, opened) = Database::open(dir.path(), Settings::default()).unwrap();
        match victim {
            // The log is the data: without it nothing is left, and that has to be said.
            "db" => assert!(matches!(opened, Opened::SetAside { .. }), "{victim}: {opened:?}"),
            // The rest is not needed, or says enough when it is damaged.
            "snap" | "ready" => assert_eq!((opened, all(&mut database).len()), (Opened::Existing, 3), "{victim}"),
            _ => assert!(opened != Opened::New, "{victim}: {opened:?}"),
        }
        database.commit(Purpose::Add, &[put("new", b"1")]).unwrap();
    }
}

#[test]
fn a_database_that_was_never_finished_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db-1");
    std::fs::create_dir_all(&db).unwrap();
    std::fs::write(db.join("conf"), b"segm").unwrap();
    std::fs::write(db.join("db"), vec![0xa5; 5000]).unwrap();
    let (mut database, _) = Database::open(dir.path(), Settings::default()).unwrap();
    database.commit(Purpose::Add, &[put("a", b"1")]).unwrap();
    database.close();
    // And one that was finished is kept even if the file that says so is lost.
    std::fs::remove_file(db.join("ready")).unwrap();
    let (mut database, opened) = Database::open(dir.path(), Settings::default()).unwrap();
    assert_eq!((opened, all(&mut database).len()), (Opened::Existing, 1));
}

#[test]
fn an_unfinished_snapshot_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (mut database, _) = Database::open(dir.path(), Settings::default()).unwrap();
    database.commit(Purpose::Add, &[put("a", b"1")]).unwrap();
    database.close();
    std::fs::write(dir.path().join("db-1/snap.FFFFFFFFFFFFFFFF.generating"), b"half").unwrap();
    let (mut database, opened) = Database::open(dir.path(), Settings::default()).unwrap();
    assert_eq!((opened, all(&mut database).len()), (Opened::Existing, 1));
}

#[test]
fn a_process_that_dies_while_opening_does_not_do_so_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (mut database, _) = Database::open(dir.path(), Settings::default()).unwrap();
    database.commit(Purpose::Add, &[put("a", b"1")]).unwrap();
    database.close();
    std::fs::write(dir.path().join("opening"), "2").unwrap();
    assert_eq!(Database::open(dir.path(), Settings::default()).unwrap().1, Opened::Existing);
    std::fs::write(dir.path().join("opening"), "3").unwrap();
    assert!(matches!(Database::open(dir.path(), Settings::default()).unwrap().1, Opened::SetAside { .. }));
    assert_eq!(Database::open(dir.path(), Settings::default()).unwrap().1, Opened::Existing);
}

#[test]
fn compaction_keeps_everything_and_a_crash_in_it_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut database, _) = Database::open(dir.path(), Settings::default()).unwrap();
    for round in 0..40u8 {
        database.commit(Purpose::Add, &[put(&format!("k{}", round % 4), &vec![round; 200_000])]).unwrap();
    }
    let (before, content) = (database.file_bytes(), all(&mut database));
    database.compact().unwrap();
    assert!(database.file_bytes() < before, "{} of {before}", database.file_bytes());
    assert_eq!(all(&mut database), content);
    assert_eq!(database.get(b"k3").unwrap().unwrap(), vec![39; 200_000]);
    database.commit(Purpose::Add, &[put("after", b"1")]).unwrap();
    database.close();
    assert!(!dir.path().join("db-1").exists() && dir.path().join("db-2/db").exists());

    // As a crash leaves it: a copy that was not finished, and an old file that was not removed.
    std::fs::create_dir(dir.path().join("db-3.new")).unwrap();
    std::fs::create_dir(dir.path().join("db-1")).unwrap();
    let (mut database, opened) = Database::open(dir.path(), Settings::default()).unwrap();
    assert_eq!((opened, all(&mut database).len()), (Opened::Existing, 5));
    assert!(!dir.path().join("db-1").exists() && !dir.path().join("db-3.new").exists());
}

#[test]
fn a_commit_can_keep_only_what_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (mut database, _) = Database::open(dir.path(), Settings::default()).unwrap();
    let many: Vec<Change> = (0..200).map(|n| put(&format!("k{n}"), &[7; 20_000])).collect();
    database.commit(Purpose::Add, &many).unwrap();
    let keep = [b"k3".to_vec(), b"k4".to_vec(), b"gone".to_vec()];
    database.commit_only(&keep, 40_000, &[put("new", b"1"), Change::Delete(b"k4".to_vec())]).unwrap();
    assert!(database.file_bytes() < 600_000, "{}", database.file_bytes());
    drop(database);
    let (mut database, opened) = Database::open(dir.path(), Settings::default()).unwrap();
    assert_eq!(opened, Opened::Existing);
    assert_eq!(all(&mut database), [("k3".to_owned(), 20_000), ("new".to_owned(), 1)]);
}

#[test]
fn another_segment_size_is_taken_up_by_compaction_not_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut database, _) = Database::open(dir.path(), Settings::default()).unwrap();
    database.commit(Purpose::Add, &[put("a", &[7; 300_000])]).unwrap();
    database.close();
    let settings = Settings { segment_bytes: 256 << 10, ..Settings::default() };
    let (mut database, opened) = Database::open(dir.path(), settings).unwrap();
    assert_eq!(opened, Opened::Existing);
    database.compact().unwrap();
    assert_eq!(database.get(b"a").unwrap().unwrap(), [7; 300_000]);
    assert_eq!(std::fs::read_dir(dir.path().join("db-2/blobs")).unwrap().count(), 0);
}
