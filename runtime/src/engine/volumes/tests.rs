//! Volumes on a real file system. These tests mount, so they need root (CAP_SYS_ADMIN) and fail without.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::*;

struct Bench {
    dirs: PodDirs,
    temp: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let temp = tempfile::tempdir().unwrap();
        let dirs = PodDirs { run: temp.path().join("run/u1"), state: temp.path().join("state/u1") };
        Bench { dirs, temp }
    }

    fn spec(&self, volume: Value, mount: Value) -> PodSpec {
        let mut mount = mount;
        mount["name"] = json!("v");
        let mut volume = volume;
        volume["name"] = json!("v");
        let container = json!({"name": "c", "image": "i:1", "volumeMounts": [mount]});
        let spec = json!({"containers": [container], "volumes": [volume]});
        edge_model::pod::check(&spec).unwrap()
    }

    fn set_up(&self, spec: &PodSpec, data: Option<Data>) -> Result<(), VolumeError> {
        let get = |name: &str| Ok(data.clone().filter(|_| name == "m"));
        set_up(spec, &self.dirs, &Objects { config_map: &get, secret: &get })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = tear_down(&self.dirs);
    }
}

fn data(pairs: &[(&str, &str)]) -> Option<Data> {
    Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect())
}

#[test]
fn an_empty_dir_keeps_its_files_until_it_is_torn_down() {
    let bench = Bench::new();
    let spec = bench.spec(json!({"emptyDir": {}}), json!({"mountPath": "/v"}));
    bench.set_up(&spec, None).unwrap();
    let dir = bench.dirs.volume(&spec.volumes[0]);
    fs::write(dir.join("f"), "x").unwrap();
    bench.set_up(&spec, None).unwrap();
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"x");
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o777);
    let attached = attach(&spec, &spec.containers[0], &bench.dirs).unwrap();
    assert_eq!(attached.mounts[0].source, dir.to_str().unwrap());
    assert!(attached.mounts[0].options.contains(&"rw".to_owned()));
    tear_down(&bench.dirs).unwrap();
    assert!(!dir.exists() && !bench.dirs.run.exists());
    tear_down(&bench.dirs).unwrap();
}

#[test]
fn memory_is_a_tmpfs_with_its_limit() {
    let bench = Bench::new();
    let volume = json!({"emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}});
    let spec = bench.spec(volume, json!({"mountPath": "/v"}));
    bench.set_up(&spec, None).expect("needs root");
    bench.set_up(&spec, None).unwrap();
    let dir = bench.dirs.volume(&spec.volumes[0]);
    assert_eq!(mounts::below(&dir).unwrap().len(), 1);
    let error = fs::write(dir.join("f"), vec![0; 1 << 17]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    tear_down(&bench.dirs).unwrap();
    assert!(mounts::below(bench.temp.path()).unwrap().is_empty());
}

#[test]
fn a_group_owns_what_the_pod_shares() {
    let bench = Bench::new();
    let mut spec = bench.spec(json!({"emptyDir": {}}), json!({"mountPath": "/v"}));
    spec.security_context.get_or_insert_default().fs_group = Some(1234);
    bench.set_up(&spec, None).unwrap();
    let meta = fs::metadata(bench.dirs.volume(&spec.volumes[0])).unwrap();
    assert_eq!((meta.gid(), meta.mode() & 0o7777), (1234, 0o2777));
}

#[test]
fn files_follow_their_object_all_at_once() {
    let bench = Bench::new();
    let volume = json!({"configMap": {"name": "m", "defaultMode": 0o400}});
    let spec = bench.spec(volume, json!({"mountPath": "/v"}));
    bench.set_up(&spec, data(&[("a", "1"), ("b", "2")])).unwrap();
    let dir = bench.dirs.volume(&spec.volumes[0]);
    let first = fs::read_link(dir.join("..data")).unwrap();
    assert_eq!(fs::read(dir.join("a")).unwrap(), b"1");
    assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o400);
    bench.set_up(&spec, data(&[("a", "1"), ("b", "2")])).unwrap();
    assert_eq!(fs::read_link(dir.join("..data")).unwrap(), first, "what is the same is not written again");
    bench.set_up(&spec, data(&[("a", "3"), ("c", "4")])).unwrap();
    assert_eq!(fs::read(dir.join("a")).unwrap(), b"3");
    assert_eq!(fs::read(dir.join("c")).unwrap(), b"4");
    assert!(!dir.join("b").exists() && fs::symlink_metadata(dir.join("b")).is_err());
    assert!(!dir.join(&first).exists());
    assert!(attach(&spec, &spec.containers[0], &bench.dirs).unwrap().mounts[0].options.contains(&"ro".to_owned()));
}

#[test]
fn items_choose_paths_and_modes() {
    let bench = Bench::new();
    let items = json!([{"key": "a", "path": "deep/er/x", "mode": 0o600}]);
    let spec = bench.spec(json!({"configMap": {"name": "m", "items": items}}), json!({"mountPath": "/v"}));
    bench.set_up(&spec, data(&[("a", "1"), ("b", "2")])).unwrap();
    let dir = bench.dirs.volume(&spec.volumes[0]);
    assert_eq!(fs::read(dir.join("deep/er/x")).unwrap(), b"1");
    assert!(!dir.join("b").exists());
    let error = bench.set_up(&spec, data(&[("b", "2")])).unwrap_err();
    assert_eq!(error.to_string(), "volume \"v\": configmap \"m\" has no key \"a\"");
}

#[test]
fn a_secret_is_never_on_disk() {
    let bench = Bench::new();
    let spec = bench.spec(json!({"secret": {"secretName": "m"}}), json!({"mountPath": "/v"}));
    bench.set_up(&spec, data(&[("p", "geheim")])).expect("needs root");
    let dir = bench.dirs.volume(&spec.volumes[0]);
    assert_eq!(fs::read(dir.join("p")).unwrap(), b"geheim");
    let kind = rustix::fs::statfs(dir.join("p")).unwrap().f_type;
    assert_eq!(kind, libc::TMPFS_MAGIC);
}

#[test]
fn a_missing_object_is_named_unless_it_is_optional() {
    let bench = Bench::new();
    let spec = bench.spec(json!({"configMap": {"name": "m"}}), json!({"mountPath": "/v"}));
    let error = bench.set_up(&spec, None).unwrap_err();
    assert_eq!(error.to_string(), "volume \"v\": configmap \"m\" not found");
    let spec = bench.spec(json!({"configMap": {"name": "m", "optional": true}}), json!({"mountPath": "/v"}));
    bench.set_up(&spec, None).unwrap();
    assert!(bench.dirs.volume(&spec.volumes[0]).is_dir());
}

#[test]
fn host_paths_are_what_they_should_be() {
    let bench = Bench::new();
    let path = |name: &str| bench.temp.path().join(name);
    fs::write(path("file"), "").unwrap();
    let cases = [
        (path("file"), "File", None),
        (path("file"), "", None),
        (path("file"), "Directory", Some("is not a directory")),
        (path("none"), "", Some("cannot find")),
        (path("made"), "DirectoryOrCreate", None),
        (path("made-file"), "FileOrCreate", None),
        (path("made"), "File", Some("is not a file")),
        (PathBuf::from("/dev/null"), "CharDevice", None),
        (PathBuf::from("/dev/null"), "BlockDevice", Some("is not a block device")),
    ];
    for (path, kind, message) in cases {
        let spec = bench.spec(json!({"hostPath": {"path": path, "type": kind}}), json!({"mountPath": "/v"}));
        let result = bench.set_up(&spec, None).map_err(|e| e.to_string());
        match message {
            None => assert_eq!(result, Ok(()), "{path:?} {kind}"),
            Some(message) => assert!(result.clone().is_err_and(|e| e.contains(message)), "{path:?} {kind}: {result:?}"),
        }
    }
}

#[test]
fn a_device_is_given_by_its_numbers() {
    let bench = Bench::new();
    let volume = json!({"hostPath": {"path": "/dev/null", "type": "CharDevice"}});
    let spec = bench.spec(volume.clone(), json!({"mountPath": "/dev/nothing", "readOnly": true}));
    let attached = attach(&spec, &spec.containers[0], &bench.dirs).unwrap();
    let device = &attached.devices[0];
    assert_eq!((device.major, device.minor, device.block, device.access.as_str()), (1, 3, false, "r"));
    let spec = bench.spec(volume, json!({"mountPath": "/data"}));
    assert!(matches!(attach(&spec, &spec.containers[0], &bench.dirs), Err(VolumeError::Device { .. })));
}

#[test]
fn a_sub_path_is_made_and_never_leads_out() {
    let bench = Bench::new();
    let spec = bench.spec(json!({"emptyDir": {}}), json!({"mountPath": "/v", "subPath": "a/b"}));
    bench.set_up(&spec, None).unwrap();
    let dir = bench.dirs.volume(&spec.volumes[0]);
    let source = |spec: &PodSpec| attach(spec, &spec.containers[0], &bench.dirs).map(|a| a.mounts[0].source.clone());
    let bound = PathBuf::from(source(&spec).expect("needs root"));
    assert!(dir.join("a/b").is_dir());
    fs::write(bound.join("f"), "x").unwrap();
    assert_eq!(fs::read(dir.join("a/b/f")).unwrap(), b"x");
    source(&spec).expect("a second start finds the first one's mount and replaces it");
    for target in ["/etc", "../..", "/"] {
        fs::remove_dir_all(dir.join("a")).unwrap();
        fs::create_dir(dir.join("a")).unwrap();
        symlink(target, dir.join("a/b")).unwrap();
        let error = source(&spec).unwrap_err();
        assert!(matches!(error, VolumeError::Escape { .. }), "{target}: {error}");
    }
    // A link inside the volume is fine.
    fs::remove_file(dir.join("a/b")).unwrap();
    fs::write(dir.join("a/file"), "y").unwrap();
    symlink("file", dir.join("a/b")).unwrap();
    assert_eq!(fs::read(source(&spec).unwrap()).unwrap(), b"y");
    tear_down(&bench.dirs).unwrap();
    assert!(!dir.exists());
}

#[test]
fn usage_counts_what_is_below() {
    let bench = Bench::new();
    fs::create_dir_all(bench.temp.path().join("u/d")).unwrap();
    fs::write(bench.temp.path().join("u/d/f"), vec![1; 100_000]).unwrap();
    assert!(usage(&bench.temp.path().join("u")) >= 100_000);
    assert_eq!(usage(&bench.temp.path().join("none")), 0);
}

/// An image whose working directory is not in it kept its pods from starting.
#[test]
fn a_working_directory_is_made_inside_the_root_only() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("real")).unwrap();
    symlink("/real", root.join("link")).unwrap();
    symlink("../../..", root.join("up")).unwrap();
    make_dir(&root, Path::new("/srv/app")).unwrap();
    make_dir(&root, Path::new("/link/below")).unwrap();
    make_dir(&root, Path::new("/up/here")).unwrap();
    make_dir(&root, Path::new("/")).unwrap();
    assert!(root.join("srv/app").is_dir() && root.join("real/below").is_dir() && root.join("here").is_dir());
    fs::write(root.join("file"), "").unwrap();
    assert!(make_dir(&root, Path::new("/file/x")).is_err());
}
