//! What is handed out for a target: a tree as it lies on a root file system, as `.tar.zst` and as `.deb`, with the symbols,
//! the bill of materials and the checksums beside it. All of it depends on its content only: same input, same bytes.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::Built;
use crate::error::{Error, output, run};
use crate::target::{Target, root};
use crate::{graph, licences, manual, sbom};

/// The systemd unit lies where Yocto wants it.
const UNIT: &str = "yocto/meta-edge-runtime/recipes-core/edge-runtime/files/edge-runtime.service";
/// What the files of an archive are dated, in seconds since 1970: nothing in them depends on when it was made.
const DATE: &str = "0";

/// Packs what was built; gives the files that are handed out.
pub fn pack(target: &Target, built: &Built, out: &Path) -> Result<Vec<PathBuf>, Error> {
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("edge-runtime-{version}-{}", target.triple);
    let tree = out.join(&name);
    let _ = std::fs::remove_dir_all(&tree);
    let bytes = std::fs::read(&built.binary).map_err(|error| Error::File(built.binary.clone(), error))?;
    let sum = output(Command::new("sha256sum").arg(&built.binary))?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    let crates = graph::of(target)?;
    let bom = sbom::document(target, &crates, sum, sbom::libc_version(&bytes).as_deref());
    let bom = serde_json::to_string_pretty(&bom).unwrap_or_default() + "\n";

    put(&tree, "usr/bin/edge-runtime", &bytes, 0o755)?;
    copy(&tree, UNIT, "usr/lib/systemd/system/edge-runtime.service")?;
    copy(&tree, "README.md", "usr/share/doc/edge-runtime/README.md")?;
    copy(&tree, "CHANGELOG.md", "usr/share/doc/edge-runtime/CHANGELOG.md")?;
    copy(&tree, "LICENSE", "usr/share/doc/edge-runtime/copyright")?;
    put(&tree, "usr/share/doc/edge-runtime/third-party-licences.txt", licences::text(&crates)?.as_bytes(), 0o644)?;
    put(&tree, "usr/share/doc/edge-runtime/sbom.cdx.json", bom.as_bytes(), 0o644)?;
    let say = |arguments: &[&str]| output(target.start(&built.binary)?.args(arguments));
    put(&tree, "etc/edge-runtime/config.toml", say(&["--minconfig"])?.as_bytes(), 0o644)?;
    let manifests = tree.join("etc/edge-runtime/manifests");
    std::fs::create_dir_all(&manifests).map_err(|error| Error::File(manifests, error))?;
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/edge-runtime"),
        ("zsh", "usr/share/zsh/vendor-completions/_edge-runtime"),
        ("fish", "usr/share/fish/vendor_completions.d/edge-runtime.fish"),
    ] {
        put(&tree, path, say(&["completion", shell])?.as_bytes(), 0o644)?;
    }
    let page = manual::page(version, &|| target.start(&built.binary))?;
    let manual = "usr/share/man/man1/edge-runtime.1";
    put(&tree, manual, page.as_bytes(), 0o644)?;
    run(Command::new("gzip").args(["-9n", "--force"]).arg(tree.join(manual)))?;

    let archive = out.join(format!("{name}.tar.zst"));
    run(tar(&tree).arg("--use-compress-program=zstd -19 -T1 -q").arg("-cf").arg(&archive).args(top(&tree)?))?;
    let debian = debian(target, &tree, out, version)?;
    let files = vec![archive, debian, symbols(target, built, out, &name)?, beside(out, &name, "cdx.json", &bom)?];
    let sums = output(Command::new("sha256sum").current_dir(out).args(files.iter().filter_map(|f| f.file_name())))?;
    let sums_file = beside(out, &name, "sha256", &sums)?;
    println!("{}  {} bytes, sha256 {sum}", tree.display(), bytes.len());
    Ok([files, vec![sums_file]].concat())
}

/// The symbols for a debugger, found by the executable's build id.
fn symbols(target: &Target, built: &Built, out: &Path, name: &str) -> Result<PathBuf, Error> {
    let plain = out.join(format!("{name}.debug"));
    run(Command::new(&target.facts.objcopy).arg("--only-keep-debug").arg(&built.symbols).arg(&plain))?;
    run(Command::new("zstd").args(["-q", "-f", "-10", "--rm"]).arg(&plain))?;
    Ok(out.join(format!("{name}.debug.zst")))
}

/// A Debian package. It needs nothing: the executable is static.
///
/// Source: deb(5), deb-control(5), Debian Policy 4.7 (section 10.7 for configuration, 9.3 for services).
fn debian(target: &Target, tree: &Path, out: &Path, version: &str) -> Result<PathBuf, Error> {
    let control = tree.join("DEBIAN");
    let size: u64 = output(Command::new("du").args(["-sk", "--apparent-size"]).arg(tree))?
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0);
    let text = format!(
        "Package: edge-runtime\nVersion: {version}\nArchitecture: {}\nMaintainer: edge-runtime\nInstalled-Size: {size}\n\
         Section: net\nPriority: optional\nRecommends: bluez\nDescription: edge node in one process\n Turns a Linux gateway \
         into an edge node: containers, an MQTT broker, field\n devices over Modbus and Bluetooth, and a durable way to the \
         cloud.\n",
        target.facts.debian
    );
    put(&control, "control", text.as_bytes(), 0o644)?;
    put(&control, "conffiles", b"/etc/edge-runtime/config.toml\n", 0o644)?;
    put(&control, "postinst", POSTINST.as_bytes(), 0o755)?;
    put(&control, "prerm", PRERM.as_bytes(), 0o755)?;
    put(&control, "postrm", POSTRM.as_bytes(), 0o755)?;
    let package = out.join(format!("edge-runtime_{version}_{}.deb", target.facts.debian));
    let mut command = Command::new("dpkg-deb");
    command.env("SOURCE_DATE_EPOCH", DATE).args(["--root-owner-group", "--uniform-compression", "-Zxz", "--build"]);
    let built = output(command.arg(tree).arg(&package));
    let _ = std::fs::remove_dir_all(&control);
    built.map(|_| package)
}

/// Containers outlive an upgrade: the service is restarted, not stopped for its duration.
const POSTINST: &str = "#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ -z \"$2\" ]; then
        systemctl enable --now edge-runtime.service
    else
        systemctl try-restart edge-runtime.service
    fi
fi
";

const PRERM: &str = "#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now edge-runtime.service
fi
";

/// The state is the owner's: it goes only when that is asked for.
const POSTRM: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ \"$1\" = purge ]; then
    rm -rf /var/lib/edge-runtime
fi
";

fn tar(tree: &Path) -> Command {
    let mut command = Command::new("tar");
    command.arg("-C").arg(tree).args(["--sort=name", &format!("--mtime=@{DATE}"), "--owner=0", "--group=0"]);
    command.args(["--numeric-owner", "--format=gnu"]);
    command
}

fn top(tree: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    let entries = std::fs::read_dir(tree).map_err(|error| Error::File(tree.to_owned(), error))?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name()).filter(|n| n != OsStr::new("DEBIAN")).collect();
    names.sort();
    Ok(names)
}

fn beside(out: &Path, name: &str, kind: &str, text: &str) -> Result<PathBuf, Error> {
    let path = out.join(format!("{name}.{kind}"));
    std::fs::write(&path, text).map_err(|error| Error::File(path.clone(), error))?;
    Ok(path)
}

fn copy(tree: &Path, from: &str, to: &str) -> Result<(), Error> {
    let from = root().join(from);
    let bytes = std::fs::read(&from).map_err(|error| Error::File(from, error))?;
    put(tree, to, &bytes, 0o644)
}

/// Writes a file below a folder, with folders that everybody may read whatever the user's mask is.
fn put(tree: &Path, to: &str, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let path = tree.join(to);
    let failed = |error| Error::File(path.clone(), error);
    let mut folder = path.parent();
    std::fs::create_dir_all(folder.unwrap_or(tree)).map_err(failed)?;
    while let Some(inside) = folder.filter(|f| f.starts_with(tree)) {
        std::fs::set_permissions(inside, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        folder = inside.parent();
    }
    std::fs::write(&path, bytes).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::read;

    #[test]
    fn the_unit_file_is_where_dist_looks() {
        assert!(read(&root().join(UNIT)).unwrap().contains("ExecStart"));
    }

    #[test]
    fn the_packages_scripts_are_shell() {
        for script in [POSTINST, PRERM, POSTRM] {
            output(Command::new("sh").args(["-n", "-c", script])).unwrap();
        }
    }
}
