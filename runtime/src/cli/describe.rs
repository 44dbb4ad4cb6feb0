//! `describe`: an object for people, everything in it, and what happened to it.

use edge_model::Kind;
use serde_json::{Map, Value};

use super::client::Client;
use super::columns;
use super::error::CliError;
use super::get::{items, list_path, sort_events, targets};
use super::out::{Out, Table, age_of};
use crate::api::route::path;

/// Where values begin, in characters.
const VALUES: usize = 18;

/// `describe`.
pub async fn describe(
    client: &Client,
    out: &mut Out,
    what: &[String],
    selector: Option<&str>,
    namespace: Option<&str>,
) -> Result<(), CliError> {
    let namespace = namespace.unwrap_or(edge_model::object::DEFAULT_NAMESPACE);
    let mut objects = Vec::new();
    for (kind, name) in targets(what)? {
        match name {
            Some(name) => objects.push((kind, client.get(&path(kind, Some(namespace), Some(&name))).await?)),
            None => {
                let pairs = [("labelSelector", selector.unwrap_or_default())];
                let found = items(&client.get(&list_path(kind, Some(namespace), &pairs)).await?);
                objects.extend(found.into_iter().map(|object| (kind, object)));
            }
        }
    }
    if objects.is_empty() {
        return Err(CliError::No("nothing to describe".to_owned()));
    }
    for (index, (kind, object)) in objects.iter().enumerate() {
        if index > 0 {
            out.line("\n")?;
        }
        let events = events_of(client, *kind, object).await?;
        out.text(&text(*kind, object, &events))?;
    }
    Ok(())
}

async fn events_of(client: &Client, kind: Kind, object: &Value) -> Result<Vec<Value>, CliError> {
    if kind == Kind::Event {
        return Ok(Vec::new());
    }
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let by = format!("involvedObject.kind={},involvedObject.name={name}", kind.name());
    // Events of things without a namespace live in the default one.
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
    let namespace = namespace.unwrap_or(edge_model::object::DEFAULT_NAMESPACE);
    let mut events = items(&client.get(&list_path(Kind::Event, Some(namespace), &[("fieldSelector", &by)])).await?);
    sort_events(&mut events);
    Ok(events)
}

/// The whole text.
fn text(kind: Kind, object: &Value, events: &[Value]) -> String {
    let mut text = String::new();
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let of = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
    field(&mut text, 0, "Name", of("name"));
    if kind.namespaced() {
        field(&mut text, 0, "Namespace", of("namespace"));
    }
    for (title, name) in [("Labels", "labels"), ("Annotations", "annotations")] {
        let pairs: Vec<String> = metadata
            .get(name)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        let between = format!("\n{:VALUES$}", "");
        field(&mut text, 0, title, if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(&between) });
    }
    field(&mut text, 0, "Kind", format!("{} ({})", kind.name(), kind.api_version()));
    let created = of("creationTimestamp");
    field(&mut text, 0, "Created", format!("{created} ({} ago)", age_of(created)));
    if kind == Kind::Pod {
        let cells = columns::cells(kind, object);
        let heads = columns::of(kind).heads;
        for (head, cell) in heads.iter().zip(&cells).filter(|(h, _)| ["READY", "STATUS", "RESTARTS"].contains(h)) {
            field(&mut text, 0, &title(&head.to_lowercase()), cell);
        }
    }
    let hidden = ["apiVersion", "kind", "metadata"];
    if let Value::Object(map) = object {
        for (key, value) in map.iter().filter(|(key, _)| !hidden.contains(&key.as_str())) {
            let value = if kind == Kind::Secret { &sizes(value) } else { value };
            tree(&mut text, 0, &title(key), value, !VERBATIM.contains(&key.as_str()));
        }
    }
    if kind != Kind::Event {
        text.push_str(&events_text(events));
    }
    text
}

/// A secret's values are not for the screen: only how long they are.
fn sizes(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let size = |v: &Value| Value::String(format!("{} bytes", v.as_str().map_or(0, str::len)));
            Value::Object(map.iter().map(|(k, v)| (k.clone(), size(v))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

fn events_text(events: &[Value]) -> String {
    if events.is_empty() {
        return format!("{:VALUES$}<none>\n", "Events:");
    }
    let mut table = Table::new(&["  Type", "Reason", "Age", "Message"]);
    for event in events {
        let cells = columns::cells(Kind::Event, event);
        let cell = |index: usize| cells.get(index).cloned().unwrap_or_default();
        let count = event.get("count").and_then(Value::as_u64).filter(|c| *c > 1);
        let age = count.map_or(cell(0), |count| format!("{} (x{count})", cell(0)));
        table.row(vec![format!("  {}", cell(1)), cell(2), age, cell(4)]);
    }
    format!("Events:\n{}", table.take())
}

/// `Key:   value`, values lined up. A value that begins on a line of its own stays there.
fn field(text: &mut String, depth: usize, title: &str, value: impl AsRef<str>) {
    let (head, value) = (format!("{title}:"), value.as_ref());
    let width = match VALUES.saturating_sub(depth * 2) {
        _ if value.starts_with('\n') => 0,
        // A title longer than its column still has a space behind it.
        width => width.max(head.len() + 1),
    };
    let line = format!("{:indent$}{head:<width$}{value}", "", indent = depth * 2);
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Whose keys are the user's own and stay as they are.
const VERBATIM: [&str; 6] = ["data", "stringData", "binaryData", "configData", "labels", "annotations"];

/// `titled` says whether keys are fields of ours, to be written as words.
fn tree(text: &mut String, depth: usize, title: &str, value: &Value, titled: bool) {
    match value {
        Value::Object(map) if map.is_empty() => field(text, depth, title, "{}"),
        Value::Object(map) => {
            field(text, depth, title, "");
            for (key, value) in map {
                let shown = if titled { self::title(key) } else { key.clone() };
                tree(text, depth + 1, &shown, value, titled && !VERBATIM.contains(&key.as_str()));
            }
        }
        Value::Array(items) if items.is_empty() => field(text, depth, title, "<none>"),
        Value::Array(items) if items.iter().all(|i| !i.is_object() && !i.is_array()) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            field(text, depth, title, items.join(", "));
        }
        Value::Array(items) => {
            field(text, depth, title, "");
            for (index, item) in items.iter().enumerate() {
                let name = item.get("name").or_else(|| item.get("propertyName")).or_else(|| item.get("type"));
                let name = name.and_then(Value::as_str).map_or_else(|| format!("[{index}]"), str::to_owned);
                tree(text, depth + 1, &name, item, titled);
            }
        }
        scalar => {
            let indent = format!("\n{:width$}", "", width = depth * 2 + 2);
            let plain = plain(scalar);
            // Text of several lines stands below its name.
            let shown = match plain.trim_end().contains('\n') {
                true => format!("{indent}{}", plain.trim_end().replace('\n', &indent)),
                false => plain.trim_end().to_owned(),
            };
            field(text, depth, title, shown);
        }
    }
}

fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// `restartPolicy` as `Restart Policy`; names that are the user's own stay.
fn title(key: &str) -> String {
    if key.is_empty()
        || !key.chars().all(|c| c.is_ascii_alphanumeric())
        || key.chars().next().is_some_and(char::is_uppercase)
    {
        return key.to_owned();
    }
    let mut title = String::new();
    let mut before = ' ';
    for c in key.chars() {
        if title.is_empty() {
            title.push(c.to_ascii_uppercase());
        } else {
            if c.is_ascii_uppercase() && !before.is_ascii_uppercase() {
                title.push(' ');
            }
            title.push(c);
        }
        before = c;
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_can_be_read() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "namespace": "default", "labels": {"x": "1", "y": "2"}},
            "data": {"app.conf": "a = 1\nb = 2\n", "hostIP": "1.2.3.4"},
            "immutable": true,
        });
        let events = [json!({"type": "Warning", "reason": "Odd", "message": "it\u{1b} is", "count": 3})];
        let expected = "\
Name:             a
Namespace:        default
Labels:           x=1
                  y=2
Annotations:      <none>
Kind:             ConfigMap (v1)
Created:           (<unknown> ago)
Data:
  app.conf:
    a = 1
    b = 2
  hostIP:         1.2.3.4
Immutable:        true
Events:
  Type      Reason   Age              Message
  Warning   Odd      <unknown> (x3)   it  is
";
        assert_eq!(text(Kind::ConfigMap, &object, &events), expected);
    }

    #[test]
    fn secrets_stay_secret() {
        let object = json!({"metadata": {}, "data": {"password": "aHVudGVyMg=="}});
        let text = text(Kind::Secret, &object, &[]);
        assert!(!text.contains("aHVu") && text.contains("12 bytes"), "{text}");
    }
}
