//! Reads by requests that points share, and writes by others.

use std::sync::Arc;
use std::time::Duration;

use edge_model::percent;
use edge_model::reading::{Quality, Value};
use tokio::time::{Instant, sleep};

use super::config::Config;
use super::link::{Answer, Link};
use crate::device::{self, Settings as _};
use crate::payload::{Found, same};
use crate::{AccessError, Sample};

/// Between two looks at whether what was written is there.
const LOOK: Duration = Duration::from_millis(200);

/// See the module.
pub struct Driver {
    config: Arc<Config>,
    link: Link,
}

impl Driver {
    pub(super) fn new(config: Arc<Config>) -> Driver {
        Driver { config, link: Link::default() }
    }

    /// One request of those that read, and the samples of points in its answer.
    async fn request(&mut self, index: usize, points: &[usize]) -> Result<Vec<Sample>, AccessError> {
        let config = Arc::clone(&self.config);
        let Some(request) = config.requests.get(index) else { return Ok(Vec::new()) };
        let answer = self.link.ask(&config, request, &request.url, request.body.clone()).await?;
        let document = serde_json::from_slice(&answer.body).ok();
        let sample = |at: &usize| {
            let (place, point) = (config.places.get(*at)?, config.profile().points.get(*at)?);
            let found = if refusal(&answer).is_some() {
                (Quality::Refused, None)
            } else {
                match place.format.read(point, &answer.body, document.as_ref()) {
                    Found::Value(value) => (Quality::Good, Some(value)),
                    Found::Nothing | Found::Wrong(_) => (Quality::Invalid, None),
                }
            };
            Some(Sample { point: u16::try_from(*at).ok()?, quality: found.0, value: found.1 })
        };
        Ok(points.iter().filter_map(sample).collect())
    }
}

/// Why an answer is none (RFC 9110, section 15). Redirections are not followed: the device's URL is where it is.
fn refusal(answer: &Answer) -> Option<AccessError> {
    match answer.status {
        200..=299 => None,
        300..=399 => Some(AccessError::Refused(format!("HTTP status {}, a redirection", answer.status))),
        401 | 403 => Some(AccessError::Refused(format!("HTTP status {}: who asks may not", answer.status))),
        other => Some(AccessError::Refused(format!("HTTP status {other}"))),
    }
}

impl device::Driver for Driver {
    async fn read(&mut self, points: &[usize]) -> Result<Vec<Sample>, AccessError> {
        let config = Arc::clone(&self.config);
        let mut samples = Vec::with_capacity(points.len());
        for request in 0..config.requests.len() {
            let of = |p: &&usize| config.places.get(**p).is_some_and(|place| place.request == request);
            let due: Vec<usize> = points.iter().filter(of).copied().collect();
            if !due.is_empty() {
                samples.extend(self.request(request, &due).await?);
            }
        }
        Ok(samples)
    }

    async fn write(&mut self, point: usize, value: &Value) -> Result<Value, AccessError> {
        let config = Arc::clone(&self.config);
        let place = config.places.get(point).ok_or_else(|| AccessError::Unknown(point.to_string()))?;
        let Some((request, read_back)) = &place.write else {
            return Err(AccessError::Refused("it has no write request".to_owned()));
        };
        let url = place.format.write(&request.url, &escaped(value));
        let body = request.body.as_ref().map(|template| place.format.write(template, value));
        let answer = self.link.ask(&config, request, &url, body).await?;
        if let Some(error) = refusal(&answer) {
            return Err(error);
        }
        if !read_back {
            return Ok(value.clone());
        }
        let end = Instant::now() + config.host.timeout;
        loop {
            let found = self.request(place.request, &[point]).await?.into_iter().next();
            match found {
                Some(Sample { value: Some(found), .. }) if same(value, &found) => return Ok(found),
                Some(Sample { value: Some(found), .. }) if Instant::now() >= end => {
                    return Err(AccessError::Mismatch { wrote: value.to_string(), found: found.to_string() });
                }
                Some(Sample { value: None, quality, .. }) if Instant::now() >= end => {
                    return Err(AccessError::Refused(format!(
                        "what was written could not be read: {}",
                        quality.as_str()
                    )));
                }
                Some(_) => sleep(LOOK).await,
                None => return Ok(value.clone()),
            }
        }
    }
}

/// A value as it may stand in a URL.
fn escaped(value: &Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(percent::encode(text, percent::is_unreserved)),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_a_url_is_escaped() {
        assert_eq!(escaped(&Value::Text("a b/ü".into())), Value::Text("a%20b%2F%C3%BC".into()));
        assert_eq!(escaped(&Value::Int(1)), Value::Int(1));
    }
}
