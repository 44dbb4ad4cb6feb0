//! A file system of one's own in a file: for power cuts, full disks, and counting what reaches the device.
//!
//! Needs root, loop devices, and `losetup`, `mount`, `umount` (util-linux) and `mkfs.ext4` (e2fsprogs); everything here
//! panics with what is missing.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs a command and panics with what it said if it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}: install util-linux and e2fsprogs"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said} (this test needs root and loop devices)", args.join(" "));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A mounted ext4 in a file. Unmounted and removed when dropped.
#[derive(Debug)]
pub struct Image {
    file: PathBuf,
    device: String,
    mount: PathBuf,
}

impl Image {
    /// A new, empty ext4 of `bytes` in `dir`.
    pub fn new(dir: &Path, name: &str, bytes: u64) -> Image {
        let file = dir.join(format!("{name}.img"));
        fs::File::create(&file).and_then(|f| f.set_len(bytes)).expect("cannot make the image's file");
        run("mkfs.ext4", &["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", &text(&file)]);
        Image::mount(dir, name, file)
    }

    fn mount(dir: &Path, name: &str, file: PathBuf) -> Image {
        let device = run("losetup", &["--find", "--show", &text(&file)]);
        let mount = dir.join(format!("{name}.mnt"));
        fs::create_dir_all(&mount).expect("cannot make the mount point");
        let image = Image { file, device, mount };
        run("mount", &["-t", "ext4", "-o", "noatime", &image.device, &text(&image.mount)]);
        image
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Bytes written to the device so far.
    pub fn written(&self) -> u64 {
        self.stat(6) * 512
    }

    /// A field of `/sys/block/<dev>/stat` (Documentation/block/stat.rst in the kernel).
    fn stat(&self, field: usize) -> u64 {
        let name = self.device.trim_start_matches("/dev/");
        let stat = fs::read_to_string(format!("/sys/block/{name}/stat")).expect("no block statistics in /sys");
        stat.split_whitespace().nth(field).and_then(|n| n.parse().ok()).expect("unknown block statistics")
    }

    /// What a power cut at this moment would leave: a copy of what has reached the device, mounted. Whoever writes has to
    /// be stopped; what the kernel still has in flight is waited for, and a copy during which anything was written is made
    /// again, so that it is of one moment.
    pub fn cut(&self, dir: &Path, name: &str) -> Image {
        let file = dir.join(format!("{name}.img"));
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let before = (self.stat(4), self.stat(8));
            let quiet = before.1 == 0;
            if quiet {
                // Sparse, and by reflink where the file system has it.
                run("cp", &["--sparse=always", "--reflink=auto", &text(&self.file), &text(&file)]);
                if (self.stat(4), self.stat(8)) == before {
                    return Image::mount(dir, name, file);
                }
            }
            assert!(Instant::now() < deadline, "the device does not become quiet");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Best effort: a test that has failed must not fail again here.
        let _ = Command::new("umount").arg(&self.mount).output();
        let _ = Command::new("losetup").args(["-d", &self.device]).output();
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(&self.mount);
    }
}

/// Writes until the file system takes no more.
pub fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("the file that fills the disk");
    for block in [1 << 20, 64 << 10, 4 << 10, 512, 1] {
        let zeros = vec![0; block];
        while file.write_all(&zeros).is_ok() {}
    }
    // What the page cache still holds back would turn up as free space.
    let _ = file.sync_all();
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary paths are text").to_owned()
}
