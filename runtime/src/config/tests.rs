//! Tables of configurations and what becomes of them.

use super::*;

fn sources(text: &str) -> Sources {
    Sources { board: "rpi4".into(), files: vec![("c.toml".into(), text.into())], ..Sources::default() }
}

fn problems(sources: &Sources) -> Vec<String> {
    load(sources).unwrap_err().problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_board_loads_and_says_what_it_is() {
    let boards: Vec<_> = board::all().collect();
    for name in ["rpi4", "rpi5", "rpi3", "generic-x86", "generic-arm64", "imx8mm-evk", "beaglebone-ai64", "rock-3a", "qemu-arm64"] {
        assert!(boards.iter().any(|b| b.name == name), "{name}");
    }
    for board in boards {
        let sources = Sources { board: board.name.into(), ..Sources::default() };
        let (config, _) = load(&sources).unwrap_or_else(|e| panic!("{}: {e}", board.name));
        assert!(!config.board.description.is_empty() && !config.board.target.is_empty(), "{}", board.name);
        assert!(board.text.lines().count() <= 60, "{} is long", board.name);
    }
}

#[test]
fn later_layers_win_and_say_so() {
    let mut s = sources("[watchdog]\ntimeout-seconds = 9\n[node]\nname = \"a\"\n");
    let (config, merged) = load(&s).unwrap();
    assert_eq!((config.watchdog.timeout.as_secs(), config.node.as_str()), (9, "a"));
    assert_eq!(merged.get("watchdog.timeout-seconds").unwrap().1.to_string(), "c.toml:2");
    assert_eq!(merged.get("bluetooth.adapter").unwrap().1.to_string(), "board rpi4");
    s.environment.push(("EDGE_RUNTIME_NODE_NAME".into(), "b".into()));
    s.environment.push(("PATH".into(), "/".into()));
    assert_eq!(load(&s).unwrap().0.node, "b");
    s.flags.push(("node.name".into(), "c".into(), "--node-name".into()));
    let (config, merged) = load(&s).unwrap();
    assert_eq!(config.node, "c");
    assert!(print::show(&merged).contains("node.name = \"c\""));
}

#[test]
fn problems_name_place_key_value_and_rule_all_at_once() {
    let found = problems(&sources(
        "[node]\nnme = \"x\"\nname = 7\n[watchdog]\ntimeout-seconds = 0\n[serial.a]\nrs485 = \"x\"\nx = 1\n",
    ));
    let expected = [
        "c.toml:2: node.nme: unknown key, did you mean \"node.name\"?",
        "c.toml:3: node.name: 7 is not right: expected text that is not empty",
        "c.toml:7: serial.a.rs485: \"x\" is not right: expected one of \"none\", \"kernel\", \"rts\"",
        "c.toml:8: serial.a.x: unknown key",
        "c.toml:5: watchdog.timeout-seconds: 0 is not right: expected a whole number from 1 to 3600 (seconds)",
    ];
    for line in expected {
        assert!(found.iter().any(|f| f.starts_with(line)), "{line:?} is not in {found:#?}");
    }
    assert_eq!(found.len(), expected.len());
}

/// An upload that was acknowledged and is then too large for the link would be lost.
#[test]
fn what_the_bus_takes_fits_through_the_link() {
    let with = |bus: u32, cloud: u32, address: &str| {
        sources(&format!("[bus]\nmax-packet-kib = {bus}\n[cloud]\n{address}\nmessage-max-kib = {cloud}\n"))
    };
    let cloud = "address = \"mqtt://a\"";
    let found = problems(&with(512, 512, cloud));
    assert!(found[0].starts_with("c.toml:5: cloud.message-max-kib: 512 is too small"), "{found:?}");
    assert!(found[0].contains("bus.max-packet-kib = 512") && found.len() == 1, "{found:?}");
    let least = found[0].split("it takes ").nth(1).and_then(|t| t.split(' ').next()).unwrap().parse::<u32>().unwrap();
    load(&with(512, least, cloud)).unwrap();
    assert!(load(&with(512, least - 1, cloud)).is_err());
    load(&with(512, 8, "")).expect("without a cloud there is nothing to fit through");
}

#[test]
fn image_collection_ends_below_where_it_begins() {
    let found = problems(&sources("[images]\ngc-high-percent = 70\n"));
    assert_eq!(found, ["built-in: images.gc-low-percent: 80 is not less than images.gc-high-percent, which is 70"]);
    load(&sources("[images]\ngc-high-percent = 70\ngc-low-percent = 60\n")).unwrap();
}

#[test]
fn other_layers_are_checked_too() {
    assert!(problems(&sources("a = [1\n"))[0].starts_with("c.toml:"));
    let mut s = sources("");
    s.board = "rpi44".into();
    assert!(problems(&s)[0].contains("did you mean \"rpi4\"?"), "{:?}", problems(&s));
    s.board = "rpi4".into();
    s.environment.push(("EDGE_RUNTIME_NODE_NAM".into(), "b".into()));
    assert!(problems(&s)[0].contains("did you mean \"EDGE_RUNTIME_NODE_NAME\"?"), "{:?}", problems(&s));
    s.environment = vec![("EDGE_RUNTIME_WATCHDOG_TIMEOUT_SECONDS".into(), "soon".into())];
    assert!(problems(&s)[0].contains("\"soon\" is not right"), "{:?}", problems(&s));
    s.environment = vec![("EDGE_RUNTIME_LOG_LEVEL".into(), "loud".into())];
    assert_eq!(problems(&s).len(), 1);
}

#[test]
fn what_is_printed_is_valid_input() {
    for text in [print::default_config(), print::min_config()] {
        load(&sources(&text)).unwrap_or_else(|e| panic!("{e}\n{text}"));
    }
    let (_, merged) = load(&sources("")).unwrap();
    let shown = print::show(&merged);
    load(&sources(&shown)).unwrap_or_else(|e| panic!("{e}\n{shown}"));
}

#[test]
fn auto_reads_the_device_tree_and_falls_back_to_the_processor() {
    let root = tempfile::tempdir().unwrap();
    let tree = root.path().join("proc/device-tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("compatible"), b"raspberrypi,4-model-b\0brcm,bcm2711\0").unwrap();
    assert_eq!(board::detect(&board::Hardware::read(root.path())).name, "rpi4");
    assert!(board::detect(&board::Hardware::default()).name.starts_with("generic-"));
}
