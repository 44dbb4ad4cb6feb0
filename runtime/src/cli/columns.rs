//! What the tables of `get` show of each kind.

use edge_model::Kind;
use serde_json::Value;

use super::out::age_of;

/// The columns of a kind, without NAMESPACE; the last `wide` ones are for `-o wide`.
pub struct Columns {
    /// Their heads.
    pub heads: &'static [&'static str],
    /// How many at the end are shown only on `-o wide`.
    pub wide: usize,
}

/// The columns of a kind.
pub fn of(kind: Kind) -> Columns {
    let (heads, wide): (&'static [&'static str], usize) = match kind {
        Kind::Pod => (&["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "IMAGES"], 3),
        Kind::Device => (&["NAME", "MODEL", "PROTOCOL", "STATE", "LAST SEEN", "AGE", "REASON"], 1),
        Kind::DeviceModel => (&["NAME", "PROTOCOL", "PROPERTIES", "AGE"], 0),
        Kind::ConfigMap => (&["NAME", "DATA", "AGE"], 0),
        Kind::Secret => (&["NAME", "TYPE", "DATA", "AGE"], 0),
        Kind::Node => (&["NAME", "STATUS", "AGE", "VERSION", "ADDRESS", "OS", "KERNEL"], 3),
        Kind::Event => (&["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE", "COUNT", "FIRST SEEN"], 2),
    };
    Columns { heads, wide }
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

fn size(object: &Value, fields: &[&str]) -> String {
    let count = |field: &&str| object.get(*field).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    fields.iter().map(count).sum::<usize>().to_string()
}

/// The cells of an object, for all its columns.
pub fn cells(kind: Kind, object: &Value) -> Vec<String> {
    let name = text(object, "/metadata/name").to_owned();
    let age = age_of(text(object, "/metadata/creationTimestamp"));
    match kind {
        Kind::Pod => pod(object, name, age),
        Kind::Device => {
            let protocol = text(object, "/spec/protocol/protocolName");
            let model = text(object, "/spec/deviceModelRef/name").to_owned();
            let state = or(text(object, "/status/state"), "unknown");
            let seen = last_seen(object).map_or("<never>".to_owned(), |time| age_of(&time));
            let reason = or(text(object, "/status/extensions/reason"), "<none>");
            vec![name, model, or(protocol, "<none>"), state, seen, age, reason]
        }
        Kind::DeviceModel => {
            let properties = list(object, "/spec/properties").len().to_string();
            vec![name, or(text(object, "/spec/protocol"), "<any>"), properties, age]
        }
        Kind::ConfigMap => vec![name, size(object, &["data", "binaryData"]), age],
        Kind::Secret => vec![name, or(text(object, "/type"), "Opaque"), size(object, &["data", "stringData"]), age],
        Kind::Node => {
            let ready = list(object, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
            let status = match ready.map(|c| text(c, "/status")) {
                Some("True") => "Ready",
                Some(_) => "NotReady",
                None => "Unknown",
            };
            let address = list(object, "/status/addresses").first().map_or("", |a| text(a, "/address"));
            let info = |field: &str| or(text(object, &format!("/status/nodeInfo/{field}")), "<unknown>");
            vec![
                name,
                status.to_owned(),
                age,
                info("kubeletVersion"),
                or(address, "<none>"),
                info("osImage"),
                info("kernelVersion"),
            ]
        }
        Kind::Event => {
            let last = [
                text(object, "/lastTimestamp"),
                text(object, "/eventTime"),
                text(object, "/metadata/creationTimestamp"),
            ];
            let last = last.into_iter().find(|t| !t.is_empty()).unwrap_or_default();
            let about = format!(
                "{}/{}",
                text(object, "/involvedObject/kind").to_ascii_lowercase(),
                text(object, "/involvedObject/name")
            );
            let count = object.get("count").and_then(Value::as_u64).unwrap_or(1).to_string();
            let first = age_of(text(object, "/firstTimestamp"));
            let (of_type, reason) = (text(object, "/type").to_owned(), text(object, "/reason").to_owned());
            vec![age_of(last), of_type, reason, about, text(object, "/message").trim().to_owned(), count, first]
        }
    }
}

fn pod(object: &Value, name: String, age: String) -> Vec<String> {
    let containers = list(object, "/spec/containers");
    let statuses = list(object, "/status/containerStatuses");
    let ready = statuses.iter().filter(|c| c.get("ready").and_then(Value::as_bool) == Some(true)).count();
    let restarts: u64 = statuses.iter().filter_map(|c| c.get("restartCount").and_then(Value::as_u64)).sum();
    // As kubectl: the reason of a container that is not well says more than the phase.
    let reason = statuses.iter().find_map(|c| {
        let waiting = text(c, "/state/waiting/reason");
        let ended = text(c, "/state/terminated/reason");
        [waiting, ended].into_iter().find(|r| !r.is_empty() && *r != "ContainerCreating")
    });
    let status = reason.unwrap_or_else(|| text(object, "/status/reason"));
    let status = or(status, &or(text(object, "/status/phase"), "Pending"));
    let ended =
        statuses.iter().filter_map(|c| c.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str)).max();
    let restarts = match ended.filter(|_| restarts > 0) {
        Some(time) => format!("{restarts} ({} ago)", age_of(time)),
        None => restarts.to_string(),
    };
    let images: Vec<&str> = containers.iter().map(|c| text(c, "/image")).collect();
    vec![
        name,
        format!("{ready}/{}", containers.len()),
        status,
        restarts,
        age,
        or(text(object, "/status/podIP"), "<none>"),
        or(text(object, "/spec/nodeName"), "<none>"),
        images.join(","),
    ]
}

/// When the last property of a device was heard of. KubeEdge's timestamps are milliseconds in a string.
fn last_seen(device: &Value) -> Option<String> {
    let named = text(device, "/status/lastOnlineTime");
    if !named.is_empty() {
        return Some(named.to_owned());
    }
    let times = list(device, "/status/twins").iter().filter_map(|twin| {
        let time = twin.pointer("/reported/metadata/timestamp")?;
        time.as_str().map_or_else(|| time.as_i64(), |t| t.parse().ok())
    });
    times.max().map(edge_model::time::rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_fills_its_columns() {
        for kind in Kind::ALL {
            let columns = of(kind);
            assert_eq!(cells(kind, &json!({})).len(), columns.heads.len(), "{kind}");
            assert!(columns.wide < columns.heads.len());
        }
    }

    #[test]
    fn a_pod_shows_what_is_wrong_with_it() {
        let pod = json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [{"image": "a:1"}, {"image": "b"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"ready": true, "restartCount": 0, "state": {"running": {}}},
                {"ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
            ]},
        });
        let cells = cells(Kind::Pod, &pod);
        assert_eq!(cells[..4], ["web", "1/2", "CrashLoopBackOff", "3"]);
        assert_eq!(cells[7], "a:1,b");
    }

    #[test]
    fn a_device_shows_when_it_was_seen() {
        let now = crate::clock::now_ms().to_string();
        let device = json!({"status": {"twins": [{"reported": {"metadata": {"timestamp": now}}}]}});
        assert_ne!(cells(Kind::Device, &device)[4], "<never>");
        assert_eq!(cells(Kind::Device, &json!({}))[4], "<never>");
    }
}
