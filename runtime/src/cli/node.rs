//! Verbs about the node itself: logs, status, devices, images, the level of its log, versions.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use edge_model::Kind;
use edge_model::object::DEFAULT_NAMESPACE;
use hyper::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::error::CliError;
use super::get::{self, document_text};
use super::image;
use super::out::{Out, Table, age_of};
use super::verbs::{Format, Namespace};
use crate::api::query::encode;
use crate::api::route::path;

/// What `logs` prints.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LogArgs {
    /// The pod: a name, or pod/name.
    pub pod: String,
    /// The container; needed when the pod has several.
    #[arg(short = 'c', long)]
    pub container: Option<String>,
    /// Go on as more is written.
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Only this many lines from the end.
    #[arg(long)]
    pub tail: Option<u64>,
    /// The run of the container before this one.
    #[arg(short = 'p', long)]
    pub previous: bool,
    /// The time before each line.
    #[arg(long)]
    pub timestamps: bool,
    /// Only what is younger: 30s, 5m, 2h.
    #[arg(long)]
    pub since: Option<String>,
    /// The namespace.
    #[command(flatten)]
    pub namespace: Namespace,
}

/// `device …`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DeviceVerb {
    /// Read a property from a device now; without a property, show what was last heard of each.
    Get {
        /// The device.
        device: String,
        /// The property.
        property: Option<String>,
        /// How to print.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
        /// The namespace.
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Write a property to a device and read it back.
    Set {
        /// The device.
        device: String,
        /// The property.
        property: String,
        /// The value: a number, true, false, or text.
        #[arg(allow_negative_numbers = true)]
        value: String,
        /// How to print.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
        /// The namespace.
        #[command(flatten)]
        namespace: Namespace,
    },
}

/// `image …`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ImageVerb {
    /// Pull an image from its registry.
    Pull {
        /// The image: `docker.io/library/nginx:1.27`, `registry.plant:5000/app@sha256:…`.
        image: String,
    },
    /// Import an archive: OCI, or what `docker save` writes. - for standard input.
    Import {
        /// The archive.
        archive: PathBuf,
        /// The name to give it, instead of the one in the archive.
        #[arg(long)]
        name: Option<String>,
    },
    /// List images.
    Ls {
        /// How to print.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Remove images.
    Rm {
        /// The images, by name or digest.
        #[arg(required = true)]
        images: Vec<String>,
    },
}

/// `logs`.
pub async fn logs(client: &Client, out: &mut Out, args: &LogArgs) -> Result<(), CliError> {
    let pod = match args.pod.split_once('/') {
        None => args.pod.as_str(),
        Some((kind, name)) if kind.parse() == Ok(Kind::Pod) => name,
        Some(_) => return Err(CliError::Usage(format!("{:?} is not a pod", args.pod))),
    };
    let namespace = args.namespace.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let mut query = Vec::new();
    if let Some(container) = &args.container {
        query.push(format!("container={}", encode(container)));
    }
    let flags = [("follow", args.follow), ("previous", args.previous), ("timestamps", args.timestamps)];
    query.extend(flags.iter().filter(|(_, on)| *on).map(|(name, _)| format!("{name}=true")));
    query.extend(args.tail.map(|lines| format!("tailLines={lines}")));
    if let Some(since) = &args.since {
        query.push(format!("sinceSeconds={}", seconds(since)?));
    }
    let path = format!("{}/log?{}", path(Kind::Pod, Some(namespace), Some(pod)), query.join("&"));
    let mut log = client.open(&path).await?;
    while let Some(chunk) = log.chunk().await? {
        out.bytes(&chunk)?;
    }
    Ok(())
}

/// `30s`, `5m`, `2h`, `1d` or plain seconds.
fn seconds(text: &str) -> Result<u64, CliError> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = factor.and_then(|f| digits.parse::<u64>().ok()?.checked_mul(f));
    seconds.ok_or_else(|| CliError::Usage(format!("--since: {text:?} is not a time like 30s, 5m, 2h")))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// `status`.
pub async fn status(client: &Client, out: &mut Out, format: Format) -> Result<(), CliError> {
    let document = client.get("/status").await?;
    if let Format::Json | Format::Yaml = format {
        return out.text(&document_text(&document, format));
    }
    out.text(&status_text(&document))
}

fn status_text(document: &Value) -> String {
    let well = document.get("well").and_then(Value::as_bool) == Some(true);
    let mut lines = format!(
        "edge-runtime {}: {}\n",
        text(document, "version"),
        if well { "all is well" } else { "not all is well" }
    );
    let Value::Object(sections) = document else { return lines };
    for (name, section) in sections {
        let Value::Array(items) = section else { continue };
        if items.is_empty() {
            lines.push_str(&format!("\n{}: none\n", name.to_uppercase()));
            continue;
        }
        let mut table = Table::new(&[&name.to_uppercase(), "STATE", "REMARK"]);
        for item in items {
            let known = ["name", "state", "well", "reason"];
            let mut remarks = vec![text(item, "reason").to_owned()];
            let more = item.as_object().into_iter().flatten().filter(|(k, _)| !known.contains(&k.as_str()));
            remarks
                .extend(more.map(|(k, v)| format!("{k}={}", v.as_str().map_or_else(|| v.to_string(), str::to_owned))));
            remarks.retain(|r| !r.is_empty());
            let mark = if item.get("well").and_then(Value::as_bool) == Some(true) { "" } else { "! " };
            let state = format!("{mark}{}", text(item, "state"));
            table.row(vec![text(item, "name").to_owned(), state, remarks.join("  ")]);
        }
        lines.push('\n');
        lines.push_str(&table.take());
    }
    lines
}

/// `device …`.
pub async fn device(client: &Client, out: &mut Out, verb: DeviceVerb) -> Result<(), CliError> {
    let properties = |device: &str, namespace: &Namespace| {
        let namespace = namespace.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        format!("{}/properties", path(Kind::Device, Some(namespace), Some(device)))
    };
    let (answer, output) = match verb {
        DeviceVerb::Get { device, property: None, output, namespace } => {
            let document = client.get(&properties(&device, &namespace)).await?;
            if let Format::Json | Format::Yaml = output {
                return out.text(&document_text(&document, output));
            }
            return out.text(&twins_text(&document));
        }
        DeviceVerb::Get { device, property: Some(property), output, namespace } => {
            let path = format!("{}/{}", properties(&device, &namespace), encode(&property));
            (client.get(&path).await?, output)
        }
        DeviceVerb::Set { device, property, value, output, namespace } => {
            let path = format!("{}/{}", properties(&device, &namespace), encode(&property));
            let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
            (client.json(Method::PUT, &path, &json!({"value": value})).await?, output)
        }
    };
    match output {
        Format::Json | Format::Yaml => out.text(&document_text(&answer, output)),
        _ => {
            let value = answer.get("value").unwrap_or(&Value::Null);
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let mut words = vec![shown, text(&answer, "unit").to_owned()];
            // A value that may not be believed must not look like one that may.
            words.extend(Some(text(&answer, "quality")).filter(|q| *q != "good").map(|q| format!("({q})")));
            words.retain(|word| !word.is_empty() && word != "()");
            out.line(&words.join(" "))
        }
    }
}

fn twins_text(document: &Value) -> String {
    let mut table = Table::new(&["PROPERTY", "REPORTED", "DESIRED", "HEARD"]);
    for twin in document.get("twins").and_then(Value::as_array).into_iter().flatten() {
        let value = |side: &str| match twin.pointer(&format!("/{side}/value")) {
            None | Some(Value::Null) => "<none>".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let time = twin.pointer("/reported/metadata/timestamp");
        let ms = time.and_then(|t| t.as_i64().or_else(|| t.as_str()?.parse().ok()));
        let heard = ms.map_or("<never>".to_owned(), |ms| format!("{} ago", age_of(&edge_model::time::rfc3339(ms))));
        table.row(vec![text(twin, "propertyName").to_owned(), value("reported"), value("observedDesired"), heard]);
    }
    if table.is_empty() { "nothing has been heard of this device yet\n".to_owned() } else { table.take() }
}

/// `image …`.
pub async fn image(client: &Client, out: &mut Out, verb: ImageVerb) -> Result<(), CliError> {
    match verb {
        ImageVerb::Pull { image } => image::pull(client, out, &image).await,
        ImageVerb::Import { archive, name } => image::import(client, out, &archive, name.as_deref()).await,
        ImageVerb::Ls { output } => image::list(client, out, output).await,
        ImageVerb::Rm { images } => image::remove(client, out, &images).await,
    }
}

/// `loglevel`.
pub async fn log_level(client: &Client, out: &mut Out, level: Option<String>) -> Result<(), CliError> {
    let answer = match level {
        None => client.get("/loglevel").await?,
        Some(level) => client.json(Method::PUT, "/loglevel", &json!({"level": level})).await?,
    };
    out.line(text(&answer, "level"))
}

/// `version`.
pub async fn version(client: &Client, out: &mut Out, only_client: bool) -> Result<(), CliError> {
    out.line(&format!("edge-runtime {}", env!("CARGO_PKG_VERSION")))?;
    if only_client {
        return Ok(());
    }
    let answer = client.get("/version").await?;
    out.line(&format!("node {} ({})", text(&answer, "edgeRuntime"), text(&answer, "platform")))
}

/// The items of a list under a path that is no collection of objects.
pub(super) async fn items_at(client: &Client, path: &str) -> Result<Vec<Value>, CliError> {
    Ok(get::items(&client.get(path).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, expected) in [("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86_400), ("7", 7)] {
            assert_eq!(seconds(text).unwrap(), expected);
        }
        for bad in ["", "x", "5 m", "1.5h", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(seconds(bad).unwrap_err().exit_code(), 64, "{bad}");
        }
    }

    #[test]
    fn the_status_names_what_is_not_well() {
        let document = json!({
            "version": "1", "well": false,
            "units": [
                {"name": "bus", "state": "Running", "well": true, "restarts": 2},
                {"name": "cloud", "state": "Waiting", "well": false, "reason": "connection refused"},
            ],
            "pods": [],
        });
        let expected = "\
edge-runtime 1: not all is well

PODS: none

UNITS   STATE       REMARK
bus     Running     restarts=2
cloud   ! Waiting   connection refused
";
        assert_eq!(status_text(&document), expected);
    }
}
