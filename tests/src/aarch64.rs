//! The executable for 64-bit ARM, and what runs it here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::binary::root;

/// The target's name.
pub const TRIPLE: &str = "aarch64-unknown-linux-gnu";

/// The executable: `EDGE_TESTS_AARCH64` if set (as `tests/run.sh` and CI do), else built now, once per process.
pub fn edge_runtime() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = match std::env::var_os("EDGE_TESTS_AARCH64") {
            Some(path) => PathBuf::from(path),
            None => build(),
        };
        assert!(path.is_file(), "there is no {}", path.display());
        path
    })
}

fn build() -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = cargo.current_dir(root()).args(["xtask", "build", "--target", TRIPLE]).output().expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the aarch64 executable cannot be built: {said}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// The emulator's name: Debian 12 calls it `-static`, later ones need not. Nothing on a machine of that kind.
pub fn runner() -> Vec<&'static str> {
    if cfg!(target_arch = "aarch64") {
        return Vec::new();
    }
    let names = ["qemu-aarch64-static", "qemu-aarch64"];
    let found = names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    vec![found.expect("qemu's user emulation is installed; tests/packages.txt names its package")]
}
