//! A client of the node's API: one connection per request over the Unix socket.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::error::CliError;

/// The body of a request.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The longest answer kept whole, in bytes; streams have no such bound. A list of everything a gateway has is far smaller.
const MAX_ANSWER: usize = 64 << 20;
/// The longest single line of a stream, in bytes: an object of the largest size.
const MAX_LINE: usize = 8 << 20;

/// Where the node is.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// An answer whose body is still coming. Ends its connection when dropped.
pub struct Answer {
    code: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    pending: BytesMut,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The body of a request that has none.
pub fn nothing() -> Body {
    Full::new(Bytes::new()).boxed_unsync()
}

/// A body that is there at once.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body that is read as it is sent.
pub fn chunks(stream: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures_util::StreamExt;
    StreamBody::new(stream.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
}

impl Client {
    /// A client of the node behind this socket.
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// Sends a request and waits for the head of the answer. A refusal is an error.
    ///
    /// # Errors
    /// [`CliError::Unreachable`], [`CliError::Broken`], [`CliError::Refused`].
    pub async fn send(&self, method: Method, path: &str, media_type: &str, body: Body) -> Result<Answer, CliError> {
        let unreachable = |source| CliError::Unreachable { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(CliError::Broken)?;
        let connection = tokio::spawn(async move {
            // What breaks the connection is seen by whoever waits for the answer.
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "edge-runtime")
            .header(CONTENT_TYPE, media_type)
            .body(body)
            .map_err(|e| CliError::Usage(format!("cannot ask for {path}: {e}")))?;
        let (parts, body) = sender.send_request(request).await.map_err(CliError::Broken)?.into_parts();
        let answer = Answer { code: parts.status, headers: parts.headers, body, pending: BytesMut::new(), connection };
        if answer.code.is_success() { Ok(answer) } else { Err(answer.refusal().await) }
    }

    /// `GET` of a document.
    ///
    /// # Errors
    /// As [`Client::send`], and [`CliError::Answer`] when it is no JSON.
    pub async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.open(path).await?.json().await
    }

    /// `GET` of a stream.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn open(&self, path: &str) -> Result<Answer, CliError> {
        self.send(Method::GET, path, "application/json", nothing()).await
    }

    /// Sends a JSON document and waits for one.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn json(&self, method: Method, path: &str, value: &Value) -> Result<Value, CliError> {
        self.send(method, path, "application/json", whole(value.to_string())).await?.json().await
    }
}

impl Answer {
    /// A header's text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// [`CliError::Broken`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, CliError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(CliError::Broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The next line as JSON; `None` at the end of the body.
    ///
    /// # Errors
    /// [`CliError::Broken`], [`CliError::Answer`].
    pub async fn line(&mut self) -> Result<Option<Value>, CliError> {
        loop {
            if let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                let line = self.pending.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(|e| CliError::Answer(e.to_string()));
            }
            if self.pending.len() > MAX_LINE {
                return Err(CliError::Answer("a line without end".to_owned()));
            }
            match self.chunk().await? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// The whole body as a document.
    ///
    /// # Errors
    /// [`CliError::Broken`], [`CliError::Answer`].
    pub async fn json(mut self) -> Result<Value, CliError> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                return Err(CliError::Answer("it is too long".to_owned()));
            }
        }
        serde_json::from_slice(&bytes).map_err(|e| CliError::Answer(e.to_string()))
    }

    async fn refusal(self) -> CliError {
        let code = self.code;
        match self.json().await {
            Ok(status) => {
                let message = status.get("message").and_then(Value::as_str).map_or(code.to_string(), str::to_owned);
                CliError::Refused { message, status: Box::new(status) }
            }
            Err(CliError::Broken(error)) => CliError::Broken(error),
            Err(_) => CliError::Refused { message: code.to_string(), status: Box::default() },
        }
    }
}

/// A file as the body of a request, read piece by piece. What cannot be read ends the body early, and `failed` keeps why.
pub fn upload(
    file: impl tokio::io::AsyncRead + Unpin + Send,
    failed: std::sync::Arc<std::sync::Mutex<Option<io::Error>>>,
    sent: impl FnMut(u64) + Send + 'static,
) -> impl Stream<Item = Bytes> + Send {
    /// Large enough that a system call is not what takes the time.
    const PIECE: usize = 64 * 1024;
    futures_util::stream::unfold((file, sent), move |(mut file, mut sent)| {
        let failed = std::sync::Arc::clone(&failed);
        async move {
            use tokio::io::AsyncReadExt;
            let mut piece = BytesMut::with_capacity(PIECE);
            match file.read_buf(&mut piece).await {
                Ok(0) => None,
                Ok(length) => {
                    sent(u64::try_from(length).unwrap_or_default());
                    Some((piece.freeze(), (file, sent)))
                }
                Err(error) => {
                    *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                    None
                }
            }
        }
    })
}
