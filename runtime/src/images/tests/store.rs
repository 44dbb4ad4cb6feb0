//! Names, documents and the store as a whole.

use super::*;

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
