//! `cross build --target aarch64-unknown-linux-gnu` needs Docker, which CI has not. So each step it would take is looked at
//! here by other means: what the image gets installed, what cargo is told, and what the same linker and static library make.

use edge_tests::aarch64::{self, TRIPLE};
use edge_tests::binary::root;
use edge_tests::run::run;

fn read(path: &str) -> toml::Table {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.parse().unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn pre_build() -> String {
    let cross = read("Cross.toml");
    let steps = cross["target"][TRIPLE]["pre-build"].as_array().cloned().unwrap_or_default();
    steps.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join("\n")
}

/// The packages that the image gets.
fn packages() -> Vec<String> {
    let steps = pre_build();
    let line =
        steps.lines().find_map(|line| line.split_once("apt-get install")).expect("pre-build installs something").1;
    line.split_whitespace().filter(|word| !word.starts_with('-')).map(str::to_owned).collect()
}

#[test]
fn the_image_gets_what_these_tests_build_with() {
    run("sh", ["-n", "-c", &pre_build()], "").ok();
    let list = std::fs::read_to_string(root().join("tests/packages.txt")).unwrap();
    let ours: Vec<&str> = list.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next()).collect();
    for package in packages() {
        assert!(
            ours.contains(&package.as_str()),
            "Cross.toml installs {package}, which tests/packages.txt does not name"
        );
    }
}

#[test]
fn the_packages_exist() {
    let mut arguments = vec!["--simulate".to_owned(), "install".to_owned()];
    arguments.extend(packages());
    run("apt-get", arguments, "").ok();
}

#[test]
fn the_linker_comes_with_the_packages() {
    let linker = read(".cargo/config.toml")["target"][TRIPLE]["linker"].as_str().unwrap_or_default().to_owned();
    assert!(packages().contains(&linker.replace("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")), "{linker}");
    // A static executable needs the C library as an archive: the linker must find one.
    let archive = run(&linker, ["-print-file-name=libc.a"], "").ok().stdout;
    assert!(std::path::Path::new(archive.trim()).is_absolute(), "{linker} finds no libc.a");
}

#[test]
fn a_bare_build_is_the_binary_alone() {
    assert_eq!(read("Cargo.toml")["workspace"]["default-members"].as_array().map(Vec::len), Some(1));
    assert_eq!(read("Cargo.toml")["workspace"]["default-members"][0].as_str(), Some("runtime"));
}

#[test]
fn the_executable_is_static_and_for_that_processor() {
    let path = aarch64::edge_runtime().to_string_lossy().into_owned();
    let text = run("readelf", ["--wide", "--file-header", "--program-headers", &path], "").ok().stdout;
    assert!(text.contains("AArch64"), "{text}");
    assert!(text.contains("EXEC (Executable file)"), "{text}");
    assert!(!text.contains("INTERP"), "{text}");
}
