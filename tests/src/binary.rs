//! Where the executable under test is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The workspace's root folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The `edge-runtime` executable: `EDGE_RUNTIME_BIN` if set (as `tests/run.sh` does), else cargo brings the one beside this
/// test up to date, once per process.
pub fn edge_runtime() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("EDGE_RUNTIME_BIN") {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "EDGE_RUNTIME_BIN names {}, which is no file", path.display());
            return path;
        }
        build()
    })
}

/// Builds into the target folder this very test was built into, with the same profile.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test executable");
    // target/<triple>/<folder of the profile>/deps/<test>
    let folder = test.ancestors().nth(2).expect("a test executable lies in <profile>/deps");
    let profile = match folder.file_name().and_then(|n| n.to_str()) {
        Some("debug") => "dev",
        // `cargo bench` shares its folder with `release`, whose link takes minutes.
        Some("release") => "bench",
        Some(other) => other,
        None => "dev",
    };
    // Selected together with the tests, so that dependencies keep their features and are not built twice.
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "edge-runtime", "--package", "edge-tests", "--bins", "--lib"])
        .args(["--profile", profile])
        .current_dir(root())
        .status()
        .expect("cargo starts");
    assert!(status.success(), "cargo could not build edge-runtime: {status}");
    let path = folder.join("edge-runtime");
    assert!(path.is_file(), "cargo built no {}", path.display());
    path
}
