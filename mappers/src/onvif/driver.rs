//! Which requests a reading takes: its clock, what it is, its profiles, its URIs; each once, and only when a property is due.

use std::sync::Arc;

use edge_model::device::onvif::What;
use edge_model::reading::{Quality, Value};
use edge_model::time::rfc3339;
use hyper::Uri;
use roxmltree::Node;
use serde_json::Value as Json;

use super::config::{Config, Item, Place, Service};
use super::decode::{self, Ask, Fault, Token};
use super::{link, scan};
use crate::device::{self, Settings as _};
use crate::{AccessError, Sample};

/// See the module.
pub struct Driver {
    config: Arc<Config>,
    clock: fn() -> i64,
    /// Where the device service is, once that is known.
    device: Option<Service>,
    /// Where the media service is.
    media: Option<Service>,
}

/// What one reading has found out. A refusal is of one question; other properties are still read.
#[derive(Default)]
struct Known {
    /// The camera's clock minus ours, in milliseconds.
    offset: Option<Result<i64, AccessError>>,
    profiles: Option<Result<Vec<Json>, AccessError>>,
    uris: Vec<(Item, Result<String, AccessError>)>,
}

impl Driver {
    pub(super) fn new(config: Arc<Config>, clock: fn() -> i64) -> Driver {
        Driver { config, clock, device: None, media: None }
    }

    /// Where the device service is: as configured, or as the camera says when it is asked for.
    async fn locate(&mut self) -> Result<Service, AccessError> {
        if let Some(known) = &self.device {
            return Ok(known.clone());
        }
        let found = match &self.config.place {
            Place::At(service) => service.clone(),
            Place::Named(name, interface) => {
                let found = scan::find(name, *interface, self.config.timeout).await;
                let found = found.map_err(|e| AccessError::Disconnected(format!("WS-Discovery: {e}")))?;
                let uri = found.as_ref().and_then(scan::Found::address);
                uri.and_then(service)
                    .ok_or_else(|| AccessError::Disconnected(format!("no camera says it is {name}")))?
            }
        };
        Ok(self.device.insert(found).clone())
    }

    async fn ask<T>(
        &self,
        to: &Service,
        ask: Ask<'_>,
        offset: Option<i64>,
        take: impl FnOnce(Node<'_, '_>) -> Option<T>,
    ) -> Result<T, AccessError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|e| AccessError::Refused(format!("no random bytes: {e}")))?;
        let token = offset.zip(self.config.user.as_ref()).map(|(offset, (user, password))| Token {
            user,
            password,
            nonce,
            created_ms: (self.clock)().saturating_add(offset),
        });
        let text = link::ask(to, ask, token, self.config.user.as_ref(), self.config.timeout).await?;
        ask.answer(&text, take).map_err(|e| match e {
            Fault::Refused(why) => AccessError::Refused(why),
            Fault::Garbage(why) => AccessError::Garbage(why),
        })
    }

    /// How far the camera's clock is ahead. It is asked in every reading: one that was set right meanwhile would refuse what
    /// is dated by the old one.
    async fn offset(&self, device: &Service, known: &mut Known) -> Result<i64, AccessError> {
        if let Some(offset) = &known.offset {
            return offset.clone();
        }
        let mut asked = self.ask(device, Ask::DateTime, None, decode::date_time).await;
        // It is for everybody, but some cameras tell it to users only.
        if matches!(asked, Err(AccessError::Refused(_))) && self.config.user.is_some() {
            asked = self.ask(device, Ask::DateTime, Some(0), decode::date_time).await;
        }
        let offset = asked.map(|theirs| theirs.saturating_sub((self.clock)()));
        known.offset.insert(offset).clone()
    }

    /// The offset for tokens: without an answer both clocks may still be right.
    async fn dated(&self, device: &Service, known: &mut Known) -> Result<Option<i64>, AccessError> {
        if self.config.user.is_none() {
            return Ok(None);
        }
        match self.offset(device, known).await {
            Ok(offset) => Ok(Some(offset)),
            Err(AccessError::Refused(_)) => Ok(Some(0)),
            Err(e) => Err(e),
        }
    }

    /// Where the media service is: the path a camera names, at the place it was reached by. The host it names is its own idea,
    /// wrong behind address translation, and a token is not sent to where somebody else points.
    async fn media(&mut self, device: &Service, offset: Option<i64>) -> Result<Service, AccessError> {
        if let Some(known) = &self.media {
            return Ok(known.clone());
        }
        let mut asked = self.ask(device, Ask::Services, offset, decode::media_service).await;
        if matches!(asked, Err(AccessError::Refused(_) | AccessError::Garbage(_))) {
            asked = self.ask(device, Ask::Capabilities, offset, decode::media_service).await;
        }
        let address = asked?;
        let path = service(&address).ok_or_else(|| AccessError::Garbage(format!("{address:?} is no URL")))?.path;
        Ok(self.media.insert(Service { path, ..device.clone() }).clone())
    }

    async fn profiles(&mut self, device: &Service, known: &mut Known) -> Result<Vec<Json>, AccessError> {
        if let Some(profiles) = &known.profiles {
            return profiles.clone();
        }
        let offset = self.dated(device, known).await?;
        let profiles = match self.media(device, offset).await {
            Ok(media) => self.ask(&media, Ask::Profiles, offset, decode::profiles).await,
            Err(e) => Err(e),
        };
        known.profiles.insert(profiles).clone()
    }

    async fn uri(&mut self, device: &Service, item: &Item, known: &mut Known) -> Result<String, AccessError> {
        if let Some((_, uri)) = known.uris.iter().find(|(i, _)| i == item) {
            return uri.clone();
        }
        let offset = self.dated(device, known).await?;
        let token = match &item.profile {
            Some(token) => token.clone(),
            None => {
                let profiles = self.profiles(device, known).await?;
                let first = profiles.first().and_then(|p| p.get("token")).and_then(Json::as_str);
                first.unwrap_or_default().to_owned()
            }
        };
        let media = self.media(device, offset).await?;
        let ask = match item.what {
            What::StreamUri => Ask::StreamUri(&token, item.transport),
            _ => Ask::SnapshotUri(&token),
        };
        let asked = self.ask(&media, ask, offset, decode::uri).await;
        let uri = asked.map(|uri| if self.config.rewrite_host { rewritten(&uri, &device.host) } else { uri });
        known.uris.push((item.clone(), uri.clone()));
        uri
    }

    async fn value(
        &mut self,
        device: &Service,
        item: &Item,
        known: &mut Known,
        information: &mut Option<Result<Vec<(What, String)>, AccessError>>,
    ) -> Result<Option<Value>, AccessError> {
        Ok(Some(match item.what {
            What::DeviceUri => Value::Text(device.to_string()),
            What::ClockOffset => Value::Int(self.offset(device, known).await? / 1_000),
            What::DateTime => Value::Text(rfc3339((self.clock)().saturating_add(self.offset(device, known).await?))),
            What::Profiles => Value::Text(Json::from(self.profiles(device, known).await?).to_string()),
            What::SnapshotUri | What::StreamUri => Value::Text(self.uri(device, item, known).await?),
            what => {
                if information.is_none() {
                    let offset = self.dated(device, known).await?;
                    *information = Some(self.ask(device, Ask::Information, offset, all_information).await);
                }
                let said = information.clone().unwrap_or(Ok(Vec::new()))?;
                return Ok(said.into_iter().find(|(w, _)| *w == what).map(|(_, text)| Value::Text(text)));
            }
        }))
    }
}

impl device::Driver for Driver {
    async fn read(&mut self, points: &[usize]) -> Result<Vec<Sample>, AccessError> {
        let config = Arc::clone(&self.config);
        let device = self.locate().await?;
        let (mut known, mut information) = (Known::default(), None);
        let mut samples = Vec::with_capacity(points.len());
        for at in points {
            let (Some(item), Ok(point)) = (config.items.get(*at), u16::try_from(*at)) else { continue };
            let (quality, value) = match self.value(&device, item, &mut known, &mut information).await {
                Ok(Some(value)) => (Quality::Good, Some(value)),
                Ok(None) | Err(AccessError::Garbage(_)) => (Quality::Invalid, None),
                Err(AccessError::Refused(why)) => {
                    tracing::debug!(device = config.profile().name, ?item.what, why, "refused");
                    (Quality::Refused, None)
                }
                Err(e) => {
                    // It may be somewhere else the next time.
                    (self.device, self.media) = (None, None);
                    return Err(e);
                }
            };
            samples.push(Sample { point, quality, value });
        }
        Ok(samples)
    }

    async fn write(&mut self, _: usize, _: &Value) -> Result<Value, AccessError> {
        Err(AccessError::Refused("what a camera says of itself cannot be written".to_owned()))
    }

    async fn back(&mut self) {
        match &self.config.place {
            Place::Named(name, interface) => scan::hello(name, *interface).await,
            Place::At(_) => std::future::pending().await,
        }
    }
}

fn all_information(answer: Node<'_, '_>) -> Option<Vec<(What, String)>> {
    let all = [What::Manufacturer, What::Model, What::FirmwareVersion, What::SerialNumber, What::HardwareId];
    Some(all.into_iter().filter_map(|what| Some((what, decode::information(answer, what)?))).collect())
}

/// The service at an `http` URL.
fn service(url: &str) -> Option<Service> {
    let uri: Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    Some(Service { host, port: uri.port_u16().unwrap_or(80), path })
}

/// A URI with another host; what is no URI with a host stays as it is.
fn rewritten(uri: &str, host: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, at) = authority.rsplit_once('@').map_or(("", authority), |(user, at)| (user, at));
    let separator = if user.is_empty() { "" } else { "@" };
    // The port stays: an address that is translated is seldom on another one.
    let port = at.rfind(':').filter(|i| !at.get(*i..).unwrap_or_default().contains(']'));
    let port = port.and_then(|i| at.get(i..)).unwrap_or_default();
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("{scheme}://{user}{separator}{host}{port}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_put_in() {
        for (uri, expected) in [
            ("rtsp://10.0.0.1:554/a?b", "rtsp://cam:554/a?b"),
            ("rtsp://u:p@10.0.0.1/a", "rtsp://u:p@cam/a"),
            ("http://[fe80::1]:80", "http://cam:80"),
            ("http://[fe80::1]?x", "http://cam?x"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(rewritten(uri, "cam"), expected);
        }
        assert_eq!(rewritten("http://a/b", "::1"), "http://[::1]/b");
    }

    #[test]
    fn only_plain_http_is_a_service() {
        let expected = Service { host: "::1".into(), port: 80, path: "/onvif/media?x".into() };
        assert_eq!(service("http://[::1]/onvif/media?x"), Some(expected));
        assert_eq!((service("https://a/b"), service("x"), service("")), (None, None, None));
    }
}
