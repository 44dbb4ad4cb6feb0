//! `get` and `events`: tables, documents, and watching them change.

use clap::Args;
use edge_model::{Kind, manifest};
use serde_json::{Value, json};

use super::client::Client;
use super::columns;
use super::error::CliError;
use super::out::{Out, Table};
use super::verbs::{Format, Namespace};
use crate::api::query::encode;
use crate::api::route::path;

/// What `get` shows.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Get {
    /// Kinds (`pods`, `pods,devices`, `all`) and names, or kind/name. Nothing for everything but events.
    pub what: Vec<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with these labels: `app=web,tier!=db`.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Only objects with these fields: `status.phase=Running`.
    #[arg(long)]
    pub field_selector: Option<String>,
    /// Go on as they change.
    #[arg(short = 'w', long)]
    pub watch: bool,
    /// How to print.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// No head of the table.
    #[arg(long)]
    pub no_headers: bool,
    /// The namespace.
    #[command(flatten)]
    pub namespace: Namespace,
}

/// Which namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The one named.
    pub namespace: Option<String>,
    /// All of them.
    pub all: bool,
}

impl Scope {
    fn of(&self, kind: Kind) -> Option<&str> {
        let named = self.namespace.as_deref().unwrap_or(edge_model::object::DEFAULT_NAMESPACE);
        Some(named).filter(|_| !self.all && kind.namespaced())
    }
}

/// A kind and perhaps a name.
pub type Target = (Kind, Option<String>);

/// Reads `kind [name…]`, `kind,kind`, `kind/name…` and `all`.
pub fn targets(what: &[String]) -> Result<Vec<Target>, CliError> {
    let kind = |word: &str| word.parse::<Kind>().map_err(|e| CliError::Usage(e.to_string()));
    let everything = || Kind::ALL.into_iter().filter(|k| *k != Kind::Event).map(|k| (k, None)).collect();
    match what {
        [] => Ok(everything()),
        [all] if all == "all" => Ok(everything()),
        words if words.iter().any(|w| w.contains('/')) => words
            .iter()
            .map(|word| {
                let (k, name) = word.split_once('/').ok_or_else(|| {
                    CliError::Usage(format!("{word:?}: with kind/name, every argument must be kind/name"))
                })?;
                Ok((kind(k)?, Some(name.to_owned())))
            })
            .collect(),
        [kinds] => kinds.split(',').map(|k| Ok((kind(k)?, None))).collect(),
        [k, names @ ..] => {
            let kind = kind(k)?;
            Ok(names.iter().map(|n| (kind, Some(n.clone()))).collect())
        }
    }
}

/// The path and query of a list.
pub fn list_path(kind: Kind, namespace: Option<&str>, pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| format!("{n}={}", encode(v))).collect();
    let path = path(kind, namespace, None);
    if pairs.is_empty() { path } else { format!("{path}?{}", pairs.join("&")) }
}

/// The items of a list.
pub fn items(list: &Value) -> Vec<Value> {
    list.get("items").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// `get`.
pub async fn get(client: &Client, out: &mut Out, get: &Get) -> Result<(), CliError> {
    let targets = targets(&get.what)?;
    let scope = Scope { namespace: get.namespace.namespace.clone(), all: get.all_namespaces };
    let selectors = [
        ("labelSelector", get.selector.as_deref().unwrap_or_default()),
        ("fieldSelector", get.field_selector.as_deref().unwrap_or_default()),
    ];
    if get.watch {
        let [(kind, name)] = targets.as_slice() else {
            return Err(CliError::Usage("only one kind can be watched at a time".to_owned()));
        };
        let mut pairs = selectors.to_vec();
        let by_name = name.as_ref().map(|n| format!("metadata.name={n}"));
        if let Some(by_name) = &by_name {
            pairs.push(("fieldSelector", by_name));
        }
        let mut printer = Printer::new(*kind, get.output, scope.all, get.no_headers);
        return watch(client, out, *kind, scope.of(*kind), &pairs, &mut printer).await;
    }
    let mut found: Vec<(Kind, Vec<Value>)> = Vec::new();
    for (kind, name) in &targets {
        let objects = match name {
            Some(_) if scope.all => {
                return Err(CliError::Usage("a name and --all-namespaces do not go together".to_owned()));
            }
            Some(name) => vec![client.get(&path(*kind, scope.of(*kind), Some(name))).await?],
            None => items(&client.get(&list_path(*kind, scope.of(*kind), &selectors)).await?),
        };
        match found.last_mut().filter(|(k, _)| k == kind) {
            Some((_, more)) => more.extend(objects),
            None => found.push((*kind, objects)),
        }
    }
    let one_by_name = targets.len() == 1 && targets.iter().all(|(_, name)| name.is_some());
    match get.output {
        Format::Json | Format::Yaml => {
            let mut objects: Vec<Value> = found.into_iter().flat_map(|(_, objects)| objects).collect();
            let document = match objects.pop() {
                Some(one) if one_by_name => one,
                last => {
                    objects.extend(last);
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects})
                }
            };
            out.text(&document_text(&document, get.output))
        }
        _ => tables(out, get, &scope, found).await,
    }
}

async fn tables(out: &mut Out, get: &Get, scope: &Scope, mut found: Vec<(Kind, Vec<Value>)>) -> Result<(), CliError> {
    let several = found.len() > 1;
    found.retain(|(_, objects)| !objects.is_empty());
    if found.is_empty() {
        let place = match scope {
            Scope { all: true, .. } => String::new(),
            Scope { namespace, .. } => format!(" in {} namespace", namespace.as_deref().unwrap_or("default")),
        };
        // To stderr, as kubectl does: a script that counts lines must count none.
        let text = format!("No resources found{place}.\n");
        return std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).map_err(CliError::Output);
    }
    for (index, (kind, objects)) in found.iter().enumerate() {
        if several && index > 0 && get.output != Format::Name {
            out.line("")?;
        }
        let mut printer = Printer::new(*kind, get.output, scope.all, get.no_headers);
        printer.prefix = several;
        for object in objects {
            printer.add(object);
        }
        printer.flush(out)?;
    }
    Ok(())
}

/// A document as text.
pub fn document_text(value: &Value, format: Format) -> String {
    match format {
        Format::Json => format!("{value:#}\n"),
        _ => manifest::to_yaml(value),
    }
}

/// Prints objects of one kind as they come.
struct Printer {
    kind: Kind,
    format: Format,
    with_namespace: bool,
    /// Names as `kind/name`, when several kinds are shown.
    prefix: bool,
    table: Table,
    text: String,
}

impl Printer {
    fn new(kind: Kind, format: Format, all_namespaces: bool, no_headers: bool) -> Printer {
        let with_namespace = all_namespaces && kind.namespaced();
        let mut printer =
            Printer { kind, format, with_namespace, prefix: false, table: Table::default(), text: String::new() };
        if !no_headers {
            let heads = columns::of(kind).heads.iter().map(|h| (*h).to_owned()).collect();
            let row = printer.row("NAMESPACE", heads);
            printer.table.row(row);
        }
        printer
    }

    fn row(&self, namespace: &str, mut cells: Vec<String>) -> Vec<String> {
        if self.format != Format::Wide {
            cells.truncate(cells.len() - columns::of(self.kind).wide.min(cells.len()));
        }
        if self.with_namespace {
            cells.insert(0, namespace.to_owned());
        }
        cells
    }

    fn add(&mut self, object: &Value) {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let name = format!("{}/{}", self.kind.singular(), text("/metadata/name"));
        match self.format {
            Format::Name => self.text.push_str(&format!("{name}\n")),
            Format::Json => self.text.push_str(&format!("{object:#}\n")),
            Format::Yaml => self.text.push_str(&format!("---\n{}", manifest::to_yaml(object))),
            Format::Table | Format::Wide => {
                let mut cells = columns::cells(self.kind, object);
                if let Some(first) = cells.first_mut().filter(|_| self.prefix && self.kind != Kind::Event) {
                    *first = name;
                }
                let row = self.row(text("/metadata/namespace"), cells);
                self.table.row(row);
            }
        }
    }

    fn flush(&mut self, out: &mut Out) -> Result<(), CliError> {
        let mut text = std::mem::take(&mut self.text);
        if matches!(self.format, Format::Table | Format::Wide) {
            text.push_str(&self.table.take());
        }
        out.text(&text)
    }
}

/// Prints what is there, then every change, until the node ends the watch.
async fn watch(
    client: &Client,
    out: &mut Out,
    kind: Kind,
    namespace: Option<&str>,
    pairs: &[(&str, &str)],
    printer: &mut Printer,
) -> Result<(), CliError> {
    loop {
        let list = client.get(&list_path(kind, namespace, pairs)).await?;
        for object in items(&list) {
            printer.add(&object);
        }
        printer.flush(out)?;
        let version = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let mut pairs = pairs.to_vec();
        pairs.extend([("watch", "1"), ("resourceVersion", version)]);
        let mut events = client.open(&list_path(kind, namespace, &pairs)).await?;
        loop {
            let Some(event) = events.line().await? else {
                return Err(CliError::No("the node has ended the watch".to_owned()));
            };
            let object = event.get("object").unwrap_or(&Value::Null);
            match event.get("type").and_then(Value::as_str) {
                Some("BOOKMARK") => {}
                // Too far behind: list again.
                Some("ERROR") if object.get("code").and_then(Value::as_u64) == Some(410) => break,
                Some("ERROR") => {
                    let message = object.get("message").and_then(Value::as_str).unwrap_or("the watch failed");
                    return Err(CliError::Refused { message: message.to_owned(), status: Box::new(object.clone()) });
                }
                _ => {
                    printer.add(object);
                    printer.flush(out)?;
                }
            }
        }
    }
}

/// `events`.
pub async fn events(
    client: &Client,
    out: &mut Out,
    about: Option<&str>,
    scope: &Scope,
    watches: bool,
    format: Format,
) -> Result<(), CliError> {
    let by = match about {
        None => String::new(),
        Some(about) => {
            let (kind, name) = about
                .split_once('/')
                .ok_or_else(|| CliError::Usage(format!("--for wants kind/name, not {about:?}")))?;
            let kind = kind.parse::<Kind>().map_err(|e| CliError::Usage(e.to_string()))?;
            format!("involvedObject.kind={},involvedObject.name={name}", kind.name())
        }
    };
    let pairs = [("fieldSelector", by.as_str())];
    let namespace = scope.of(Kind::Event);
    let mut printer = Printer::new(Kind::Event, format, scope.all, false);
    if watches {
        return watch(client, out, Kind::Event, namespace, &pairs, &mut printer).await;
    }
    let mut events = items(&client.get(&list_path(Kind::Event, namespace, &pairs)).await?);
    sort_events(&mut events);
    if let Format::Json | Format::Yaml = format {
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": events});
        return out.text(&document_text(&list, format));
    }
    if events.is_empty() {
        return std::io::Write::write_all(&mut std::io::stderr(), b"No events found.\n").map_err(CliError::Output);
    }
    events.iter().for_each(|event| printer.add(event));
    printer.flush(out)
}

/// Oldest first.
pub fn sort_events(events: &mut [Value]) {
    let time = |event: &Value| {
        let fields = ["/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
        fields.iter().find_map(|f| event.pointer(f).and_then(Value::as_str).and_then(edge_model::time::parse_rfc3339))
    };
    let version = |event: &Value| -> u64 {
        event.pointer("/metadata/resourceVersion").and_then(Value::as_str).and_then(|v| v.parse().ok()).unwrap_or(0)
    };
    events.sort_by_key(|event| (time(event), version(event)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_like_kubectls() {
        let read = |what: &[&str]| targets(&what.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let name = |n: &str| Some(n.to_owned());
        assert_eq!(read(&["po", "a", "b"]).unwrap(), [(Kind::Pod, name("a")), (Kind::Pod, name("b"))]);
        assert_eq!(read(&["pods,dev"]).unwrap(), [(Kind::Pod, None), (Kind::Device, None)]);
        assert_eq!(read(&["pod/a", "cm/b"]).unwrap(), [(Kind::Pod, name("a")), (Kind::ConfigMap, name("b"))]);
        assert_eq!(read(&["all"]).unwrap().len(), Kind::ALL.len() - 1);
        for bad in [&["deployments"][..], &["pod/a", "b"], &["po", "a/b", "c"]] {
            assert_eq!(read(bad).unwrap_err().exit_code(), 64, "{bad:?}");
        }
    }
}
