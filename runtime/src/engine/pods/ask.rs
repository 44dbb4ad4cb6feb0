//! Making one probe: a command, a connection or a request.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use edge_model::pod::probe::{ExecAction, HttpGetAction, Probe};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::launch::chain;
use crate::engine::containers::{EngineError, ExecRequest, Handle};
use crate::engine::shim::protocol::FailureKind;

/// How much of what a command says is kept for the event, in bytes.
const SAID: usize = 256;

/// What a probe has said.
pub(super) enum Outcome {
    Success,
    /// Why not, for people.
    Failure(String),
    /// It could not be made: that says nothing about the container.
    Unknown(String),
}

/// What is asked.
pub(super) struct Target {
    pub(super) handle: Handle,
    /// The pod's address; the node's loopback when it shares the node's network.
    pub(super) address: Option<Ipv4Addr>,
    /// The port that the probe names.
    pub(super) port: Option<u16>,
}

impl Target {
    /// Makes the probe, within its time.
    pub(super) async fn ask(&self, probe: &Probe) -> Outcome {
        let limit = Duration::from_millis(probe.timeout_ms());
        if let Some(exec) = &probe.exec {
            return self.exec(exec, limit).await;
        }
        let asked = async {
            if let Some(http) = &probe.http_get {
                return self.http_get(http).await;
            }
            let host = probe.tcp_socket.as_ref().and_then(|tcp| tcp.host.as_deref());
            self.connect(host).await.map(drop)
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(())) => Outcome::Success,
            Ok(Err(message)) => Outcome::Failure(message),
            Err(_) => Outcome::Failure(format!("no answer within {} s", limit.as_secs())),
        }
    }

    async fn exec(&self, action: &ExecAction, limit: Duration) -> Outcome {
        let request = ExecRequest { args: action.command.clone(), ..ExecRequest::default() };
        match self.handle.exec(&request, &[], SAID, limit).await {
            Ok(result) if result.exit.code == 0 => Outcome::Success,
            Ok(result) => {
                let said = if result.stdout.is_empty() { &result.stderr } else { &result.stdout };
                let said = String::from_utf8_lossy(said);
                Outcome::Failure(
                    format!("the command ended with {} {}", result.exit.code, said.trim()).trim().to_owned(),
                )
            }
            Err(EngineError::ExecTimedOut(_)) => {
                Outcome::Failure(format!("the command took longer than {} s", limit.as_secs()))
            }
            Err(EngineError::Exec { kind: FailureKind::Command, message, .. }) => Outcome::Failure(message),
            Err(error) => Outcome::Unknown(chain(&error)),
        }
    }

    async fn connect(&self, host: Option<&str>) -> Result<TcpStream, String> {
        let host = self.host(host);
        let port = self.port.ok_or("the port is not known")?;
        TcpStream::connect((host.as_str(), port)).await.map_err(|e| format!("{host}:{port}: {e}"))
    }

    fn host(&self, given: Option<&str>) -> String {
        let own = || self.address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4).to_string();
        given.map_or_else(own, |h| h.trim_matches(['[', ']']).to_owned())
    }

    async fn http_get(&self, action: &HttpGetAction) -> Result<(), String> {
        let stream = self.connect(action.host.as_deref()).await?;
        let shown = chain_of::<hyper::Error>;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(shown)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let path = action.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mut request = hyper::Request::get(format!("{slash}{path}"));
        let own = [
            (HOST, format!("{}:{}", self.host(action.host.as_deref()), self.port.unwrap_or(0))),
            (USER_AGENT, concat!("edge-runtime/", env!("CARGO_PKG_VERSION")).to_owned()),
            (ACCEPT, "*/*".to_owned()),
            (CONNECTION, "close".to_owned()),
        ];
        let given = |name: &str| action.http_headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
        for (name, value) in own.iter().filter(|(name, _)| !given(name.as_str())) {
            request = request.header(name, value);
        }
        for header in &action.http_headers {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
        let status = sender.send_request(request).await.map_err(shown)?.status();
        let good = status.is_success() || status.is_redirection();
        if good { Ok(()) } else { Err(format!("the answer was {status}")) }
    }
}

fn chain_of<E: std::error::Error + 'static>(error: E) -> String {
    chain(&error)
}
