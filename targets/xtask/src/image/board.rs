//! What an image of a board is made of: a file in `boards/` is what makes a board one that there are images of. What the
//! *node* knows of a board stands in `board-configs/`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::error::{Error, read};
use crate::target::root;

/// Where the files are.
const FOLDER: &str = "targets/xtask/src/image/boards";

/// What every root file system is reached with.
const EARLY: &[&str] =
    &["crc32c_generic", "libcrc32c", "ext4", "squashfs", "nls_ascii", "nls_cp437", "nls_iso8859-1", "vfat"];

/// What every gateway has a use for: containers and their networks, adapters that may be plugged in.
const COMMON: &[&str] = &[
    "net/bridge/",
    "net/netfilter/",
    "net/ipv4/netfilter/",
    "net/ipv6/netfilter/",
    "net/8021q/",
    "net/packet/",
    "net/bluetooth/",
    "net/can/",
    "drivers/bluetooth/",
    "drivers/net/can/usb/",
    "drivers/usb/serial/",
    "cdc-acm",
    "usb-storage",
    "usbhid",
    "overlay",
    "veth",
    "tun",
    "macvlan",
    "wireguard",
    "loop",
    "softdog",
    // Ethernet and modems behind USB.
    "asix",
    "ax88179_178a",
    "cdc_ether",
    "cdc_mbim",
    "cdc_ncm",
    "lan78xx",
    "qmi_wwan",
    "r8152",
    "rndis_host",
    "smsc75xx",
    "smsc95xx",
    // What Bluetooth encrypts with.
    "aes_generic",
    "algif_hash",
    "algif_skcipher",
    "ccm",
    "cmac",
    "ctr",
    "drbg",
    "ecb",
    "ecdh_generic",
    "hmac",
    "jitterentropy_rng",
    "sha256_generic",
    "sha3_generic",
    "sha512_generic",
];

/// How a board boots, which decides what its boot partition looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// UEFI: a GPT, an EFI system partition, systemd-boot.
    Uefi,
    /// The Raspberry Pi's own loader: an MBR, a FAT partition with firmware and `config.txt`.
    RaspberryPi,
}

/// `boards/<name>.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Facts {
    boot: Boot,
    device_tree: Option<String>,
    #[serde(default)]
    firmware: Vec<String>,
    cmdline: String,
    #[serde(default)]
    config: String,
    early_modules: Vec<String>,
    modules: Vec<String>,
    emulator: Emulator,
}

/// How QEMU plays the board.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Emulator {
    /// Its name for the board.
    pub machine: String,
    /// Firmware with which the disk boots by itself.
    pub firmware: Option<Firmware>,
    /// Processor and memory.
    pub arguments: Vec<String>,
    /// The disk; `DISK` stands for the image's path.
    pub disk: Vec<String>,
    /// The network card, of the network `net0`.
    pub network: Vec<String>,
    /// The kernel's command line, where it is not the board's.
    pub cmdline: Option<String>,
    /// The serial lines; `CONSOLE` stands for where the console goes.
    pub serial: Vec<String>,
    /// Changes to the device tree, as arguments of `fdtput`: `-t s NODE PROPERTY VALUE`, `-d NODE PROPERTY...`.
    #[serde(default)]
    pub device_tree: Vec<String>,
}

/// A file of one of Debian's packages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firmware {
    /// The package.
    pub package: String,
    /// Where the file is in it.
    pub path: String,
}

/// A board of which there are images.
#[derive(Debug)]
pub struct Board {
    /// Its name, the same as in `board-configs/`.
    pub name: String,
    /// The triple of its executable.
    pub triple: String,
    /// How it boots.
    pub boot: Boot,
    /// Its device tree, below the kernel package's folder for them.
    pub device_tree: Option<String>,
    /// Files of its firmware.
    pub firmware: Vec<String>,
    /// The kernel's command line.
    pub cmdline: String,
    /// What the node is told on this kind of image: `/usr/lib/edge-runtime/config.toml`.
    pub config: String,
    /// Modules that are loaded before there is a root file system.
    pub early: Vec<String>,
    /// Modules of the root file system.
    pub modules: Vec<String>,
    /// How it is emulated.
    pub emulator: Emulator,
}

impl Board {
    /// Reads what is known of a board.
    pub fn load(name: &str) -> Result<Board, Error> {
        let path = root().join(FOLDER).join(format!("{name}.toml"));
        if !path.is_file() {
            return Err(Error::Usage(format!("there are images for {}, not for {name:?}", names()?.join(", "))));
        }
        let facts: Facts =
            toml::from_str(&read(&path)?).map_err(|error| Error::Content(path.clone(), error.to_string()))?;
        let list = |common: &[&str], own: Vec<String>| common.iter().map(|n| (*n).to_owned()).chain(own).collect();
        let early: Vec<String> = list(EARLY, facts.early_modules);
        Ok(Board {
            name: name.to_owned(),
            triple: triple(name)?,
            boot: facts.boot,
            device_tree: facts.device_tree,
            firmware: facts.firmware,
            cmdline: facts.cmdline,
            config: facts.config,
            modules: early.iter().cloned().chain(list(COMMON, facts.modules)).collect(),
            early,
            emulator: facts.emulator,
        })
    }

    /// The architecture as Debian names it.
    pub fn architecture(&self) -> &'static str {
        if self.triple.starts_with("aarch64") { "arm64" } else { "amd64" }
    }
}

/// The boards with images.
pub fn names() -> Result<Vec<String>, Error> {
    let folder = root().join(FOLDER);
    let entries = std::fs::read_dir(&folder).map_err(|error| Error::File(folder, error))?;
    let files = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = files.filter_map(|name| name.strip_suffix(".toml").map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// The target that the node's own file of the board names.
fn triple(name: &str) -> Result<String, Error> {
    let path: PathBuf = root().join("board-configs").join(format!("{name}.toml"));
    let table: toml::Table =
        toml::from_str(&read(&path)?).map_err(|error| Error::Content(path.clone(), error.to_string()))?;
    let target = table.get("board").and_then(|board| board.get("target")).and_then(toml::Value::as_str);
    target.map(str::to_owned).ok_or_else(|| Error::Content(path, "board.target is missing".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_with_an_image_is_a_board_of_the_node() {
        let names = names().unwrap();
        assert!(names.contains(&"qemu-arm64".to_owned()) && names.contains(&"rpi4".to_owned()), "{names:?}");
        for name in names {
            let board = Board::load(&name).unwrap();
            assert!(board.emulator.disk.iter().any(|argument| argument.contains("DISK")), "{name}");
            assert_eq!(board.boot == Boot::RaspberryPi, board.device_tree.is_some(), "{name}");
        }
    }

    #[test]
    fn an_unknown_board_is_told_with_those_there_are() {
        let error = Board::load("toaster").unwrap_err().to_string();
        assert!(error.contains("qemu-arm64") && error.contains("\"toaster\""), "{error}");
    }
}
