//! What is not an object: the node's status, logs, images, properties of devices, the level of the log.

use std::sync::Arc;

use bytes::Bytes;
use edge_model::{Key, Kind, Object};
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::backend::{Backends, Images, Item, LogRequest, Progress, Properties};
use super::body::{self, Body};
use super::failure::Failure;
use super::query::Query;
use crate::store::{Store, StoreError};

/// `GET /status`: everything that can be well or not, with the reason when it is not.
pub fn status(store: &Store, backends: &Backends) -> Value {
    let mut document = Map::new();
    document.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    document.insert("time".to_owned(), json!(edge_model::time::rfc3339(crate::clock::now_ms())));
    let mut well = true;
    let mut section = |name: &str, items: Vec<Item>| {
        well &= items.iter().all(|i| i.well);
        document.insert(name.to_owned(), json!(items));
    };
    for (name, items) in &backends.status {
        section(name, items());
    }
    section("pods", store.list(Kind::Pod, None).0.iter().map(pod).collect());
    section("devices", store.list(Kind::Device, None).0.iter().map(device).collect());
    document.insert("well".to_owned(), json!(well));
    Value::Object(document)
}

fn full_name(object: &Object) -> String {
    edge_model::topic::device_id(&object.metadata.namespace, &object.metadata.name)
}

fn pod(object: &Arc<Object>) -> Item {
    let status = object.status();
    let text = |v: &Value, field: &str| v.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let phase = text(status, "phase");
    let containers = status.get("containerStatuses").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ready = containers.iter().all(|c| c.get("ready").and_then(Value::as_bool) == Some(true));
    let name = format!("{}/{}", object.metadata.namespace, object.metadata.name);
    if phase == "Succeeded" || phase == "Running" && ready {
        return Item::well(name, phase);
    }
    let state = if phase.is_empty() { "Pending".to_owned() } else { phase };
    let mut reasons = vec![text(status, "reason"), text(status, "message")];
    for container in containers {
        for how in ["waiting", "terminated"] {
            if let Some(state) = container.pointer(&format!("/state/{how}")) {
                let named = [text(container, "name"), text(state, "reason"), text(state, "message")];
                reasons.push(named.into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(": "));
            }
        }
    }
    reasons.retain(|r| !r.is_empty());
    let reason = if reasons.is_empty() { "not all containers are ready".to_owned() } else { reasons.join("; ") };
    Item::unwell(name, state, reason)
}

fn device(object: &Arc<Object>) -> Item {
    let text = |path: &str| object.status().pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (state, name) = (text("/state"), full_name(object));
    let reason = text("/extensions/reason");
    match state {
        "" => Item::unwell(name, "Unknown", "nothing has been heard of it yet"),
        "online" if reason.is_empty() => Item::well(name, state),
        _ => Item::unwell(name, state, reason),
    }
}

/// `GET …/pods/<name>/log`.
pub async fn log(store: &Store, backends: &Backends, key: &Key, query: &Query) -> Result<Response<Body>, Failure> {
    if store.get(key).is_none() {
        return Err(StoreError::NotFound(key.clone()).into());
    }
    let logs = backends.logs.as_ref().ok_or(Failure::Unavailable("containers do not run on this node"))?;
    let number = |name: &str| query.number(name).map_err(Failure::BadRequest);
    let since_ms = match (number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(seconds), _) => {
            let ms = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
            Some(crate::clock::now_ms().saturating_sub(ms))
        }
        (None, Some(time)) => {
            let bad = || Failure::BadRequest(format!("sinceTime: {time:?} is not an RFC 3339 time"));
            Some(edge_model::time::parse_rfc3339(time).ok_or_else(bad)?)
        }
        (None, None) => None,
    };
    let request = LogRequest {
        namespace: key.namespace.clone(),
        pod: key.name.clone(),
        container: query.get("container").map(str::to_owned),
        follow: query.is("follow"),
        previous: query.is("previous"),
        timestamps: query.is("timestamps"),
        tail_lines: number("tailLines")?,
        since_ms,
        limit_bytes: number("limitBytes")?,
    };
    let chunks = logs.open(request).await?;
    // The answer has begun: an error can only be a last line, as Kubernetes does it.
    let chunks = chunks.map(|chunk| chunk.unwrap_or_else(|error| Bytes::from(format!("error: {error}\n"))));
    Ok(body::stream("text/plain; charset=utf-8", chunks))
}

fn properties(backends: &Backends) -> Result<&dyn Properties, Failure> {
    backends.properties.as_deref().ok_or(Failure::Unavailable("devices are not served by this node"))
}

/// `GET …/devices/<name>/properties`: what was last heard of each, without asking the device.
pub fn list_properties(store: &Store, key: &Key) -> Result<Response<Body>, Failure> {
    let device = store.get(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
    let twins = device.status().get("twins").cloned().unwrap_or_else(|| json!([]));
    Ok(body::answer(StatusCode::OK, &json!({"device": key.name, "namespace": key.namespace, "twins": twins})))
}

/// `GET …/devices/<name>/properties/<property>`: asks the device.
pub async fn read_property(
    store: &Store,
    backends: &Backends,
    key: &Key,
    property: &str,
) -> Result<Response<Body>, Failure> {
    let _ = store.get(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
    let value = properties(backends)?.read(key, property).await?;
    Ok(body::answer(StatusCode::OK, &value))
}

/// `PUT …/devices/<name>/properties/<property>` with `{"value": …}`: writes to the device and reads back.
pub async fn write_property(
    store: &Store,
    backends: &Backends,
    key: &Key,
    property: &str,
    bytes: &[u8],
) -> Result<Response<Body>, Failure> {
    let _ = store.get(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
    let document = body::json(bytes)?;
    let value = document
        .get("value")
        .filter(|_| document.as_object().is_some_and(|d| d.len() == 1))
        .ok_or_else(|| Failure::BadRequest("the body must be {\"value\": …}".to_owned()))?;
    let value = properties(backends)?.write(key, property, value).await?;
    Ok(body::answer(StatusCode::OK, &value))
}

fn images(backends: &Backends) -> Result<&dyn Images, Failure> {
    backends.images.as_deref().ok_or(Failure::Unavailable("images are not kept on this node"))
}

/// `GET /images`.
pub async fn list_images(backends: &Backends) -> Result<Response<Body>, Failure> {
    let items = images(backends)?.list().await?;
    Ok(body::answer(StatusCode::OK, &json!({"items": items})))
}

/// `POST /images/pull` with `{"image": "…"}`.
pub async fn pull(backends: &Backends, bytes: &[u8]) -> Result<Response<Body>, Failure> {
    let document = body::json(bytes)?;
    let reference = document.get("image").and_then(Value::as_str);
    let reference = reference.ok_or_else(|| Failure::BadRequest("the body must be {\"image\": \"…\"}".to_owned()))?;
    Ok(steps(images(backends)?.pull(reference.to_owned()).await?))
}

/// `POST /images/import?name=…` with the archive as body.
pub async fn import(backends: &Backends, query: &Query, upload: Incoming) -> Result<Response<Body>, Failure> {
    let name = query.get("name").map(str::to_owned);
    Ok(steps(images(backends)?.import(name, body::upload(upload).boxed()).await?))
}

/// `DELETE /images/<reference>`.
pub async fn remove_image(backends: &Backends, reference: &str) -> Result<Response<Body>, Failure> {
    images(backends)?.remove(reference).await?;
    Ok(body::answer(StatusCode::OK, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})))
}

/// Steps, one a line; the last one is `{"error": "…"}` when it failed.
fn steps(progress: Progress) -> Response<Body> {
    let lines = progress.map(|step| match step {
        Ok(step) => body::line(&step),
        Err(error) => body::line(&json!({"error": error.to_string()})),
    });
    body::stream("application/json", lines)
}

/// `GET` and `PUT /loglevel` (`{"level": "…"}`).
pub fn log_level(backends: &Backends, set: Option<&[u8]>) -> Result<Response<Body>, Failure> {
    let level = backends.log_level.as_ref().ok_or(Failure::Unavailable("the log's level cannot be changed here"))?;
    if let Some(bytes) = set {
        let document = body::json(bytes)?;
        let wanted = document.get("level").and_then(Value::as_str);
        let wanted = wanted.ok_or_else(|| Failure::BadRequest("the body must be {\"level\": \"…\"}".to_owned()))?;
        level.set(wanted)?;
        tracing::info!(level = wanted, "log level changed");
    }
    Ok(body::answer(StatusCode::OK, &json!({"level": level.get()})))
}

/// `GET /update` and `POST /update/restart`.
pub async fn update(backends: &Backends, restart: bool) -> Result<Response<Body>, Failure> {
    let updates = backends.updates.as_ref().ok_or(Failure::Unavailable("this node is not updated from here"))?;
    if restart {
        updates.restart().await?;
        tracing::info!("restart asked for");
        return Ok(body::answer(StatusCode::ACCEPTED, &json!({"status": "restarting"})));
    }
    Ok(body::answer(StatusCode::OK, &updates.status().await?))
}
