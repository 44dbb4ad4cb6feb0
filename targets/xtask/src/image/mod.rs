//! `cargo xtask image`: a disk image that boots on a board, made of Debian's kernel and our executable, by an ordinary user.

mod bluetooth;
mod board;
mod cpio;
mod disk;
mod emulator;
mod libraries;
mod modules;
mod packages;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use board::{Board, Boot};
use modules::Modules;
use packages::Archive;
use tree::Parts;

use crate::error::{Error, run as run_program};
use crate::target::root;

const HELP: &str = "\
cargo xtask image --board NAME [OPTION]...

Makes a disk image: partition table, boot partition, read-only root, state partition. Needs Debian's apt, and no root.

  --board NAME    the board: one of targets/xtask/src/image/boards/*.toml
  --binary PATH   the executable; else target/dist/TRIPLE/edge-runtime, which `cargo xtask dist` makes
  --etc DIR       what becomes /etc/edge-runtime (on the boot partition): config.toml, manifests, hostname, address,
                  time-servers
  --size MIB      the size of the disk, of which state takes what is left (1024)
  --out DIR       where it goes (target/dist/image-NAME): the disk, the parts that QEMU is given, and run.sh, which boots it
  --run           boots it in QEMU afterwards, with the console on this terminal
  --check         boots it in QEMU and tries everything: the long form of tests/tests/image.rs (ten power cuts), some minutes

  --bluetooth-vm  instead of all that: the x86 machine in which tests/tests/bluetooth_vm.rs tries Bluetooth, in --out DIR

Flash it with:  dd if=target/dist/image-rpi4/edge-runtime-VERSION-rpi4.img of=/dev/sdX bs=4M conv=fsync
What is downloaded is kept below .cache/image; remove that folder for newer packages.
";

/// Programs that images are made with, and the packages they are in.
const TOOLS: &[(&str, &str)] = &[
    ("sfdisk", "fdisk"),
    ("mformat", "mtools"),
    ("mcopy", "mtools"),
    ("mksquashfs", "squashfs-tools"),
    ("mke2fs", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
    ("readelf", "binutils"),
    ("fdtput", "device-tree-compiler"),
];

/// The size of a disk in MiB. A power of two: QEMU's SD cards must be.
const SIZE: u64 = 1024;

/// The command line.
#[derive(Debug, Default)]
struct Options {
    board: Option<String>,
    binary: Option<PathBuf>,
    etc: Option<PathBuf>,
    size: Option<u64>,
    out: Option<PathBuf>,
    run: bool,
    check: bool,
    bluetooth_vm: bool,
}

/// Makes the image that the arguments ask for.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let Some(options) = parse(arguments)? else {
        print!("{HELP}");
        return Ok(());
    };
    check_tools()?;
    if options.bluetooth_vm {
        return bluetooth::make(&options.out.ok_or_else(|| Error::Usage("--bluetooth-vm wants --out DIR".to_owned()))?);
    }
    let name = options.board.ok_or_else(|| Error::Usage(format!("--board is missing\n\n{HELP}")))?;
    let board = Board::load(&name)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let binary = options.binary.unwrap_or_else(|| target.join("dist").join(&board.triple).join("edge-runtime"));
    let out = options.out.unwrap_or_else(|| target.join("dist").join(format!("image-{name}")));
    let disk = make(&board, &binary, options.etc.as_deref(), options.size.unwrap_or(SIZE), &out)?;
    println!("{}", disk.display());
    if options.run {
        emulator::run(&out.join("run.sh"))?;
    }
    if options.check {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root()).args(["test", "--workspace", "--test", "image", "--"]);
        cargo.args(["--ignored", "--nocapture"]).env("EDGE_TESTS_AARCH64", &binary).env("EDGE_TESTS_BOARD", &name);
        // What `cargo xtask` tells this program of its own package would make cargo build others again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(name);
            }
        }
        run_program(&mut cargo)?;
    }
    Ok(())
}

/// `None` is a cry for help.
fn parse(arguments: &[String]) -> Result<Option<Options>, Error> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| rest.next().cloned());
            value.ok_or_else(|| Error::Usage(format!("{name} wants a value")))
        };
        match name {
            "--help" | "-h" => return Ok(None),
            "--run" => options.run = true,
            "--check" => options.check = true,
            "--bluetooth-vm" => options.bluetooth_vm = true,
            "--board" => options.board = Some(value()?),
            "--binary" => options.binary = Some(PathBuf::from(value()?)),
            "--etc" => options.etc = Some(PathBuf::from(value()?)),
            "--out" => options.out = Some(PathBuf::from(value()?)),
            "--size" => {
                let text = value()?;
                let size = text.parse().map_err(|_| Error::Usage(format!("--size {text} is no number of MiB")))?;
                options.size = Some(size);
            }
            _ => return Err(Error::Usage(format!("unknown argument: {argument}\n\n{HELP}"))),
        }
    }
    Ok(Some(options))
}

/// The path of a program: Debian keeps some of them out of a user's PATH.
fn tool(name: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.is_file() { sbin } else { PathBuf::from(name) }
}

/// All that is missing, at once.
fn check_tools() -> Result<(), Error> {
    let missing = TOOLS.iter().filter(|(program, _)| Command::new(tool(program)).arg("--version").output().is_err());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(format!("an image is made with programs of packages that are missing: {}", packages.join(", "))))
}

/// Makes everything in the folder `out`; the path of the disk.
fn make(board: &Board, binary: &Path, etc: Option<&Path>, size: u64, out: &Path) -> Result<PathBuf, Error> {
    let work = out.join("work");
    let file = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::File(path, error)
    };
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).map_err(file(&work))?;

    let archive = Archive::open(board.architecture(), false)?;
    let kernel = kernel(&archive, board.architecture())?;
    let parts = Parts {
        busybox: archive.unpack_one("busybox-static")?,
        e2fsck: archive.unpack_one("e2fsck-static")?,
        authorities: archive.unpack_one("ca-certificates")?,
        modules: Modules::of(&kernel)?,
    };

    tree::early(board, &parts, &work.join("early"))?;
    let initrd = cpio::gzip(&cpio::pack(&work.join("early"))?, "-6")?;
    fs::write(out.join("initrd.img"), initrd).map_err(file(out))?;
    let image = kernel.join("boot").join(format!("vmlinuz-{}", parts.modules.release()));
    fs::copy(&image, out.join("vmlinuz")).map_err(file(&image))?;
    if let Some(name) = &board.device_tree {
        let from = kernel.join("usr/lib").join(format!("linux-image-{}", parts.modules.release())).join(name);
        fs::copy(&from, out.join("board.dtb")).map_err(file(&from))?;
    }

    tree::root(board, &parts, binary, &work.join("root"))?;
    // Not by its own name, which would be busybox' rdate, which speaks no SNTP. Its libraries are the only ones.
    let used = libraries::install(&archive, &["rdate"], &[("sntp", "usr/sbin/rdate")], &work.join("root"))?;
    used.iter().try_for_each(|package| tree::copyright(package, &work.join("root")))?;
    disk::squash(&work.join("root"), &work.join("root.squashfs"))?;
    boot(board, &archive, etc, out, &work.join("boot"))?;
    if let Some(firmware) = &board.emulator.firmware {
        let from = archive.unpack_one(&firmware.package)?.join(&firmware.path);
        fs::copy(&from, out.join("firmware")).map_err(file(&from))?;
    }
    if board.device_tree.is_some() {
        emulator::device_tree(board, &out.join("board.dtb"))?;
    }
    let name = format!("edge-runtime-{}-{}.img", env!("CARGO_PKG_VERSION"), board.name);
    let (boot_tree, squashfs) = (work.join("boot"), work.join("root.squashfs"));
    let content = disk::Content { boot: board.boot, boot_tree: &boot_tree, root: &squashfs, size };
    let path = out.join(&name);
    disk::write(&path, &content)?;
    fs::remove_dir_all(&work).map_err(file(&work))?;

    let script = out.join("run.sh");
    fs::write(&script, emulator::script(board, &name)?).map_err(file(&script))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).map_err(file(&script))?;
    Ok(path)
}

/// Debian's ordinary kernel, unpacked.
fn kernel(archive: &Archive, architecture: &str) -> Result<PathBuf, Error> {
    let names = archive.closure(&format!("linux-image-{architecture}"), &[])?;
    // `linux-image-6.1.0-50-arm64` is what the package without a version leads to.
    let versioned =
        |name: &&String| name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(char::is_numeric));
    let name = names.iter().find(versioned);
    archive.unpack_one(name.ok_or_else(|| Error::Usage("Debian's packages have no kernel".to_owned()))?)
}

/// Fills the boot partition: what the board's loader reads, and what the administrator may change.
fn boot(board: &Board, archive: &Archive, etc: Option<&Path>, out: &Path, tree: &Path) -> Result<(), Error> {
    let put = |at: &str, bytes: &[u8]| {
        let path = tree.join(at);
        let parent = path.parent().unwrap_or(tree);
        fs::create_dir_all(parent).map_err(|error| Error::File(parent.to_owned(), error))?;
        fs::write(&path, bytes).map_err(|error| Error::File(path, error))
    };
    let copy = |from: &Path, at: &str| put(at, &fs::read(from).map_err(|error| Error::File(from.to_owned(), error))?);
    copy(&out.join("vmlinuz"), "vmlinuz")?;
    copy(&out.join("initrd.img"), "initrd.img")?;
    match board.boot {
        Boot::Uefi => {
            let loader = archive.unpack_one("systemd-boot-efi")?.join("usr/lib/systemd/boot/efi");
            let (file, name) = match board.architecture() {
                "arm64" => ("systemd-bootaa64.efi", "BOOTAA64.EFI"),
                _ => ("systemd-bootx64.efi", "BOOTX64.EFI"),
            };
            copy(&loader.join(file), &format!("EFI/BOOT/{name}"))?;
            put("loader/loader.conf", include_bytes!("files/loader.conf"))?;
            let entry = format!("title edge-runtime\nlinux /vmlinuz\ninitrd /initrd.img\noptions {}\n", board.cmdline);
            put("loader/entries/edge.conf", entry.as_bytes())?;
        }
        Boot::RaspberryPi => {
            let firmware = archive.unpack_one("raspi-firmware")?.join("usr/lib/raspi-firmware");
            for name in &board.firmware {
                copy(&firmware.join(name), name)?;
            }
            let device_tree = board.device_tree.as_deref().unwrap_or_default();
            copy(&out.join("board.dtb"), device_tree.rsplit('/').next().unwrap_or(device_tree))?;
            put("config.txt", include_bytes!("files/config.txt"))?;
            put("cmdline.txt", format!("{}\n", board.cmdline).as_bytes())?;
        }
    }
    put("edge-runtime/config.toml", include_bytes!("files/config.toml"))?;
    if let Some(etc) = etc {
        let mut cp = Command::new("cp");
        run_program(cp.args(["-rL", "--no-preserve=ownership"]).arg(etc.join(".")).arg(tree.join("edge-runtime")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_taken_in_both_spellings_and_others_refused() {
        let options = parse(&words("--board rpi4 --size=4096 --check")).unwrap().unwrap();
        assert_eq!((options.board.as_deref(), options.size, options.check), (Some("rpi4"), Some(4096), true));
        assert!(parse(&words("--help")).unwrap().is_none());
        for (wrong, word) in [("--board", "wants a value"), ("--size big", "big"), ("--bord rpi4", "--bord")] {
            let error = parse(&words(wrong)).unwrap_err().to_string();
            assert!(error.contains(word), "{wrong}: {error}");
        }
    }
}
