//! A small image that every engine of the comparison runs: busybox, made without a network.

use std::path::{Path, PathBuf};

use edge_tests::run::run;

/// The image's name, in every engine.
pub const NAME: &str = "localhost/bench:1";

/// An image as an OCI archive and as an unpacked root file system.
#[derive(Debug)]
pub struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    /// Makes it with umoci and skopeo.
    pub fn make() -> Image {
        let folder = tempfile::Builder::new().prefix("edge-bench-").tempdir().expect("a temporary folder");
        let image = Image { folder };
        let bin = image.rootfs().join("bin");
        std::fs::create_dir_all(&bin).expect("a folder");
        for empty in ["proc", "sys", "dev", "tmp"] {
            std::fs::create_dir_all(image.rootfs().join(empty)).expect("a folder");
        }
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
        for name in ["sh", "sleep", "true"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).expect("a link");
        }
        let layout = image.path("layout");
        let tagged = format!("{}:1", layout.display());
        let rootfs = image.rootfs().to_string_lossy().into_owned();
        let steps: [&[&str]; 4] = [
            &["init", "--layout", &layout.to_string_lossy()],
            &["new", "--image", &tagged],
            &["insert", "--image", &tagged, &rootfs, "/"],
            &["config", "--image", &tagged, "--config.cmd", "/bin/sleep", "--config.cmd", "100000"],
        ];
        for step in steps {
            run("umoci", step, "").ok();
        }
        let archive = format!("oci-archive:{}:{NAME}", image.archive().display());
        run("skopeo", ["copy", "--quiet", &format!("oci:{tagged}"), &archive], "").ok();
        image
    }

    /// The OCI archive.
    pub fn archive(&self) -> PathBuf {
        self.path("image.tar")
    }

    /// The root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// A path in the image's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}
