//! `onvif …`: for the bench, straight on the network, without the node.

use std::net::Ipv4Addr;
use std::time::Duration;

use clap::Subcommand;
use edge_mappers::onvif::scan::{self, Found};
use serde_json::json;

use super::error::CliError;
use super::get::document_text;
use super::out::{Out, Table};
use super::verbs::Format;
use crate::api::query::decode;

/// Verbs of the bench.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum OnvifVerb {
    /// Find the cameras in the network, and what they say of themselves.
    Discover {
        /// How long answers are waited for, in milliseconds.
        #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
        timeout: u64,
        /// Ask only in the network in which this IPv4 address is ours.
        #[arg(long)]
        interface: Option<Ipv4Addr>,
        /// How to print.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
}

/// Does a verb.
///
/// # Errors
/// [`CliError::No`], [`CliError::Output`].
pub async fn onvif(out: &mut Out, verb: OnvifVerb) -> Result<(), CliError> {
    let OnvifVerb::Discover { timeout, interface, output } = verb;
    let found = scan::discover(interface, Duration::from_millis(timeout)).await;
    let mut found = found.map_err(|e| CliError::No(format!("cannot ask in the network: {e}")))?;
    found.sort_by(|a, b| (&a.from, &a.endpoint).cmp(&(&b.from, &b.endpoint)));
    let scope = |camera: &Found, heading: &str| camera.scope(heading).map(decode).unwrap_or_default();
    if matches!(output, Format::Json | Format::Yaml) {
        let cameras = found.iter().map(|c| {
            json!({
                "endpointReference": c.endpoint, "addresses": c.addresses, "scopes": c.scopes,
                "name": scope(c, "name"), "hardware": scope(c, "hardware"),
            })
        });
        return out.text(&document_text(&json!({"cameras": cameras.collect::<Vec<_>>()}), output));
    }
    let mut table = Table::new(&["NAME", "HARDWARE", "ADDRESS", "ENDPOINT"]);
    for camera in &found {
        let address = camera.address().or(camera.addresses.first().map(String::as_str));
        let cells = [scope(camera, "name"), scope(camera, "hardware"), address.unwrap_or_default().to_owned()];
        // Whoever answers is a stranger: what it says must not steer the terminal.
        let printable = |text: String| text.chars().filter(|c| !c.is_control()).collect();
        table.row(cells.into_iter().chain([camera.endpoint.clone()]).map(printable).collect());
    }
    if table.is_empty() {
        return Err(CliError::No("no camera answers".to_owned()));
    }
    out.text(&table.take())
}
