//! The store against a real directory: restarts, failures, migration, set-aside, watches.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::disk::{Change as DiskChange, Database, Opened, Purpose};

fn object(name: &str, n: u64) -> Object {
    Object::new(Kind::ConfigMap, "", name, json!({ "n": n }))
}

fn key(name: &str) -> Key {
    Key::new(Kind::ConfigMap, "", name)
}

fn open(dir: &Path) -> (Store, Report) {
    Store::open(dir, Settings::default()).unwrap()
}

/// Settings with which every commit that adds something finds the disk full.
fn full() -> Settings {
    let mut settings = Settings::default();
    settings.disk.reserve_bytes = u64::MAX / 2;
    settings
}

#[tokio::test]
async fn objects_and_versions_come_back_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let (store, report) = open(dir.path());
    assert_eq!((report.opened, report.objects), (Opened::New, 0));
    let a = store.create(object("a", 1)).await.unwrap();
    store.create(object("b", 1)).await.unwrap();
    store.delete(&key("b"), None).await.unwrap();
    let (c, applied) = store.apply(object("c", 1)).await.unwrap();
    assert_eq!(applied, Applied::Created);
    assert_eq!(store.apply(object("c", 1)).await.unwrap().1, Applied::Unchanged);
    store.close().await;
    assert!(store.create(object("late", 1)).await.is_err());

    let (store, report) = open(dir.path());
    assert_eq!((report.opened, report.objects, report.restored), (Opened::Existing, 2, 0));
    assert_eq!(store.get(&key("a")), Some(a));
    assert_eq!(store.get(&key("c")), Some(Arc::clone(&c)));
    let d = store.create(object("d", 1)).await.unwrap();
    assert!(d.metadata.version() > c.metadata.version());
    store.close().await;
}

#[tokio::test]
async fn a_write_that_fails_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let a = store.create(object("a", 1)).await.unwrap();
    store.close().await;

    let (store, _) = Store::open(dir.path(), full()).unwrap();
    let (_, version) = store.list(Kind::ConfigMap, None);
    let mut watch = store.watch(Filter::default(), version);
    for error in [
        store.create(object("b", 1)).await.unwrap_err(),
        store.replace(object("a", 2)).await.unwrap_err(),
        store.set_status(&key("a"), &a.metadata.uid, json!(1), Durability::Now).await.unwrap_err(),
    ] {
        let StoreError::Disk(source) = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    }
    assert_eq!(store.list(Kind::ConfigMap, None), (vec![a], version));
    // Nothing but the delete, which needs no space, may be seen.
    store.delete(&key("a"), None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().change, Change::Deleted);
    store.close().await;
}

#[tokio::test]
async fn a_lazy_status_is_seen_at_once_and_written_at_close() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let a = store.create(object("a", 1)).await.unwrap();
    for n in 0..100 {
        let lazy = store.set_status(&key("a"), &a.metadata.uid, json!({ "n": n }), Durability::Lazy).await.unwrap();
        assert_eq!(store.get(&key("a")), Some(lazy));
    }
    store.close().await;
    let (store, _) = open(dir.path());
    assert_eq!(store.get(&key("a")).unwrap().status(), &json!({ "n": 99 }));
    store.close().await;
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_the_objects_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let a = store.create(object("a", 1)).await.unwrap();
    store.close().await;
    let last = a.metadata.version();

    for round in 1..=3u64 {
        let db = dir.path().join("db-1/db");
        let mut bytes = std::fs::read(&db).unwrap();
        bytes[20..].fill(0x5a);
        std::fs::write(&db, bytes).unwrap();
        let (store, report) = open(dir.path());
        assert!(matches!(report.opened, Opened::SetAside { .. }), "{report:?}");
        assert_eq!(report.restored, 1);
        assert_eq!(store.get(&key("a")).unwrap().spec(), a.spec());
        let b = store.apply(object("b", round)).await.unwrap().0;
        assert!(b.metadata.version() > last, "versions never go backwards");
        store.delete(&key("b"), None).await.unwrap();
        store.close().await;
    }
    let aside = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("corrupt-"));
    assert_eq!(aside.count(), 1, "old ones do not pile up");
}

/// The snapshot is minutes old when the database is lost; what was deleted in these minutes must not come back.
#[tokio::test]
async fn what_was_deleted_does_not_come_back_with_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for name in ["a", "b", "c"] {
        store.create(object(name, 1)).await.unwrap();
    }
    // Closing writes the snapshot.
    store.close().await;
    let (store, _) = open(dir.path());
    store.delete(&key("a"), None).await.unwrap();
    store.delete(&key("b"), None).await.unwrap();
    store.create(object("b", 2)).await.unwrap();
    let at_power_cut = dir.path().join("cut");
    std::fs::create_dir(&at_power_cut).unwrap();
    for name in ["objects.snapshot", "objects.deleted", "version"] {
        std::fs::copy(dir.path().join(name), at_power_cut.join(name)).unwrap();
    }
    store.close().await;
    // Of the database nothing is left.
    let (store, report) = open(&at_power_cut);
    let names: Vec<_> = store.list(Kind::ConfigMap, None).0.iter().map(|o| o.metadata.name.clone()).collect();
    assert_eq!((names, report.objects), (vec!["c".to_owned()], 1));
    store.close().await;
    // Nor does it later, and the note is gone with the next snapshot.
    let (store, _) = open(&at_power_cut);
    assert_eq!(store.get(&key("a")), None);
    store.create(object("a", 3)).await.unwrap();
    store.close().await;
    assert_eq!(std::fs::metadata(at_power_cut.join("objects.deleted")).unwrap().len(), 0);
    let (store, _) = open(&at_power_cut);
    assert!(store.get(&key("a")).is_some());
    store.close().await;
}

#[tokio::test]
async fn a_store_of_schema_one_is_migrated_once() {
    let dir = tempfile::tempdir().unwrap();
    let fixture: BTreeMap<String, Value> = serde_json::from_str(include_str!("fixtures/schema-1.json")).unwrap();
    let (mut database, _) = Database::open(dir.path(), crate::disk::Settings::default()).unwrap();
    let changes: Vec<DiskChange> =
        fixture.iter().map(|(k, v)| DiskChange::Put(k.clone().into_bytes(), v.to_string().into_bytes())).collect();
    database.commit(Purpose::Add, &changes).unwrap();
    database.close();

    for migrated_from in [Some(1), None] {
        let (store, report) = open(dir.path());
        assert_eq!(report.migrated_from, migrated_from);
        assert_eq!((report.objects, report.unreadable), (fixture.len(), 0));
        for value in fixture.values() {
            let wanted = Object::from_json(value.clone()).unwrap();
            assert_eq!(*store.get(&wanted.key()).unwrap(), wanted);
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_store_of_a_later_release_is_refused_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut database, _) = Database::open(dir.path(), crate::disk::Settings::default()).unwrap();
    database.commit(Purpose::Add, &[DiskChange::Put(b"m/schema".to_vec(), b"99".to_vec())]).unwrap();
    database.close();
    let refused = Store::open(dir.path(), Settings::default()).err().unwrap();
    assert!(matches!(refused, OpenError::Newer { found: 99, known: SCHEMA }), "{refused}");
}

#[tokio::test]
async fn large_objects_come_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let big: String = (0..1_000_000u32).map(|i| char::from(b'a' + (i * 7 % 26) as u8)).collect();
    for round in ["one", "two"] {
        let data = Object::new(Kind::ConfigMap, "", "big", json!({ "text": big, "round": round }));
        store.apply(data).await.unwrap();
    }
    store.close().await;
    assert_eq!(std::fs::read_dir(dir.path().join("db-1/blobs")).unwrap().count(), 0, "blob files are never synced");
    let (store, _) = open(dir.path());
    let back = store.get(&key("big")).unwrap();
    assert_eq!(back.spec(), &json!({ "text": big, "round": "two" }));
    store.close().await;
}

#[tokio::test]
async fn conflicting_writers_do_not_overwrite_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.create(object("counter", 0)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                loop {
                    let mut next = (*store.get(&key("counter")).unwrap()).clone();
                    let n = next.spec()["n"].as_u64().unwrap();
                    next.fields.insert("spec".to_owned(), json!({ "n": n + 1 }));
                    match store.replace(next).await {
                        Ok(_) => break,
                        Err(StoreError::Conflict { .. }) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(store.get(&key("counter")).unwrap().spec(), &json!({ "n": 80 }));
    store.close().await;
}

/// Follows a watch from the beginning and lists anew when told to; what it has must end up as what the store has.
async fn follow(store: Store, until: String) -> BTreeMap<Key, u64> {
    'list: loop {
        let (objects, version) = store.list(Kind::ConfigMap, None);
        let mut seen: BTreeMap<Key, u64> = objects.iter().map(|o| (o.key(), o.metadata.version())).collect();
        if seen.contains_key(&key(&until)) {
            return seen;
        }
        let mut watch = store.watch(Filter::kind(Kind::ConfigMap), version);
        let mut last = version;
        loop {
            match watch.next().await {
                Err(StoreError::Expired(_)) => continue 'list,
                Err(error) => panic!("{error}"),
                Ok(event) => {
                    assert!(event.version > last, "in order");
                    last = event.version;
                    let key = event.object.key();
                    let known = match event.change {
                        Change::Deleted => seen.remove(&key),
                        Change::Added | Change::Modified => seen.insert(key.clone(), event.version),
                    };
                    assert_eq!(known.is_none(), event.change == Change::Added, "{:?} of {key}", event.change);
                    if key.name == until {
                        return seen;
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_watcher_misses_anything_while_many_write() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let watchers: Vec<_> = (0..4).map(|_| tokio::spawn(follow(store.clone(), "zz-end".to_owned()))).collect();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..6u64 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..60u64 {
                let name = format!("o{}", (writer + n) % 5);
                match n % 4 {
                    0 | 1 => drop(store.apply(object(&name, n * 10 + writer)).await.unwrap()),
                    2 => {
                        if let Some(o) = store.get(&key(&name)) {
                            let status = json!({ "by": writer, "n": n });
                            let _ = store.set_status(&key(&name), &o.metadata.uid, status, Durability::Lazy).await;
                        }
                    }
                    _ => drop(store.delete(&key(&name), None).await),
                }
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    store.create(object("zz-end", 0)).await.unwrap();
    let (objects, _) = store.list(Kind::ConfigMap, None);
    let truth: BTreeMap<Key, u64> = objects.iter().map(|o| (o.key(), o.metadata.version())).collect();
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), truth);
    }
    store.close().await;

    // And what is on disk is what was seen.
    let (store, _) = open(dir.path());
    let (objects, _) = store.list(Kind::ConfigMap, None);
    let again: BTreeMap<Key, u64> = objects.iter().map(|o| (o.key(), o.metadata.version())).collect();
    assert_eq!(again, truth);
    store.close().await;
}

#[tokio::test]
async fn a_watcher_that_is_too_far_behind_is_told() {
    let store = Store::in_memory();
    for n in 0..40 {
        store.apply(object("a", n)).await.unwrap();
    }
    let mut late = store.watch(Filter::default(), 0);
    assert!(matches!(late.next().await, Err(StoreError::Expired(0))));
    // One that is there keeps its place, however far behind, up to a thousand changes.
    let (_, version) = store.list(Kind::ConfigMap, None);
    let mut slow = store.watch(Filter::default(), version);
    for n in 0..500 {
        store.apply(object("a", 1000 + n)).await.unwrap();
    }
    for n in 0..500 {
        assert_eq!(slow.next().await.unwrap().object.spec(), &json!({ "n": 1000 + n }));
    }
}
