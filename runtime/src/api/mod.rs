//! The local API: Kubernetes' REST paths and JSON over a Unix socket, figures over a loopback port.
//!
//! ```text
//! edge-runtime get …  ─┐                       ┌─ objects ── check ── store
//! curl --unix-socket  ─┼─ socket ── route ─────┼─ watch   ──────────── store
//! client libraries    ─┘  (0660)               └─ node    ── backends (logs, images, properties)
//! Prometheus ─ 127.0.0.1:10255 ── /metrics /healthz /readyz, nothing else
//! ```
//!
//! It only writes objects, and only such as have passed the one check of every door; it calls neither engine nor mapper.

pub mod backend;
mod body;
mod discovery;
mod failure;
mod listen;
mod node;
mod objects;
pub mod query;
pub mod route;
mod watch;

use std::sync::Arc;

use edge_model::{Key, Kind};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub use backend::Backends;
pub use failure::Failure;
pub use listen::{Error, MetricsListener, Settings, Socket};
pub use objects::APPLIED;

use crate::store::{Filter, Store};
use body::Body;
use objects::Sent;
use query::Query;
use route::{Part, Route};

/// Everything a request can reach. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    store: Store,
    backends: Arc<Backends>,
}

impl Api {
    /// The API to a store and to what stands behind it.
    pub fn new(store: Store, backends: Backends) -> Api {
        Api { store, backends: Arc::new(backends) }
    }

    /// Answers a request of the socket.
    async fn answer(&self, request: Request<Incoming>, stop: CancellationToken) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = Box::pin(self.dispatch(request, stop)).await.unwrap_or_else(|failure| body::refuse(&failure));
        tracing::debug!(%method, path, code = answer.status().as_u16(), "answered");
        answer
    }

    async fn dispatch(&self, request: Request<Incoming>, stop: CancellationToken) -> Result<Response<Body>, Failure> {
        let path = request.uri().path();
        let route = Route::parse(path).ok_or_else(|| Failure::NoSuchPath(path.to_owned()))?;
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let method = request.method().clone();
        match route {
            Route::Collection { kind, namespace } => {
                self.collection(&method, kind, namespace.as_deref(), &query, request, stop).await
            }
            Route::Object { kind, namespace, name, part } => {
                let key = Key::new(kind, &namespace, &name);
                self.object(&method, &key, &part, &query, request, stop).await
            }
            route => self.other(&method, &route, &query, request).await,
        }
    }

    async fn collection(
        &self,
        method: &Method,
        kind: Kind,
        namespace: Option<&str>,
        query: &Query,
        request: Request<Incoming>,
        stop: CancellationToken,
    ) -> Result<Response<Body>, Failure> {
        match *method {
            Method::GET if query.is("watch") => {
                let filter = Filter { kind: Some(kind), namespace: namespace.map(str::to_owned), name: None };
                watch::watch(&self.store, kind, filter, query, stop)
            }
            Method::GET => objects::list(&self.store, kind, namespace, query),
            Method::POST => objects::create(&self.store, kind, namespace, query, &sent(request).await?).await,
            _ => Err(no_method(method)),
        }
    }

    async fn object(
        &self,
        method: &Method,
        key: &Key,
        part: &Part,
        query: &Query,
        request: Request<Incoming>,
        stop: CancellationToken,
    ) -> Result<Response<Body>, Failure> {
        let of_status = *part == Part::Status;
        match (part, method.as_str()) {
            (Part::Whole, "GET") if query.is("watch") => {
                let filter = Filter {
                    kind: Some(key.kind),
                    namespace: Some(key.namespace.clone()),
                    name: Some(key.name.clone()),
                };
                watch::watch(&self.store, key.kind, filter, query, stop)
            }
            (Part::Whole | Part::Status, "GET") => objects::get(&self.store, key),
            (Part::Whole | Part::Status, "PUT") => {
                objects::update(&self.store, key, of_status, query, &sent(request).await?).await
            }
            (Part::Whole | Part::Status, "PATCH") => {
                objects::patch(&self.store, key, of_status, query, &sent(request).await?).await
            }
            (Part::Whole, "DELETE") => objects::delete(&self.store, key, query, &sent(request).await?).await,
            (Part::Log, "GET") => node::log(&self.store, &self.backends, key, query).await,
            (Part::Properties(None), "GET") => node::list_properties(&self.store, key),
            (Part::Properties(Some(property)), "GET") => {
                node::read_property(&self.store, &self.backends, key, property).await
            }
            (Part::Properties(Some(property)), "PUT") => {
                let bytes = body::read(request.into_body()).await?;
                node::write_property(&self.store, &self.backends, key, property, &bytes).await
            }
            _ => Err(no_method(method)),
        }
    }

    async fn other(
        &self,
        method: &Method,
        route: &Route,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Failure> {
        match (route, method.as_str()) {
            (Route::Discovery(what), "GET") => Ok(body::answer(StatusCode::OK, &discovery::document(what))),
            (Route::Version, "GET") => Ok(body::answer(StatusCode::OK, &discovery::version())),
            (Route::Status, "GET") => Ok(body::answer(StatusCode::OK, &node::status(&self.store, &self.backends))),
            (Route::Metrics | Route::Healthz | Route::Readyz, "GET" | "HEAD") => Ok(self.seen(route)),
            (Route::LogLevel, "GET") => node::log_level(&self.backends, None),
            (Route::LogLevel, "PUT") => {
                let bytes = body::read(request.into_body()).await?;
                node::log_level(&self.backends, Some(&bytes))
            }
            (Route::Update, "GET") => node::update(&self.backends, false).await,
            (Route::Restart, "POST") => node::update(&self.backends, true).await,
            (Route::Images(None), "GET") => node::list_images(&self.backends).await,
            (Route::Images(Some(reference)), "DELETE") => node::remove_image(&self.backends, reference).await,
            (Route::Pull, "POST") => node::pull(&self.backends, &body::read(request.into_body()).await?).await,
            (Route::Import, "POST") => node::import(&self.backends, query, request.into_body()).await,
            _ => Err(no_method(method)),
        }
    }

    /// `/metrics`, `/healthz`, `/readyz`: all that the loopback port serves.
    fn seen(&self, route: &Route) -> Response<Body> {
        match route {
            Route::Metrics => {
                let text = self.backends.metrics.render();
                body::whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
            }
            // That an answer comes is the health: the reactor runs.
            Route::Healthz => body::text(StatusCode::OK, "ok"),
            Route::Readyz => match self.backends.ready.as_ref().map_or(Ok(()), |ready| ready()) {
                Ok(()) => body::text(StatusCode::OK, "ok"),
                Err(reason) => body::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
            },
            _ => body::answer(StatusCode::NOT_FOUND, &json!({"error": "only /metrics, /healthz and /readyz are here"})),
        }
    }
}

async fn sent(request: Request<Incoming>) -> Result<Sent, Failure> {
    let media_type = body::media_type(request.headers());
    Ok(Sent { media_type, bytes: body::read(request.into_body()).await? })
}

fn no_method(method: &Method) -> Failure {
    Failure::Method { method: method.to_string() }
}
