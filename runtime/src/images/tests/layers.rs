//! Layers: what they must keep, and what they may not do.

use super::*;

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
