//! `image …`: bars for a person, plain lines for a file.

use std::collections::BTreeMap;
use std::io::{BufWriter, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::{Answer, Client, chunks, nothing, upload, whole};
use super::error::CliError;
use super::get::document_text;
use super::node::items_at;
use super::out::{Out, Table, bytes};
use super::verbs::Format;
use crate::api::query::encode;

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// `image pull`.
pub async fn pull(client: &Client, out: &mut Out, image: &str) -> Result<(), CliError> {
    let body = whole(json!({"image": image}).to_string());
    let steps = client.send(Method::POST, "/images/pull", "application/json", body).await?;
    follow(steps, out).await
}

/// `image import`.
pub async fn import(client: &Client, out: &mut Out, archive: &Path, name: Option<&str>) -> Result<(), CliError> {
    let failed = |source| CliError::File { path: archive.to_owned(), source };
    let path = name.map_or("/images/import".to_owned(), |name| format!("/images/import?name={}", encode(name)));
    if archive.is_dir() {
        return import_folder(client, out, archive, &path).await;
    }
    let from = if archive == Path::new("-") { Path::new("/dev/stdin") } else { archive };
    let file = tokio::fs::File::open(from).await.map_err(failed)?;
    let length = file.metadata().await.map_err(failed)?.len();
    let bar = if out.is_terminal() && length > 0 { sized(ProgressBar::new(length)) } else { ProgressBar::hidden() };
    bar.set_message("uploading");
    let trouble = Arc::new(Mutex::new(None));
    let moving = bar.clone();
    let body = chunks(upload(file, Arc::clone(&trouble), move |sent| moving.inc(sent)));
    let steps = client.send(Method::POST, &path, "application/octet-stream", body).await;
    bar.finish_and_clear();
    if let Some(error) = trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(failed(error));
    }
    follow(steps?, out).await
}

/// An image layout is a folder: it is packed while it is sent.
async fn import_folder(client: &Client, out: &mut Out, folder: &Path, path: &str) -> Result<(), CliError> {
    let failed = |source| CliError::File { path: folder.to_owned(), source };
    let (reader, writer) = UnixStream::pair().map_err(failed)?;
    reader.set_nonblocking(true).map_err(failed)?;
    let reader = tokio::net::UnixStream::from_std(reader).map_err(failed)?;
    let from = folder.to_owned();
    let packing = tokio::task::spawn_blocking(move || crate::images::pack(&from, BufWriter::new(writer)));
    let trouble = Arc::new(Mutex::new(None));
    let body = chunks(upload(reader, trouble, |_| {}));
    let steps = client.send(Method::POST, path, "application/octet-stream", body).await;
    // A node that has all it needs stops reading; what could not be read matters more than what it then says.
    match packing.await {
        Ok(Err(error)) if error.kind() != ErrorKind::BrokenPipe => return Err(failed(error)),
        _ => {}
    }
    follow(steps?, out).await
}

/// `image ls`.
pub async fn list(client: &Client, out: &mut Out, format: Format) -> Result<(), CliError> {
    let images = items_at(client, "/images").await?;
    match format {
        Format::Json | Format::Yaml => out.text(&document_text(&json!({"items": images}), format)),
        Format::Name => images.iter().try_for_each(|image| out.line(text(image, "name"))),
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["IMAGE", "DIGEST", "SIZE"]);
            for image in &images {
                let digest = text(image, "digest");
                // Twelve hexadecimal digits tell images apart for a person.
                let end = digest.find(':').map_or(12, |colon| colon + 13);
                let digest = if format == Format::Wide { digest } else { digest.get(..end).unwrap_or(digest) };
                let size = image.get("size").and_then(Value::as_u64).map_or("<unknown>".to_owned(), bytes);
                let name = match text(image, "name") {
                    "" => "<none>",
                    name => name,
                };
                table.row(vec![name.to_owned(), digest.to_owned(), size]);
            }
            out.text(&table.take())
        }
    }
}

/// `image rm`.
pub async fn remove(client: &Client, out: &mut Out, images: &[String]) -> Result<(), CliError> {
    for image in images {
        let path = format!("/images/{}", encode(image));
        client.send(Method::DELETE, &path, "application/json", nothing()).await?;
        out.line(&format!("image \"{image}\" deleted"))?;
    }
    Ok(())
}

fn sized(bar: ProgressBar) -> ProgressBar {
    match ProgressStyle::with_template("{msg:20} {bar:30} {bytes:>10} of {total_bytes:>10} {bytes_per_sec:>12}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Shows steps until the last one.
async fn follow(mut steps: Answer, out: &mut Out) -> Result<(), CliError> {
    let mut shown = Shown::new(out.is_terminal());
    let mut last = Value::Null;
    while let Some(step) = steps.line().await? {
        if let Some(error) = step.get("error").and_then(Value::as_str) {
            shown.clear();
            return Err(CliError::Refused { message: error.to_owned(), status: Box::default() });
        }
        if let Some(line) = shown.step(&step) {
            out.line(&line)?;
        }
        last = step;
    }
    shown.clear();
    // An answer that just ends is a node that went away in the middle.
    match (text(&last, "image"), text(&last, "digest")) {
        ("", "") => Err(CliError::Answer("it ended before the image was there".to_owned())),
        // Imported without a name.
        ("", digest) => out.line(digest),
        (image, "") => out.line(image),
        (image, digest) => out.line(&format!("{image} {digest}")),
    }
}

/// What is on the screen.
struct Shown {
    bars: Option<MultiProgress>,
    layers: BTreeMap<String, ProgressBar>,
    said: BTreeMap<String, String>,
}

impl Shown {
    fn new(terminal: bool) -> Shown {
        Shown { bars: terminal.then(MultiProgress::new), layers: BTreeMap::new(), said: BTreeMap::new() }
    }

    fn clear(&mut self) {
        self.layers.values().for_each(ProgressBar::finish_and_clear);
    }

    /// Moves a bar; the line to print when there are none, or when something new is said.
    fn step(&mut self, step: &Value) -> Option<String> {
        let (id, status) = (text(step, "id"), text(step, "status"));
        let short = id.split_once(':').map_or(id, |(_, hex)| hex).get(..12).unwrap_or(id);
        if let Some(bars) = self.bars.as_ref().filter(|_| !id.is_empty()) {
            let bar = self.layers.entry(id.to_owned()).or_insert_with(|| bars.add(sized(ProgressBar::new(0))));
            bar.set_message(format!("{short} {status}"));
            if let Some(total) = step.get("total").and_then(Value::as_u64) {
                bar.set_length(total);
            }
            if let Some(current) = step.get("current").and_then(Value::as_u64) {
                bar.set_position(current);
            }
            return None;
        }
        if status.is_empty() || self.said.get(id).is_some_and(|said| said == status) {
            return None;
        }
        self.said.insert(id.to_owned(), status.to_owned());
        Some(if id.is_empty() { status.to_owned() } else { format!("{short}: {status}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_each_thing_is_said_once() {
        let mut shown = Shown::new(false);
        let step = |id: &str, status: &str, current: u64| json!({"id": id, "status": status, "current": current});
        let steps = [
            (step("", "resolving", 0), Some("resolving")),
            (step("sha256:0123456789abcdef", "pulling", 1), Some("0123456789ab: pulling")),
            (step("sha256:0123456789abcdef", "pulling", 2), None),
            (step("sha256:0123456789abcdef", "done", 2), Some("0123456789ab: done")),
            (json!({}), None),
        ];
        for (step, line) in steps {
            assert_eq!(shown.step(&step).as_deref(), line);
        }
    }
}
