//! `import`: what other systems know of devices, as objects. Only `--apply` talks to a node.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use edge_model::check;
use edge_model::edgex;
use edge_model::manifest::{self, Tree};
use serde_json::{Value, json};

use super::apply::put;
use super::client::Client;
use super::error::CliError;
use super::get::document_text;
use super::out::Out;
use super::verbs::{Format, Namespace};

/// Where from.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ImportVerb {
    /// EdgeX Foundry's device profiles and devices (v2 and v3: YAML, JSON, TOML).
    Edgex(Edgex),
}

/// `import edgex`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Edgex {
    /// Files, or folders such as a service's `res`, with all that is below them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How to print: yaml or json.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
    /// Apply the objects instead of printing them.
    #[arg(long)]
    apply: bool,
    /// The namespace.
    #[command(flatten)]
    namespace: Namespace,
}

/// Imports.
///
/// # Errors
/// A file that cannot be read; with `--apply`, what the node says. What could not be brought along is no error: it is named
/// on standard error.
pub async fn import(client: &Client, out: &mut Out, verb: ImportVerb) -> Result<(), CliError> {
    let ImportVerb::Edgex(args) = verb;
    let mut trees = Vec::new();
    for file in &args.files {
        collect(file, true, &mut trees)?;
    }
    let mut outcome = edgex::convert(&trees);
    let mut report = String::new();
    for left in &outcome.left {
        report.push_str(&format!("not imported: {left}\n"));
    }
    std::io::Write::write_all(&mut std::io::stderr(), report.as_bytes()).map_err(CliError::Output)?;
    if outcome.objects.is_empty() {
        return Err(CliError::No("there are no device profiles in it".to_owned()));
    }
    if let Some(namespace) = &args.namespace.namespace {
        for object in &mut outcome.objects {
            object["metadata"]["namespace"] = Value::from(namespace.as_str());
        }
    }
    if args.apply {
        for object in outcome.objects {
            let object = check::wanted(object).map_err(|e| CliError::No(format!("{}: {}", e.path, e.message)))?;
            put(client, out, &object, false).await?;
        }
        return Ok(());
    }
    match args.output {
        Format::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": outcome.objects});
            out.text(&document_text(&list, Format::Json))
        }
        _ => {
            let documents: Vec<String> = outcome.objects.iter().map(manifest::to_yaml).collect();
            out.text(&documents.join("---\n"))
        }
    }
}

/// Reads a file, or every file of a folder and what is below it. Only what was named itself has to be of a kind we know.
fn collect(path: &Path, named: bool, into: &mut Vec<Tree>) -> Result<(), CliError> {
    let failed = |source| CliError::File { path: path.to_owned(), source };
    if path.is_dir() {
        let entries: Result<Vec<_>, _> =
            std::fs::read_dir(path).map_err(failed)?.map(|e| e.map(|e| e.path())).collect();
        let mut inside = entries.map_err(failed)?;
        inside.sort();
        return inside.iter().try_for_each(|path| collect(path, false, into));
    }
    let name = path.display().to_string();
    let tree = match path.extension().and_then(|e| e.to_str()) {
        Some("toml") => {
            let text = std::fs::read_to_string(path).map_err(failed)?;
            let value: Value = toml::from_str(&text).map_err(|e| CliError::No(format!("{name}: {e}")))?;
            Tree::unplaced(&name, value)
        }
        Some("yaml" | "yml" | "json") => {
            let bytes = std::fs::read(path).map_err(failed)?;
            Tree::parse(&name, &bytes).map_err(|e| CliError::Manifests(vec![e]))?
        }
        _ if named => return Err(CliError::Usage(format!("{name}: neither .yaml, .yml, .json nor .toml"))),
        _ => return Ok(()),
    };
    into.push(tree);
    Ok(())
}
