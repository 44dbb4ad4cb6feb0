//! The image store with images made by umoci and carried by skopeo: archives, platforms, layers, mounts, crashes.
//!
//! Needs root (overlay mounts) and the packages umoci, skopeo, busybox-static, docker-registry and zstd; fails where they are missing.

#[path = "images/power.rs"]
mod power;
#[path = "images/pull.rs"]
mod pull;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use edge_runtime::images::{Error, Image, ImageStore, Prepared, RootOptions, Settings, Source};
use edge_tests::image::{Layout, busybox, layer, text, tool, umoci};
use tempfile::TempDir;

/// What the second layer of the images here does to the first.
fn second(root: &Path) {
    fs::remove_file(root.join("etc/second")).unwrap();
    fs::remove_dir_all(root.join("etc/dir")).unwrap();
    fs::create_dir(root.join("etc/dir")).unwrap();
    fs::write(root.join("etc/dir/new"), "2").unwrap();
    fs::write(root.join("etc/third"), "2").unwrap();
}

fn check_root(root: &Path) {
    let read = |name: &str| fs::read_to_string(root.join("etc").join(name)).ok();
    let seen = ["first", "second", "third", "dir/old", "dir/new"].map(read);
    assert_eq!(seen.each_ref().map(|s| s.as_deref()), [Some("1"), None, Some("2"), None, Some("2")]);
    let mut names: Vec<_> = fs::read_dir(root.join("etc")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dir", "first", "third"]);
    let out = Command::new("chroot").arg(root).args(["/bin/sh", "-c", "echo runs"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "runs\n");
}

async fn check_image(store: &ImageStore, image: &Image) {
    assert_eq!((image.config.entrypoint.as_slice(), image.layers.len()), (&["/bin/sh".to_owned()][..], 2));
    assert_eq!((image.config.working_dir.as_str(), image.config.env.contains(&"A=b".into())), ("/srv", true));
    let root = store.prepare(image, "checked", RootOptions::default()).await.unwrap();
    check_root(&root.path);
    store.release("checked").await.unwrap();
}

#[tokio::test]
async fn every_kind_of_archive_becomes_the_same_root() {
    let dir = TempDir::new().unwrap();
    let layout = umoci(dir.path(), &[&busybox, &second]);
    let from = format!("oci:{}:latest", text(&layout));
    let at = |name: &str| dir.path().join(name);
    let copy = |to: &str, more: &[&str]| tool("skopeo", &[&["copy", "--quiet"], more, &[&from, to]].concat());
    copy(&format!("oci-archive:{}:latest", text(&at("oci.tar"))), &[]);
    copy(&format!("docker-archive:{}:example.org/app:1", text(&at("docker.tar"))), &[]);
    copy(&format!("oci:{}:example.org/app:1", text(&at("zstd"))), &["--dest-compress-format", "zstd"]);
    let plain = ["--dest-oci-accept-uncompressed-layers", "--dest-decompress"];
    copy(&format!("oci:{}:app", text(&at("plain"))), &plain);
    tool("gzip", &["-k", text(&at("docker.tar"))]);
    tool("zstd", &["-q", text(&at("oci.tar"))]);

    let store = ImageStore::open(at("store"), Settings::default()).await.unwrap();
    let mut seen = Vec::new();
    for (path, reference) in [
        ("layout", "localhost/layout:latest"),
        ("zstd", "example.org/app:1"),
        ("plain", "localhost/plain:app"),
        ("oci.tar", "localhost/oci:latest"),
        ("docker.tar", "example.org/app:1"),
        ("docker.tar.gz", "example.org/app:1"),
        ("oci.tar.zst", "localhost/oci:latest"),
    ] {
        let images = store.import(Source::Path(at(path)), None).await.unwrap_or_else(|e| panic!("{path}: {e:?}"));
        let [image] = images.as_slice() else { panic!("{path}: {images:?}") };
        assert!(image.references.iter().any(|r| r == reference), "{path}: {:?}", image.references);
        assert_eq!(store.resolve(reference).await.unwrap().as_ref(), Some(image), "{path}");
        check_image(&store, image).await;
        seen.push(image.layers.clone());
    }
    // The same content is the same layers, however it came.
    assert!(seen.iter().all(|layers| *layers == seen[0]));
    assert_eq!(store.usage().await.unwrap().layers, 2);

    let reader = || Source::Reader(Box::new(fs::File::open(at("oci.tar")).unwrap()));
    assert!(matches!(store.import(reader(), None).await, Err(Error::Unnamed)));
    let images = store.import(reader(), Some("given:3")).await.unwrap();
    assert!(images[0].references.contains(&"docker.io/library/given:3".to_owned()));
    for garbage in [&b"garbage"[..], b"", &[0; 2048], b"\x1f\x8b garbage", b"{}"] {
        fs::write(at("garbage"), garbage).unwrap();
        assert!(store.import(Source::Path(at("garbage")), None).await.is_err());
        assert!(store.import(Source::Reader(Box::new(garbage)), Some("a")).await.is_err());
    }
    assert_eq!(fs::read_dir(at("store/tmp")).unwrap().count(), 0);
}

/// `docker save` before Docker 25: a folder per layer, repeated layers as symbolic links, `null` for what is empty.
#[tokio::test]
async fn an_old_docker_save_archive_is_read() {
    let dir = TempDir::new().unwrap();
    let one = layer(&[("a", b"1")]);
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Cmd":["/a"],"Entrypoint":null,"Env":null}},
        "rootfs":{{"type":"layers","diff_ids":["sha256:{h}","sha256:{h}"]}}}}"#,
        native(),
        h = edge_tests::image::hex(&one)
    );
    let name = format!("{}.json", edge_tests::image::hex(config.as_bytes()));
    let manifest =
        format!(r#"[{{"Config":"{name}","RepoTags":["app:1","app:2"],"Layers":["x/layer.tar","y/layer.tar"]}}]"#);
    let tree = dir.path().join("tree");
    for folder in ["x", "y"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    fs::write(tree.join("x/layer.tar"), one).unwrap();
    std::os::unix::fs::symlink("../x/layer.tar", tree.join("y/layer.tar")).unwrap();
    fs::write(tree.join(&name), &config).unwrap();
    fs::write(tree.join("manifest.json"), manifest).unwrap();
    let archive = dir.path().join("old.tar");
    tool("tar", &["-cf", text(&archive), "-C", text(&tree), "."]);
    let store = ImageStore::open(dir.path().join("store"), Settings::default()).await.unwrap();
    let images = store.import(Source::Path(archive), None).await.unwrap();
    assert_eq!(images[0].references, ["docker.io/library/app:1", "docker.io/library/app:2"]);
    assert_eq!((images[0].layers.len(), images[0].config.cmd.as_slice()), (2, &["/a".to_owned()][..]));
}

fn native() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[tokio::test]
async fn the_image_for_this_machine_is_chosen() {
    let dir = TempDir::new().unwrap();
    let mut layout = Layout::new(dir.path().join("layout"));
    let each = ["s390x", native(), "riscv64"].map(|a| layout.image(a, &[layer(&[("for", a.as_bytes())])]));
    layout.name_all(&each, "app:all");
    layout.name_all(&[each[0].clone(), each[2].clone()], "app:others");
    let store = ImageStore::open(dir.path().join("store"), Settings::default()).await.unwrap();
    let error = store.import(Source::Path(layout.dir.clone()), None).await.unwrap_err().to_string();
    assert_eq!(error, format!("image is not for linux/{}: it has linux/s390x, linux/riscv64", native()));

    let mut layout = Layout::new(layout.dir);
    layout.name_all(&each, "app:all");
    let images = store.import(Source::Path(layout.dir.clone()), None).await.unwrap();
    let root = store.prepare(&images[0], "one", RootOptions::default()).await.unwrap();
    assert_eq!(fs::read_to_string(root.path.join("for")).unwrap(), native());
    store.release("one").await.unwrap();

    // An image that is for another machine, whatever its index says of it.
    let mut layout = Layout::new(dir.path().join("lying"));
    let entry = layout.image("s390x", &[layer(&[("a", b"")])]);
    layout.name(&entry.replace(r#""architecture":"s390x""#, &format!(r#""architecture":"{}""#, native())), "app:lying");
    assert!(matches!(store.import(Source::Path(layout.dir), None).await, Err(Error::Platform { .. })));
}

#[tokio::test]
async fn an_image_of_130_layers_is_mounted() {
    let dir = TempDir::new().unwrap();
    let mut layout = Layout::new(dir.path().join("layout"));
    let layers: Vec<Vec<u8>> =
        (0..130).map(|i: u32| layer(&[("top", i.to_string().as_bytes()), (&format!("only/{i}"), b"x")])).collect();
    let entry = layout.image(native(), &layers);
    layout.name(&entry, "app:deep");
    // A long path with what overlayfs takes for separators in it.
    let store_dir = dir.path().join("a:long,path\\with everything/in it/".repeat(3));
    let store = ImageStore::open(&store_dir, Settings::default()).await.unwrap();
    let images = store.import(Source::Path(layout.dir.clone()), None).await.unwrap();
    let root = store.prepare(&images[0], "deep", RootOptions::default()).await.unwrap();
    assert_eq!(fs::read_to_string(root.path.join("top")).unwrap(), "129");
    assert_eq!(fs::read_dir(root.path.join("only")).unwrap().count(), 130);
    assert!(store.prepared().await.unwrap()[0].mounted);
    store.release("deep").await.unwrap();
    drop(store);
    let few = Settings { max_layers: 129, ..Settings::default() };
    let store = ImageStore::open(dir.path().join("few"), few).await.unwrap();
    assert!(matches!(store.import(Source::Path(layout.dir), None).await, Err(Error::TooBig { limit: 129, .. })));
}

async fn small_image(store: &ImageStore, dir: &Path) -> Image {
    let mut layout = Layout::new(dir.join("small"));
    let entry = layout.image(native(), &[layer(&[("etc/a", b"1"), ("etc/b", b"1")])]);
    layout.name(&entry, "small:1");
    store.import(Source::Path(layout.dir), None).await.unwrap().remove(0)
}

fn mounted(prepared: &[Prepared]) -> Vec<(&str, bool)> {
    prepared.iter().map(|p| (p.container_id.as_str(), p.mounted)).collect()
}

#[tokio::test]
async fn roots_outlive_the_store_and_are_fresh_when_prepared_again() {
    let dir = TempDir::new().unwrap();
    let at = dir.path().join("store");
    let store = ImageStore::open(&at, Settings::default()).await.unwrap();
    let image = small_image(&store, dir.path()).await;
    let root = store.prepare(&image, "one", RootOptions::default()).await.unwrap();
    let elsewhere = RootOptions { writable_dir: Some(dir.path().join("elsewhere")), read_only: false };
    store.prepare(&image, "two", elsewhere.clone()).await.unwrap();
    fs::write(root.path.join("etc/a"), "written").unwrap();
    // As after kill -9: nothing released, the store opened again.
    drop(store);
    let store = ImageStore::open(&at, Settings::default()).await.unwrap();
    let prepared = store.prepared().await.unwrap();
    assert_eq!(mounted(&prepared), [("one", true), ("two", true)]);
    assert_eq!((prepared[0].image, &prepared[0].path), (Some(image.digest), &root.path));
    assert_eq!(fs::read_to_string(root.path.join("etc/a")).unwrap(), "written");

    // What a running container is made of is not collected, whatever becomes of the image.
    store.remove("small:1").await.unwrap();
    assert_eq!(store.gc().await.unwrap().layers, 0);
    assert_eq!(fs::read_to_string(root.path.join("etc/b")).unwrap(), "1");

    // As after a reboot: the mounts are gone, what was written is not. A root prepared anew does not have it.
    tool("umount", &[text(&root.path)]);
    assert_eq!(mounted(&store.prepared().await.unwrap()), [("one", false), ("two", true)]);
    let root = store.prepare(&image, "one", RootOptions::default()).await.unwrap();
    assert_eq!(fs::read_to_string(root.path.join("etc/a")).unwrap(), "1");
    // The same without a reboot, as when a container is restarted; and with what it wrote elsewhere.
    fs::write(root.path.join("etc/a"), "again").unwrap();
    let root = store.prepare(&image, "one", RootOptions::default()).await.unwrap();
    assert_eq!(fs::read_to_string(root.path.join("etc/a")).unwrap(), "1");
    assert!(dir.path().join("elsewhere/two/upper").is_dir());

    for id in ["one", "two", "never there"] {
        let released = store.release(&id.replace(' ', "-")).await;
        assert!(released.is_ok(), "{id}: {released:?}");
    }
    assert!(store.prepared().await.unwrap().is_empty());
    assert!(!dir.path().join("elsewhere/two").exists());
    assert_eq!(store.gc().await.unwrap().layers, 1);
    assert!(matches!(store.prepare(&image, "one", RootOptions::default()).await, Err(Error::NotFound(_))));
    assert!(store.prepared().await.unwrap().is_empty());
    for id in ["", ".", "..", "a/b", "../x", "a b"] {
        assert!(matches!(store.prepare(&image, id, RootOptions::default()).await, Err(Error::BadId(_))));
        assert!(matches!(store.release(id).await, Err(Error::BadId(_))));
    }
}

#[tokio::test]
async fn a_read_only_root_takes_mount_points_but_writes_nothing_to_disk() {
    let dir = TempDir::new().unwrap();
    let store = ImageStore::open(dir.path().join("store"), Settings::default()).await.unwrap();
    let image = small_image(&store, dir.path()).await;
    let root = store.prepare(&image, "one", RootOptions { read_only: true, writable_dir: None }).await.unwrap();
    fs::create_dir(root.path.join("proc")).unwrap();
    fs::write(root.path.join("etc/hosts"), "x").unwrap();
    let home = dir.path().join("store/roots/one");
    assert_ne!(fs::metadata(home.join("rw/upper")).unwrap().dev(), fs::metadata(&home).unwrap().dev());
    assert!(fs::write(root.path.join("big"), vec![1; 8 << 20]).is_err(), "a read-only root can fill the memory");
    store.release("one").await.unwrap();
    assert!(!home.exists());
}

/// A disk of a size, in memory; unmounted when it goes out of scope.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, size: &str) -> Disk {
        fs::create_dir(&path).unwrap();
        tool("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", text(&path)]);
        Disk(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_the_store_recovers() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::mount(dir.path().join("disk"), "24m");
    let mut layout = Layout::new(dir.path().join("layout"));
    let data = edge_tests::image::noise(12 << 20, 1);
    let entry = layout.image(native(), &[layer(&[("a", &data)]), layer(&[("b", &data)])]);
    layout.name(&entry, "big:1");
    let settings = Settings { reserve_bytes: 1 << 20, ..Settings::default() };
    let store = ImageStore::open(disk.0.join("images"), settings).await.unwrap();
    let small = small_image(&store, dir.path()).await;
    let error = store.import(Source::Path(layout.dir.clone()), None).await.unwrap_err();
    let Error::NoSpace { needs, has, .. } = &error else { panic!("{error:?}") };
    assert!(needs > has && error.can_retry(), "{error}");
    assert!(error.to_string().starts_with("disk full: ") && error.to_string().contains(" needs "), "{error}");
    assert_eq!(fs::read_dir(disk.0.join("images/tmp")).unwrap().count(), 0);
    // What is there goes on working, and the first layer is given back.
    assert_eq!(store.resolve("small:1").await.unwrap(), Some(small.clone()));
    assert_eq!(store.gc().await.unwrap().layers, 1);
    tool("mount", &["-o", "remount,size=64m", text(&disk.0)]);
    let images = store.import(Source::Path(layout.dir), None).await.unwrap();
    assert_eq!(images[0].layers.len(), 2);
    // Really full, not only below the reserve.
    let full = Settings { reserve_bytes: 0, ..Settings::default() };
    drop(store);
    let store = ImageStore::open(disk.0.join("images"), full).await.unwrap();
    let _ = Command::new("dd").args(["if=/dev/zero", "bs=1M"]).arg(format!("of={}/ballast", text(&disk.0))).output();
    assert!(matches!(store.tag("small:1", "small:2").await, Err(Error::NoSpace { .. })));
    assert_eq!(store.resolve("small:1").await.unwrap(), Some(small));
    store.resolve("small:2").await.unwrap().ok_or(()).unwrap_err();
    fs::remove_file(disk.0.join("ballast")).unwrap();
    store.tag("small:1", "small:2").await.unwrap();
}
