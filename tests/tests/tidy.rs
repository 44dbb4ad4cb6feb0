//! What ARCHITECTURE.md says about the code, held to it. A rule that no test looks at is a wish.

use std::collections::BTreeSet;

use edge_tests::binary::root;
use edge_tests::source::{self, Text, around_word};

/// No file is longer: what does not fit is two things.
const LONGEST: usize = 500;
/// Half of the files are no longer than this.
const MEDIAN: usize = 200;

/// Where each outside crate may be named: behind its one door, so that it can be replaced there. `*` is everywhere.
const DOORS: &[(&str, &[&str])] = &[
    // Plumbing that every part is written in.
    ("base64", &["*"]),
    ("bytes", &["*"]),
    ("chrono", &["*"]),
    ("futures-util", &["*"]),
    ("getrandom", &["*"]),
    ("libc", &["*"]),
    ("postcard", &["*"]),
    ("rustix", &["*"]),
    ("serde", &["*"]),
    ("serde_json", &["*"]),
    ("serde_path_to_error", &["*"]),
    ("sha2", &["*"]),
    ("thiserror", &["*"]),
    ("tokio", &["*"]),
    ("tokio-util", &["*"]),
    ("tracing", &["*"]),
    // Our own packages.
    ("edge-model", &["*"]),
    ("edge-mappers", &["runtime/src/"]),
    // Doors.
    ("aes", &["mappers/src/bluetooth/crypto.rs", "mappers/src/snmp/usm.rs"]),
    ("btleplug", &["mappers/src/bluetooth/bluez.rs"]),
    ("ccm", &["mappers/src/bluetooth/crypto.rs"]),
    ("clap", &["runtime/src/cli/", "runtime/src/command.rs", "runtime/src/demo/"]),
    ("dbus", &["mappers/src/bluetooth/bus.rs"]),
    ("dbus-tokio", &["mappers/src/bluetooth/bus.rs"]),
    ("des", &["mappers/src/snmp/usm.rs"]),
    (
        "flate2",
        &[
            "runtime/src/images/",
            "runtime/src/queue/",
            "runtime/src/store/snapshot.rs",
            "runtime/src/doctor/kernel.rs",
            "runtime/src/update/artefact.rs",
        ],
    ),
    (
        "http-body-util",
        &[
            "runtime/src/api/",
            "runtime/src/cli",
            "runtime/src/engine/pods/ask.rs",
            "mappers/src/http/",
            "mappers/src/onvif/",
        ],
    ),
    ("h2", &["runtime/src/dmi/"]),
    (
        "hyper",
        &[
            "runtime/src/api/",
            "runtime/src/cli",
            "runtime/src/dmi/",
            "runtime/src/engine/pods/ask.rs",
            "mappers/src/http/",
            "mappers/src/onvif/",
        ],
    ),
    (
        "hyper-util",
        &[
            "runtime/src/api/",
            "runtime/src/cli",
            "runtime/src/engine/pods/ask.rs",
            "mappers/src/http/",
            "mappers/src/onvif/",
        ],
    ),
    // Listed for their version and features only; `log` is also a module of ours.
    ("idna_adapter", &[]),
    ("log", &["*"]),
    ("indicatif", &["runtime/src/cli"]),
    ("inotify", &["runtime/src/manifest"]),
    ("json-patch", &["runtime/model/src/patch.rs"]),
    ("libcontainer", &["runtime/src/engine/"]),
    ("md5", &["mappers/src/onvif/digest.rs", "mappers/src/snmp/usm.rs"]),
    ("netlink-sys", &["runtime/src/engine/"]),
    ("oci-client", &["runtime/src/images/"]),
    ("oci-spec", &["runtime/src/engine/", "runtime/src/images/"]),
    ("prost", &["runtime/src/dmi/"]),
    ("ring", &["runtime/src/update/"]),
    ("rumqttc", &["runtime/src/cloud/", "mappers/src/mqtt/"]),
    ("rumqttd", &["runtime/src/bus/"]),
    (
        "rustls",
        &[
            "runtime/src/cloud/",
            "runtime/src/images/",
            "mappers/src/tls.rs",
            "mappers/src/http/",
            "mappers/src/modbus/tls.rs",
            "mappers/src/modbus/link.rs",
        ],
    ),
    ("rustls-pki-types", &["runtime/src/cloud/", "runtime/src/images/"]),
    ("ruzstd", &["runtime/src/images/"]),
    ("roxmltree", &["mappers/src/onvif/"]),
    ("saphyr-parser", &["runtime/model/src/", "runtime/src/manifest"]),
    ("sled", &["runtime/src/disk"]),
    ("sha1", &["mappers/src/onvif/decode.rs", "mappers/src/snmp/usm.rs"]),
    ("snmp2", &["mappers/src/snmp/"]),
    ("socket2", &["mappers/src/onvif/scan.rs"]),
    ("strsim", &["runtime/src/config/", "runtime/model/src/check.rs"]),
    ("tar", &["runtime/src/images/"]),
    ("tokio-serial", &["mappers/src/modbus/serial.rs"]),
    ("tokio-modbus", &["mappers/src/modbus/", "mappers/src/plant.rs"]),
    ("tokio-rustls", &["mappers/src/http/", "mappers/src/modbus/tls.rs"]),
    ("toml", &["runtime/src/config/", "runtime/src/cli/import.rs"]),
    ("toml_edit", &["runtime/src/config/"]),
    ("uuid", &["mappers/src/bluetooth/bluez.rs"]),
    ("tracing-subscriber", &["runtime/src/telemetry"]),
];

/// Where `unsafe` may stand: kernel interfaces that no safe crate covers.
const UNSAFE: &[&str] = &[
    "mappers/src/modbus/rs485.rs",
    "runtime/src/engine/network/netns.rs",
    "runtime/src/engine/sys.rs",
    "runtime/src/sys.rs",
];

/// Who may write to the terminal.
const TERMINAL: &[&str] = &["runtime/src/cli", "runtime/src/main.rs", "runtime/build.rs"];

/// The one file that spells topics.
const TOPICS: &str = "runtime/model/src/topic.rs";

/// Collects what is wrong and fails with all of it at once.
#[track_caller]
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn at(file: &Text, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", file.path)
}

#[test]
fn every_source_opens_with_its_purpose() {
    let sources = source::ending(".rs");
    assert!(sources.len() > 20, "the repository's files were not found");
    none(sources.iter().filter(|file| !file.text.starts_with("//!")).map(|file| at(file, 1, "no //!")).collect());
}

#[test]
fn files_stay_short() {
    let mut lengths: Vec<usize> = Vec::new();
    let mut faults = Vec::new();
    for file in source::ending(".rs") {
        let lines = file.text.lines().count();
        lengths.push(lines);
        if lines > LONGEST {
            faults.push(at(&file, lines, "too long"));
        }
    }
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    if median > MEDIAN {
        faults.push(format!("the median file has {median} lines"));
    }
    none(faults);
}

#[test]
fn outside_crates_are_named_behind_their_door() {
    let mut faults = Vec::new();
    let doors: Vec<_> = DOORS.iter().map(|(name, doors)| (name, name.replace('-', "_"), doors)).collect();
    for file in source::product() {
        for (line, code) in file.code() {
            for (name, ident, doors) in &doors {
                if doors.iter().any(|door| *door == "*" || file.path.starts_with(door)) {
                    continue;
                }
                // A module of ours may have the crate's name: only a path that starts with it is the crate.
                let own = |before: &str| before.ends_with("::") || before.ends_with('.');
                if around_word(code, ident).is_some_and(|(before, after)| after.starts_with("::") && !own(before)) {
                    faults.push(at(&file, line, &format!("{name} is only for {}", doors.join(", "))));
                }
            }
        }
    }
    none(faults);
}

#[test]
fn every_dependency_has_a_door() {
    let known: BTreeSet<&str> = DOORS.iter().map(|(name, _)| *name).collect();
    let mut faults = Vec::new();
    for package in ["runtime", "runtime/model", "mappers"] {
        for name in dependencies(package, "dependencies") {
            if !known.contains(name.as_str()) {
                faults.push(format!("{package}/Cargo.toml: {name} is in no door of tests/tests/tidy.rs"));
            }
        }
    }
    none(faults);
}

#[test]
fn every_dependency_is_used() {
    let mut faults = Vec::new();
    for (package, sources) in
        [("runtime", "runtime/src/"), ("runtime/model", "runtime/model/src/"), ("mappers", "mappers/src/")]
    {
        let files = source::product();
        for name in dependencies(package, "dependencies") {
            let ident = name.replace('-', "_");
            let doors = DOORS.iter().find(|(door, _)| *door == name).map_or(&[][..], |(_, doors)| doors);
            let used = |file: &Text| file.path.starts_with(sources) && around_word(&file.text, &ident).is_some();
            if !doors.is_empty() && !files.iter().any(used) {
                faults.push(format!("{package}/Cargo.toml: {name} is not used"));
            }
        }
    }
    none(faults);
}

#[test]
fn packages_know_only_what_they_should() {
    let model = dependencies("runtime/model", "dependencies");
    let mappers = dependencies("mappers", "dependencies");
    let absent = |list: &[String], names: &[&str]| names.iter().all(|name| !list.iter().any(|have| have == name));
    assert!(absent(&model, &["tokio", "tokio-util", "rustix", "libc", "getrandom", "tracing"]), "the model has I/O");
    assert!(absent(&mappers, &["edge-runtime", "rumqttd", "sled", "toml"]), "mappers know only the field");
    for package in ["runtime", "runtime/model", "mappers", "tests"] {
        assert!(absent(&dependencies(package, "dependencies"), &["xtask"]), "nothing depends on xtask");
    }
}

#[test]
fn topics_are_spelled_in_one_file() {
    let spellings = ["$hw/events", "$ke/events", "SYS/dis/", "\"edge/pods", "\"edge/node", "\"edge/events"];
    let mut faults = Vec::new();
    for file in source::product().iter().filter(|file| file.path != TOPICS) {
        for (line, code) in file.code() {
            if spellings.iter().any(|spelling| code.contains(spelling)) {
                faults.push(at(file, line, "a topic is spelled here"));
            }
        }
    }
    none(faults);
}

#[test]
fn nothing_is_left_open() {
    // Put together here, so that this file does not find itself.
    let marks = ["TO", "FIX", "XX", "HA"].iter().zip(["DO", "ME", "X", "CK"]).map(|(a, b)| format!("{a}{b}"));
    let marks: Vec<String> = marks.collect();
    let mut faults = Vec::new();
    for file in source::all().iter().filter(|file| file.path != "Cargo.lock" && file.path != "LICENSE") {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| around_word(line, mark).is_some()) {
                faults.push(at(file, index + 1, mark));
            }
        }
    }
    for file in source::product() {
        for (line, code) in file.code() {
            for word in [".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!(", "dbg!("] {
                if code.contains(word) {
                    faults.push(at(&file, line, word));
                }
            }
        }
    }
    none(faults);
}

#[test]
fn only_the_command_line_writes_to_the_terminal() {
    let mut faults = Vec::new();
    for file in source::product() {
        if TERMINAL.iter().any(|path| file.path.starts_with(path)) {
            continue;
        }
        for (line, code) in file.code() {
            if ["println!(", "print!(", "eprintln!(", "eprint!("].iter().any(|word| code.contains(word)) {
                faults.push(at(&file, line, "writes to the terminal"));
            }
        }
    }
    none(faults);
}

#[test]
fn unsafe_stands_where_it_was_agreed_and_says_why() {
    let mut faults = Vec::new();
    for file in source::product() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (line, code) in file.code() {
            let Some((_, after)) = around_word(code, "unsafe") else { continue };
            // The word alone, in a text, does nothing.
            let after = after.trim_start();
            if !["{", "fn ", "impl ", "extern "].iter().any(|start| after.starts_with(start)) {
                continue;
            }
            if !UNSAFE.contains(&file.path.as_str()) {
                faults.push(at(&file, line, "unsafe outside the files agreed"));
            }
            let above = &lines[line.saturating_sub(6)..line];
            if after.starts_with('{') && !above.iter().any(|above| above.contains("SAFETY:")) {
                faults.push(at(&file, line, "no SAFETY note above"));
            }
        }
    }
    none(faults);
}

#[test]
fn tasks_are_owned() {
    let mut faults = Vec::new();
    for file in source::product() {
        for (line, code) in file.code() {
            let code = code.trim();
            let detached = ["tokio::spawn(", "let _ = tokio::spawn(", "drop(tokio::spawn("];
            if detached.iter().any(|start| code.starts_with(start)) && !code.contains(".await") {
                faults.push(at(&file, line, "a task that nobody owns"));
            }
            if code.contains("tokio::main") {
                faults.push(at(&file, line, "containers are started before any thread exists; see ARCHITECTURE.md"));
            }
        }
    }
    none(faults);
}

#[test]
fn main_is_a_table_of_contents() {
    let main = std::fs::read_to_string(root().join("runtime/src/main.rs")).unwrap();
    assert!(main.lines().count() <= 30, "runtime/src/main.rs has {} lines", main.lines().count());
    let mains = source::ending("/main.rs").into_iter().filter(|file| !file.is_test());
    let others: Vec<String> = mains.map(|file| file.path).collect();
    assert_eq!(others, ["runtime/src/main.rs", "targets/xtask/src/main.rs"]);
}

/// The names in a table of a package's manifest.
fn dependencies(package: &str, table: &str) -> Vec<String> {
    let manifest = manifest(&format!("{package}/Cargo.toml"));
    let table = manifest.get(table).and_then(toml::Value::as_table);
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

fn manifest(path: &str) -> toml::Table {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.parse().unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn versions_and_features_are_chosen_once() {
    let mut faults = Vec::new();
    for package in ["runtime", "runtime/model", "mappers", "tests", "targets/xtask"] {
        let path = format!("{package}/Cargo.toml");
        let manifest = manifest(&path);
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.get(kind).and_then(toml::Value::as_table).into_iter().flatten() {
                let inherited = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                if !inherited || value.get("version").is_some() {
                    faults.push(format!("{path}: {name} is not the workspace's"));
                }
            }
        }
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            if manifest["package"][key].get("workspace").is_none() {
                faults.push(format!("{path}: {key} is not the workspace's"));
            }
        }
    }
    let workspace = manifest("Cargo.toml");
    // Their default feature is the standard library, and nothing else.
    let plain = ["libc", "getrandom"];
    for (name, value) in workspace["workspace"]["dependencies"].as_table().into_iter().flatten() {
        let bare = value.get("default-features").and_then(toml::Value::as_bool) == Some(false);
        if !bare && value.get("path").is_none() && !plain.contains(&name.as_str()) {
            faults.push(format!("Cargo.toml: {name} has its default features"));
        }
    }
    none(faults);
}

#[test]
fn the_toolchain_file_names_a_channel_only() {
    // A target or a component named there makes rustup download, also on machines without a network.
    let toolchain = manifest("rust-toolchain.toml");
    assert_eq!(
        toolchain["toolchain"].as_table().map(|t| t.keys().cloned().collect()),
        Some(vec!["channel".to_owned()])
    );
}
