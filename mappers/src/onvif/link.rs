//! One SOAP request over HTTP/1.1. A connection is not kept: a camera is asked seldom, and many close it anyway.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, WWW_AUTHENTICATE};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::Service;
use super::decode::{Ask, Token};
use super::digest;
use crate::AccessError;

/// The longest answer, in bytes: a recorder's list of profiles has a few kilobytes for each of its cameras.
const MAX_BODY: usize = 512 << 10;

/// An answer.
struct Answer {
    status: u16,
    /// The values of `WWW-Authenticate`.
    challenges: Vec<String>,
    text: String,
}

/// Asks a service, and again with HTTP's digest when it wants one and there is a user; the text of its answer, whatever its status: a fault explains itself in it.
///
/// # Errors
/// [`AccessError::Timeout`], [`AccessError::Disconnected`], [`AccessError::Garbage`]; [`AccessError::Refused`] for a status
/// that comes without SOAP.
pub(super) async fn ask(
    to: &Service,
    ask: Ask<'_>,
    token: Option<Token<'_>>,
    user: Option<&(String, String)>,
    limit: Duration,
) -> Result<String, AccessError> {
    let late = AccessError::Timeout(u32::try_from(limit.as_millis()).unwrap_or(u32::MAX));
    let asked = async {
        let mut answer = exchange(to, ask, token, None).await?;
        if answer.status == 401
            && let Some((user, password)) = user
            && let Some(header) = authorization(&answer.challenges, user, password, &to.path)?
        {
            answer = exchange(to, ask, token, Some(header)).await?;
        }
        if !(200..300).contains(&answer.status) && !answer.text.contains("Envelope") {
            return Err(AccessError::Refused(format!("HTTP status {}", answer.status)));
        }
        Ok(answer.text)
    };
    timeout(limit, asked).await.unwrap_or(Err(late))
}

fn authorization(
    challenges: &[String],
    user: &str,
    password: &str,
    uri: &str,
) -> Result<Option<HeaderValue>, AccessError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| AccessError::Refused(format!("no random bytes: {e}")))?;
    let cnonce = digest::hex(&random);
    let answer = digest::Answer { user, password, method: "POST", uri, cnonce: &cnonce };
    let header = answer.to(challenges.iter().map(String::as_str)).map(|text| HeaderValue::from_str(&text));
    header.transpose().map_err(|_| AccessError::Refused("the user has characters that no header can carry".to_owned()))
}

async fn exchange(
    to: &Service,
    ask: Ask<'_>,
    token: Option<Token<'_>>,
    authorization: Option<HeaderValue>,
) -> Result<Answer, AccessError> {
    let lost = |e: io::Error| AccessError::Disconnected(e.to_string());
    let socket = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(lost)?;
    let (mut sender, connection) = handshake(TokioIo::new(socket)).await.map_err(|e| broken(&e))?;
    let (name, space) = ask.name();
    let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
    let mut request = hyper::Request::post(to.path.as_str())
        .header(HOST, format!("{host}:{}", to.port))
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, format!("application/soap+xml; charset=utf-8; action=\"{space}/{name}\""))
        .body(Full::new(Bytes::from(ask.message(token))))
        .map_err(|e| AccessError::Refused(format!("cannot be asked: {e}")))?;
    if let Some(value) = authorization {
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(|e| broken(&e))?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| {
            let e: &dyn std::error::Error = e.as_ref();
            match e.downcast_ref::<hyper::Error>() {
                Some(e) => broken(e),
                None => AccessError::Garbage(format!("more than {MAX_BODY} bytes")),
            }
        })?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let challenges =
            head.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok().map(str::to_owned));
        Ok(Answer { status: head.status.as_u16(), challenges: challenges.collect(), text })
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection is driven here and not in a task of its own; once it is over, what has come is all there is.
        _ = connection => answer.await,
    }
}

fn broken(error: &hyper::Error) -> AccessError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("{error}{cause}");
    if error.is_parse() { AccessError::Garbage(text) } else { AccessError::Disconnected(text) }
}
