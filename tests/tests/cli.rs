//! The command line against a real node.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use edge_tests::binary;
use edge_tests::daemon::Node;
use edge_tests::run;
use edge_tests::wait::DEADLINE;
use serde_json::json;

const MAPS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  labels: {app: web}
data: {x: \"1\"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b, namespace: plant}
data: {x: \"1\", \"y\": \"yes\"}
";

fn node() -> Node {
    let mut node = Node::new();
    node.start();
    node
}

/// Lines of a table, split at their gaps.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

#[test]
fn objects_are_applied_shown_and_deleted() {
    let node = node();
    let said = node.apply(MAPS).stdout;
    assert_eq!(said, "configmap/a created\nconfigmap/b created\n");
    assert_eq!(node.apply(MAPS).stdout, "configmap/a unchanged\nconfigmap/b unchanged\n");
    assert_eq!(
        node.apply(&MAPS.replace("{x: \"1\"}", "{x: \"2\"}")).stdout,
        "configmap/a configured\nconfigmap/b unchanged\n"
    );

    let table = node.cli(&["get", "cm", "-A"]).ok().stdout;
    let rows = rows(&table);
    assert_eq!(rows[0], ["NAMESPACE", "NAME", "DATA", "AGE"], "{table}");
    assert_eq!(rows[1][..3], ["default", "a", "1"], "{table}");
    assert_eq!(rows[2][..3], ["plant", "b", "2"], "{table}");
    let starts: Vec<Option<usize>> =
        table.lines().map(|l| l.char_indices().rfind(|(_, c)| *c == ' ').map(|(i, _)| i)).collect();
    assert!(starts.windows(2).all(|w| w[0] == w[1]), "columns line up:\n{table}");

    assert_eq!(node.cli(&["get", "configmaps", "-l", "app=web", "-A", "-o", "name"]).ok().stdout, "configmap/a\n");
    assert_eq!(node.cli(&["get", "cm/b", "-n", "plant", "--no-headers"]).ok().stdout.lines().count(), 1);
    let nothing = node.cli(&["get", "secrets"]).ok();
    assert_eq!((nothing.stdout.as_str(), nothing.stderr.as_str()), ("", "No resources found in default namespace.\n"));

    // What is printed as YAML goes back in.
    let yaml = node.cli(&["get", "cm", "-A", "-o", "yaml"]).ok().stdout;
    let again = node.apply(&yaml).stdout;
    assert_eq!(again, "configmap/a unchanged\nconfigmap/b unchanged\n", "{yaml}");
    let one = node.cli(&["get", "cm", "b", "-n", "plant", "-o", "yaml"]).ok().stdout;
    assert!(
        one.starts_with("apiVersion: v1\ndata:\n  x: \"1\"\n  \"y\": \"yes\"\nkind: ConfigMap\nmetadata:\n"),
        "{one}"
    );

    let text = node.cli(&["describe", "cm", "a"]).ok().stdout;
    for part in [
        "Name:             a\n",
        "Labels:           app=web\n",
        "Data:\n  x:              2\n",
        "Events:           <none>\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }

    let file = node.folder().join("maps.yaml");
    std::fs::write(&file, MAPS).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(node.cli(&["delete", "cm", "a"]).ok().stdout, "configmap \"a\" deleted\n");
    let rest = node.cli(&["delete", "-f", file]);
    assert_eq!((rest.code(), rest.stdout.as_str()), (Some(1), "configmap \"b\" deleted\n"), "{rest}");
    assert!(rest.stderr.contains("configmaps/default/a not found"), "{rest}");
    node.cli(&["delete", "-f", file, "--ignore-not-found"]).ok();
}

#[test]
fn folders_are_applied_whole_or_not_at_all() {
    let node = node();
    let folder = node.folder().join("all");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("1.yaml"), MAPS).unwrap();
    std::fs::write(folder.join("2.json"), r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "j"}}"#)
        .unwrap();
    std::fs::write(folder.join("notes.txt"), "kind: [").unwrap();
    let path = folder.to_str().unwrap();
    std::fs::write(
        folder.join("3.yaml"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: a\n    imge: x\n",
    )
    .unwrap();
    let refused = node.cli(&["apply", "-f", path]);
    assert_eq!((refused.code(), refused.stdout.as_str()), (Some(1), ""), "{refused}");
    let expected = format!("{path}/3.yaml:7:5: spec.containers[0].imge: unknown field, did you mean image?\n");
    assert_eq!(refused.stderr, format!("error: {expected}"));
    assert_eq!(node.json(&["get", "cm", "-A"])["items"], json!([]));
    std::fs::remove_file(folder.join("3.yaml")).unwrap();
    assert_eq!(node.cli(&["apply", "-f", path, "--dry-run"]).ok().stdout.matches("can be applied").count(), 3);
    assert_eq!(node.json(&["get", "cm", "-A"])["items"], json!([]));
    node.cli(&["apply", "-f", path]).ok();
    assert_eq!(node.json(&["get", "cm", "-A"])["items"].as_array().map(Vec::len), Some(3));
    // A namespace for those that name none; a contradiction is refused with its place.
    let clash = node.cli_with(&["apply", "-f", "-", "-n", "other"], MAPS, DEADLINE);
    assert_eq!(clash.code(), Some(1));
    assert!(clash.stderr.contains("standard input:10:21: metadata.namespace: is not other"), "{clash}");
    let json = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n"}}"#;
    node.cli_with(&["apply", "-f", "-", "-n", "other"], json, DEADLINE).ok();
    assert_eq!(node.json(&["get", "cm", "n", "-n", "other"])["metadata"]["namespace"], "other");
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let node = node();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["get", "cm", "nothing"], 1, "configmaps/default/nothing not found"),
        (&["get", "deployments"], 64, "is not a kind of object"),
        (&["get", "cm", "-o", "xml"], 64, "invalid value"),
        (&["delete", "cm"], 64, "name the configmaps to delete"),
        (&["apply", "-f", "/nowhere.yaml"], 1, "cannot read /nowhere.yaml"),
        (&["logs", "nothing"], 1, "pods/default/nothing not found"),
        (&["loglevel", "loud"], 1, "loud"),
        (&["logs", "x", "--since", "soon"], 64, "is not a time"),
    ];
    for (arguments, code, part) in cases {
        let output = node.cli(arguments);
        assert_eq!(output.code(), Some(code), "{output}");
        assert!(output.stderr.contains(part), "{part:?} in {output}");
        assert_eq!(output.stdout, "", "{output}");
    }
    let output = run::run(binary::edge_runtime(), ["get", "pods", "--socket", "/nowhere/api.sock"], "");
    assert_eq!(output.code(), Some(69), "{output}");
    assert!(output.stderr.contains("systemctl start edge-runtime"), "{output}");
}

#[test]
fn a_watch_prints_every_change() {
    let node = node();
    node.apply(MAPS);
    let mut child = Command::new(binary::edge_runtime())
        .args(["get", "cm", "-w", "-o", "name", "--socket"])
        .arg(node.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "configmap/a");
    node.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n");
    assert_eq!(next(), "configmap/c");
    node.cli(&["delete", "cm", "c"]).ok();
    assert_eq!(next(), "configmap/c");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let node = node();
    let many: String = (0..300).map(|n| format!("{}---\n", MAPS.replace("name: a", &format!("name: a{n}")))).collect();
    node.apply(&many.replace(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: plant}\ndata: {x: \"1\", \"y\": \"yes\"}\n",
        "",
    ));
    for reader in ["head -1", "true"] {
        let script = format!("{{ \"$0\" get cm -o json --socket \"$1\"; echo \"exit $?\" >&2; }} | {reader}");
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(binary::edge_runtime()).arg(node.socket());
        let output = run::finish(&mut command, "", DEADLINE);
        assert_eq!(output.stderr, "exit 0\n", "{reader}: {output}");
    }
}

#[test]
fn the_node_tells_of_itself() {
    let node = node();
    let status = node.cli(&["status"]).ok().stdout;
    assert!(status.starts_with(&format!("edge-runtime {}: ", env!("CARGO_PKG_VERSION"))), "{status}");
    assert!(status.contains("UNITS") && status.contains("bus"), "{status}");
    assert!(node.json(&["status"])["units"].as_array().is_some_and(|units| !units.is_empty()));
    assert!(node.cli(&["version"]).ok().stdout.contains("node "));
    assert_eq!(node.cli(&["loglevel", "debug"]).ok().stdout, "debug\n");
    assert_eq!(node.cli(&["loglevel"]).ok().stdout, "debug\n");
    let device = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: meter}
spec:
  protocol: modbus
  properties: [{name: power, type: FLOAT, accessMode: ReadOnly}]
";
    node.apply(device);
    let rows = node.cli(&["get", "dm"]).ok().stdout;
    assert_eq!(self::rows(&rows)[1][..3], ["meter", "modbus", "1"], "{rows}");
}

#[test]
fn shells_complete() {
    let script = run::run(binary::edge_runtime(), ["completion", "bash"], "").ok().stdout;
    let complete = |words: &str| {
        let count = words.split(' ').count() - 1;
        let text =
            format!("{script}\nCOMP_WORDS=({words}); COMP_CWORD={count}; _edge_runtime; echo \"${{COMPREPLY[@]}}\"");
        run::run("bash", ["-c", &text], "").ok().stdout
    };
    assert_eq!(complete("edge-runtime app"), "apply\n");
    assert_eq!(complete("edge-runtime get po"), "pods pod\n");
    assert_eq!(complete("edge-runtime image im"), "import\n");
    assert_eq!(complete("edge-runtime get pods --sel"), "--selector\n");
    for shell in ["zsh", "fish"] {
        let script = run::run(binary::edge_runtime(), ["completion", shell], "").ok().stdout;
        assert!(script.contains("describe"), "{script}");
    }
}
