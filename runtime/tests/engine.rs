//! Real containers, started through the real shim. Needs root and Debian's `busybox-static`; fails loudly without.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_runtime::engine::containers::{Containers, EngineError, ExecRequest, Handle, Request, Settings};
use edge_runtime::engine::spec::ContainerSpec;

/// A place of its own for one test: containers, their root, their logs.
struct Bench {
    dir: tempfile::TempDir,
    containers: Containers,
}

impl Bench {
    fn settings(dir: &Path) -> Settings {
        Settings {
            run_dir: dir.join("run"),
            shim_exe: env!("CARGO_BIN_EXE_edge-runtime").into(),
            ..Settings::default()
        }
    }

    fn new() -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("root");
        for sub in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(root.join(sub)).expect("a root");
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("/bin/busybox: install busybox-static");
        for name in [
            "sh", "true", "sleep", "cat", "echo", "dd", "kill", "id", "ls", "mount", "mknod", "ps", "head", "yes",
            "awk",
        ] {
            symlink("busybox", root.join("bin").join(name)).expect("a link");
        }
        let containers = Containers::new(Self::settings(dir.path())).expect("root, cgroups and namespaces");
        Bench { dir, containers }
    }

    fn request(&self, id: &str, args: &[&str]) -> Request {
        let spec = ContainerSpec {
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            rootfs: self.dir.path().join("root"),
            ..ContainerSpec::default()
        };
        Request { id: id.into(), spec, log_path: Some(self.log(id)), log_max_bytes: None, start_timeout: None }
    }

    fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }
}

#[tokio::test]
async fn runs_and_tells_the_exit_code_and_the_output() {
    let bench = Bench::new();
    let handle = bench.containers.start(bench.request("one", &["sh", "-c", "echo hello; exit 7"])).await.unwrap();
    println!("{:?}", handle.wait().await);
    println!("{}", std::fs::read_to_string(bench.log("one")).unwrap());
    handle.delete().await;
}
