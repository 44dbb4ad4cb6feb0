//! Reads the folder of manifests and works out who wants which object. No store here: values in, values out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use edge_model::manifest::{self, ManifestError};
use edge_model::object::ObjectError;
use edge_model::{Key, Object};
use sha2::{Digest, Sha256};

/// The content of a file, to see whether it changed.
pub(super) type Fingerprint = [u8; 32];

/// An object and the line where it begins.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub object: Object,
    pub line: usize,
}

/// What a file holds.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Objects, all of them right.
    Objects(Vec<Wanted>),
    /// It cannot be used; each problem names file and line.
    Broken(Vec<String>),
}

/// The files of the folder, by name.
pub(super) type Files = BTreeMap<String, (Fingerprint, Content)>;

/// Whether a file of this name is a manifest. Editors' and deployments' own files are not.
pub(super) fn is_manifest(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|e| e.to_str());
    !name.starts_with(['.', '#']) && matches!(ending, Some("yaml" | "yml" | "json"))
}

/// Every manifest of the folder; `None` when there is no such folder. Symbolic links are followed.
pub(super) fn read(folder: &Path, before: &Files) -> io::Result<Option<Files>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut files = Files::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !is_manifest(&name) {
            continue;
        }
        match read_file(&entry.path()) {
            Ok(Some(bytes)) => {
                let print = Fingerprint::from(Sha256::digest(&bytes));
                let content = match before.get(&name) {
                    Some((same, content)) if *same == print => content.clone(),
                    _ => parse(&name, &bytes),
                };
                files.insert(name, (print, content));
            }
            Ok(None) => {}
            Err(error) => {
                let problem = format!("{name}: cannot be read: {error}");
                files.insert(name, (Fingerprint::default(), Content::Broken(vec![problem])));
            }
        }
    }
    Ok(Some(files))
}

/// The start of a file, one byte more than a manifest may have; `None` for what is no file (or is gone by now).
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => return Ok(None),
    }
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(manifest::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(bytes))
}

fn parse(name: &str, bytes: &[u8]) -> Content {
    let words = |errors: &[ManifestError]| Content::Broken(errors.iter().map(ToString::to_string).collect());
    match manifest::parse(name, bytes) {
        Err(errors) => words(&errors),
        Ok(documents) => {
            let mut lines = BTreeMap::new();
            for document in &documents {
                if let Some(first) = lines.insert(document.object.key(), document.position().line) {
                    let message = format!("the same object is in line {first} already");
                    return words(&[document.error(&ObjectError { path: ".".to_owned(), message })]);
                }
            }
            let wanted = documents.into_iter().map(|d| Wanted { line: d.position().line, object: d.object });
            Content::Objects(wanted.collect())
        }
    }
}

/// What the folder as a whole wants.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// Objects to be there, with their file.
    pub apply: Vec<(&'a str, &'a Object)>,
    /// Objects to be gone.
    pub remove: Vec<Key>,
    /// What is wrong, by file.
    pub problems: BTreeMap<&'a str, Vec<String>>,
}

/// Who wants what. `owned` are the objects that are there and the file each came from.
///
/// Files come in the order of their names; who names an object first has it. A broken file keeps what came from it.
pub(super) fn plan<'a>(files: &'a Files, owned: &[(Key, String)]) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut owners: BTreeMap<Key, (&str, usize)> = BTreeMap::new();
    for (name, (_, content)) in files {
        match content {
            Content::Broken(problems) => {
                plan.problems.insert(name, problems.clone());
                for (key, _) in owned.iter().filter(|(_, file)| file == name) {
                    owners.entry(key.clone()).or_insert((name, 0));
                }
            }
            Content::Objects(objects) => {
                for Wanted { object, line } in objects {
                    let key = object.key();
                    if let Some((other, at)) = owners.get(&key) {
                        let place = if *at == 0 { (*other).to_owned() } else { format!("{other}:{at}") };
                        let problem = format!("{name}:{line}: {key} is in {place} already, which comes first");
                        plan.problems.entry(name).or_default().push(problem);
                        continue;
                    }
                    owners.insert(key, (name, *line));
                    plan.apply.push((name, object));
                }
            }
        }
    }
    plan.remove = owned.iter().filter(|(key, _)| !owners.contains_key(key)).map(|(key, _)| key.clone()).collect();
    // What is referred to comes before what refers to it.
    plan.apply.sort_by_key(|(_, object)| object.kind);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::Kind;

    fn map(name: &str) -> String {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n---\n")
    }

    fn key(name: &str) -> Key {
        Key::new(Kind::ConfigMap, "", name)
    }

    fn files(all: &[(&str, String)]) -> Files {
        all.iter().map(|(n, text)| ((*n).to_owned(), (Fingerprint::default(), parse(n, text.as_bytes())))).collect()
    }

    #[test]
    fn names_of_manifests() {
        for good in ["a.yaml", "b.yml", "c.json", "d.e.yaml"] {
            assert!(is_manifest(good), "{good}");
        }
        for bad in
            [".a.yaml", "a.yaml~", ".a.yaml.swp", "#a.yaml#", "a.yaml.bak", "4913", "yaml", "..data", "a.YAML.tmp"]
        {
            assert!(!is_manifest(bad), "{bad}");
        }
    }

    #[test]
    fn the_first_file_has_an_object_and_a_broken_one_keeps_its_own() {
        let files = files(&[
            ("a.yaml", map("x") + &map("w")),
            ("b.yaml", map("w") + &map("z")),
            ("c.yaml", "kind: [".to_owned()),
            ("d.yaml", map("kept")),
        ]);
        let owned = [("x", "a.yaml"), ("gone", "a.yaml"), ("old", "removed.yaml"), ("kept", "c.yaml")];
        let owned: Vec<(Key, String)> = owned.iter().map(|(n, f)| (key(n), (*f).to_owned())).collect();
        let plan = plan(&files, &owned);
        let apply: Vec<(&str, Key)> = plan.apply.iter().map(|(f, o)| (*f, o.key())).collect();
        assert_eq!(apply, [("a.yaml", key("x")), ("a.yaml", key("w")), ("b.yaml", key("z"))]);
        assert_eq!(plan.remove, [key("gone"), key("old")]);
        assert_eq!(
            plan.problems["b.yaml"],
            ["b.yaml:1: configmaps/default/w is in a.yaml:5 already, which comes first"]
        );
        assert_eq!(
            plan.problems["d.yaml"],
            ["d.yaml:1: configmaps/default/kept is in c.yaml already, which comes first"]
        );
        assert!(plan.problems["c.yaml"][0].starts_with("c.yaml:"), "{:?}", plan.problems);
    }

    #[test]
    fn an_object_twice_in_a_file_is_refused() {
        let Content::Broken(problems) = parse("a.yaml", (map("x") + &map("x")).as_bytes()) else {
            panic!("accepted");
        };
        assert_eq!(problems, ["a.yaml:5:1: the same object is in line 1 already"]);
    }
}
