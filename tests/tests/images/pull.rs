//! Pulls from a real registry, over a wire that counts, holds and cuts. Needs the packages docker-registry and skopeo.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_runtime::images::{Credentials, Error, Image, ImageStore, PullEvent, PullOptions, RootOptions, Settings};
use edge_tests::image::{Layout, hex, layer, noise, text, tool};
use edge_tests::registry::{Guard, Registry, Wire};
use edge_tests::wait::{until_holds, until_true};
use tempfile::TempDir;

use super::native;

/// `secret`, as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$8sMH85nm0T6NHvjkI7jifesfTV0kheLxVmBahu8FCtPjNSC4/gKQC\n";
/// What manifests, configurations, headers and one buffer in flight may add to the layers on the wire.
const SLACK: u64 = 256 << 10;

/// A registry with images made for one test.
struct Scene {
    dir: TempDir,
    registry: Registry,
    wire: Wire,
}

impl Scene {
    fn new(guard: &Guard) -> Scene {
        let dir = TempDir::new().unwrap();
        let registry = Registry::start(&dir.path().join("registry"), guard);
        let wire = Wire::to(registry.port);
        Scene { dir, registry, wire }
    }

    /// Pushes an image with a file of noise in each layer; returns the layers' digests.
    fn push(&self, name: &str, sizes: &[usize], more: &[&str]) -> Vec<String> {
        let layers: Vec<_> = sizes.iter().enumerate().map(|(i, size)| noisy(*size, i)).collect();
        let folder = hex(name.as_bytes());
        let mut layout = Layout::new(self.dir.path().join(&folder));
        let entry = layout.image(native(), &layers);
        layout.name(&entry, "x");
        let from = format!("oci:{}:x", text(&layout.dir));
        let to = format!("docker://{}/{name}", self.registry.host());
        // As it is: skopeo would compress what is not.
        let kept = ["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"];
        tool("skopeo", &[&kept[..], more, &[&from, &to]].concat());
        layers.iter().map(|l| hex(l)).collect()
    }

    /// What an image is called for those who come over the wire.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.wire.host())
    }

    fn settings(&self) -> Settings {
        Settings {
            insecure_registries: vec![self.wire.host(), self.registry.host()],
            retries: 200,
            retry_pause: Duration::from_millis(50),
            ..Settings::default()
        }
    }

    async fn store(&self, name: &str) -> ImageStore {
        ImageStore::open(self.dir.path().join(name), self.settings()).await.unwrap()
    }
}

fn noisy(size: usize, seed: usize) -> Vec<u8> {
    layer(&[(&format!("noise{seed}"), &noise(size, seed as u64 + 1)), ("last", seed.to_string().as_bytes())])
}

async fn check(store: &ImageStore, image: &Image, sizes: &[usize]) {
    let root = store.prepare(image, "checked", RootOptions::default()).await.unwrap();
    for (i, size) in sizes.iter().enumerate() {
        assert!(
            fs::read(root.path.join(format!("noise{i}"))).unwrap() == noise(*size, i as u64 + 1),
            "layer {i} differs"
        );
    }
    store.release("checked").await.unwrap();
}

fn partials(store: &Path) -> Vec<u64> {
    fs::read_dir(store.join("partial")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect()
}

#[tokio::test]
async fn an_image_is_pulled_once_and_told_about() {
    let scene = Scene::new(&Guard::default());
    let sizes = [300_000, 200_000];
    let digests = scene.push("app:1", &sizes, &[]);
    let store = scene.store("store").await;
    let events: Arc<Mutex<Vec<PullEvent>>> = Arc::default();
    let told = Arc::clone(&events);
    let progress = Some(Arc::new(move |e| told.lock().unwrap().push(e)) as _);
    let options = PullOptions { progress, ..PullOptions::default() };
    let image = store.pull(&scene.name("app:1"), options).await.unwrap();
    check(&store, &image, &sizes).await;
    assert_eq!(store.resolve(&scene.name("app:1")).await.unwrap().as_ref(), Some(&image));
    let events = std::mem::take(&mut *events.lock().unwrap());
    let PullEvent::Found { digest, layers } = &events[0] else { panic!("{events:?}") };
    assert_eq!((digest, layers.len()), (&image.digest, 2));
    for (layer, size) in layers {
        assert!(digests.contains(&layer.hex()));
        let done = PullEvent::Layer { digest: *layer, done: *size, total: *size };
        assert!(events.contains(&done) && events.contains(&PullEvent::Unpacked { digest: *layer }));
    }
    // Nothing of it is left but the layers unpacked and two documents.
    assert!(partials(&scene.dir.path().join("store")).is_empty());
    assert!(store.usage().await.unwrap().blob_bytes < 4096);

    // Again, by digest, and as another image with the same layers: only documents cross the wire.
    let before = scene.wire.served();
    assert_eq!(store.pull(&scene.name("app:1"), PullOptions::default()).await.unwrap(), image);
    let by_digest = format!("{}@{}", scene.name("app"), image.digest);
    assert_eq!(store.pull(&by_digest, PullOptions::default()).await.unwrap().digest, image.digest);
    scene.push("other:1", &sizes, &[]);
    store.pull(&scene.name("other:1"), PullOptions::default()).await.unwrap();
    assert!(scene.wire.served() - before < 20_000);

    let missing = store.pull(&scene.name("missing:1"), PullOptions::default()).await;
    assert!(matches!(missing, Err(Error::Unknown { .. })), "{missing:?}");
    let missing = format!("{}@sha256:{}", scene.name("app"), "0".repeat(64));
    let missing = store.pull(&missing, PullOptions::default()).await;
    assert!(matches!(missing, Err(Error::Unknown { .. })), "{missing:?}");
}

#[tokio::test]
async fn an_index_gives_the_image_for_this_machine() {
    let scene = Scene::new(&Guard::default());
    let mut layout = Layout::new(scene.dir.path().join("layout"));
    let each = ["s390x", native()].map(|a| layout.image(a, &[layer(&[("for", a.as_bytes())])]));
    layout.name_all(&each, "x");
    let to = format!("docker://{}/all:1", scene.registry.host());
    let from = format!("oci:{}:x", text(&layout.dir));
    tool("skopeo", &["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false", &from, &to]);
    let store = scene.store("store").await;
    let image = store.pull(&scene.name("all:1"), PullOptions::default()).await.unwrap();
    let root = store.prepare(&image, "one", RootOptions::default()).await.unwrap();
    assert_eq!(fs::read_to_string(root.path.join("for")).unwrap(), native());
    store.release("one").await.unwrap();
}

#[tokio::test]
async fn a_registry_that_dies_in_the_middle_of_a_pull_is_resumed() {
    let mut scene = Scene::new(&Guard::default());
    let sizes = [6 << 20, 12 << 20];
    scene.push("app:1", &sizes, &[]);
    let store = scene.store("store").await;
    scene.wire.hold_at(9 << 20);
    let retried: Arc<Mutex<u32>> = Arc::default();
    let count = Arc::clone(&retried);
    let told = move |event| {
        if let PullEvent::Retry { .. } = event {
            *count.lock().unwrap() += 1;
        }
    };
    let options = PullOptions { progress: Some(Arc::new(told)), ..PullOptions::default() };
    let (name, pulling) = (scene.name("app:1"), store.clone());
    let pull = tokio::spawn(async move { pulling.pull(&name, options).await });
    let wire = &scene.wire;
    until_holds("nine megabytes have come", || wire.served() >= 9 << 20).await;
    scene.registry.kill();
    scene.wire.cut();
    until_holds("the pull has noticed", || *retried.lock().unwrap() > 3).await;
    assert!(!pull.is_finished());
    scene.registry = Registry::start(&scene.dir.path().join("registry"), &Guard::default());
    scene.wire.retarget(scene.registry.port);
    scene.wire.hold_at(u64::MAX);
    let image = pull.await.unwrap().unwrap();
    check(&store, &image, &sizes).await;
    // What was on its way when the wire was cut comes twice, nothing else: without resuming it would be over 26 MB.
    let whole: usize = sizes.iter().sum();
    assert!(scene.wire.served() < whole as u64 + (4 << 20), "{} bytes for {whole}", scene.wire.served());
}

/// The settings of a pull in a process of its own: where to, from where.
const CHILD: &str = "EDGE_IMAGES_PULL";

/// Not a test of its own: what the two tests below run as another process.
#[tokio::test]
async fn in_a_process_of_its_own() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let (dir, name) = line.split_once(' ').unwrap();
    let host = name.split('/').next().unwrap().to_owned();
    let settings = Settings { insecure_registries: vec![host], ..Settings::default() };
    let store = ImageStore::open(dir, settings).await.unwrap();
    store.pull(name, PullOptions::default()).await.unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    fs::write(Path::new(dir).join("status"), status).unwrap();
}

/// A process that is killed when this goes out of scope.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pull_elsewhere(dir: &Path, name: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "pull::in_a_process_of_its_own"]).env(CHILD, format!("{} {name}", text(dir)));
    Process(command.stdout(Stdio::null()).spawn().unwrap())
}

#[tokio::test]
async fn a_pull_killed_with_sigkill_goes_on_where_it_was() {
    let scene = Scene::new(&Guard::default());
    let sizes = [1 << 20, 12 << 20];
    scene.push("app:1", &sizes, &[]);
    let dir = scene.dir.path().join("store");
    scene.wire.hold_at(8 << 20);
    let mut process = pull_elsewhere(&dir, &scene.name("app:1"));
    let written = || dir.join("partial").is_dir() && partials(&dir).iter().sum::<u64>() > 4 << 20;
    until_true("four megabytes are on disk", written);
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    scene.wire.cut();
    let kept = partials(&dir).iter().sum::<u64>();
    let (before, store) = (scene.wire.served(), scene.store("store").await);
    assert_eq!(fs::read_dir(dir.join("tmp")).unwrap().count(), 0);
    assert_eq!(store.resolve(&scene.name("app:1")).await.unwrap(), None);
    scene.wire.hold_at(u64::MAX);
    let image = store.pull(&scene.name("app:1"), PullOptions::default()).await.unwrap();
    check(&store, &image, &sizes).await;
    let whole: usize = sizes.iter().sum();
    let again = scene.wire.served() - before;
    assert!(again < whole as u64 + SLACK - kept, "{again} bytes again, {kept} of {whole} were here");
}

#[tokio::test]
async fn memory_stays_flat_over_100_megabytes() {
    let scene = Scene::new(&Guard::default());
    scene.push("big:1", &[100 << 20], &[]);
    let dir = scene.dir.path().join("store");
    let mut process = pull_elsewhere(&dir, &scene.name("big:1"));
    assert!(process.0.wait().unwrap().success());
    let status = fs::read_to_string(dir.join("status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("100 MB pulled and unpacked: {line}");
    assert!(kib < 48 << 10, "{line}");
}

#[tokio::test]
async fn damaged_partial_downloads_are_thrown_away() {
    let scene = Scene::new(&Guard::default());
    let sizes = [500_000];
    let digests = scene.push("app:1", &sizes, &[]);
    let store = scene.store("store").await;
    let partial = scene.dir.path().join("store/partial").join(format!("{}.partial", digests[0]));
    let real = fs::read(scene.registry.blob(&digests[0])).unwrap();
    for damaged in
        [vec![7; 100_000], vec![7; real.len()], vec![7; real.len() + 5], vec![], real[..70_000].to_vec(), real]
    {
        fs::write(&partial, &damaged).unwrap();
        let image = store.pull(&scene.name("app:1"), PullOptions::default()).await.unwrap();
        check(&store, &image, &sizes).await;
        store.remove(&scene.name("app:1")).await.unwrap();
        assert_eq!(store.gc().await.unwrap().layers, 1);
        assert!(!partial.exists());
    }
}

#[tokio::test]
async fn a_blob_damaged_on_the_registry_is_refused() {
    let scene = Scene::new(&Guard::default());
    let sizes = [500_000];
    let digests = scene.push("app:1", &sizes, &[]);
    let store = scene.store("store").await;
    let blob = scene.registry.blob(&digests[0]);
    let good = fs::read(&blob).unwrap();
    let mut bad = good.clone();
    bad[300_000] ^= 1;
    fs::write(&blob, &bad).unwrap();
    let error = store.pull(&scene.name("app:1"), PullOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }) && !error.can_retry(), "{error:?}");
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.usage().await.unwrap().layers, 0);
    // Longer than it should be.
    fs::write(&blob, [good.as_slice(), b"more"].concat()).unwrap();
    assert!(store.pull(&scene.name("app:1"), PullOptions::default()).await.is_err());
    assert_eq!(store.usage().await.unwrap().layers, 0);
    fs::write(&blob, &good).unwrap();
    let image = store.pull(&scene.name("app:1"), PullOptions::default()).await.unwrap();
    check(&store, &image, &sizes).await;
    drop(store);

    // Shorter: it looks like a connection that broke, and is given up after the tries allowed.
    fs::write(&blob, &good[..400_000]).unwrap();
    let few = Settings { retries: 2, ..scene.settings() };
    let store = ImageStore::open(scene.dir.path().join("second"), few).await.unwrap();
    let error = store.pull(&scene.name("app:1"), PullOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Registry { .. }) && error.can_retry(), "{error:?}");
}

#[tokio::test]
async fn a_registry_that_wants_a_password_gets_it() {
    let scene = Scene::new(&Guard { htpasswd: Some(HTPASSWD.to_owned()), ..Guard::default() });
    scene.push("team/app:1", &[1000], &["--dest-creds", "user:secret"]);
    let name = scene.name("team/app:1");
    let store = scene.store("store").await;
    let with = |password: &str| {
        let credentials = Credentials { username: "user".into(), password: password.into() };
        PullOptions { credentials: Some(credentials), ..PullOptions::default() }
    };
    for options in [PullOptions::default(), with("wrong")] {
        let error = store.pull(&name, options).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    }
    store.pull(&name, with("secret")).await.unwrap();
    drop(store);
    // From the settings, and as a Secret has it: `user:secret` in base64.
    let json = format!(r#"{{"auths": {{"{}": {{"auth": "dXNlcjpzZWNyZXQ="}}}}}}"#, scene.wire.host());
    let found = Credentials::from_docker_config(json.as_bytes(), &name.parse().unwrap()).unwrap().unwrap();
    let credentials = [(scene.wire.host(), found)].into();
    let settings = Settings { credentials, ..scene.settings() };
    let store = ImageStore::open(scene.dir.path().join("second"), settings).await.unwrap();
    store.pull(&name, PullOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_registry_with_a_private_authority_is_trusted_when_told() {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(params, &authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    let scene = Scene::new(&Guard { tls: Some((server.pem(), key.serialize_pem())), ..Guard::default() });
    scene.push("app:1", &[100_000], &[]);
    let ca = scene.dir.path().join("ca.pem");
    fs::write(&ca, root.pem()).unwrap();
    let strict = Settings { insecure_registries: Vec::new(), ..scene.settings() };
    let store = ImageStore::open(scene.dir.path().join("a"), strict.clone()).await.unwrap();
    let error = store.pull(&scene.name("app:1"), PullOptions::default()).await.unwrap_err();
    // Said at once: waiting does not make a certificate right.
    assert!(matches!(error, Error::Registry { retry: false, .. }), "{error:?}");
    let store = ImageStore::open(scene.dir.path().join("b"), Settings { ca_files: vec![ca], ..strict }).await.unwrap();
    let image = store.pull(&scene.name("app:1"), PullOptions::default()).await.unwrap();
    check(&store, &image, &[100_000]).await;
}

#[tokio::test]
async fn a_silent_registry_does_not_hold_a_pull_for_ever() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("127.0.0.1:{}", silent.local_addr().unwrap().port());
    let dir = TempDir::new().unwrap();
    let settings = Settings {
        insecure_registries: vec![host.clone()],
        read_timeout: Duration::from_millis(300),
        retries: 1,
        retry_pause: Duration::from_millis(10),
        ..Settings::default()
    };
    let store = ImageStore::open(dir.path(), settings).await.unwrap();
    let error = store.pull(&format!("{host}/app"), PullOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Registry { retry: true, .. }), "{error:?}");
    drop(silent);
    let error = store.pull(&format!("{host}/app"), PullOptions::default()).await.unwrap_err();
    assert!(error.can_retry(), "{error:?}");
}

#[tokio::test]
async fn the_same_image_pulled_twice_at_once_comes_once() {
    let scene = Scene::new(&Guard::default());
    let sizes = [2 << 20, 1 << 20];
    scene.push("app:1", &sizes, &[]);
    scene.push("same:1", &sizes, &[]);
    let store = scene.store("store").await;
    let pull = |name: &str| {
        let name = scene.name(name);
        let store = &store;
        async move { store.pull(&name, PullOptions::default()).await.unwrap() }
    };
    let (a, b, c, d) = tokio::join!(pull("app:1"), pull("app:1"), pull("same:1"), pull("app:1"));
    assert!(a.layers == b.layers && b.layers == c.layers && c.layers == d.layers);
    check(&store, &a, &sizes).await;
    let whole: usize = sizes.iter().sum();
    assert!(scene.wire.served() < whole as u64 + SLACK, "{} bytes for {whole}", scene.wire.served());
    assert!(partials(&scene.dir.path().join("store")).is_empty());
}

/// Each waits for what the other has: only one that holds nothing while it waits gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_with_the_same_layers_in_other_orders_are_pulled_at_once() {
    let scene = Scene::new(&Guard::default());
    let layers: Vec<_> = (0..4).map(|i| noisy(400_000, i)).collect();
    let orders = [[0, 1, 2, 3, 0], [3, 2, 1, 0, 3], [1, 1, 3, 3, 1], [2, 0, 2, 0, 2]];
    for (i, order) in orders.iter().enumerate() {
        let mut layout = Layout::new(scene.dir.path().join(format!("order{i}")));
        let entry = layout.image(native(), &order.map(|l| layers[l].clone()));
        layout.name(&entry, "x");
        let (from, to) =
            (format!("oci:{}:x", text(&layout.dir)), format!("docker://{}/order:{i}", scene.registry.host()));
        tool("skopeo", &["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", &from, &to]);
    }
    for round in 0..3 {
        let at = scene.dir.path().join(format!("store{round}"));
        let settings = Settings { parallel_downloads: 1 + round, ..scene.settings() };
        let store = ImageStore::open(&at, settings).await.unwrap();
        let names = [0, 1, 2, 3].map(|i| scene.name(&format!("order:{i}")));
        let [a, b, c, d] = names.each_ref().map(|name| store.pull(name, PullOptions::default()));
        let images = tokio::join!(a, b, c, d);
        for image in [images.0, images.1, images.2, images.3] {
            assert_eq!(image.unwrap().layers.len(), 5);
        }
        assert!(partials(&at).is_empty());
    }
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_when_it_cannot_help() {
    let scene = Scene::new(&Guard::default());
    scene.push("library/app:1", &[50_000], &[]);
    scene.push("cache/other/app:1", &[50_000], &[]);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("127.0.0.1:{}", dead.local_addr().unwrap().port());
    let mirrors = [
        ("docker.io".to_owned(), vec![dead.clone(), scene.wire.host()]),
        ("example.org".to_owned(), vec![format!("{}/cache", scene.wire.host())]),
    ];
    let settings = Settings { mirrors: mirrors.into(), retries: 0, ..scene.settings() };
    let store = ImageStore::open(scene.dir.path().join("store"), settings).await.unwrap();
    let image = store.pull("app:1", PullOptions::default()).await.unwrap();
    assert_eq!(image.references, ["docker.io/library/app:1"]);
    let image = store.pull("example.org/other/app:1", PullOptions::default()).await.unwrap();
    assert_eq!(image.references, ["docker.io/library/app:1", "example.org/other/app:1"]);
}

#[tokio::test]
async fn a_pull_that_does_not_fit_is_refused_before_it_starts() {
    let scene = Scene::new(&Guard::default());
    scene.push("big:1", &[3 << 20, 3 << 20], &[]);
    let settings = Settings { max_image_bytes: 4 << 20, ..scene.settings() };
    let store = ImageStore::open(scene.dir.path().join("limit"), settings).await.unwrap();
    let error = store.pull(&scene.name("big:1"), PullOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::TooBig { .. }), "{error:?}");
    let disk = super::Disk::mount(scene.dir.path().join("disk"), "5m");
    let settings = Settings { reserve_bytes: 0, ..scene.settings() };
    let store = ImageStore::open(disk.0.join("images"), settings).await.unwrap();
    let error = store.pull(&scene.name("big:1"), PullOptions::default()).await.unwrap_err();
    let Error::NoSpace { needs, has, .. } = error else { panic!("{error:?}") };
    assert!(needs > 6 << 20 && has <= 5 << 20, "needs {needs}, has {has}");
    assert!(scene.wire.served() < SLACK);
    tool("mount", &["-o", "remount,size=20m", text(&disk.0)]);
    let image = store.pull(&scene.name("big:1"), PullOptions::default()).await.unwrap();
    check(&store, &image, &[3 << 20, 3 << 20]).await;
}
