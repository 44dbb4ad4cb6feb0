//! A device with an HTTP interface, resolved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use edge_model::device::http::{Link, Method, Visitor};
use edge_model::device::{Device, DeviceModel, HTTP};
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use super::driver::Driver;
use crate::device::{Outlet, Settings};
use crate::payload::{Format, Path};
use crate::resolve::{self, ConfigError, fail, within};
use crate::{Profile, tls};

/// One device.
#[derive(Debug, PartialEq)]
pub struct Config {
    profile: Arc<Profile>,
    periods: Vec<Duration>,
    pub(super) host: Host,
    /// What every request's path begins with; no slash at its end.
    pub(super) prefix: String,
    pub(super) headers: Headers,
    /// The distinct requests that read.
    pub(super) requests: Vec<Request>,
    /// One per point: which request, and where in its answer.
    pub(super) places: Vec<Place>,
}

/// Names and values of headers, checked.
pub(super) type Headers = Vec<(HeaderName, HeaderValue)>;

/// Where the device is.
#[derive(Debug, PartialEq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
    /// `Some` for TLS; inside, the authorities to trust, or `None` for those of the system.
    pub(super) tls: Option<Option<String>>,
    /// The value of the header `Host`.
    pub(super) authority: String,
    pub(super) timeout: Duration,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// What comes after the prefix; in a write, with placeholders.
    pub(super) url: String,
    pub(super) body: Option<String>,
    pub(super) headers: Headers,
}

/// Where a point is.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    pub(super) request: usize,
    pub(super) format: Format,
    /// The request that writes it, and whether it is read back.
    pub(super) write: Option<(Request, bool)>,
}

impl Settings for Config {
    type Driver = Driver;

    fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    fn periods(&self) -> Vec<Duration> {
        self.periods.clone()
    }

    fn driver(self: Arc<Self>, _: &Outlet) -> Driver {
        Driver::new(self)
    }
}

/// Resolves a device against its model.
///
/// # Errors
/// Names the field that does not fit.
pub fn resolve(namespace: &str, name: &str, device: &Device, model: &DeviceModel) -> Result<Config, ConfigError> {
    resolve::speaks(HTTP, device, model)?;
    let link: Link = resolve::link(device, model)?;
    let path = "spec.protocol.configData";
    within(path, "timeout", link.timeout, 100, 60_000)?;
    let (host, prefix) = host(path, &link)?;
    let mut common = headers(&format!("{path}.headers"), &link.headers)?;
    let authorization = match (&link.token, &link.user) {
        (Some(_), Some(_)) => return fail(format!("{path}.token"), "and user exclude each other"),
        (Some(token), None) => Some(format!("Bearer {token}")),
        (None, Some(user)) => {
            let pair = format!("{user}:{}", link.password.as_deref().unwrap_or_default());
            Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        }
        (None, None) if link.password.is_some() => {
            return fail(format!("{path}.user"), "is missing: a password needs one");
        }
        (None, None) => None,
    };
    if let Some(text) = authorization {
        let Ok(mut value) = HeaderValue::from_str(&text) else {
            return fail(format!("{path}.token"), "has characters that no header can carry");
        };
        value.set_sensitive(true);
        common.push((hyper::header::AUTHORIZATION, value));
    }
    let (mut points, mut periods, mut requests, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for property in resolve::properties::<Visitor>(device, model) {
        let (property, point) = property?;
        let (v, path) = (property.visitor, property.path);
        let at = |key: &str| format!("{path}.{key}");
        let own = headers(&at("headers"), &v.headers)?;
        let request = Request { method: v.method, url: url(&at("url"), &prefix, &v.url)?, body: v.body, headers: own };
        if request.method == Method::Get && request.body.is_some() {
            return fail(at("body"), "does not go with GET");
        }
        let write = match v.write {
            None if point.writable => {
                return fail(at("write"), "is missing: the model says that the property can be written");
            }
            None => None,
            Some(w) => {
                let to = w.url.unwrap_or_else(|| request.url.clone());
                let kind = headers(&at("write.contentType"), &[("content-type".to_owned(), w.content_type)].into())?;
                let body = (w.method != Method::Get).then(|| w.template.unwrap_or_else(|| "{{json}}".to_owned()));
                let kind = kind.into_iter().filter(|_| body.is_some());
                let headers = request.headers.iter().cloned().chain(kind).collect();
                let url = url(&at("write.url"), &prefix, &to)?;
                Some((Request { method: w.method, url, body, headers }, w.read_back))
            }
        };
        let place = v.path.as_deref().map(Path::parse).transpose();
        let place = place.map_err(|message| ConfigError { path: at("path"), message })?;
        let index = requests.iter().position(|r| *r == request).unwrap_or_else(|| {
            requests.push(request);
            requests.len() - 1
        });
        places.push(Place { request: index, format: Format { path: place, on: v.on, off: v.off }, write });
        periods.push(Duration::from_millis(property.own.collect_ms()));
        points.push(point);
    }
    let profile = Arc::new(Profile { namespace: namespace.to_owned(), name: name.to_owned(), points });
    Ok(Config { profile, periods, host, prefix, headers: common, requests, places })
}

/// Takes the device's URL apart: where it is, and what paths begin with.
fn host(path: &str, link: &Link) -> Result<(Host, String), ConfigError> {
    let at = format!("{path}.url");
    let wrong = |what: &str| {
        Err(ConfigError {
            path: at.clone(),
            message: format!("{:?} is not http://host[:port][/path]: {what}", link.url),
        })
    };
    let uri: Uri = match link.url.parse() {
        Ok(uri) => uri,
        Err(error) => return wrong(&format!("{error}")),
    };
    let tls = match uri.scheme_str() {
        Some("http") => None,
        Some("https") => Some(link.ca.clone()),
        _ => return wrong("it must begin with http:// or https://"),
    };
    if let Some(Err(e)) = link.ca.as_deref().map(tls::check) {
        return fail(format!("{path}.ca"), e);
    }
    let Some(authority) = uri.authority().filter(|a| !a.host().is_empty()) else { return wrong("there is no host") };
    if authority.as_str().contains('@') {
        return wrong("user and password are keys of their own");
    }
    if uri.query().is_some() {
        return wrong("a query belongs into the url of a property");
    }
    let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let timeout = Duration::from_millis(link.timeout);
    let prefix = uri.path().trim_end_matches('/').to_owned();
    Ok((Host { name, port, tls, authority: authority.to_string(), timeout }, prefix))
}

/// A property's URL, checked with placeholders filled in by something harmless.
fn url(path: &str, prefix: &str, text: &str) -> Result<String, ConfigError> {
    let whole = target(prefix, &text.replace("{{value}}", "1").replace("{{json}}", "1"));
    match whole.parse::<Uri>() {
        Ok(uri) if uri.authority().is_none() && whole.starts_with('/') => Ok(text.to_owned()),
        _ => fail(path, format!("{text:?} is not a path such as /status?x=1")),
    }
}

/// What is asked for: the device's prefix and the property's path.
pub(super) fn target(prefix: &str, url: &str) -> String {
    match format!("{prefix}{url}") {
        empty if empty.is_empty() => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        whole => whole,
    }
}

fn headers(path: &str, from: &BTreeMap<String, String>) -> Result<Headers, ConfigError> {
    let one = |(name, value): (&String, &String)| {
        let pair = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
        match pair {
            // These belong to the connection and the length of what is sent, which are not the description's.
            Some((n, _)) if ["host", "content-length", "transfer-encoding", "connection"].contains(&n.as_str()) => {
                fail(path, format!("{name:?} is set by the node"))
            }
            Some(pair) => Ok(pair),
            None => fail(path, format!("{name:?} with {value:?} is not a header")),
        }
    };
    from.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolved(link: Value, visitors: &[Value]) -> Result<Config, ConfigError> {
        let names: Vec<String> = (0..visitors.len()).map(|i| format!("p{i}")).collect();
        let properties: Vec<Value> =
            names.iter().map(|n| json!({"name": n, "type": "INT", "accessMode": "ReadOnly"})).collect();
        let own = names.iter().zip(visitors);
        let own: Vec<Value> =
            own.map(|(n, v)| json!({"name": n, "visitors": {"protocolName": "http", "configData": v}})).collect();
        let device = json!({
            "deviceModelRef": {"name": "meter"},
            "protocol": {"protocolName": "http", "configData": link},
            "properties": own,
        });
        let model = DeviceModel::parse(&json!({"protocol": "http", "properties": properties})).unwrap();
        resolve("default", "meter", &Device::parse(&device).unwrap(), &model)
    }

    #[test]
    fn equal_requests_are_one() {
        let visitors = [
            json!({"url": "/status", "path": "a"}),
            json!({"url": "/status", "path": "b"}),
            json!({"url": "/status", "method": "POST", "body": "{}"}),
        ];
        let config = resolved(json!({"url": "https://[::1]/api/"}), &visitors).unwrap();
        assert_eq!(config.places.iter().map(|p| p.request).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!((config.host.name.as_str(), config.host.port, config.prefix.as_str()), ("::1", 443, "/api"));
        assert_eq!(target("", ""), "/");
        assert_eq!(target("/api", "?x=1"), "/api?x=1");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (link, visitor) = ("spec.protocol.configData", "spec.properties[0].visitors.configData");
        let there = json!({"url": "http://a"});
        let cases = [
            (json!({"url": "ftp://a"}), json!({}), link, "url"),
            (json!({"url": "http://u:p@a"}), json!({}), link, "url"),
            (json!({"url": "http://a?x"}), json!({}), link, "url"),
            (json!({"url": "/a"}), json!({}), link, "url"),
            (json!({"url": "http://a", "timeout": 0}), json!({}), link, "timeout"),
            (json!({"url": "http://a", "headers": {"a b": "c"}}), json!({}), link, "headers"),
            (json!({"url": "http://a", "headers": {"Host": "c"}}), json!({}), link, "headers"),
            (json!({"url": "http://a", "token": "x", "user": "y"}), json!({}), link, "token"),
            (json!({"url": "http://a", "token": "\n"}), json!({}), link, "token"),
            (json!({"url": "http://a", "ca": "x"}), json!({}), link, "ca"),
            (there.clone(), json!({"url": "status"}), visitor, "url"),
            (there.clone(), json!({"url": "/a b"}), visitor, "url"),
            (there.clone(), json!({"body": "x"}), visitor, "body"),
            (there.clone(), json!({"path": "a["}), visitor, "path"),
        ];
        for (l, v, path, key) in cases {
            let error = resolved(l.clone(), std::slice::from_ref(&v)).unwrap_err();
            assert_eq!(error.path, format!("{path}.{key}"), "{l} {v}: {error}");
        }
    }
}
