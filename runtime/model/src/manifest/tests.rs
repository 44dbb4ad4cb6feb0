//! Manifests as people write them: what is taken, and what is refused with which words.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn errors(text: &str) -> Vec<String> {
    parse("f.yaml", text.as_bytes()).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn several_documents_and_lists_are_objects_in_order() {
    let text = "\
# comment
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {x: \"1\"}
---
---
apiVersion: v1
kind: List
metadata: {resourceVersion: ''}
items:
- apiVersion: v1
  kind: ConfigMap
  metadata:
    name: b
    namespace: plant
    creationTimestamp: null
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}
...
";
    let documents = parse("f.yaml", text.as_bytes()).unwrap();
    let keys: Vec<_> = documents.iter().map(|d| (d.object.key().to_string(), d.position().line)).collect();
    let expected = [("configmaps/default/a", 3), ("configmaps/plant/b", 13), ("configmaps/default/c", 19)];
    assert_eq!(keys, expected.map(|(k, l)| (k.to_owned(), l)));
}

#[test]
fn errors_give_file_line_column_and_field() {
    let cases = [
        ("a: [1", "f.yaml:2:1: "),
        ("apiVersion: v1\nkind: ConfigMap\n", "f.yaml:1:1: metadata: is missing"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labls: {}\n",
            "f.yaml:5:3: metadata.labls: unknown field, did you mean labels?",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  name: b\n",
            "f.yaml:5:3: metadata.name: is there twice; first in line 4",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: 8080\n",
            "f.yaml:4:3: metadata.name: 8080 is a number, but text is needed here: write \"8080\"",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels:\n    on: x\n",
            "f.yaml:6:5: metadata.labels: the key \"on\" is not text in YAML: put it in quotes",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels:\n    x: no\n",
            "f.yaml:6:5: metadata.labels.x: false is a boolean, but text is needed here: write \"false\" (YAML reads no so)",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata:\n    nam: a\n",
            "f.yaml:7:5: items[0].metadata.nam: unknown field, did you mean name?",
        ),
        ("apiVersion: v1\nkind: Podd\nmetadata: {name: a}\n", "f.yaml:2:1: kind: v1 Podd is not supported"),
        ("a: *b\n", "f.yaml:1:4: "),
        ("a: &b [*b]\n", "f.yaml:1:8: a[0]: the alias names no anchor"),
        ("a: !thing 1\n", "f.yaml:1:4: a: the tag !thing is not supported"),
        ("a: .inf\n", "f.yaml:1:4: a: infinity and NaN are not supported"),
        ("? [a]\n: b\n", "f.yaml:1:3: a key must be plain text"),
        ("- a\n", "f.yaml:1:1: an object must be a mapping"),
        ("a:\n\tb: 1\n", "f.yaml:2:"),
        ("a:\n   b: 1\n  c: 1\n", "f.yaml:3:"),
    ];
    for (text, start) in cases {
        let found = errors(text);
        assert!(found.first().is_some_and(|e| e.starts_with(start)), "{text}\nwant {start}\n got {found:#?}");
    }
    let tab = errors("a:\n\tb: 1\n");
    assert!(tab[0].contains("tab"), "{tab:?}");
}

#[test]
fn every_wrong_object_gives_an_error() {
    let text = "kind: A\n---\nkind: B\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: ok}\n";
    assert_eq!(errors(text).len(), 2);
}

#[test]
fn size_depth_and_aliases_are_bounded() {
    let big = vec![b' '; MAX_BYTES + 1];
    assert!(parse("f", &big).is_err());
    let deep = "[".repeat(100_000);
    assert!(errors(&deep)[0].contains("limit"), "{:?}", errors(&deep));
    let nested = (0..70).fold(String::new(), |text, i| format!("{text}{:i$}a:\n", ""));
    assert!(errors(&nested)[0].contains("deeper"), "{:?}", errors(&nested));
    let maps = "{a: ".repeat(50_000);
    assert!(!errors(&maps).is_empty());
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for i in 1..40 {
        laughs += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "));
    }
    assert!(errors(&laughs)[0].contains("too large"), "{:?}", errors(&laughs));
    let mut ladder = String::from("a0: &a0 [x]\n");
    for i in 1..2000 {
        ladder += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
    }
    assert!(errors(&ladder)[0].contains("deeper"), "{:?}", errors(&ladder));
}

#[test]
fn merge_keys_and_anchors_work() {
    let text = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  labels: &l {app: web, tier: front}
  annotations:
    <<: *l
    tier: back
";
    let documents = parse("f", text.as_bytes()).unwrap();
    assert_eq!(
        serde_json::to_value(&documents[0].object.metadata.annotations).unwrap(),
        json!({"app": "web", "tier": "back"})
    );
}

#[test]
fn json_is_yaml_too() {
    let text = "{\n\t\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": \"a\"},\n\t\"data\": {\"x\": \"\\ud83d\\ude00 \\/\"}\n}\n";
    let documents = parse("f.json", text.as_bytes()).unwrap();
    assert_eq!(documents[0].object.fields["data"], json!({"x": "\u{1f600} /"}));
    assert!(parse_json(b"{\"a\": 1, \"a\": 2}").is_err());
    assert!(parse_json(&[b'['; 100_000]).is_err());
    assert_eq!(parse_json(b"[1, -1, 1.5, null, true, \"x\"]").unwrap(), json!([1, -1, 1.5, null, true, "x"]));
}

#[test]
fn keys_with_dots_are_found() {
    let text = "a:\n  b.c/d:\n    e: 1\n  b: {}\n";
    let node = Documents::new(text).next().unwrap().unwrap();
    assert_eq!(node.find("a.b.c/d.e"), Position { line: 3, column: 5 });
    assert_eq!(node.find("a.b.nothing"), Position { line: 4, column: 3 });
    assert_eq!(node.find("x"), Position { line: 1, column: 1 });
}

/// Any JSON value with text that is likely to go wrong.
fn values() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[a-z0-9:#\\-? \n\t'\"\\\\{}\\[\\],&*!|>%@`~.]{0,12}",
        Just("yes".to_owned()),
        Just("0644".to_owned()),
        Just("<<".to_owned()),
        Just("a\n b\n\n".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_reads_back_the_same(value in values()) {
        let text = to_yaml(&value);
        let node = Documents::new(&text).next().map_err(|e| TestCaseError::fail(format!("{e:?}\n{text}")))?;
        let read = node.map_or(Value::Null, |n| n.value());
        prop_assert_eq!(read, value, "{}", text);
    }

    #[test]
    fn garbage_never_panics(text in "[-a-z0-9:#? \n\t'\"\\\\{}\\[\\],&*!|>%@`~<.]{0,60}") {
        let _ = parse("f", text.as_bytes());
    }

    #[test]
    fn garbage_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse("f", &bytes);
        let _ = parse_json(&bytes);
    }
}
