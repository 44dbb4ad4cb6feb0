//! Unary gRPC calls over Unix sockets, on h2: all that DMI uses of gRPC.
//!
//! Source: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md): a message is a compression flag, four bytes of length and the bytes; the
//! status comes in trailers. Compressed messages are refused, as nobody negotiates them.

use std::path::Path;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use hyper::http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The largest message taken: some thousand devices.
const MAX_MESSAGE: usize = 4 << 20;
/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);

/// Why a call failed (grpc/doc/statuscodes.md).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (gRPC status {code})")]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: String,
}

pub(super) const INVALID_ARGUMENT: u16 = 3;
const DEADLINE_EXCEEDED: u16 = 4;
pub(super) const NOT_FOUND: u16 = 5;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;

impl Status {
    pub(super) fn new(code: u16, message: impl ToString) -> Status {
        Status { code, message: message.to_string() }
    }

    /// There is no such method.
    pub(super) fn unknown(path: &str) -> Status {
        Status::new(UNIMPLEMENTED, format!("there is no method {path}"))
    }
}

/// Takes a request apart.
pub(super) fn decode<M: Message + Default>(bytes: &Bytes) -> Result<M, Status> {
    M::decode(bytes.clone()).map_err(|e| Status::new(INVALID_ARGUMENT, e))
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    frame.freeze()
}

async fn body(stream: &mut RecvStream) -> Result<Bytes, Status> {
    let mut all = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.map_err(|e| Status::new(UNAVAILABLE, e))?;
        let _ = stream.flow_control().release_capacity(chunk.len());
        if all.len() + chunk.len() > MAX_MESSAGE + 5 {
            return Err(Status::new(RESOURCE_EXHAUSTED, format!("a message of more than {MAX_MESSAGE} bytes")));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

fn unframe(mut body: Bytes) -> Result<Bytes, Status> {
    let (Some(flag), Some(length)) = (body.first().copied(), body.get(1..5)) else {
        return Err(Status::new(INTERNAL, "a message without its head"));
    };
    let length = length.iter().fold(0_usize, |n, b| n << 8 | usize::from(*b));
    if flag != 0 {
        return Err(Status::new(UNIMPLEMENTED, "compressed messages are not taken"));
    }
    if body.len() != 5 + length {
        return Err(Status::new(INTERNAL, format!("a message of {} bytes says it has {length}", body.len() - 5)));
    }
    Ok(body.split_off(5))
}

/// Serves one connection: each request's path and message go to `handle`, whose message or status goes back.
pub(super) async fn serve(
    stream: UnixStream,
    handle: impl Fn(&str, &Bytes) -> Result<Vec<u8>, Status>,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(16)
        .max_header_list_size(16 << 10)
        .handshake::<_, Bytes>(stream)
        .await?;
    // Requests of one mapper are answered in turn: the connection is polled while a body is awaited, too.
    let mut waiting = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            request = connection.accept() => {
                let Some(request) = request else { return Ok(()) };
                let (request, respond) = request?;
                let path = request.uri().path().to_owned();
                let mut stream = request.into_body();
                waiting.spawn(async move {
                    let message = timeout(CALL, body(&mut stream)).await;
                    let message = message.unwrap_or_else(|_| Err(Status::new(DEADLINE_EXCEEDED, "the message never came")));
                    (path, message.and_then(unframe), respond)
                });
            }
            Some(Ok((path, message, mut respond))) = waiting.join_next() => {
                // A client that has gone does not want its answer.
                let _ = answer(&mut respond, message.and_then(|m| handle(&path, &m)));
            }
        }
    }
}

fn answer(respond: &mut h2::server::SendResponse<Bytes>, result: Result<Vec<u8>, Status>) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    match result {
        Ok(message) => {
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(frame(&message), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers)
        }
        Err(status) => {
            let headers = head.headers_mut();
            headers.insert("grpc-status", HeaderValue::from(status.code));
            headers.insert("grpc-message", percent(&status.message));
            respond.send_response(head, true).map(drop)
        }
    }
}

/// A message as a header may carry it: percent-encoded (PROTOCOL-HTTP2.md, Status-Message).
fn percent(text: &str) -> HeaderValue {
    let out = edge_model::percent::encode(text, |byte| byte != b'%' && (b' '..=b'~').contains(&byte));
    HeaderValue::from_str(&out).unwrap_or(HeaderValue::from_static(""))
}

/// Calls a method, such as `/v1beta1.DeviceMapperService/RegisterDevice`, of the server behind a socket.
pub(super) async fn call(socket: &Path, method: &'static str, message: &impl Message) -> Result<(), Status> {
    let lost = |e: h2::Error| Status::new(UNAVAILABLE, e);
    let exchange = async {
        let stream = UnixStream::connect(socket).await.map_err(|e| Status::new(UNAVAILABLE, e))?;
        let (client, connection) = h2::client::handshake(stream).await.map_err(lost)?;
        let request = async {
            let request = Request::post(format!("http://localhost{method}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .map_err(|e| Status::new(INTERNAL, e))?;
            let mut client = client.ready().await.map_err(lost)?;
            let (response, mut send) = client.send_request(request, false).map_err(lost)?;
            send.send_data(frame(&message.encode_to_vec()), true).map_err(lost)?;
            let response = response.await.map_err(lost)?;
            let early = status(response.headers());
            if let Some(early) = early {
                return early;
            }
            let mut stream = response.into_body();
            body(&mut stream).await?;
            let trailers = stream.trailers().await.map_err(lost)?.unwrap_or_default();
            status(&trailers).unwrap_or_else(|| Err(Status::new(INTERNAL, "an answer without a status")))
        };
        tokio::select! {
            result = request => result,
            // It ends only when the server closes it, and then there may still be an answer to read.
            ended = connection => Err(ended.map_or_else(lost, |()| Status::new(UNAVAILABLE, "the connection ended"))),
        }
    };
    timeout(CALL, exchange).await.unwrap_or_else(|_| Err(Status::new(DEADLINE_EXCEEDED, "no answer")))
}

fn status(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let code = headers.get("grpc-status")?.to_str().ok().and_then(|c| c.parse().ok()).unwrap_or(INTERNAL);
    if code == 0 {
        return Some(Ok(()));
    }
    let message = headers.get("grpc-message").and_then(|m| m.to_str().ok()).unwrap_or_default();
    Some(Err(Status::new(code, message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_broken_ones_are_refused() {
        assert_eq!(unframe(frame(b"abc")).unwrap(), Bytes::from_static(b"abc"));
        for broken in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x04abc", b"\x01\0\0\0\x03abc", b"\0\xff\xff\xff\xffabc"] {
            assert!(unframe(Bytes::copy_from_slice(broken)).is_err(), "{broken:?}");
        }
        assert_eq!(percent("a%\né"), "a%25%0A%C3%A9");
    }
}
