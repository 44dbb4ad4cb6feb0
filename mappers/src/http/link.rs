//! One HTTP/1.1 connection, kept open between requests and made anew when the device has closed it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use edge_model::device::http::Method;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::{Config, Host, Request, target};
use crate::{AccessError, tls};

/// The longest answer, in bytes.
const MAX_BODY: usize = 256 << 10;

/// What the device answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// The connection, if there is one.
#[derive(Default)]
pub(super) struct Link {
    open: Option<SendRequest<Full<Bytes>>>,
    /// Drives the connection; never more than one.
    task: JoinSet<()>,
    /// Who is trusted, once it is known.
    tls: Option<Arc<ClientConfig>>,
}

impl Link {
    /// Makes a request and reads the whole answer, within the device's time-out.
    ///
    /// # Errors
    /// [`AccessError::Timeout`], [`AccessError::Disconnected`], [`AccessError::Garbage`]. Whatever the status, an answer is
    /// none.
    pub(super) async fn ask(
        &mut self,
        config: &Config,
        request: &Request,
        url: &str,
        body: Option<String>,
    ) -> Result<Answer, AccessError> {
        let limit = config.host.timeout;
        let answer = timeout(limit, self.exchange(config, request, url, body)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(AccessError::Timeout(u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))));
        if answer.is_err() {
            // A late answer must not be taken for that of another request.
            self.close();
        }
        answer
    }

    fn close(&mut self) {
        self.open = None;
        self.task.abort_all();
    }

    async fn exchange(
        &mut self,
        config: &Config,
        request: &Request,
        url: &str,
        body: Option<String>,
    ) -> Result<Answer, AccessError> {
        let build = || {
            let method = match request.method {
                Method::Get => hyper::Method::GET,
                Method::Post => hyper::Method::POST,
                Method::Put => hyper::Method::PUT,
                Method::Patch => hyper::Method::PATCH,
            };
            let mut builder = hyper::Request::builder().method(method).uri(target(&config.prefix, url));
            builder = builder.header(HOST, &config.host.authority);
            for (name, value) in config.headers.iter().chain(&request.headers) {
                builder = builder.header(name, value);
            }
            let bytes = Bytes::from(body.clone().unwrap_or_default());
            builder.body(Full::new(bytes)).map_err(|e| AccessError::Refused(format!("cannot be asked: {e}")))
        };
        // A connection that was kept may have been closed by the device since: then the request was never begun there, or a
        // GET, which may be repeated.
        let mut kept = self.open.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let was_kept = kept.is_some();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect(&config.host).await?,
        };
        let mut result = sender.send_request(build()?).await;
        let again = |e: &hyper::Error| e.is_canceled() || request.method == Method::Get;
        if was_kept && result.as_ref().err().is_some_and(again) {
            sender = self.connect(&config.host).await?;
            result = sender.send_request(build()?).await;
        }
        let (head, body) = result.map_err(|e| broken(&e))?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| {
            let e: &dyn std::error::Error = e.as_ref();
            match e.downcast_ref::<hyper::Error>() {
                Some(e) => broken(e),
                None => AccessError::Garbage(format!("more than {MAX_BODY} bytes")),
            }
        })?;
        let closes = head.headers.get(CONNECTION).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"close"));
        self.open = (!closes).then_some(sender);
        Ok(Answer { status: head.status.as_u16(), body: body.to_bytes() })
    }

    async fn connect(&mut self, host: &Host) -> Result<SendRequest<Full<Bytes>>, AccessError> {
        self.task.abort_all();
        while self.task.try_join_next().is_some() {}
        let lost = |e: io::Error| AccessError::Disconnected(e.to_string());
        let socket = TcpStream::connect((host.name.as_str(), host.port)).await.map_err(lost)?;
        socket.set_nodelay(true).map_err(lost)?;
        let Some(ca) = &host.tls else {
            let (sender, connection) = handshake(TokioIo::new(socket)).await.map_err(|e| broken(&e))?;
            // What breaks it is seen by whoever waits for the answer.
            self.task.spawn(async move { drop(connection.await) });
            return Ok(sender);
        };
        let trust = match &self.tls {
            Some(tls) => Arc::clone(tls),
            None => {
                let ca = ca.clone();
                let trusting = tokio::task::spawn_blocking(move || tls::client(ca.as_deref())).await;
                let trusting = trusting.map_err(|e| AccessError::Disconnected(e.to_string()))?;
                Arc::clone(self.tls.insert(trusting.map_err(AccessError::Disconnected)?))
            }
        };
        let name = ServerName::try_from(host.name.clone());
        let name = name.map_err(|e| AccessError::Disconnected(format!("{:?}: {e}", host.name)))?;
        let stream = TlsConnector::from(trust).connect(name, socket).await;
        let stream = stream.map_err(|e| AccessError::Disconnected(format!("TLS: {e}")))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        self.task.spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

fn broken(error: &hyper::Error) -> AccessError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("{error}{cause}");
    if error.is_parse() { AccessError::Garbage(text) } else { AccessError::Disconnected(text) }
}
