//! QEMU: the installed one where it knows the machine, else Debian's, unpacked and not installed (an installation may be
//! impossible beside other versions), and the script that boots an image with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::board::Board;
use super::packages::Archive;
use crate::error::{Error, output};

/// What only an installation needs.
const SKIPPED: &[&str] = &[
    "adduser",
    "debconf",
    "dpkg",
    "coreutils",
    "tar",
    "passwd",
    "init-system-helpers",
    "perl-base",
    "libpam-modules-bin",
];

/// The command that runs the emulator of a machine, as words of a shell.
pub fn command(program: &str, package: &str, machine: &str) -> Result<String, Error> {
    let known = output(Command::new(program).args(["-machine", "help"])).unwrap_or_default();
    if knows(&known, machine) {
        return Ok(program.to_owned());
    }
    let archive = Archive::open(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, true)?;
    let names = archive.closure(package, SKIPPED)?;
    let folders = archive.unpack(&names)?;
    let command = unpacked(program, &folders)?;
    let known = output(Command::new("sh").args(["-c", &format!("{command} -machine help")]))?;
    if knows(&known, machine) {
        return Ok(command);
    }
    Err(Error::Usage(format!("neither the installed {program} nor Debian's {package} knows the machine {machine}")))
}

/// Whether a list of machines has this one.
fn knows(list: &str, machine: &str) -> bool {
    list.lines().any(|line| line.split_whitespace().next() == Some(machine))
}

/// The command of an emulator in unpacked packages: through their own loader, with their own libraries.
fn unpacked(program: &str, folders: &[PathBuf]) -> Result<String, Error> {
    let triple = if cfg!(target_arch = "aarch64") { "aarch64-linux-gnu" } else { "x86_64-linux-gnu" };
    let loader = if cfg!(target_arch = "aarch64") { "lib/ld-linux-aarch64.so.1" } else { "lib64/ld-linux-x86-64.so.2" };
    let all = |places: &[&str]| -> Vec<PathBuf> {
        let places = folders.iter().flat_map(|folder| places.iter().map(move |place| folder.join(place)));
        places.filter(|path| path.exists()).collect()
    };
    let first = |place: &str| {
        let found = all(&[place, &format!("usr/{place}")]).into_iter().next();
        found.ok_or_else(|| Error::Usage(format!("Debian's packages of {program} have no {place}")))
    };
    let in_lib = |place: &str| [format!("lib/{triple}{place}"), format!("usr/lib/{triple}{place}")];
    let libraries = all(&in_lib("").iter().chain(&in_lib("/pulseaudio")).map(String::as_str).collect::<Vec<_>>());
    let libraries: Vec<String> = libraries.iter().map(|path| path.display().to_string()).collect();
    let modules = all(&[&format!("usr/lib/{triple}/qemu")]);
    let mut command =
        format!("env QEMU_MODULE_DIR='{}' ", modules.first().map(|p| p.display().to_string()).unwrap_or_default());
    command += &format!("'{}' --library-path '{}' ", first(loader)?.display(), libraries.join(":"));
    command += &format!("'{}'", first(&format!("bin/{program}"))?.display());
    for data in all(&["usr/share/qemu", "usr/share/seabios"]) {
        command += &format!(" -L '{}'", data.display());
    }
    Ok(command)
}

/// A script that boots the image of a board whose parts are in the script's folder.
pub fn script(board: &Board, disk: &str) -> Result<String, Error> {
    let (program, package) = match board.architecture() {
        "arm64" => ("qemu-system-aarch64", "qemu-system-arm"),
        _ => ("qemu-system-x86_64", "qemu-system-x86"),
    };
    let emulator = &board.emulator;
    let command = command(program, package, &emulator.machine)?;
    let quoted = |words: &[String]| {
        let place =
            |word: &String| word.replace("DISK", "${DISK:-$here/$image}").replace("CONSOLE", "${CONSOLE:-mon:stdio}");
        let words = words.iter().map(|word| format!("\"{}\"", place(word)));
        words.collect::<Vec<_>>().join(" ")
    };
    let tree = if board.device_tree.is_some() { " -dtb \"$here/board.dtb\"" } else { "" };
    let kernel = format!(
        "-kernel \"$here/vmlinuz\" -initrd \"$here/initrd.img\"{tree} -append \"{} $APPEND\"",
        emulator.cmdline.as_ref().unwrap_or(&board.cmdline)
    );
    let kernel = match emulator.firmware {
        Some(_) => format!(
            "if [ \"$BOOT\" = disk ]; then\n    set -- -bios \"$here/firmware\" \"$@\"\nelse\n    set -- {kernel} \"$@\"\nfi\n"
        ),
        None => format!("set -- {kernel} \"$@\"\n"),
    };
    Ok(format!(
        "#!/bin/sh\n\
         # Boots this image of {name} in QEMU; the console is this terminal, and ends with Ctrl-A X. Its network is the host's.\n\
         # Arguments go to QEMU. CONSOLE is another place for the console (`file:log`), DISK another disk than the one here; FORWARD\n\
         # adds to the network (`,hostfwd=tcp:127.0.0.1:1883-:1883`), APPEND to the kernel's command line (`edge.shell`).\n\
         # BOOT=disk lets firmware find the kernel on the disk, on boards whose firmware there is; else QEMU is given it.\n\
         here=$(cd \"$(dirname \"$0\")\" && pwd)\n\
         image={disk}\n\
         {kernel}\
         exec {command} -machine {machine} -accel tcg,thread=multi -display none -nodefaults {arguments} \\\n    \
         {serial} {disk_arguments} -netdev \"user,id=net0$FORWARD\" {network} \"$@\"\n",
        name = board.name,
        serial = quoted(&emulator.serial),
        machine = emulator.machine,
        arguments = quoted(&emulator.arguments),
        disk_arguments = quoted(&emulator.disk),
        network = quoted(&emulator.network),
    ))
}

/// Changes a copy of the device tree to what QEMU emulates of the board.
pub fn device_tree(board: &Board, tree: &Path) -> Result<(), Error> {
    for change in &board.emulator.device_tree {
        let words: Vec<&str> = change.split_whitespace().collect();
        // `-d` takes the file behind it, `-t s` in its midst.
        let (options, rest) = words.split_at(if words.first() == Some(&"-d") { 1 } else { 2 });
        output(Command::new("fdtput").args(options).arg(tree).args(rest))?;
    }
    Ok(())
}

/// Runs the script with this terminal as console.
pub fn run(script: &Path) -> Result<(), Error> {
    crate::error::run(&mut Command::new(script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_whole_name() {
        let list = "Supported machines are:\nraspi4b              Raspberry Pi 4B (revision 1.5)\nvirt-7.2  QEMU 7.2\n";
        assert!(knows(list, "raspi4b"));
        assert!(!knows(list, "virt") && !knows(list, "raspi4"));
    }
}
