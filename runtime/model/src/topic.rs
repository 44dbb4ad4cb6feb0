//! Every topic of the event bus, in one closed enum with its printer and its parser side by side.
//!
//! Device topics are KubeEdge's (`staging/src/github.com/kubeedge/api/.../common`, `docs/.../eventbus`), so that existing
//! mappers and applications work unchanged. Device identifiers are `<name>` in namespace `default` and
//! `<namespace>.<name>` otherwise ([`device_id`]).

use std::fmt;
use std::str::FromStr;

/// A topic of ours. Text outside this enum belongs to pods and local devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// `$hw/events/device/<id>/twin/update`: a mapper reports, or an application asks for, property values.
    TwinUpdate(String),
    /// `$hw/events/device/<id>/twin/update/delta`: desired values that differ from the reported ones.
    TwinDelta(String),
    /// `$hw/events/device/<id>/twin/update/result`: what became of a twin update.
    TwinResult(String),
    /// `$hw/events/device/<id>/twin/update/document`: the twin before and after a change.
    TwinDocument(String),
    /// `$hw/events/device/<id>/twin/get`: asks for the whole twin.
    TwinGet(String),
    /// `$hw/events/device/<id>/twin/get/result`: the whole twin.
    TwinGetResult(String),
    /// `$hw/events/device/<id>/state/update`: online or offline.
    DeviceState(String),
    /// `$ke/events/device/<id>/data/update`: readings as they come.
    DeviceData(String),
    /// `$hw/events/node/<node>/membership/get`: asks which devices the node has.
    MembershipGet(String),
    /// `$hw/events/node/<node>/membership/get/result`: the answer.
    MembershipGetResult(String),
    /// `$hw/events/node/<node>/membership/updated`: devices came or went.
    MembershipUpdated(String),
    /// `$hw/events/upload/<rest>`: what an application wants brought to the cloud, acknowledged once it is on disk.
    Upload(String),
    /// `SYS/dis/upload_records`: KubeEdge's second spelling of the same.
    UploadRecords,
    /// `edge/pods/<namespace>/<name>`: the status of a pod, retained.
    PodState(String, String),
    /// `edge/node/link`: whether the cloud can be reached, retained.
    Link,
    /// `edge/events`: events of the node as they happen.
    Events,
}

const DEVICE: &str = "$hw/events/device/";
const NODE: &str = "$hw/events/node/";
const DATA: &str = "$ke/events/device/";
const UPLOAD: &str = "$hw/events/upload/";
const UPLOAD_RECORDS: &str = "SYS/dis/upload_records";
const PODS: &str = "edge/pods/";
const LINK: &str = "edge/node/link";
const EVENTS: &str = "edge/events";

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topic::TwinUpdate(id) => write!(f, "{DEVICE}{id}/twin/update"),
            Topic::TwinDelta(id) => write!(f, "{DEVICE}{id}/twin/update/delta"),
            Topic::TwinResult(id) => write!(f, "{DEVICE}{id}/twin/update/result"),
            Topic::TwinDocument(id) => write!(f, "{DEVICE}{id}/twin/update/document"),
            Topic::TwinGet(id) => write!(f, "{DEVICE}{id}/twin/get"),
            Topic::TwinGetResult(id) => write!(f, "{DEVICE}{id}/twin/get/result"),
            Topic::DeviceState(id) => write!(f, "{DEVICE}{id}/state/update"),
            Topic::DeviceData(id) => write!(f, "{DATA}{id}/data/update"),
            Topic::MembershipGet(node) => write!(f, "{NODE}{node}/membership/get"),
            Topic::MembershipGetResult(node) => write!(f, "{NODE}{node}/membership/get/result"),
            Topic::MembershipUpdated(node) => write!(f, "{NODE}{node}/membership/updated"),
            Topic::Upload(rest) => write!(f, "{UPLOAD}{rest}"),
            Topic::UploadRecords => f.write_str(UPLOAD_RECORDS),
            Topic::PodState(namespace, name) => write!(f, "{PODS}{namespace}/{name}"),
            Topic::Link => f.write_str(LINK),
            Topic::Events => f.write_str(EVENTS),
        }
    }
}

/// A topic that is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a topic of the runtime")]
pub struct NotOurs;

impl FromStr for Topic {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Topic, NotOurs> {
        let level = |s: &str| !s.is_empty() && !s.contains(['/', '+', '#', '\0']);
        let name = |s: &str| !s.contains(['+', '#', '\0']) && !s.is_empty();
        if let Some((id, rest)) = text.strip_prefix(DEVICE).and_then(|t| t.split_once('/')) {
            let make = match rest {
                "twin/update" => Topic::TwinUpdate,
                "twin/update/delta" => Topic::TwinDelta,
                "twin/update/result" => Topic::TwinResult,
                "twin/update/document" => Topic::TwinDocument,
                "twin/get" => Topic::TwinGet,
                "twin/get/result" => Topic::TwinGetResult,
                "state/update" => Topic::DeviceState,
                _ => return Err(NotOurs),
            };
            return if level(id) { Ok(make(id.to_owned())) } else { Err(NotOurs) };
        }
        if let Some((node, rest)) = text.strip_prefix(NODE).and_then(|t| t.split_once('/')) {
            let make = match rest {
                "membership/get" => Topic::MembershipGet,
                "membership/get/result" => Topic::MembershipGetResult,
                "membership/updated" => Topic::MembershipUpdated,
                _ => return Err(NotOurs),
            };
            return if level(node) { Ok(make(node.to_owned())) } else { Err(NotOurs) };
        }
        if let Some((id, "data/update")) = text.strip_prefix(DATA).and_then(|t| t.split_once('/')) {
            return if level(id) { Ok(Topic::DeviceData(id.to_owned())) } else { Err(NotOurs) };
        }
        if let Some(rest) = text.strip_prefix(UPLOAD) {
            return if name(rest) { Ok(Topic::Upload(rest.to_owned())) } else { Err(NotOurs) };
        }
        if let Some((ns, pod)) = text.strip_prefix(PODS).and_then(|t| t.split_once('/')) {
            let ok = level(ns) && level(pod);
            return if ok { Ok(Topic::PodState(ns.to_owned(), pod.to_owned())) } else { Err(NotOurs) };
        }
        match text {
            UPLOAD_RECORDS => Ok(Topic::UploadRecords),
            LINK => Ok(Topic::Link),
            EVENTS => Ok(Topic::Events),
            _ => Err(NotOurs),
        }
    }
}

/// A topic of the node in its cloud, below `<prefix>/<node>/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CloudTopic {
    /// `up/<stream>/<subject>`: a message in its [envelope](crate::envelope).
    Up(String, String),
    /// `down/<rest>`: a command.
    Down(String),
    /// `link`: whether the node is online, retained; the broker itself says when it is not (as its will).
    Link,
}

const UP: &str = "up/";
const DOWN: &str = "down/";
const CLOUD_LINK: &str = "link";

impl CloudTopic {
    /// The filter of all commands, below `<prefix>/<node>/`.
    pub const COMMANDS: &str = "down/#";

    /// The whole topic, below a base such as `edge/gw1`. Characters that no topic may hold become `_`: a subject can come
    /// from an application, and one bad topic would end the connection again and again.
    pub fn below(&self, base: &str) -> String {
        format!("{base}/{self}").replace(['+', '#', '\0'], "_")
    }

    /// The topic in a whole one below this base.
    pub fn parse_below(base: &str, text: &str) -> Option<CloudTopic> {
        text.strip_prefix(base)?.strip_prefix('/')?.parse().ok()
    }
}

impl fmt::Display for CloudTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloudTopic::Up(stream, subject) => write!(f, "{UP}{stream}/{subject}"),
            CloudTopic::Down(rest) => write!(f, "{DOWN}{rest}"),
            CloudTopic::Link => f.write_str(CLOUD_LINK),
        }
    }
}

impl FromStr for CloudTopic {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<CloudTopic, NotOurs> {
        if let Some((stream, subject)) = text.strip_prefix(UP).and_then(|t| t.split_once('/')) {
            return Ok(CloudTopic::Up(stream.to_owned(), subject.to_owned()));
        }
        match text.strip_prefix(DOWN) {
            Some(rest) => Ok(CloudTopic::Down(rest.to_owned())),
            None if text == CLOUD_LINK => Ok(CloudTopic::Link),
            None => Err(NotOurs),
        }
    }
}

/// The device identifier used in topics: `<name>` in namespace `default`, `<namespace>.<name>` elsewhere. A name with a dot
/// carries its namespace always, so that no two devices share an identifier (namespaces have no dots).
pub fn device_id(namespace: &str, name: &str) -> String {
    if namespace == crate::object::DEFAULT_NAMESPACE && !name.contains('.') {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

/// Namespace and name of a device identifier: the inverse of [`device_id`].
pub fn split_device_id(id: &str) -> (&str, &str) {
    id.split_once('.').unwrap_or((crate::object::DEFAULT_NAMESPACE, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topics() -> impl Strategy<Value = Topic> {
        let id = "[a-z0-9]([-a-z0-9.]{0,10}[a-z0-9])?";
        prop_oneof![
            id.prop_map(Topic::TwinUpdate),
            id.prop_map(Topic::TwinDelta),
            id.prop_map(Topic::TwinResult),
            id.prop_map(Topic::TwinDocument),
            id.prop_map(Topic::TwinGet),
            id.prop_map(Topic::TwinGetResult),
            id.prop_map(Topic::DeviceState),
            id.prop_map(Topic::DeviceData),
            id.prop_map(Topic::MembershipGet),
            id.prop_map(Topic::MembershipGetResult),
            id.prop_map(Topic::MembershipUpdated),
            "[a-z]{1,5}(/[a-z]{1,5}){0,3}".prop_map(Topic::Upload),
            Just(Topic::UploadRecords),
            (id, id).prop_map(|(a, b)| Topic::PodState(a, b)),
            Just(Topic::Link),
            Just(Topic::Events),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(topic in topics()) {
            prop_assert_eq!(topic.to_string().parse(), Ok(topic));
        }

        #[test]
        fn what_parses_prints_the_same(text in "[$a-zA-Z/+#]{0,20}") {
            if let Ok(topic) = text.parse::<Topic>() {
                prop_assert_eq!(topic.to_string(), text);
            }
        }
    }

    #[test]
    fn cloud_topics_come_back_and_never_hold_wildcards() {
        let base = "edge/gw1";
        for topic in [
            CloudTopic::Up("data".into(), "devices/default/pump/data".into()),
            CloudTopic::Down("commands".into()),
            CloudTopic::Link,
        ] {
            assert_eq!(CloudTopic::parse_below(base, &topic.below(base)), Some(topic));
        }
        assert_eq!(CloudTopic::Up("data".into(), "a+/#".into()).below(base), "edge/gw1/up/data/a_/_");
        assert_eq!(CloudTopic::parse_below("edge/gw", "edge/gw1/link"), None);
    }

    #[test]
    fn device_identifiers_lead_back() {
        for (namespace, name, id) in [("default", "a", "a"), ("default", "a.b", "default.a.b"), ("a", "b", "a.b")] {
            assert_eq!(device_id(namespace, name), id);
            assert_eq!(split_device_id(id), (namespace, name));
        }
    }

    #[test]
    fn wildcards_are_never_topics() {
        for text in ["$hw/events/device/+/twin/update", "$hw/events/upload/#", "$hw/events/upload/", "edge/pods/a"] {
            assert_eq!(text.parse::<Topic>(), Err(NotOurs), "{text}");
        }
    }
}
