//! The verbs on objects: list, get, create, update, patch, delete. Writes nothing but through the store.

use std::sync::Arc;

use bytes::Bytes;
use edge_model::object::ObjectError;
use edge_model::{Key, Kind, Object, patch};
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::failure::Failure;
use super::query::{Query, Selector};
use crate::store::{Applied, Store, StoreError};

/// How often a patch is tried again on an object that others keep changing.
const PATCH_TRIES: usize = 8;

/// The header that tells an apply what it did: `created`, `configured` or `unchanged`.
pub const APPLIED: &str = "x-edge-applied";

/// What a client sent: its media type and its bytes.
pub struct Sent {
    /// The media type, in lower case.
    pub media_type: String,
    /// The body.
    pub bytes: Bytes,
}

/// `GET` of a collection.
pub fn list(store: &Store, kind: Kind, namespace: Option<&str>, query: &Query) -> Result<Response<Body>, Failure> {
    let selector = Selector::parse(query).map_err(Failure::BadRequest)?;
    let limit = query.number("limit").map_err(Failure::BadRequest)?.filter(|l| *l > 0);
    let (objects, version) = store.list(kind, namespace);
    let after = query.get("continue").unwrap_or_default();
    let mut rest = objects
        .into_iter()
        .filter(|o| selector.matches(o))
        .skip_while(|o| !after.is_empty() && mark(o).as_str() <= after);
    let page: Vec<Arc<Object>> = match limit {
        Some(limit) => rest.by_ref().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect(),
        None => rest.by_ref().collect(),
    };
    let mut metadata = json!({"resourceVersion": version.to_string()});
    let remaining = rest.count();
    if let Some(last) = page.last().filter(|_| remaining > 0) {
        metadata["continue"] = json!(mark(last));
        metadata["remainingItemCount"] = json!(remaining);
    }
    let items: Vec<Value> = page.iter().map(|o| o.to_json()).collect();
    let document = json!({
        "kind": format!("{}List", kind.name()), "apiVersion": kind.api_version(), "metadata": metadata, "items": items,
    });
    Ok(body::answer(StatusCode::OK, &document))
}

/// Where a page ends. The separator sorts before every character of a name, so that marks sort as the store's keys do:
/// namespace first.
fn mark(object: &Object) -> String {
    format!("{}\u{1}{}", object.metadata.namespace, object.metadata.name)
}

/// `GET` of an object.
pub fn get(store: &Store, key: &Key) -> Result<Response<Body>, Failure> {
    let object = store.get(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
    Ok(body::answer(StatusCode::OK, &object.to_json()))
}

fn is_dry_run(query: &Query) -> Result<bool, Failure> {
    match query.get("dryRun") {
        None => Ok(false),
        Some("All") => Ok(true),
        Some(other) => Err(Failure::BadRequest(format!("dryRun: {other:?} is not All"))),
    }
}

/// What the path says must be what the object says; what the object leaves open, the path fills in.
fn place(value: &mut Value, kind: Kind, namespace: &str, name: Option<&str>) -> Result<(), Failure> {
    let Value::Object(map) = value else {
        return Err(Failure::BadRequest("the body is not an object".to_owned()));
    };
    for (field, is) in [("apiVersion", kind.api_version()), ("kind", kind.name())] {
        let given = map.entry(field).or_insert_with(|| json!(is));
        if given != is {
            return Err(Failure::BadRequest(format!("{field} is {given}, but the path is that of a {kind}: {is}")));
        }
    }
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    let Value::Object(metadata) = metadata else { return Ok(()) };
    let namespace = Some(namespace).filter(|_| kind.namespaced());
    for (field, is) in [("namespace", namespace), ("name", name)] {
        let Some(is) = is else { continue };
        let given = metadata.entry(field).or_insert_with(|| json!(is));
        if given.as_str() == Some("") {
            *given = json!(is);
        }
        if given != is {
            return Err(Failure::BadRequest(format!("metadata.{field} is {given}, but the path says {is:?}")));
        }
    }
    Ok(())
}

/// `POST` to a collection.
pub async fn create(
    store: &Store,
    kind: Kind,
    namespace: Option<&str>,
    query: &Query,
    sent: &Sent,
) -> Result<Response<Body>, Failure> {
    if kind.namespaced() && namespace.is_none() {
        return Err(Failure::Method { method: "POST without a namespace in the path".to_owned() });
    }
    let mut value = body::parse(&sent.media_type, &sent.bytes)?;
    place(&mut value, kind, namespace.unwrap_or_default(), None)?;
    let mut object = body::wanted(value)?;
    // As in Kubernetes: a status is reported, never created.
    object.set_status(Value::Null);
    if is_dry_run(query)? {
        let key = object.key();
        return match store.get(&key) {
            Some(_) => Err(StoreError::Exists(key).into()),
            None => Ok(body::answer(StatusCode::CREATED, &object.to_json())),
        };
    }
    let object = store.create(object).await?;
    Ok(body::answer(StatusCode::CREATED, &object.to_json()))
}

/// The object as it was found, if the version and uid a client had seen still are the current ones.
fn current(store: &Store, key: &Key, seen: &Object) -> Result<Arc<Object>, Failure> {
    let old = store.get(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
    let pairs =
        [(&seen.metadata.uid, &old.metadata.uid), (&seen.metadata.resource_version, &old.metadata.resource_version)];
    for (expected, found) in pairs {
        if !expected.is_empty() && expected != found {
            let (expected, found) = (expected.clone(), found.clone());
            return Err(StoreError::Conflict { key: key.clone(), expected, found }.into());
        }
    }
    Ok(old)
}

/// `PUT` of an object or of its status.
pub async fn update(
    store: &Store,
    key: &Key,
    of_status: bool,
    query: &Query,
    sent: &Sent,
) -> Result<Response<Body>, Failure> {
    let mut value = body::parse(&sent.media_type, &sent.bytes)?;
    place(&mut value, key.kind, &key.namespace, Some(&key.name))?;
    write(store, key, value, of_status, is_dry_run(query)?).await
}

/// Puts a whole object, or its status only, in the place of what is there.
async fn write(
    store: &Store,
    key: &Key,
    value: Value,
    of_status: bool,
    dry_run: bool,
) -> Result<Response<Body>, Failure> {
    let object = if of_status {
        let invalid = |e: ObjectError| body::invalid(key.kind.name().to_owned(), key.name.clone(), e);
        Object::from_json(value).map_err(invalid)?
    } else {
        body::wanted(value)?
    };
    let old = current(store, key, &object)?;
    let new = match (of_status, dry_run) {
        (_, true) => Arc::new(object),
        (true, false) => {
            let status = object.status().clone();
            store.set_status(key, &old.metadata.uid, status, crate::store::Durability::Now).await?
        }
        (false, false) => store.replace(object).await?,
    };
    Ok(body::answer(StatusCode::OK, &new.to_json()))
}

/// `PATCH` of an object or of its status.
pub async fn patch(
    store: &Store,
    key: &Key,
    of_status: bool,
    query: &Query,
    sent: &Sent,
) -> Result<Response<Body>, Failure> {
    if sent.media_type == "application/apply-patch+yaml" {
        return apply(store, key, query, sent).await;
    }
    let change = match sent.media_type.as_str() {
        "application/merge-patch+json" | "application/json-patch+json" => body::json(&sent.bytes)?,
        // Kubernetes knows merge keys of its own kinds only and refuses this for resources of others.
        "application/strategic-merge-patch+json" if key.kind.api_version() == "v1" => body::json(&sent.bytes)?,
        _ => {
            let known = "application/merge-patch+json, application/json-patch+json, application/apply-patch+yaml, \
                         application/strategic-merge-patch+json (kinds of v1)";
            return Err(Failure::MediaType { given: sent.media_type.clone(), known });
        }
    };
    let dry_run = is_dry_run(query)?;
    // A patch that names a version wants exactly that one: only then is a conflict the client's.
    let names_version = change.pointer("/metadata/resourceVersion").is_some_and(|v| !v.is_null());
    let mut tries = PATCH_TRIES;
    loop {
        let old = store.get(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        let mut value = old.to_json();
        match sent.media_type.as_str() {
            "application/merge-patch+json" => patch::merge(&mut value, change.clone()),
            "application/json-patch+json" => patch::json_patch(&mut value, change.clone())?,
            _ => patch::strategic(&mut value, change.clone())?,
        }
        place(&mut value, key.kind, &key.namespace, Some(&key.name))?;
        tries -= 1;
        match write(store, key, value, of_status, dry_run).await {
            Err(Failure::Store(StoreError::Conflict { .. })) if tries > 0 && !names_version => {}
            done => return done,
        }
    }
}

/// `PATCH` with `application/apply-patch+yaml`: the body is the whole wanted object. Unlike in Kubernetes there are no
/// field managers: what the body leaves out is gone.
async fn apply(store: &Store, key: &Key, query: &Query, sent: &Sent) -> Result<Response<Body>, Failure> {
    let mut value = body::parse("application/apply-patch+yaml", &sent.bytes)?;
    place(&mut value, key.kind, &key.namespace, Some(&key.name))?;
    let mut object = body::wanted(value)?;
    object.set_status(Value::Null);
    if store.get(key).is_some() {
        current(store, key, &object)?;
    }
    if is_dry_run(query)? {
        return Ok(body::answer(StatusCode::OK, &object.to_json()));
    }
    let (object, applied) = store.apply(object).await?;
    let (code, word) = match applied {
        Applied::Created => (StatusCode::CREATED, "created"),
        Applied::Configured => (StatusCode::OK, "configured"),
        Applied::Unchanged => (StatusCode::OK, "unchanged"),
    };
    let mut response = body::answer(code, &object.to_json());
    response.headers_mut().insert(APPLIED, HeaderValue::from_static(word));
    Ok(response)
}

/// `DELETE` of an object. The body may hold `preconditions`.
pub async fn delete(store: &Store, key: &Key, query: &Query, sent: &Sent) -> Result<Response<Body>, Failure> {
    let options = if sent.bytes.is_empty() { json!({}) } else { body::parse(&sent.media_type, &sent.bytes)? };
    let text = |path: &str| options.pointer(path).and_then(Value::as_str);
    let mut seen = Object { kind: key.kind, metadata: edge_model::Metadata::default(), fields: serde_json::Map::new() };
    text("/preconditions/uid").unwrap_or_default().clone_into(&mut seen.metadata.uid);
    text("/preconditions/resourceVersion").unwrap_or_default().clone_into(&mut seen.metadata.resource_version);
    let old = current(store, key, &seen)?;
    let dry_run = is_dry_run(query)? || options.get("dryRun").is_some_and(|d| *d == json!(["All"]));
    let gone = if dry_run { old } else { store.delete(key, Some(&old.metadata.uid)).await? };
    if key.kind == Kind::Pod {
        return Ok(body::answer(StatusCode::OK, &gone.to_json()));
    }
    let details = json!({"name": key.name, "kind": key.kind.plural(), "uid": gone.metadata.uid});
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(body::answer(StatusCode::OK, &status))
}
