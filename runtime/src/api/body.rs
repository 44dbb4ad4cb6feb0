//! Bodies: read with a bound, answered whole or line by line.

use std::convert::Infallible;

use bytes::Bytes;
use edge_model::object::ObjectError;
use edge_model::{check, manifest};
use futures_util::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::failure::Failure;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The largest body of a request about objects, in bytes: a manifest of the largest size as JSON, with room for escapes.
pub const MAX_BODY: usize = 2 * manifest::MAX_BYTES;

/// The media type of a request, without parameters, in lower case.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The whole body, bounded by [`MAX_BODY`].
pub async fn read(body: Incoming) -> Result<Bytes, Failure> {
    // Refused before a byte is read when the length is announced.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Failure::TooLarge(MAX_BODY));
    }
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Failure::TooLarge(MAX_BODY)),
        Err(error) => Err(Failure::BadRequest(format!("the body could not be read: {error}"))),
    }
}

/// An upload, as it comes.
pub fn upload(body: Incoming) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    BodyStream::new(body).filter_map(|frame| async {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(std::io::Error::other(error))),
        }
    })
}

/// JSON or YAML, by its media type.
pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Value, Failure> {
    match media_type {
        "" | "application/json" | "text/json" => json(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "application/apply-patch+yaml" => {
            manifest::parse_value(bytes).map_err(|e| Failure::BadRequest(format!("the body is not YAML: {e}")))
        }
        _ => Err(Failure::MediaType { given: media_type.to_owned(), known: "application/json, application/yaml" }),
    }
}

/// JSON.
pub fn json(bytes: &[u8]) -> Result<Value, Failure> {
    manifest::parse_json(bytes).map_err(|e| Failure::BadRequest(format!("the body is not JSON: {e}")))
}

/// An object as a client wants it, checked like at every other door.
pub fn wanted(value: Value) -> Result<edge_model::Object, Failure> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, name) = (text(value.get("kind")), text(value.pointer("/metadata/name")));
    check::wanted(value).map_err(|error| invalid(kind, name, error))
}

/// A finding about an object.
pub fn invalid(kind: String, name: String, error: ObjectError) -> Failure {
    let kind = if kind.is_empty() { "object".to_owned() } else { kind };
    Failure::Invalid { kind, name, error }
}

/// A JSON document.
pub fn answer(code: StatusCode, value: &Value) -> Response<Body> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    whole(code, "application/json", text)
}

/// Text.
pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    whole(code, "text/plain; charset=utf-8", text)
}

/// A body that is there at once.
pub fn whole(code: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A body that comes in chunks.
pub fn stream(media_type: &'static str, chunks: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = chunks.map(|chunk| Ok(Frame::data(chunk)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A JSON document as a line.
pub fn line(value: &Value) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// A refusal.
pub fn refuse(failure: &Failure) -> Response<Body> {
    answer(failure.code(), &failure.status())
}
