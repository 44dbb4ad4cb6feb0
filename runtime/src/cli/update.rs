//! `update …`: makes keys and artefacts on a desk, applies them on a node, and says how that went.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Subcommand;
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::Client;
use super::error::CliError;
use super::get::document_text;
use super::out::{Out, Table, bytes};
use super::verbs::Format;
use crate::config::{Config, ConfigError, Merged};
use crate::supervisor::chain;
use crate::update::artefact::digest;
use crate::update::keys::{self, PrivateKey};
use crate::update::manifest::{Facts, Manifest, processor};
use crate::update::{Folder, State, Version, document, stage};

/// How often a node is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// What a node may take on top of its own deadline to stop, to start, and to go back.
const GRACE: Duration = Duration::from_secs(90);

/// The configuration of this machine, read when it is needed.
type Settings<'a> = dyn Fn() -> Result<(Config, Merged), ConfigError> + 'a;

/// `update …`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum UpdateVerb {
    /// Make a pair of keys: PATH for signing, which stays secret, and PATH.pub for the nodes.
    Keygen {
        /// Where the private key is written to.
        path: PathBuf,
    },
    /// Sign an executable and pack it into an artefact.
    Pack {
        /// The executable.
        executable: PathBuf,
        /// The private key.
        #[arg(long)]
        key: PathBuf,
        /// The artefact; <version>-<target>.edgeupdate when absent.
        #[arg(short = 'o', long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The executable's version, when it is not this program's.
        #[arg(long, value_name = "VERSION")]
        as_version: Option<Version>,
        /// The schema of the object store it writes, when it is not this program's.
        #[arg(long, value_name = "NUMBER")]
        store_schema: Option<u32>,
        /// The oldest version it may be installed over.
        #[arg(long, value_name = "VERSION")]
        minimum_version: Option<Version>,
    },
    /// Install an artefact and restart into it. It is kept when it proves healthy; else the version before comes back.
    Apply {
        /// The artefact.
        artefact: PathBuf,
        /// Also when it is older than what is in use, or the same.
        #[arg(long)]
        allow_downgrade: bool,
        /// Leave the running node alone: the new version is tried at its next start.
        #[arg(long)]
        no_restart: bool,
        /// Do not wait until it has proved itself.
        #[arg(long)]
        no_wait: bool,
    },
    /// Show the slots, what runs, and how the last update ended.
    Status {
        /// How to print: table, json or yaml.
        #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Go back to the version before, and restart into it.
    Rollback {
        /// Leave the running node alone: the version before is started next time.
        #[arg(long)]
        no_restart: bool,
    },
    /// End with 0 as soon as the node is ready and healthy: for whoever commits updates of a whole image.
    Health {
        /// Seconds to wait for it.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        timeout: u64,
    },
}

fn no(error: &dyn std::error::Error) -> CliError {
    CliError::No(chain(error))
}

/// Does what it says.
pub async fn update(client: &Client, out: &mut Out, verb: UpdateVerb, settings: &Settings<'_>) -> Result<(), CliError> {
    match verb {
        UpdateVerb::Keygen { path } => keygen(out, &path),
        UpdateVerb::Pack { executable, key, output, as_version, store_schema, minimum_version } => {
            let version = as_version.unwrap_or_else(Version::own);
            let store_schema = store_schema.unwrap_or(crate::store::SCHEMA);
            pack(out, &executable, &key, output, |target, size, sha256| {
                Manifest::new(Facts { version, target, size, sha256, store_schema, minimum_version })
            })
        }
        UpdateVerb::Apply { artefact, allow_downgrade, no_restart, no_wait } => {
            let (config, _) = settings()?;
            let (folder, running) = folder(client, &config).await?;
            let state = stage(out, &folder, &artefact, allow_downgrade, &config)?;
            let version = state.version(state.current);
            if !running || no_restart {
                return out.line(&format!("{version} is installed and will be tried at the next start"));
            }
            restart(client).await?;
            if no_wait {
                return out.line(&format!("{version} is installed and being tried: see `edge-runtime update status`"));
            }
            wait(client, out, &version, config.update.gate.deadline + GRACE).await
        }
        UpdateVerb::Status { output } => status(client, out, output, settings).await,
        UpdateVerb::Rollback { no_restart } => {
            let (config, _) = settings()?;
            let (folder, running) = folder(client, &config).await?;
            let state = stage::roll_back(&folder).map_err(|e| no(&e))?;
            let version = state.version(state.current);
            if running && !no_restart {
                restart(client).await?;
                return out.line(&format!("the node restarts into {version}"));
            }
            out.line(&format!("{version} will be started next time"))
        }
        UpdateVerb::Health { timeout } => health(client, out, Duration::from_secs(timeout)).await,
    }
}

fn keygen(out: &mut Out, path: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let (private, public) = keys::generate().map_err(|e| no(&e))?;
    let failed = |path: &Path, e: std::io::Error| CliError::No(format!("cannot write {}: {e}", path.display()));
    // Never over a key that nodes may trust.
    let file = File::options().create_new(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(private.as_bytes())).map_err(|e| failed(path, e))?;
    let public_path = crate::disk::beside(path, "pub");
    std::fs::write(&public_path, public.pem()).map_err(|e| failed(&public_path, e))?;
    out.line(&format!("private key: {} (keep it secret, and off the nodes)", path.display()))?;
    out.line(&format!("public key: {} (put it into {} of each node,", public_path.display(), keys::FOLDER))?;
    out.line(&format!("or into its configuration: [update] public-keys = [\"{}\"])", public.base64()))
}

fn pack(
    out: &mut Out,
    executable: &Path,
    key: &Path,
    output: Option<PathBuf>,
    manifest: impl FnOnce(String, u64, String) -> Manifest,
) -> Result<(), CliError> {
    let program = std::fs::read(executable).map_err(|source| CliError::File { path: executable.to_owned(), source })?;
    let processor = processor(&program).ok_or_else(|| {
        CliError::No(format!("{} is no executable for x86-64 or AArch64 Linux", executable.display()))
    })?;
    let key = PrivateKey::read(key).map_err(|e| no(&e))?;
    let (sha256, size) = digest(program.as_slice()).map_err(|e| no(&e))?;
    let manifest = manifest(format!("{processor}-unknown-linux-gnu"), size, sha256);
    let name = format!("{}-{}.edgeupdate", manifest.version, manifest.target);
    let output = output.unwrap_or_else(|| PathBuf::from(name));
    stage::pack(&manifest, &program, &key, &output).map_err(|e| no(&e))?;
    out.line(&format!("{}: version {} for {}", output.display(), manifest.version, manifest.target))
}

/// The slots of the node that runs, or of the one that is configured; and whether one runs.
async fn folder(client: &Client, config: &Config) -> Result<(Folder, bool), CliError> {
    match client.get("/update").await {
        Ok(document) => {
            let dir = document.get("stateDir").and_then(Value::as_str).unwrap_or_default();
            Ok((Folder::below(Path::new(dir)), true))
        }
        Err(CliError::Unreachable { .. }) => Ok((Folder::below(&config.paths.state), false)),
        Err(error) => Err(error),
    }
}

fn stage(
    out: &Out,
    folder: &Folder,
    artefact: &Path,
    allow_downgrade: bool,
    config: &Config,
) -> Result<State, CliError> {
    let keys = keys::trusted(&config.update.public_keys, Path::new(keys::FOLDER)).map_err(|e| no(&e))?;
    let file = File::open(artefact).map_err(|source| CliError::File { path: artefact.to_owned(), source })?;
    let bar = if out.is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {bytes}/{total_bytes}") {
        bar.set_style(style);
    }
    let begin = |manifest: &Manifest| {
        bar.set_length(manifest.size);
        bar.set_message(format!("installing {}", manifest.version));
    };
    let gate = config.update.gate;
    let staged =
        stage::apply(folder, BufReader::new(file), &keys, allow_downgrade, gate, begin, |count| bar.inc(count));
    bar.finish_and_clear();
    staged.map_err(|e| no(&e))
}

async fn restart(client: &Client) -> Result<(), CliError> {
    client.json(Method::POST, "/update/restart", &json!({})).await.map(|_| ())
}

/// Waits until the node has decided on a version.
async fn wait(client: &Client, out: &mut Out, version: &Version, patience: Duration) -> Result<(), CliError> {
    let bar = if out.is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.set_message(format!("{version} has to prove itself"));
    let until = Instant::now() + patience;
    while Instant::now() < until {
        tokio::time::sleep(AGAIN).await;
        // Between two versions nobody answers.
        let Ok(document) = client.get("/update").await else { continue };
        let text = |path: &str| document.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(why) = document.pointer("/running/why").and_then(Value::as_str) {
            bar.set_message(format!("{version} has to prove itself: {why}"));
        }
        match text("/state/last/ending").as_str() {
            "committed" => {
                bar.finish_and_clear();
                return out.line(&format!("{version} is healthy and in use"));
            }
            "" => {}
            _ => {
                bar.finish_and_clear();
                let (to, why) = (text("/state/last/to"), text("/state/last/why"));
                return Err(CliError::No(format!("{version} was given up, {to} is in use again: {why}")));
            }
        }
    }
    bar.finish_and_clear();
    Err(CliError::No(format!("{version} has not been decided on in time: see `edge-runtime update status`")))
}

async fn status(client: &Client, out: &mut Out, format: Format, settings: &Settings<'_>) -> Result<(), CliError> {
    let document = match client.get("/update").await {
        Ok(document) => document,
        Err(CliError::Unreachable { .. }) => {
            let (config, _) = settings()?;
            let state = Folder::below(&config.paths.state).read().map_err(|e| no(&e))?;
            json!({"stateDir": config.paths.state, "running": null, "state": document(state.as_ref())})
        }
        Err(error) => return Err(error),
    };
    match format {
        Format::Json | Format::Yaml => out.text(&document_text(&document, format)),
        _ => out.text(&status_text(&document)),
    }
}

fn status_text(document: &Value) -> String {
    let text = |path: &str| document.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let mut lines = match text("/running/slot") {
        "" => "the node does not run\n".to_owned(),
        slot => {
            let well = document.pointer("/running/healthy").and_then(Value::as_bool) == Some(true);
            let how = if well { "healthy".to_owned() } else { format!("not healthy: {}", text("/running/why")) };
            format!("running: {} from {slot}, {how}\n", text("/running/version"))
        }
    };
    if let Some(trouble) = document.get("trouble").and_then(Value::as_str) {
        lines.push_str(&format!("{trouble}\n"));
    }
    if document.get("state").is_none_or(Value::is_null) {
        lines.push_str("nothing was installed beside the image's own version\n");
        return lines;
    }
    let mut table = Table::new(&["SLOT", "VERSION", "STATE", "SIZE", "INSTALLED"]);
    for slot in ["factory", "a", "b"] {
        let at = |field: &str| document.pointer(&format!("/state/{slot}/{field}"));
        let version = if slot == "factory" { document.pointer("/state/factory") } else { at("version") };
        let state = match (text("/state/current") == slot, text("/state/phase")) {
            (true, "trial") => {
                let left = document.pointer("/state/triesLeft").and_then(Value::as_u64).unwrap_or(0);
                format!("trial, {left} starts left")
            }
            (true, _) => "in use".to_owned(),
            (false, _) if text("/state/previous") == slot => "before".to_owned(),
            (false, _) => String::new(),
        };
        let size = at("size").and_then(Value::as_u64).map(bytes).unwrap_or_default();
        let installed = at("installedMs").and_then(Value::as_i64).map(edge_model::time::rfc3339).unwrap_or_default();
        let version = version.and_then(Value::as_str).unwrap_or("<empty>");
        table.row(vec![slot.to_owned(), version.to_owned(), state, size, installed]);
    }
    lines.push_str(&table.take());
    if let "committed" | "rolled-back" | "superseded" = text("/state/last/ending") {
        let at = document.pointer("/state/last/atMs").and_then(Value::as_i64).map(edge_model::time::rfc3339);
        let (ending, from, to) = (text("/state/last/ending"), text("/state/last/from"), text("/state/last/to"));
        let (at, why) = (at.unwrap_or_default(), text("/state/last/why"));
        lines.push_str(&format!("last: {ending} at {at}, from {from} to {to}: {why}\n"));
    }
    lines
}

/// Waits until the node is ready and all its parts are well.
async fn health(client: &Client, out: &mut Out, patience: Duration) -> Result<(), CliError> {
    let until = Instant::now() + patience;
    loop {
        let why = match client.get("/update").await {
            Ok(document) => match document.pointer("/running/healthy").and_then(Value::as_bool) {
                Some(true) => return out.line("healthy"),
                _ => document.pointer("/running/why").and_then(Value::as_str).unwrap_or("not healthy").to_owned(),
            },
            Err(error) => error.report(),
        };
        if Instant::now() >= until {
            return Err(CliError::No(format!("not healthy: {why}")));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::slots::{Installed, Slot};

    #[test]
    fn the_status_is_a_table() {
        let mut state = State::new("1.0.0".parse().unwrap());
        let installed = Installed {
            version: "1.1.0".parse().unwrap(),
            sha256: String::new(),
            size: 1 << 20,
            store_schema: 2,
            installed_ms: 0,
        };
        state.try_out(Slot::A, installed, 3, 60);
        let running = json!({"slot": "factory", "version": "1.0.0", "healthy": true});
        let shown = |state: &State| status_text(&json!({"running": running, "state": document(Some(state))}));
        let expected = "\
running: 1.0.0 from factory, healthy
SLOT      VERSION   STATE                  SIZE      INSTALLED
factory   1.0.0     before
a         1.1.0     trial, 3 starts left   1.0 MiB   1970-01-01T00:00:00Z
b         <empty>
";
        assert_eq!(shown(&state), expected);
        state.roll_back("it crashed", 0);
        assert!(
            shown(&state).ends_with("last: rolled-back at 1970-01-01T00:00:00Z, from 1.1.0 to 1.0.0: it crashed\n")
        );
        assert!(status_text(&json!({"running": null})).contains("does not run\nnothing was installed"));
    }
}
