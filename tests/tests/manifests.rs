//! The folder of manifests: what is in it is wanted, however it comes, changes and goes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_model::{Key, Kind, Object};
use edge_runtime::events::{self, Recorder};
use edge_runtime::manifests::{self, ANNOTATION, FileState, Seen};
use edge_runtime::store::Store;
use edge_tests::wait;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The unit over a folder, ended when dropped.
struct Watched {
    runtime: Option<tokio::runtime::Runtime>,
    stop: CancellationToken,
    store: Store,
    seen: Seen,
    folder: tempfile::TempDir,
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{x: \"{value}\"}}\n---\n")
}

/// Starts the unit on `manifests` in a folder that `prepare` has filled, and waits until it has looked once.
fn watch(store: Store, prepare: impl FnOnce(&Path)) -> Watched {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    start(store, folder)
}

fn start(store: Store, folder: tempfile::TempDir) -> Watched {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (stop, seen) = (CancellationToken::new(), Seen::default());
    let (recorder, mut inbox): (Recorder, _) = events::channel("manifests");
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    {
        let settings = manifests::Settings { folder: folder.path().join("manifests") };
        let (store, seen, stop) = (store.clone(), seen.clone(), stop.clone());
        runtime.spawn(async move {
            let ready = move || ready.send(()).unwrap();
            manifests::run(&settings, &store, &recorder, &seen, ready, stop).await;
        });
    }
    {
        let (store, stop) = (store.clone(), stop.clone());
        runtime.spawn(async move {
            let (bus, settings) = (edge_runtime::bus::Bus::in_memory(), events::Settings::default());
            events::run(&mut inbox, &store, &bus, "gw", &settings, stop).await;
        });
    }
    runtime.block_on(is_ready).unwrap();
    Watched { runtime: Some(runtime), stop, store, seen, folder }
}

impl Watched {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("manifests").join(name)
    }

    /// Puts a file in its place at once, as a deployment does.
    fn put(&self, name: &str, text: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    fn value(&self, name: &str) -> Option<String> {
        let object = self.store.get(&Key::new(Kind::ConfigMap, "", name))?;
        Some(object.fields["data"]["x"].as_str()?.to_owned())
    }

    fn until_value(&self, name: &str, value: Option<&str>) {
        wait::until_or(
            wait::DEADLINE,
            &format!("{name} is {value:?}"),
            || format!("{:?}", self.seen.files()),
            || (self.value(name).as_deref() == value).then_some(()),
        );
    }

    fn until_problem(&self, file: &str, part: &str) -> FileState {
        wait::until_or(
            wait::DEADLINE,
            &format!("{file} has a problem with {part:?}"),
            || format!("{:?}", self.seen.files()),
            || self.seen.files().get(file).filter(|f| f.problems.iter().any(|p| p.contains(part))).cloned(),
        )
    }

    fn end(mut self) -> (Store, tempfile::TempDir) {
        self.stop.cancel();
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(60));
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        (self.store.clone(), folder)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(60));
        }
    }
}

fn with_folder(root: &Path) {
    fs::create_dir(root.join("manifests")).unwrap();
}

#[test]
fn what_is_there_at_the_start_is_applied_and_what_went_meanwhile_is_removed() {
    let node = watch(Store::in_memory(), |root| {
        with_folder(root);
        fs::write(root.join("manifests/a.yaml"), config_map("a", "1") + &config_map("b", "1")).unwrap();
        fs::write(
            root.join("manifests/b.json"),
            r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "j"}, "data": {"x": "1"}}"#,
        )
        .unwrap();
        fs::write(root.join("manifests/readme.txt"), "not a manifest").unwrap();
    });
    assert_eq!(node.value("a").as_deref(), Some("1"), "applied before the unit is ready");
    assert_eq!(node.value("j").as_deref(), Some("1"));
    let object = node.store.get(&Key::new(Kind::ConfigMap, "", "a")).unwrap();
    assert_eq!(object.metadata.annotations[ANNOTATION], "a.yaml");
    assert_eq!(node.seen.files()["a.yaml"], FileState { objects: 2, problems: vec![] });
    let (store, folder) = node.end();
    fs::remove_file(folder.path().join("manifests/b.json")).unwrap();
    fs::write(folder.path().join("manifests/a.yaml"), config_map("a", "2")).unwrap();
    let node = start(store, folder);
    assert_eq!((node.value("a").as_deref(), node.value("b"), node.value("j")), (Some("2"), None, None));
}

#[test]
fn changes_arrive_however_they_are_made() {
    let node = watch(Store::in_memory(), with_folder);
    // In place, as `cp` and `echo` do.
    fs::write(node.path("a.yaml"), config_map("a", "1")).unwrap();
    node.until_value("a", Some("1"));
    // By rename, as editors and deployments do.
    node.put("a.yaml", &config_map("a", "2"));
    node.until_value("a", Some("2"));
    // An editor's own files are not manifests.
    fs::write(node.path(".b.yaml.swp"), config_map("swp", "1")).unwrap();
    fs::write(node.path("b.yaml~"), config_map("backup", "1")).unwrap();
    // By a link to a file elsewhere, and a change there.
    let elsewhere = node.folder.path().join("elsewhere.yaml");
    fs::write(&elsewhere, config_map("linked", "1")).unwrap();
    symlink(&elsewhere, node.path("link.yaml")).unwrap();
    node.until_value("linked", Some("1"));
    fs::write(&elsewhere, config_map("linked", "2")).unwrap();
    node.until_value("linked", Some("2"));
    // An object leaves its file; then the file goes.
    node.put("a.yaml", &(config_map("a", "2") + &config_map("c", "1")));
    node.until_value("c", Some("1"));
    node.put("a.yaml", &config_map("a", "2"));
    node.until_value("c", None);
    fs::remove_file(node.path("a.yaml")).unwrap();
    node.until_value("a", None);
    // Renamed away, it is gone, too; renamed to another manifest, it stays.
    node.put("d.yaml", &config_map("d", "1"));
    node.until_value("d", Some("1"));
    let uid = node.store.get(&Key::new(Kind::ConfigMap, "", "d")).unwrap().metadata.uid.clone();
    fs::rename(node.path("d.yaml"), node.path("e.yaml")).unwrap();
    wait::until_true("d belongs to e.yaml", || node.seen.files().contains_key("e.yaml"));
    assert_eq!(node.store.get(&Key::new(Kind::ConfigMap, "", "d")).unwrap().metadata.uid, uid);
    fs::rename(node.path("e.yaml"), node.path("e.yaml.off")).unwrap();
    node.until_value("d", None);
    assert_eq!((node.value("swp"), node.value("backup")), (None, None));
}

#[test]
fn a_volume_of_kubernetes_is_swapped_at_once() {
    let node = watch(Store::in_memory(), |root| {
        with_folder(root);
        let folder = root.join("manifests");
        fs::create_dir(folder.join("..1")).unwrap();
        fs::write(folder.join("..1/a.yaml"), config_map("a", "1")).unwrap();
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/a.yaml", folder.join("a.yaml")).unwrap();
    });
    assert_eq!(node.value("a").as_deref(), Some("1"));
    fs::create_dir(node.path("..2")).unwrap();
    fs::write(node.path("..2/a.yaml"), config_map("a", "2")).unwrap();
    symlink("..2", node.path("..data_tmp")).unwrap();
    fs::rename(node.path("..data_tmp"), node.path("..data")).unwrap();
    node.until_value("a", Some("2"));
}

#[test]
fn the_folder_may_come_later_and_go_for_a_while() {
    let node = watch(Store::in_memory(), |_| {});
    assert!(node.seen.files().is_empty());
    fs::create_dir(node.folder.path().join("manifests")).unwrap();
    fs::write(node.path("a.yaml"), config_map("a", "1")).unwrap();
    node.until_value("a", Some("1"));
    // A folder that is gone (an unmounted disk) changes nothing.
    let away = node.folder.path().join("away");
    fs::rename(node.folder.path().join("manifests"), &away).unwrap();
    fs::write(away.join("a.yaml"), config_map("a", "2")).unwrap();
    fs::write(away.join("b.yaml"), config_map("b", "1")).unwrap();
    fs::rename(&away, node.folder.path().join("manifests")).unwrap();
    node.until_value("a", Some("2"));
    node.until_value("b", Some("1"));
}

#[test]
fn a_wrong_file_keeps_what_it_had_and_says_where() {
    let node = watch(Store::in_memory(), with_folder);
    node.put("a.yaml", &config_map("a", "1"));
    node.until_value("a", Some("1"));
    node.put(
        "a.yaml",
        &format!("{}apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\ndta: {{}}\n", config_map("a", "2")),
    );
    let state = node.until_problem("a.yaml", "a.yaml:10:1: dta: unknown field, did you mean data?");
    assert_eq!(state.objects, 0);
    assert_eq!(node.value("a").as_deref(), Some("1"), "the previous objects stay");
    wait::until("an event tells of it", || {
        let (events, _) = node.store.list(Kind::Event, None);
        let text = |o: &Object, f: &str| o.fields.get(f).and_then(Value::as_str).unwrap_or_default().to_owned();
        events.iter().find(|e| text(e, "message").contains("a.yaml:10:1") && text(e, "reason") == "Refused").cloned()
    });
    // Somebody else's file cannot take what the broken one holds.
    node.put("b.yaml", &config_map("a", "3"));
    node.until_problem("b.yaml", "is in a.yaml already");
    node.put("a.yaml", "");
    node.until_value("a", Some("3"));
    wait::until_true("b.yaml is right", || node.seen.files()["b.yaml"].problems.is_empty());
    // The first of two files has an object.
    node.put("0.yaml", &config_map("a", "0"));
    node.until_value("a", Some("0"));
    node.until_problem("b.yaml", "b.yaml:1: configmaps/default/a is in 0.yaml:1 already, which comes first");
    fs::remove_file(node.path("0.yaml")).unwrap();
    node.until_value("a", Some("3"));
}

#[test]
fn other_doors_are_left_alone() {
    let node = watch(Store::in_memory(), with_folder);
    let mut object = Object::new(Kind::ConfigMap, "", "by-hand", Value::Null);
    object.fields.clear();
    object.fields.insert("data".into(), json!({"x": "hand"}));
    node.runtime.as_ref().unwrap().block_on(node.store.apply(object)).unwrap();
    node.put("a.yaml", &config_map("a", "1"));
    node.until_value("a", Some("1"));
    fs::remove_file(node.path("a.yaml")).unwrap();
    node.until_value("a", None);
    assert_eq!(node.value("by-hand").as_deref(), Some("hand"));
}
