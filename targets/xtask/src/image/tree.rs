//! The folders that become file systems: the initramfs and the root.
//!
//! The root's init is busybox': it mounts, brings up the network, and keeps the node running. systemd, which the unit file in
//! `yocto/` is for, would bring some 60 MB of packages that want to be *installed*, by scripts that run on the board.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::board::Board;
use super::modules::Modules;
use crate::error::{Error, output, run as run_program};
use crate::target;

/// The programs of busybox that the files here use, and those that somebody at the console would miss.
const PROGRAMS: &str = "ash awk basename blkdiscard brctl cat chgrp chmod chown cmp cp cttyhack cut date dd df dirname dmesg \
    du echo env expr false find findfs free getty grep gunzip gzip halt head hexdump hostname hwclock id ifconfig init \
    insmod ip kill killall less ln logger ls lsmod md5sum mdev mkdir mknod mktemp modinfo modprobe more mount mv nc \
    netstat nproc nslookup pidof ping poweroff printf ps pwd readlink realpath reboot rm rmdir rmmod route sed seq \
    setsid sh sha256sum sleep sort stat stty sync switch_root sysctl tail tar tee test time timeout top touch tr true \
    udhcpc umount uname uniq uptime usleep vi watch wc wget which xargs zcat";

/// Files of ours: where they go, what is in them, and whether they are run.
const FILES: &[(&str, &str, bool)] = &[
    ("etc/inittab", include_str!("files/inittab"), false),
    ("etc/mdev.conf", include_str!("files/mdev.conf"), false),
    ("etc/init.d/rcS", include_str!("files/rcS"), true),
    ("etc/init.d/rcK", include_str!("files/rcK"), true),
    ("usr/libexec/edge/node", include_str!("files/node"), true),
    ("usr/libexec/edge/network", include_str!("files/network"), true),
    ("usr/libexec/edge/time", include_str!("files/time"), true),
    ("usr/libexec/edge/lease", include_str!("files/lease"), true),
    ("usr/libexec/edge/console", include_str!("files/console"), true),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", false),
    ("etc/group", "root:x:0:\ntty:x:5:\ndialout:x:20:\nnogroup:x:65534:\n", false),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", false),
    ("etc/services", "ntp 123/udp\ndomain 53/udp\ndomain 53/tcp\n", false),
    ("etc/profile", "export PATH=/usr/bin:/bin HOME=/root PS1='\\w # '\n", false),
];

/// Folders that other file systems are mounted on, or that programs expect.
const FOLDERS: &[&str] = &[
    "bin",
    "boot",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "usr/bin",
    "lib/modules",
    "etc/ssl/certs",
    "var/lib/edge-runtime",
    "usr/lib/edge-runtime",
];

/// Links: where, and to what.
const LINKS: &[(&str, &str)] = &[
    ("sbin", "bin"),
    ("usr/sbin", "bin"),
    ("var/run", "/run"),
    ("var/tmp", "/tmp"),
    ("var/log", "/run"),
    ("etc/resolv.conf", "/run/resolv.conf"),
    // What the administrator may change stands on the boot partition, which any computer can write.
    ("etc/edge-runtime", "/boot/edge-runtime"),
];

/// The unpacked packages that a file system is made of.
#[derive(Debug)]
pub struct Parts {
    /// `busybox-static`.
    pub busybox: PathBuf,
    /// `e2fsck-static`.
    pub e2fsck: PathBuf,
    /// `ca-certificates`.
    pub authorities: PathBuf,
    /// The kernel's modules.
    pub modules: Modules,
}

/// Fills the initramfs.
pub fn early(board: &Board, parts: &Parts, tree: &Path) -> Result<(), Error> {
    for folder in ["bin", "dev", "proc", "sys", "root", "etc"] {
        folder_at(tree, folder)?;
    }
    busybox(&parts.busybox, tree)?;
    link(tree, "sbin", "bin")?;
    write(tree, "init", include_str!("files/init"), true)?;
    let names = parts.modules.install(&board.early, tree)?;
    write(tree, "etc/modules", &format!("{}\n", names.join("\n")), false)
}

/// Fills the root file system, with the executable at `binary`.
pub fn root(board: &Board, parts: &Parts, binary: &Path, tree: &Path) -> Result<(), Error> {
    for folder in FOLDERS {
        folder_at(tree, folder)?;
    }
    busybox(&parts.busybox, tree)?;
    for (at, to) in LINKS {
        link(tree, at, to)?;
    }
    for (at, text, run) in FILES {
        write(tree, at, text, *run)?;
    }
    copy(&parts.e2fsck.join("sbin/e2fsck.static"), &tree.join("bin/e2fsck"))?;
    parts.modules.install(&board.modules, tree)?;
    write(tree, "usr/lib/edge-runtime/board", &format!("{}\n", board.name), false)?;
    write(tree, "usr/lib/edge-runtime/config.toml", &board.config, false)?;
    write(tree, "etc/ssl/certs/ca-certificates.crt", &authorities(&parts.authorities)?, false)?;
    let version = env!("CARGO_PKG_VERSION");
    let release =
        format!("NAME=edge-runtime\nID=edge-runtime\nVERSION_ID={version}\nPRETTY_NAME=\"edge-runtime {version}\"\n");
    write(tree, "etc/os-release", &release, false)?;
    for package in [&parts.busybox, &parts.e2fsck, &parts.authorities] {
        copyright(package, tree)?;
    }
    executable(board, binary, &tree.join("usr/bin/edge-runtime"))?;
    // No later than the image: what the clock of a board without a battery starts at.
    let built = fs::metadata(binary).and_then(|data| data.modified()).map_err(|e| Error::File(binary.to_owned(), e))?;
    let seconds = built.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    write(tree, "usr/lib/edge-runtime/built", &format!("{seconds}\n"), false)
}

/// The executable, without symbols: a development build has 100 MB of them.
fn executable(board: &Board, from: &Path, to: &Path) -> Result<(), Error> {
    let target = target::load(board.triple.clone())?;
    if !from.is_file() {
        let wanted = format!("there is no {}: run `cargo xtask dist --target {}`", from.display(), board.triple);
        return Err(Error::Usage(format!("{wanted}, or give one with --binary")));
    }
    let machine = output(Command::new("readelf").arg("--file-header").arg(from))?;
    if !machine.contains(&target.facts.arch) {
        return Err(Error::Usage(format!(
            "{} is not for {}, which {} is",
            from.display(),
            target.facts.arch,
            board.name
        )));
    }
    run_program(Command::new(&target.facts.strip).arg("--strip-all").arg("-o").arg(to).arg(from))
}

/// Busybox under all its names.
pub fn busybox(package: &Path, tree: &Path) -> Result<(), Error> {
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| package.join(place));
    let from = places.iter().find(|place| place.is_file()).unwrap_or(&places[0]);
    copy(from, &tree.join("bin/busybox"))?;
    PROGRAMS.split_whitespace().try_for_each(|name| link(tree, &format!("bin/{name}"), "busybox"))
}

/// The authorities of Debian's package, in one file.
fn authorities(package: &Path) -> Result<String, Error> {
    let folder = package.join("usr/share/ca-certificates/mozilla");
    let entries = fs::read_dir(&folder).map_err(|error| Error::File(folder, error))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| crate::error::read(path)).collect()
}

/// The package's copyright notice goes where its program goes.
pub fn copyright(package: &Path, tree: &Path) -> Result<(), Error> {
    let docs = package.join("usr/share/doc");
    for entry in fs::read_dir(&docs).into_iter().flatten().flatten() {
        let from = entry.path().join("copyright");
        if from.is_file() {
            copy(&from, &tree.join("usr/share/doc").join(entry.file_name()).join("copyright"))?;
        }
    }
    Ok(())
}

fn folder_at(tree: &Path, at: &str) -> Result<(), Error> {
    let path = tree.join(at);
    fs::create_dir_all(&path).map_err(|error| Error::File(path, error))
}

/// A symbolic link at a path of the tree.
pub fn link(tree: &Path, at: &str, to: &str) -> Result<(), Error> {
    let path = tree.join(at);
    let parent = path.parent().unwrap_or(tree);
    fs::create_dir_all(parent).map_err(|error| Error::File(parent.to_owned(), error))?;
    symlink(to, &path).map_err(|error| Error::File(path, error))
}

/// Copies a file with its mode.
pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(|error| Error::File(parent.to_owned(), error))?;
    fs::copy(from, to).map(drop).map_err(|error| Error::File(from.to_owned(), error))
}

/// A file of the tree.
pub fn write(tree: &Path, at: &str, text: &str, run: bool) -> Result<(), Error> {
    let path = tree.join(at);
    let parent = path.parent().unwrap_or(tree);
    fs::create_dir_all(parent).map_err(|error| Error::File(parent.to_owned(), error))?;
    let mode = if run { 0o755 } else { 0o644 };
    let done = fs::write(&path, text).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
    done.map_err(|error| Error::File(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_scripts_run_is_there() {
        let there: Vec<&str> = PROGRAMS.split_whitespace().chain(["e2fsck"]).collect();
        for line in include_str!("files/inittab").lines().filter(|line| line.starts_with("::")) {
            let program = line.rsplit(':').next().unwrap_or("").split(' ').next().unwrap_or("");
            let file = FILES.iter().any(|(at, _, run)| *run && program == format!("/{at}"));
            assert!(file || there.contains(&program.trim_start_matches("/sbin/")), "{line}");
        }
    }
}
