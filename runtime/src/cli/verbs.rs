//! The verbs, as kubectl spells them where it has them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::client::Client;
use super::error::CliError;
use super::out::Out;
use super::{apply, completion, describe, doctor, get, import, modbus, node, onvif, update};
use crate::config::{Config, ConfigError, Merged};

/// What a verb knows of this machine, read when it needs it.
pub struct Machine<'a> {
    /// The configuration.
    pub settings: &'a dyn Fn() -> Result<(Config, Merged), ConfigError>,
    /// The board that was asked for.
    pub board: &'a str,
    /// The configuration file that was named.
    pub file: Option<&'a Path>,
}

/// How objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `kind/name` only.
    Name,
}

/// Which namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Namespace {
    /// The namespace; `default` when absent.
    #[arg(short = 'n', long)]
    pub namespace: Option<String>,
}

/// What to do with a running node.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Create or change objects from manifests.
    Apply {
        /// A manifest, a folder of manifests, or - for standard input. May be given several times.
        #[arg(short = 'f', long = "filename", required = true)]
        files: Vec<PathBuf>,
        /// Let the node check everything and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// The namespace of objects that name none.
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Show objects.
    Get(get::Get),
    /// Show everything about objects, with their events.
    Describe {
        /// A kind and names, or kind/name.
        #[arg(required = true)]
        what: Vec<String>,
        /// Only objects with these labels.
        #[arg(short = 'l', long)]
        selector: Option<String>,
        /// The namespace.
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Remove objects, named or from manifests.
    Delete {
        /// A kind and names, or kind/name.
        what: Vec<String>,
        /// A manifest, a folder of manifests, or - for standard input.
        #[arg(short = 'f', long = "filename", conflicts_with = "what")]
        files: Vec<PathBuf>,
        /// What is not there is no error.
        #[arg(long)]
        ignore_not_found: bool,
        /// The namespace.
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Print the log of a container.
    Logs(node::LogArgs),
    /// Show what happened, oldest first.
    Events {
        /// Only about this object: kind/name.
        #[arg(long = "for")]
        about: Option<String>,
        /// All namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// Go on as more happens.
        #[arg(short = 'w', long)]
        watch: bool,
        /// How to print.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
        /// The namespace.
        #[command(flatten)]
        namespace: Namespace,
    },
    /// Show how the node is: units, pods, devices, queue, link.
    Status {
        /// How to print: table, json or yaml.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Read and write properties of devices.
    #[command(subcommand)]
    Device(node::DeviceVerb),
    /// Speak Modbus from the bench: scan, read, write, sniff, without the node.
    #[command(subcommand)]
    Modbus(Box<modbus::ModbusVerb>),
    /// Find cameras that speak ONVIF, without the node.
    #[command(subcommand)]
    Onvif(onvif::OnvifVerb),
    /// Manage the images on this node.
    #[command(subcommand)]
    Image(node::ImageVerb),
    /// Turn what another system knows of devices into objects.
    #[command(subcommand)]
    Import(import::ImportVerb),
    /// Look at this machine: what is missing, wrong or worn, and what to do about it.
    Doctor(doctor::DoctorArgs),
    /// Update this program on the node, with a way back.
    #[command(subcommand)]
    Update(Box<update::UpdateVerb>),
    /// Show or change the level of the node's log.
    Loglevel {
        /// error, warn, info, debug or trace, also by module: info,edge_runtime::bus=debug.
        level: Option<String>,
    },
    /// Show the versions of this program and of the running node.
    Version {
        /// Only this program's.
        #[arg(long)]
        client: bool,
    },
    /// Print a completion script for a shell: `source <(edge-runtime completion bash)`.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: completion::Shell,
    },
}

/// Does what a verb says against the node behind the socket, and reports to the terminal.
pub async fn run(verb: Verb, socket: &Path, machine: &Machine<'_>) -> ExitCode {
    let mut out = Out::stdout();
    match Box::pin(execute(verb, socket, machine, &mut out)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // When even this cannot be written there is nobody to tell.
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("error: {}\n", error.report()).as_bytes());
            ExitCode::from(error.exit_code())
        }
    }
}

/// The same, writing to `out` and leaving the error to the caller.
///
/// # Errors
/// Any [`CliError`].
pub async fn execute(verb: Verb, socket: &Path, machine: &Machine<'_>, out: &mut Out) -> Result<(), CliError> {
    let client = Client::new(socket);
    match verb {
        Verb::Apply { files, dry_run, namespace } => {
            apply::apply(&client, out, &files, namespace.namespace.as_deref(), dry_run).await
        }
        Verb::Get(get) => get::get(&client, out, &get).await,
        Verb::Describe { what, selector, namespace } => {
            describe::describe(&client, out, &what, selector.as_deref(), namespace.namespace.as_deref()).await
        }
        Verb::Delete { what, files, ignore_not_found, namespace } => {
            let namespace = namespace.namespace.as_deref();
            apply::delete(&client, out, &what, &files, namespace, ignore_not_found).await
        }
        Verb::Logs(args) => node::logs(&client, out, &args).await,
        Verb::Events { about, all_namespaces, watch, output, namespace } => {
            let scope = get::Scope { namespace: namespace.namespace, all: all_namespaces };
            get::events(&client, out, about.as_deref(), &scope, watch, output).await
        }
        Verb::Status { output } => node::status(&client, out, output).await,
        Verb::Device(verb) => node::device(&client, out, verb).await,
        Verb::Modbus(verb) => modbus::modbus(out, *verb).await,
        Verb::Onvif(verb) => Box::pin(onvif::onvif(out, verb)).await,
        Verb::Image(verb) => node::image(&client, out, verb).await,
        Verb::Import(verb) => import::import(&client, out, verb).await,
        Verb::Update(verb) => update::update(&client, out, *verb, machine.settings).await,
        Verb::Doctor(args) => {
            let config = (machine.settings)();
            let patient = crate::doctor::Patient {
                config: config.as_ref(),
                board: machine.board.to_owned(),
                files: crate::config::files::paths(machine.file),
                socket: socket.to_owned(),
                offline: args.offline,
            };
            doctor::report(out, &crate::doctor::examine(&patient), args.output)
        }
        Verb::Loglevel { level } => node::log_level(&client, out, level).await,
        Verb::Version { client: only } => node::version(&client, out, only).await,
        Verb::Completion { shell } => out.text(&completion::script(shell)),
    }
}
