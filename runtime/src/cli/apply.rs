//! `apply` and `delete`: manifests are read whole before the first object is touched.

use std::path::{Path, PathBuf};

use edge_model::manifest::{self, Document};
use edge_model::object::ObjectError;
use edge_model::{Key, Kind, Object};
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::client::{Client, nothing, whole};
use super::error::CliError;
use super::get::targets;
use super::out::Out;
use crate::api::APPLIED;
use crate::api::route::path;

/// The objects of files, folders and standard input (`-`), those first that others refer to.
fn read(files: &[PathBuf], namespace: Option<&str>) -> Result<Vec<Document>, CliError> {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for file in expand(files)? {
        let failed = |source| CliError::File { path: file.clone(), source };
        let (name, bytes) = if file == Path::new("-") {
            let mut bytes = Vec::new();
            let limited = std::io::Read::take(std::io::stdin(), manifest::MAX_BYTES as u64 + 1);
            std::io::Read::read_to_end(&mut { limited }, &mut bytes).map_err(failed)?;
            ("standard input".to_owned(), bytes)
        } else {
            (file.display().to_string(), std::fs::read(&file).map_err(failed)?)
        };
        match manifest::parse(&name, &bytes) {
            Ok(found) => documents.extend(found),
            Err(found) => errors.extend(found),
        }
    }
    if let Some(namespace) = namespace {
        for document in documents.iter_mut().filter(|d| d.object.kind.namespaced()) {
            if !document.names_namespace() {
                namespace.clone_into(&mut document.object.metadata.namespace);
            } else if document.object.metadata.namespace != namespace {
                let message = format!("is not {namespace}, which --namespace asks for");
                errors.push(document.error(&ObjectError { path: "metadata.namespace".to_owned(), message }));
            }
        }
    }
    if !errors.is_empty() {
        return Err(CliError::Manifests(errors));
    }
    documents.sort_by_key(|d| d.object.kind);
    Ok(documents)
}

/// Folders are replaced by the manifests in them, in the order of their names.
fn expand(files: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut all = Vec::new();
    for file in files {
        if !file.is_dir() {
            all.push(file.clone());
            continue;
        }
        let failed = |source| CliError::File { path: file.clone(), source };
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(file).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let extension = path.extension().and_then(|e| e.to_str());
            if matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file() {
                inside.push(path);
            }
        }
        if inside.is_empty() {
            return Err(CliError::No(format!("{}: no *.yaml, *.yml or *.json in this folder", file.display())));
        }
        inside.sort();
        all.extend(inside);
    }
    Ok(all)
}

/// `kind/name` for people.
fn shown(key: &Key) -> String {
    format!("{}/{}", key.kind.singular(), key.name)
}

/// The place in the file of what only the node could find.
fn located(document: &Document, error: CliError) -> CliError {
    let CliError::Refused { message, status } = error else { return error };
    let cause = status.pointer("/details/causes/0");
    let text = |field: &str| cause.and_then(|c| c.get(field)).and_then(Value::as_str);
    let finding = match (text("field"), text("message")) {
        (Some(field), Some(message)) => ObjectError { path: field.to_owned(), message: message.to_owned() },
        _ => ObjectError { path: ".".to_owned(), message },
    };
    CliError::Manifests(vec![document.error(&finding)])
}

/// `apply -f`.
pub async fn apply(
    client: &Client,
    out: &mut Out,
    files: &[PathBuf],
    namespace: Option<&str>,
    dry_run: bool,
) -> Result<(), CliError> {
    let documents = read(files, namespace)?;
    if documents.is_empty() {
        return Err(CliError::No("there are no objects in it".to_owned()));
    }
    for document in documents {
        put(client, out, &document.object, dry_run).await.map_err(|error| located(&document, error))?;
    }
    Ok(())
}

/// Hands one object to the node and says what came of it.
pub(super) async fn put(client: &Client, out: &mut Out, object: &Object, dry_run: bool) -> Result<(), CliError> {
    let query = if dry_run { "?dryRun=All" } else { "" };
    let key = object.key();
    let path = format!("{}{query}", path(key.kind, Some(&key.namespace), Some(&key.name)));
    let body = whole(object.to_json().to_string());
    let answer = client.send(Method::PATCH, &path, "application/apply-patch+yaml", body).await?;
    let did = match answer.header(APPLIED) {
        _ if dry_run => "can be applied (dry run)",
        "" => "applied",
        word => word,
    };
    out.line(&format!("{} {did}", shown(&key)))
}

/// `delete`.
pub async fn delete(
    client: &Client,
    out: &mut Out,
    what: &[String],
    files: &[PathBuf],
    namespace: Option<&str>,
    ignore_not_found: bool,
) -> Result<(), CliError> {
    let mut keys: Vec<Key> = read(files, namespace)?.iter().map(|d| d.object.key()).collect();
    // What refers to others goes first.
    keys.reverse();
    if files.is_empty() {
        if what.is_empty() {
            return Err(CliError::Usage("name what to delete: kind name, kind/name, or -f FILE".to_owned()));
        }
        for (kind, name) in targets(what)? {
            let name = name.ok_or_else(|| CliError::Usage(format!("name the {} to delete", kind.plural())))?;
            keys.push(Key::new(kind, namespace.unwrap_or_default(), &name));
        }
    }
    let mut missing = Vec::new();
    for key in keys {
        match remove(client, key.kind, &key).await {
            Ok(()) => out.line(&format!("{} \"{}\" deleted", key.kind.singular(), key.name))?,
            Err(CliError::Refused { status, .. })
                if status.get("code").and_then(Value::as_u64) == Some(u64::from(StatusCode::NOT_FOUND.as_u16())) =>
            {
                missing.push(key.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    if missing.is_empty() || ignore_not_found {
        return Ok(());
    }
    Err(CliError::No(format!("{} not found", missing.join(", "))))
}

async fn remove(client: &Client, kind: Kind, key: &Key) -> Result<(), CliError> {
    let path = path(kind, Some(&key.namespace), Some(&key.name));
    client.send(Method::DELETE, &path, "application/json", nothing()).await?.json().await.map(|_| ())
}
