//! A disk that gets full is cleared of images that no pod uses, unused for longest first; and an image that was removed under
//! its pod is pulled again. Needs root, loop devices, and Debian's docker-registry, skopeo, busybox-static and umoci.

use std::time::Duration;

use edge_model::Kind;
use edge_runtime::engine::pods;
use edge_runtime::images::{ImageStore, PullOptions, Settings, Source};
use edge_tests::filesystem::Image;
use edge_tests::image::{Layout, layer, noise, text, tool};
use edge_tests::pod_node::{Bench, sh, until};
use edge_tests::registry::{Guard, Registry};
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_the_images_that_no_pod_uses() {
    let mut bench = Bench::new().await;
    let disk = Image::new(bench.dir.path(), "disk", 96 << 20);
    let registry = Registry::start(&bench.dir.path().join("registry"), &Guard::default());
    let host = registry.host();
    let settings = Settings {
        insecure_registries: vec![host.clone()],
        // 10 MiB each: four of them are above the one limit, one less is below the other.
        gc_high_percent: 45,
        gc_low_percent: 40,
        gc_min_age: Duration::ZERO,
        reserve_bytes: 1 << 20,
        ..Settings::default()
    };
    bench.images = ImageStore::open(disk.path().join("images"), settings).await.unwrap();
    let images = bench.images.clone();
    images.import(Source::Path(bench.dir.path().join("oci")), Some("busybox:1")).await.unwrap();
    let layout = |bytes: usize, seed: u64| {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let mut layout = Layout::new(bench.dir.path().join(format!("layout{seed}")));
        let entry = layout.image(architecture, &[layer(&[("noise", &noise(bytes, seed))])]);
        layout.name(&entry, "x");
        layout.dir
    };
    // Nobody uses it, and nobody but the hand that brought it has it.
    images.import(Source::Path(layout(1 << 10, 8)), Some("imported:1")).await.unwrap();
    let add = async |name: &str, seed: u64| {
        let (from, to) = (format!("oci:{}:x", text(&layout(10 << 20, seed))), format!("docker://{host}/{name}"));
        tool("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &from, &to]);
        images.pull(&format!("{host}/{name}"), PullOptions::default()).await.unwrap();
    };
    add("used:1", 1).await;
    add("old:1", 2).await;
    add("new:1", 3).await;
    let names = async || {
        let list = images.list().await.unwrap();
        let short = |i: &edge_runtime::images::Image| {
            let name = &i.references[0];
            name.rsplit('/').next().unwrap_or(name).to_owned()
        };
        let mut names: Vec<String> = list.iter().map(short).collect();
        names.sort_unstable();
        names
    };
    let run = bench.start();
    let node = edge_model::Object::new(Kind::Node, "", "gw", json!({}));
    bench.store.apply(node).await.unwrap();
    bench.apply("web", json!({"terminationGracePeriodSeconds": 0, "containers": [sh("a", "sleep 1000")]})).await;
    bench.running("web").await;
    // Not for this node to run, and yet wanted.
    let waiting = json!({"nodeName": "other", "containers": [{"name": "a", "image": format!("{host}/used:1")}]});
    bench.apply("waiting", waiting).await;
    let nothing = images.make_room(|_| false).await.unwrap();
    assert!(nothing.removed.is_empty() && nothing.before < 45, "there is room: {nothing:?}");
    add("newest:1", 4).await;

    let stop = CancellationToken::new();
    let (users, stopping) = (run.ctx.clone(), stop.clone());
    let collecting = tokio::spawn(async move { pods::collect(&users, stopping).await });
    let told = || {
        let events = bench.store.list(Kind::Event, None).0;
        events.iter().any(|e| {
            let message = e.fields.get("message").and_then(|m| m.as_str()).unwrap_or("").to_owned();
            e.fields.get("reason") == Some(&json!("ImageGCRemoved")) && message.contains(&format!("{host}/old:1 "))
        })
    };
    until(told, || format!("{:?}", bench.store.list(Kind::Event, None).0)).await;
    assert_eq!(names().await, ["busybox:1", "imported:1", "new:1", "newest:1", "used:1"]);
    stop.cancel();
    collecting.await.unwrap();
    // Nothing may go that is used, however full it is.
    let filler = disk.path().join("filler");
    std::fs::write(&filler, noise(40 << 20, 9)).unwrap();
    let stop = CancellationToken::new();
    let (users, stopping) = (run.ctx.clone(), stop.clone());
    let collecting = tokio::spawn(async move { pods::collect(&users, stopping).await });
    let warned = || {
        let events = bench.store.list(Kind::Event, None).0;
        events.iter().any(|e| e.fields.get("reason") == Some(&json!("FreeDiskSpaceFailed")))
    };
    until(warned, || format!("{:?}", bench.store.list(Kind::Event, None).0)).await;
    assert_eq!(names().await, ["busybox:1", "imported:1", "used:1"]);
    stop.cancel();
    collecting.await.unwrap();
    bench.delete("web").await;
    run.stop().await;
    // The disk goes only when nobody has a file open on it.
    bench.images = ImageStore::open(bench.dir.path().join("others"), Settings::default()).await.unwrap();
    drop(bench);
    drop(images);
    drop(registry);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_removed_under_its_pod_is_pulled_again() {
    let mut bench = Bench::new().await;
    let registry = Registry::start(&bench.dir.path().join("registry"), &Guard::default());
    let layout = bench.dir.path().join("oci");
    let (from, image) = (format!("oci:{}:1", text(&layout)), format!("{}/team/app:1", registry.host()));
    tool("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &from, &format!("docker://{image}")]);
    let settings = Settings { insecure_registries: vec![registry.host()], ..Settings::default() };
    bench.images = ImageStore::open(bench.dir.path().join("pulled"), settings).await.unwrap();
    let run = bench.start();
    let mut container = sh("a", "while ! [ -f /end ]; do sleep 0.05; done");
    container["image"] = json!(image);
    bench.apply("app", json!({"terminationGracePeriodSeconds": 0, "containers": [container]})).await;
    bench.running("app").await;
    bench.images.remove(&image).await.unwrap();
    bench.images.gc().await.unwrap();
    assert!(bench.images.resolve(&image).await.unwrap().is_none());
    let root = bench.images.prepared().await.unwrap().remove(0);
    std::fs::write(root.path.join("end"), "").expect("its layers are kept while it runs");
    let ready = |s: &edge_model::pod::PodStatus| s.container_statuses.iter().all(|c| c.ready && c.restart_count == 1);
    bench.wait("app", ready).await;
    assert!(bench.images.resolve(&image).await.unwrap().is_some());
    bench.delete("app").await;
    run.stop().await;
}
