//! Refusals, as Kubernetes' clients expect them: a `Status` object with reason, code and details.

use edge_model::object::ObjectError;
use edge_model::patch::PatchError;
use edge_model::{Key, Kind};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::backend::BackendError;
use crate::store::StoreError;

/// Why a request was refused.
///
/// Reasons are those of Kubernetes' `metav1.StatusReason`.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store's answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A backend's answer.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The object is not acceptable.
    #[error("{kind} is invalid: {error}")]
    Invalid {
        /// Its kind, or what it claims to be.
        kind: String,
        /// Its name.
        name: String,
        /// The field and what is wrong with it.
        #[source]
        error: ObjectError,
    },
    /// The patch cannot be applied.
    #[error("patch: {0}")]
    Patch(#[from] PatchError),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// Nothing is served under this path.
    #[error("there is nothing at {0}")]
    NoSuchPath(String),
    /// The path exists, the method does not.
    #[error("{method} is not possible here")]
    Method {
        /// The method asked for.
        method: String,
    },
    /// A patch or body of a type that is not understood.
    #[error("the media type {given:?} is not supported here; known: {known}")]
    MediaType {
        /// What was sent.
        given: String,
        /// What would be understood.
        known: &'static str,
    },
    /// The body is longer than allowed.
    #[error("the request's body is larger than {0} bytes")]
    TooLarge(usize),
    /// The part of the node that would do this is not running.
    #[error("{0}")]
    Unavailable(&'static str),
}

struct Face {
    code: StatusCode,
    reason: &'static str,
    about: Option<(Kind, String, String)>,
}

impl Failure {
    fn face(&self) -> Face {
        let about = |key: &Key| Some((key.kind, key.name.clone(), key.namespace.clone()));
        let (code, reason, about) = match self {
            Failure::Store(StoreError::NotFound(key)) => (StatusCode::NOT_FOUND, "NotFound", about(key)),
            Failure::Store(StoreError::Exists(key)) => (StatusCode::CONFLICT, "AlreadyExists", about(key)),
            Failure::Store(StoreError::Conflict { key, .. }) => (StatusCode::CONFLICT, "Conflict", about(key)),
            Failure::Store(StoreError::Expired(_)) => (StatusCode::GONE, "Expired", None),
            Failure::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError", None),
            Failure::Invalid { .. } | Failure::Backend(BackendError::Invalid(_)) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "Invalid", None)
            }
            Failure::Patch(PatchError::Malformed { .. }) | Failure::BadRequest(_) => {
                (StatusCode::BAD_REQUEST, "BadRequest", None)
            }
            Failure::Patch(PatchError::DoesNotFit(_)) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid", None),
            Failure::NoSuchPath(_) | Failure::Backend(BackendError::NotFound(_)) => {
                (StatusCode::NOT_FOUND, "NotFound", None)
            }
            Failure::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", None),
            Failure::MediaType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", None),
            Failure::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", None),
            Failure::Unavailable(_) | Failure::Backend(BackendError::Unavailable(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", None)
            }
            Failure::Backend(BackendError::Timeout(_)) => (StatusCode::GATEWAY_TIMEOUT, "Timeout", None),
            Failure::Backend(BackendError::Failed(_)) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError", None),
        };
        Face { code, reason, about }
    }

    /// The HTTP status.
    pub fn code(&self) -> StatusCode {
        self.face().code
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let Face { code, reason, about } = self.face();
        let mut details = json!({});
        if let Some((kind, name, namespace)) = about {
            details = json!({"name": name, "kind": kind.plural()});
            if let Some((group, _)) = kind.api_version().split_once('/') {
                details["group"] = json!(group);
            }
            if !namespace.is_empty() {
                details["namespace"] = json!(namespace);
            }
        }
        if let Failure::Invalid { kind, name, error } = self {
            let cause = json!({"reason": "FieldValueInvalid", "field": error.path, "message": error.message});
            details = json!({"name": name, "kind": kind, "causes": [cause]});
        }
        let mut message = self.to_string();
        let mut source = std::error::Error::source(self);
        // The finding is in the message already; sources of disk and backend errors are not.
        while let Some(cause) = source.filter(|_| !matches!(self, Failure::Invalid { .. })) {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "details": details, "code": code.as_u16(),
        })
    }
}
