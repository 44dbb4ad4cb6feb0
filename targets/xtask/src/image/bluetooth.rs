//! The x86 machine in which Bluetooth is tested: no disk, an initramfs with Debian's ordinary kernel's modules (the cloud one
//! has no Bluetooth), D-Bus and bluetoothd. The program under test is added by whoever boots it, as a second archive.
//!
//! Leaves `qemu.sh` (runs the emulator), `vmlinuz` and `initrd.base`.

use std::fs;
use std::path::Path;

use super::modules::Modules;
use super::packages::Archive;
use super::{cpio, emulator, kernel, libraries, tree};
use crate::error::Error;
use crate::target::root;

/// What is loaded, in this order: the controller's encryption before Bluetooth, or its self-tests fail.
const MODULES: &[&str] = &[
    "sha512_generic",
    "sha256_generic",
    "hmac",
    "ctr",
    "ccm",
    "cmac",
    "ecb",
    "aes_generic",
    "sha3_generic",
    "jitterentropy_rng",
    "drbg",
    "ecdh_generic",
    "rfkill",
    "bluetooth",
    "hci_uart",
    "algif_skcipher",
    "algif_hash",
    "uhid",
];

/// Programs of the machine, and where Debian has them.
const PROGRAMS: &[(&str, &str)] = &[
    ("bluetoothd", "usr/libexec/bluetooth/bluetoothd"),
    ("btattach", "usr/bin/btattach"),
    ("btmgmt", "usr/bin/btmgmt"),
    ("dbus-daemon", "usr/bin/dbus-daemon"),
];

/// The packages they are in; libraries that these need come with them.
const PACKAGES: &[&str] = &["bluez", "dbus-daemon"];

/// Makes the machine in the folder `out`.
pub fn make(out: &Path) -> Result<(), Error> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::File(path, error)
    };
    let tree = out.join("tree");
    let _ = fs::remove_dir_all(&tree);
    for folder in ["bin", "dev", "proc", "sys", "run", "tmp", "usr/bin", "var/lib/bluetooth", "etc/dbus-1"] {
        let path = tree.join(folder);
        fs::create_dir_all(&path).map_err(file(&path))?;
    }
    let archive = Archive::open("amd64", false)?;
    let kernel = kernel(&archive, "amd64")?;
    let modules = Modules::of(&kernel)?;
    let busybox = archive.unpack_one("busybox-static")?;
    tree::busybox(&busybox, &tree)?;
    tree::link(&tree, "sbin", "bin")?;
    libraries::install(&archive, PACKAGES, PROGRAMS, &tree)?;
    let names = modules.install(&MODULES.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &tree)?;
    tree::write(&tree, "etc/modules", &format!("{}\n", names.join("\n")), false)?;
    tree::write(&tree, "etc/passwd", "root:x:0:0:root:/:/bin/sh\n", false)?;
    tree::write(&tree, "etc/group", "root:x:0:\n", false)?;
    tree::write(&tree, "etc/dbus-1/system.conf", include_str!("files/dbus.conf"), false)?;
    let init = root().join("tests/bluetooth/init");
    tree::write(&tree, "init", &crate::error::read(&init)?, true)?;

    let initrd = out.join("initrd.base");
    fs::write(&initrd, cpio::gzip(&cpio::pack(&tree)?, "-1")?).map_err(file(&initrd))?;
    let image = kernel.join("boot").join(format!("vmlinuz-{}", modules.release()));
    fs::copy(&image, out.join("vmlinuz")).map_err(file(&image))?;
    fs::remove_dir_all(&tree).map_err(file(&tree))?;
    drop(archive);
    let command = emulator::command("qemu-system-x86_64", "qemu-system-x86", "pc")?;
    tree::write(out, "qemu.sh", &format!("#!/bin/sh\nexec {command} \"$@\"\n"), true)
}
