//! The image store with real peers: images made by umoci, carried by skopeo, served by Debian's docker-registry. Needs
//! root (overlay mounts) and the packages umoci, skopeo, docker-registry and busybox-static; fails where they are missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use edge_runtime::images::{ImageStore, RootOptions, Settings, Source};

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} must be installed: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// An OCI layout `<dir>/oci` with image `app:latest` of busybox and what `fill` does to it, one layer each.
fn make_layout(dir: &Path, layers: &[&dyn Fn(&Path)]) -> PathBuf {
    let layout = dir.join("oci");
    let image = format!("{}:latest", text(&layout));
    run("umoci", &["init", "--layout", &text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    for (i, fill) in layers.iter().enumerate() {
        let bundle = text(&dir.join(format!("bundle{i}")));
        run("umoci", &["unpack", "--image", &image, &bundle]);
        fill(&dir.join(format!("bundle{i}/rootfs")));
        run("umoci", &["repack", "--image", &image, &bundle]);
    }
    let config = ["--config.entrypoint", "/bin/sh", "--config.env", "A=b", "--config.workingdir", "/srv"];
    run("umoci", &[&["config", "--image", &image], &config[..]].concat());
    layout
}

fn busybox(root: &Path) {
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static must be installed");
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    fs::write(root.join("etc/first"), "1").unwrap();
    fs::write(root.join("etc/second"), "2").unwrap();
}

fn second_layer(root: &Path) {
    fs::remove_file(root.join("etc/second")).unwrap();
    fs::write(root.join("etc/third"), "3").unwrap();
}

#[tokio::test]
async fn an_archive_becomes_a_root_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let layout = make_layout(dir.path(), &[&busybox, &second_layer]);
    let from = format!("oci:{}:latest", text(&layout));
    for (kind, name, settings) in [("oci-archive", "latest", ""), ("docker-archive", "example.org/app:1", "")] {
        let _ = settings;
        let archive = dir.path().join(format!("{kind}.tar"));
        run("skopeo", &["copy", "--quiet", &from, &format!("{kind}:{}:{name}", text(&archive))]);
        let store = ImageStore::open(dir.path().join(kind), Settings::default()).await.unwrap();
        let images = store.import(Source::Path(archive), None).await.unwrap();
        let [image] = images.as_slice() else { panic!("one image expected, not {images:?}") };
        assert_eq!(image.config.entrypoint, ["/bin/sh"]);
        assert_eq!(image.layers.len(), 2);
        let name = image.references.first().unwrap();
        let image = store.resolve(name).await.unwrap().unwrap();

        let root = store.prepare(&image, "one", RootOptions::default()).await.unwrap();
        assert_eq!(fs::read_to_string(root.path.join("etc/first")).unwrap(), "1");
        assert_eq!(fs::read_to_string(root.path.join("etc/third")).unwrap(), "3");
        assert!(!root.path.join("etc/second").exists());
        fs::write(root.path.join("etc/first"), "changed").unwrap();
        assert!(store.prepared().await.unwrap().iter().any(|p| p.container_id == "one" && p.mounted));
        store.release("one").await.unwrap();
        store.release("one").await.unwrap();
        assert!(store.prepared().await.unwrap().is_empty());
        let root = store.prepare(&image, "one", RootOptions { read_only: true, writable_dir: None }).await.unwrap();
        assert_eq!(fs::read_to_string(root.path.join("etc/first")).unwrap(), "1");
        store.release("one").await.unwrap();
    }
}
