//! What a layer, an archive or a document from a stranger can try, and what the formats demand.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tar::{EntryType, Header};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::decode::Decoder;
use super::manifest::{Descriptor, Document, MEDIA_LAYER, Platform, choose};
use super::tarball::Reader;
use super::tree::Marks;
use super::unpack::{Blob, Job, unpack};
use super::*;

/// A tar archive made by hand, so that it can hold what no tool would write.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, path: &[u8], link: &[u8], data: &[u8], change: impl Fn(&mut Header)) -> Tar {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Tar {
        self.entry(EntryType::Regular, path.as_bytes(), b"", data.as_bytes(), |_| {})
    }

    fn dir(self, path: &str, mode: u32) -> Tar {
        self.entry(EntryType::Directory, path.as_bytes(), b"", b"", |h| h.set_mode(mode))
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Tar {
        self.entry(kind, path.as_bytes(), target.as_bytes(), b"", |_| {})
    }

    fn symlink(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Symlink, path, target)
    }

    fn hard_link(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Link, path, target)
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let digits = (1..8).find(|d| (rest + d).to_string().len() == *d).unwrap();
            data.extend_from_slice(format!("{} {key}=", rest + digits).as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, b"pax", b"", &data, |_| {})
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A place to unpack to, with a witness beside it that nothing may touch.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("witness"), "untouched").unwrap();
        Place { dir }
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.dir.path().join("layers").join(name)
    }

    fn job(&self, bytes: &[u8], stored: &[u8], lowers: &[&str]) -> Job {
        let path = self.dir.path().join("blob");
        fs::write(&path, stored).unwrap();
        fs::create_dir_all(self.dir.path().join("layers")).unwrap();
        Job {
            blob: Blob::whole(path).unwrap(),
            digest: Some(Digest::of(stored)),
            diff_id: Digest::of(bytes),
            lowers: lowers.iter().map(|l| self.layer(l)).collect(),
            marks: overlay::marks(),
            limit: 64 << 20,
            reserve: 0,
            cancel: CancellationToken::new(),
        }
    }

    fn unpack(&self, tar: Tar, name: &str, lowers: &[&str]) -> Result<PathBuf, Error> {
        let bytes = tar.end();
        let into = self.layer(name);
        unpack(&self.job(&bytes, &bytes, lowers), &into).map(|_| into)
    }

    fn check_outside(&self) {
        assert_eq!(fs::read_to_string(self.dir.path().join("witness")).unwrap(), "untouched");
        let mut names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["blob", "layers", "witness"], "something was made outside of the layer");
        for entry in fs::read_dir(self.dir.path().join("layers")).unwrap() {
            assert!(entry.unwrap().file_name().to_str().unwrap().starts_with("layer"));
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn references_are_normalised_as_docker_does() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    for (text, full) in [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("user/app", "docker.io/user/app:latest"),
        ("index.docker.io/library/app", "docker.io/library/app:latest"),
        ("docker.io/app:1", "docker.io/library/app:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:v1.2-rc_3", "localhost:5000/app:v1.2-rc_3"),
        ("ghcr.io/a/b/c__d--e.f", "ghcr.io/a/b/c__d--e.f:latest"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1"),
        (&format!("app@{digest}"), &format!("docker.io/library/app@{digest}")),
        (&format!("r.io/app:tag@{digest}"), &format!("r.io/app@{digest}")),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), full);
        assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
    }
    for text in [
        "",
        "App",
        "a//b",
        "/a",
        "a/",
        "a:",
        "a:.x",
        "a@sha256:1",
        "a@md5:1",
        "r.io:0/a",
        "-.io/a",
        "a..b",
        "a___b",
        "a b",
        "r.io/../a",
        "https://r.io/a",
        "r.io:70000/a",
        "a:b/c",
    ] {
        assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
    }
}

#[test]
fn digests_are_strict() {
    let digest = Digest::of(b"");
    assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    for text in
        ["", "sha256:", "sha256:../../etc/passwd", "sha512:00", &digest.to_string().to_uppercase(), &digest.hex()]
    {
        assert!(text.parse::<Digest>().is_err());
    }
}

#[test]
fn a_layer_keeps_owners_modes_times_and_binary_attributes() {
    let place = Place::new();
    // A capability with a line feed in it: readers that split pax records into lines break on it.
    let capability = b"\x01\x00\x00\x02\x0a\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let tar = Tar::default()
        .dir("bin/", 0o1777)
        .pax(&[("SCHILY.xattr.user.note", b"a\nb"), ("SCHILY.xattr.security.capability", capability)])
        .entry(EntryType::Regular, b"bin/su", b"", b"x", |h| {
            h.set_mode(0o4755);
            h.set_uid(12);
            h.set_gid(34);
        })
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc"), ("SCHILY.xattr.user.overlay.opaque", b"y")])
        .file("bin/sly", "")
        .entry(EntryType::Char, b"null", b"", b"", |h| {
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
        })
        .entry(EntryType::Fifo, b"fifo", b"", b"", |_| {})
        .symlink("bin/link", "/no/where")
        .hard_link("bin/hard", "bin/su");
    let root = place.unpack(tar, "layer", &[]).unwrap();
    let su = fs::metadata(root.join("bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.mtime(), su.nlink()), (0o4755, 1_000_000_000, 2));
    assert_eq!(fs::metadata(root.join("bin")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(root.join("bin")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::read_link(root.join("bin/link")).unwrap(), Path::new("/no/where"));
    assert!(fs::metadata(root.join("fifo")).unwrap().file_type().is_fifo());
    let xattr = |path: &str, name: &str| {
        let mut value = vec![0; 64];
        let n = rustix::fs::lgetxattr(root.join(path), name, &mut value).ok()?;
        value.truncate(n);
        Some(value)
    };
    assert_eq!(xattr("bin/su", "user.note").as_deref(), Some(&b"a\nb"[..]));
    assert_eq!(xattr("bin/sly", "trusted.overlay.redirect"), None);
    assert_eq!(xattr("bin/sly", "user.overlay.opaque"), None);
    if overlay::marks() == Marks::Trusted {
        assert_eq!((su.uid(), su.gid()), (12, 34));
        assert_eq!(fs::metadata(root.join("null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
        assert!(xattr("bin/su", "security.capability").is_some());
    }
}

#[test]
fn nothing_gets_out_of_a_layer() {
    let refused: Vec<(&str, Tar)> = vec![
        ("dots", Tar::default().file("../witness", "x")),
        ("dots inside", Tar::default().file("a/../../witness", "x")),
        ("hard link out", Tar::default().hard_link("a", "../witness")),
        ("hard link through a link", Tar::default().symlink("out", "../..").hard_link("a", "out/witness")),
        ("through a file", Tar::default().file("a", "").file("a/b", "")),
        ("loop", Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "")),
        ("whiteout of the folder itself", Tar::default().file(".wh..", "").file("x", "")),
        ("whiteout of the parent", Tar::default().file("a/.wh...", "")),
        ("hard link to a folder", Tar::default().dir("d", 0o755).hard_link("a", "d")),
        ("truncated", Tar(Tar::default().file("a", &"x".repeat(2000)).0[..1024].to_vec())),
        ("nested too deep", Tar::default().pax(&[("path", "b/".repeat(300).as_bytes())]).file("x", "")),
        ("name too long", Tar::default().pax(&[("path", "b/".repeat(3000).as_bytes())]).file("x", "")),
    ];
    for (what, tar) in refused {
        let place = Place::new();
        let result = place.unpack(tar, "layer", &[]);
        assert!(result.is_err(), "{what} was accepted");
        place.check_outside();
    }
    // Allowed, but inside: as if the layer's root were the root of everything.
    for (what, tar, made) in [
        ("absolute path", Tar::default().file("/etc/x", "in"), "etc/x"),
        ("absolute link", Tar::default().symlink("a", "/b").file("a/x", "in"), "b/x"),
        ("link to the root", Tar::default().symlink("a", "/").file("a/x", "in"), "x"),
        ("link above the root", Tar::default().symlink("a", "../../..").file("a/witness", "in"), "witness"),
        ("file over a link", Tar::default().symlink("a", "../../witness").file("a", "in"), "a"),
        ("folder over a link", Tar::default().symlink("a", "../..").dir("a", 0o755).file("a/x", "in"), "a/x"),
        ("file over a folder", Tar::default().file("a/b/c", "").file("a", "in"), "a"),
    ] {
        let place = Place::new();
        let root = place.unpack(tar, "layer", &[]).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert_eq!(read(root.join(made)), "in", "{what}");
        assert!(!fs::symlink_metadata(root.join(made)).unwrap().is_symlink());
        place.check_outside();
    }
}

#[test]
fn whiteouts_hide_what_is_below_but_not_what_the_layer_brings() {
    let place = Place::new();
    let tar = Tar::default()
        .file("a/.wh.gone", "")
        .file("a/.wh.kept", "")
        .file("a/kept", "new")
        .file("b/.wh..wh..opq", "")
        .file("b/own", "")
        .file(".wh.dir", "")
        .file("dir/x", "new")
        .file("file", "new")
        .file(".wh.file", "");
    let root = place.unpack(tar, "layer", &[]).unwrap();
    let gone = fs::symlink_metadata(root.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(
        (read(root.join("a/kept")), read(root.join("file")), read(root.join("dir/x"))),
        ("new".into(), "new".into(), "new".into())
    );
    for dir in ["b", "dir"] {
        let mut value = [0; 4];
        assert_eq!(rustix::fs::lgetxattr(root.join(dir), overlay::marks().opaque(), &mut value[..]), Ok(1), "{dir}");
    }
}

#[test]
fn what_a_layer_does_not_mention_is_as_below() {
    let place = Place::new();
    let base = Tar::default()
        .dir("tmp", 0o1777)
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("usr/lib/a", "below")
        .dir("was", 0o700)
        .dir("closed", 0o700);
    place.unpack(base, "layer1", &[]).unwrap();
    place.unpack(Tar::default().file(".wh.was", "").file("closed/.wh..wh..opq", ""), "layer2", &["layer1"]).unwrap();
    let top = Tar::default()
        .file("tmp/x", "")
        .file("lib/b", "through the link")
        .file("was/x", "")
        .hard_link("usr/a", "lib/a")
        .dir("own", 0o700)
        .file("own/x", "");
    let root = place.unpack(top, "layer3", &["layer1", "layer2"]).unwrap();
    let mode = |path: &str| fs::symlink_metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("own"), mode("was")), (0o1777, 0o700, 0o755));
    assert_eq!(read(root.join("usr/lib/b")), "through the link");
    assert_eq!(read(root.join("usr/a")), "below");
    assert!(!root.join("lib").exists());
    assert!(place.unpack(Tar::default().hard_link("x", "was/y"), "layer4", &["layer1", "layer2"]).is_err());
}

#[test]
fn wrong_digests_are_found_on_the_bytes_that_were_unpacked() {
    let place = Place::new();
    let bytes = Tar::default().file("a", "1").end();
    for stored in [bytes.clone(), gzip(&bytes), zstd(&bytes)] {
        let mut job = place.job(&bytes, &stored, &[]);
        unpack(&job, &place.layer("layer-good")).unwrap();
        fs::remove_dir_all(place.layer("layer-good")).unwrap();
        job.diff_id = Digest::of(b"other");
        assert!(matches!(unpack(&job, &place.layer("layer-diff")), Err(Error::Digest { .. })));
        fs::remove_dir_all(place.layer("layer-diff")).unwrap();
        let mut job = place.job(&bytes, &stored, &[]);
        job.digest = Some(Digest::of(b"other"));
        assert!(matches!(unpack(&job, &place.layer("layer-blob")), Err(Error::Digest { .. })));
        fs::remove_dir_all(place.layer("layer-blob")).unwrap();
        // Something after the archive is part of the blob, too.
        let longer = [stored.as_slice(), &[0; 512]].concat();
        let mut job = place.job(&bytes, &longer, &[]);
        job.digest = Some(Digest::of(&stored));
        assert!(unpack(&job, &place.layer("layer-more")).is_err());
        let _ = fs::remove_dir_all(place.layer("layer-more"));
    }
}

#[test]
fn bombs_are_stopped() {
    let place = Place::new();
    let zeros = "\0".repeat(8 << 20);
    let bytes = Tar::default().file("a", &zeros).file("b", &zeros).end();
    for stored in [gzip(&bytes), zstd(&bytes)] {
        let job = Job { limit: 9 << 20, ..place.job(&bytes, &stored, &[]) };
        assert!(matches!(unpack(&job, &place.layer("layer")), Err(Error::TooBig { .. })));
        fs::remove_dir_all(place.layer("layer")).unwrap();
    }
    // All padding: nothing in it, but hours of it.
    let padding = vec![0; 80 << 20];
    let job = Job { limit: 1 << 20, ..place.job(&padding, &gzip(&padding), &[]) };
    assert!(matches!(unpack(&job, &place.layer("layer")), Err(Error::TooBig { .. })));
    // No room at all.
    let job = Job { reserve: u64::MAX / 2, ..place.job(&bytes, &bytes, &[]) };
    let error = unpack(&job, &place.layer("layer5")).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }) && error.to_string().contains("needs"), "{error}");
}

#[test]
fn sparse_files_of_all_formats_keep_their_holes() {
    let place = Place::new();
    let source = place.dir.path().join("layers");
    fs::create_dir_all(&source).unwrap();
    let file = fs::File::create(source.join("layer-holes")).unwrap();
    file.set_len(8 << 20).unwrap();
    use std::os::unix::fs::FileExt;
    file.write_all_at(b"middle", 3 << 20).unwrap();
    file.write_all_at(b"late", 6 << 20).unwrap();
    drop(file);
    let expected = fs::read(source.join("layer-holes")).unwrap();
    for (i, format) in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=1.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix"],
    ]
    .iter()
    .enumerate()
    {
        let out = std::process::Command::new("tar")
            .arg("-S")
            .args(*format)
            .args(["-c", "-C"])
            .arg(&source)
            .arg("layer-holes")
            .output()
            .expect("tar must be installed");
        assert!(out.status.success());
        assert!(out.stdout.len() < 1 << 20);
        let into = place.layer(&format!("layer{i}"));
        unpack(&place.job(&out.stdout, &out.stdout, &[]), &into).unwrap();
        assert_eq!(fs::read(into.join("layer-holes")).unwrap(), expected, "{format:?}");
        assert!(fs::metadata(into.join("layer-holes")).unwrap().blocks() * 512 < 1 << 20, "{format:?} has no holes");
    }
}

#[test]
fn compressions_are_told_apart_by_their_content() {
    let text = b"some text, some text, some text".repeat(1000);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &zstd(&text)].concat();
    let two = [zstd(&text), skippable.clone()].concat();
    let members = [gzip(&text), gzip(&text)].concat();
    for (stored, times) in
        [(text.clone(), 1), (gzip(&text), 1), (zstd(&text), 1), (skippable, 1), (two, 2), (members, 2)]
    {
        let mut out = Vec::new();
        Decoder::new(Cursor::new(stored)).unwrap().read_to_end(&mut out).unwrap();
        assert!(out == text.repeat(times));
    }
}

#[test]
fn the_platform_is_chosen_or_the_others_are_named() {
    let entry = |os: &str, architecture: &str, variant: Option<&str>| Descriptor {
        platform: Some(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }),
        ..Descriptor::new(MEDIA_LAYER, Digest::of(architecture.as_bytes()), 1)
    };
    let all = [
        entry("windows", "amd64", None),
        entry("linux", "arm", Some("v7")),
        entry("linux", "arm64", Some("v8")),
        entry("linux", "amd64", None),
        entry("unknown", "unknown", None),
    ];
    let native = Platform::native().architecture;
    assert_eq!(choose(&all).unwrap().digest, Digest::of(native.as_bytes()));
    let others = [entry("linux", "s390x", None), entry("linux", "arm", Some("v7")), entry("unknown", "unknown", None)];
    let error = choose(&others).unwrap_err().to_string();
    assert_eq!(error, format!("image is not for linux/{native}: it has linux/s390x, linux/arm/v7"));
    assert!(choose(&[]).unwrap_err().to_string().ends_with("it has nothing"));
}

#[test]
fn credentials_come_from_a_docker_configuration() {
    let json = br#"{"auths": {
        "https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldA=="},
        "r.io": {"username": "all", "password": "p:w"},
        "r.io/team": {"auth": "dGVhbTpzZWNyZXQ"},
        "*.example.org:5000": {"registrytoken": "token"}}}"#;
    let find = |text: &str| {
        let found = Credentials::from_docker_config(json, &text.parse().unwrap()).unwrap();
        found.map(|c| format!("{}/{}", c.username, c.password))
    };
    assert_eq!(find("busybox").as_deref(), Some("hub/secret"));
    assert_eq!(find("r.io/app").as_deref(), Some("all/p:w"));
    assert_eq!(find("r.io/team/app").as_deref(), Some("team/secret"));
    assert_eq!(find("r.io/teams/app").as_deref(), Some("all/p:w"));
    assert_eq!(find("a.example.org:5000/app").as_deref(), Some("/token"));
    assert_eq!(find("example.org:5000/app"), None);
    let secret = Credentials { username: "u".into(), password: "hidden".into() };
    assert!(!format!("{secret:?}").contains("hidden"));
    for bad in [&b"{\"auths\": {\"a\": {\"auth\": \"%%\"}}}"[..], b"hidden"] {
        let error = Credentials::from_docker_config(bad, &"a.io/b".parse().unwrap()).map(|c| c.is_none());
        assert!(error.as_ref().is_ok_and(|none| *none) || error.is_err_and(|e| !e.to_string().contains("hidden")));
    }
}

/// Both ways into the kernel, the second being for those before Linux 6.8. Needs root.
#[test]
fn both_ways_of_mounting_show_the_layers() {
    let place = Place::new();
    let base = Tar::default().file("a", "1").file("b", "1").file("dir/x", "1").file("gone", "1");
    place.unpack(base, "layer1", &[]).unwrap();
    let top = Tar::default().file("b", "2").file(".wh.gone", "").file("dir/y", "2").file("dir/.wh..wh..opq", "");
    place.unpack(top, "layer2", &["layer1"]).unwrap();
    let (one, two) = (place.layer("layer1"), place.layer("layer2"));
    for (i, mount) in [overlay::mount_overlay, overlay::mount_old].into_iter().enumerate() {
        let [target, upper, work] = ["target", "upper", "work"].map(|n| {
            // What an overlay option could be confused by.
            let dir = place.layer(&format!("layer:{i},\\{n} x"));
            fs::create_dir(&dir).unwrap();
            dir
        });
        let layers = overlay::Layers { lowers: vec![&two, &one], upper: &upper, work: &work, marks: overlay::marks() };
        mount(&layers, &target).expect("must run as root");
        let mounts = overlay::mounts_under(&fs::canonicalize(place.dir.path()).unwrap()).unwrap();
        let seen = ["a", "b", "gone", "dir/x", "dir/y"].map(|n| fs::read_to_string(target.join(n)).ok());
        fs::write(target.join("a"), "changed").unwrap();
        overlay::unmount_all(&target).unwrap();
        assert_eq!(seen.each_ref().map(|s| s.as_deref()), [Some("1"), Some("2"), None, None, Some("2")]);
        assert_eq!(mounts, [fs::canonicalize(&target).unwrap()]);
        assert_eq!((read(upper.join("a")).as_str(), read(one.join("a")).as_str()), ("changed", "1"));
    }
}

#[tokio::test]
async fn a_damaged_index_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    for garbage in [
        &b"{"[..],
        b"",
        b"{\"version\": 7, \"images\": {}}",
        &[0; 4096],
        b"{\"version\":1,\"images\":{\"a\":{\"digest\":\"x\"}}}",
    ] {
        fs::write(dir.path().join("index.json"), garbage).unwrap();
        let store = ImageStore::open(dir.path(), Settings::default()).await.unwrap();
        assert!(store.list().await.unwrap().is_empty());
        assert_eq!(fs::read(dir.path().join("index.json.damaged")).unwrap(), garbage);
        assert!(matches!(ImageStore::open(dir.path(), Settings::default()).await, Err(Error::Locked(_))));
    }
}

#[tokio::test]
async fn an_image_is_built_tagged_exported_imported_and_collected() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("program");
    fs::write(&source, "#!").unwrap();
    let settings = Settings { keep_layer_blobs: true, ..Settings::default() };
    let store = ImageStore::open(dir.path().join("a"), settings).await.unwrap();
    let config = ImageConfig { entrypoint: vec!["/opt/run".into()], env: vec!["A=1".into()], ..ImageConfig::default() };
    let file = || vec![BuildFile { path: "/opt/run".into(), source: source.clone(), mode: 0o755 }];
    let image = store.build("localhost/app", file(), config.clone()).await.unwrap();
    assert_eq!(store.build("localhost/app", file(), config.clone()).await.unwrap(), image);
    assert_eq!(image.config, config);
    assert!(matches!(
        store
            .build("localhost/app", vec![BuildFile { path: "../x".into(), source: source.clone(), mode: 0 }], config)
            .await,
        Err(Error::Invalid { .. })
    ));
    store.tag("localhost/app", "other:2").await.unwrap();
    let archive = dir.path().join("out.tar");
    store.export("other:2", fs::File::create(&archive).unwrap()).await.unwrap();

    let second = ImageStore::open(dir.path().join("b"), Settings::default()).await.unwrap();
    let reader = Box::new(fs::File::open(&archive).unwrap());
    let imported = second.import(Source::Reader(reader), None).await.unwrap();
    assert_eq!(imported[0].references, ["docker.io/library/other:2"]);
    assert_eq!((imported[0].digest, imported[0].size), (image.digest, image.size));
    let run = dir.path().join("b/layers").join(image.layers[0].hex()).join("fs/opt/run");
    assert_eq!((read(&run).as_str(), fs::metadata(&run).unwrap().mode() & 0o777), ("#!", 0o755));
    assert!(matches!(second.export("other:2", Vec::new()).await, Err(Error::NotKept(_))));

    store.remove("localhost/app").await.unwrap();
    assert_eq!(store.gc().await.unwrap(), Collected::default());
    store.remove("other:2").await.unwrap();
    assert!(matches!(store.remove("other:2").await, Err(Error::NotFound(_))));
    let collected = store.gc().await.unwrap();
    assert_eq!((collected.layers, collected.blobs), (1, 3));
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.images, usage.layers, usage.blob_bytes), (0, 0, 0));
    assert_eq!(store.resolve("other:2").await.unwrap(), None);
}

#[tokio::test]
async fn a_store_holds_nothing_it_cannot_vouch_for() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("program");
    fs::write(&source, "#!").unwrap();
    let open = || ImageStore::open(dir.path().join("a"), Settings::default());
    let store = open().await.unwrap();
    let file = || vec![BuildFile { path: "/run".into(), source: source.clone(), mode: 0o755 }];
    let image = store.build("app", file(), ImageConfig::default()).await.unwrap();
    drop(store);
    // As kill -9 leaves it: a half unpacked layer, a half written index, a partial download.
    let half = dir.path().join("a/tmp/1-1/fs/etc");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("x"), "x").unwrap();
    fs::write(dir.path().join("a/tmp/1-2"), "{\"version\":1,").unwrap();
    let store = open().await.unwrap();
    assert_eq!(fs::read_dir(dir.path().join("a/tmp")).unwrap().count(), 0);
    assert_eq!(store.resolve("app").await.unwrap(), Some(image.clone()));
    // A layer without its mark, a configuration with a flipped bit: not an image any more, and made anew.
    let layer = dir.path().join("a/layers").join(image.layers[0].hex());
    fs::remove_file(layer.join("size")).unwrap();
    assert_eq!(store.resolve("app").await.unwrap(), None);
    assert_eq!(store.build("app", file(), ImageConfig::default()).await.unwrap(), image);
    for blob in fs::read_dir(dir.path().join("a/blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[10] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(store.resolve("app").await.unwrap(), None);
        assert_eq!(store.build("app", file(), ImageConfig::default()).await.unwrap(), image);
    }
}

fn hostile_name() -> impl Strategy<Value = String> {
    let part =
        prop::sample::select(vec!["a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh.", "witness"]);
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    /// Whatever files, folders, links and whiteouts a layer is made of, in whatever order, nothing outside changes.
    #[test]
    fn no_sequence_of_entries_gets_out(entries in prop::collection::vec((0..5u8, hostile_name(), hostile_name(), any::<bool>()), 1..25)) {
        let place = Place::new();
        let mut number = 0;
        let mut lowers: Vec<String> = Vec::new();
        let mut tar = Tar::default();
        for (kind, path, link, split) in &entries {
            tar = match kind {
                0 => tar.file(path, "x"),
                1 => tar.dir(path, 0o755),
                2 | 3 => tar.symlink(path, link),
                _ => tar.hard_link(path, link),
            };
            if *split {
                // What is refused leaves a layer that is thrown away; what is not is a layer under the next.
                let name = format!("layer{number}");
                let below: Vec<&str> = lowers.iter().map(String::as_str).collect();
                if place.unpack(std::mem::take(&mut tar), &name, &below).is_ok() {
                    lowers.push(name);
                }
                number += 1;
                place.check_outside();
            }
        }
        let below: Vec<&str> = lowers.iter().map(String::as_str).collect();
        let _ = place.unpack(tar, "layer-last", &below);
        place.check_outside();
    }

    /// Garbage is an error, never a panic, and never more memory than the limits.
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000), magic in 0..4usize) {
        let magic: &[u8] = [&[][..], &[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18]][magic];
        let bytes = [magic, &bytes].concat();
        if let Ok(decoder) = Decoder::new(Cursor::new(&bytes)) {
            let mut archive = Reader::new(decoder.take(1 << 20));
            while let Ok(Some(_)) = archive.next() {}
        }
        let _ = Document::parse(&bytes, "garbage");
        let _ = manifest::ConfigFile::parse(&bytes, "garbage");
        let _ = String::from_utf8_lossy(&bytes).parse::<Reference>();
    }

    /// A flipped bit anywhere in an archive is refused, or it is still the archive it says it is.
    #[test]
    fn a_flipped_bit_is_found(at in 0..4096usize, bit in 0..8u8, kind in 0..3usize) {
        let place = Place::new();
        let tar = Tar::default().dir("d", 0o755).file("d/a", "text").symlink("d/l", "a").pax(&[("SCHILY.xattr.user.a", b"b")]).file("z", "");
        let bytes = tar.end();
        let mut stored = [bytes.clone(), gzip(&bytes), zstd(&bytes)][kind].clone();
        let at = at % stored.len();
        let job = Job { digest: Some(Digest::of(&stored)), ..place.job(&bytes, &stored, &[]) };
        stored[at] ^= 1 << bit;
        fs::write(place.dir.path().join("blob"), &stored).unwrap();
        prop_assert!(unpack(&job, &place.layer("layer")).is_err());
    }
}
