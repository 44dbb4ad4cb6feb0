//! The command line: flags of the daemon, or a verb.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Merged, Sources};
use crate::exit::Exit;
use crate::update::launch;
use crate::{app, cli, demo};

/// Turns this Linux gateway into an edge node: containers, event bus, field devices and a durable way to the cloud.
///
/// Without a verb it runs as the daemon; with one it talks to the daemon that runs.
#[derive(Debug, Parser)]
#[command(name = "edge-runtime", version, subcommand_negates_reqs = true)]
struct CommandLine {
    #[command(flatten)]
    flags: Flags,
    /// The socket of the node a verb talks to.
    #[arg(
        long,
        env = "EDGE_RUNTIME_SOCKET",
        default_value = "/run/edge-runtime/api.sock",
        value_name = "PATH",
        global = true
    )]
    socket: PathBuf,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Flags of the daemon. Each of them can also be set in the configuration.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// The board: a name, or `auto` to ask the hardware.
    #[arg(long, env = "EDGE_RUNTIME_BOARD", default_value = "auto", value_name = "NAME", global = true)]
    board: String,
    /// The only configuration file to read, instead of those in /usr/lib and /etc.
    #[arg(long, env = "EDGE_RUNTIME_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where everything is kept that must survive a power cut.
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<String>,
    /// Where sockets and running containers are, on a tmpfs.
    #[arg(long, value_name = "DIR", global = true)]
    run_dir: Option<String>,
    /// Where manifests are that are applied while they are there.
    #[arg(long, value_name = "DIR", global = true)]
    manifests_dir: Option<String>,
    /// Sets any key of the configuration, such as `bus.listen=127.0.0.1:1884`.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Print the least that is worth configuring, and end.
    #[arg(long)]
    minconfig: bool,
    /// Print every key with its default and its meaning, and end.
    #[arg(long)]
    defaultconfig: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Client(cli::Verb),
    /// Run a whole gateway with a simulated plant and a cloud whose plug can be pulled.
    Demo(demo::Demo),
    /// What the demo's pod runs.
    #[command(hide = true)]
    SamplePod,
    /// Check or show the configuration without starting anything.
    #[command(subcommand)]
    Config(ConfigVerb),
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum ConfigVerb {
    /// Check all of it and say everything that is wrong.
    Check,
    /// Print every value in force and where it came from.
    Show,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Clean }.into();
        }
    };
    if line.flags.minconfig || line.flags.defaultconfig {
        let minimal = line.flags.minconfig;
        let text = if minimal { config::print::min_config() } else { config::print::default_config() };
        return print(&text).into();
    }
    match line.verb {
        Some(Verb::Client(verb)) => client(verb, &line.socket, &line.flags),
        Some(Verb::Demo(demo)) => demo::main(&demo).into(),
        Some(Verb::SamplePod) => demo::sample_pod().into(),
        None => daemon(&line.flags).into(),
        Some(Verb::Config(ConfigVerb::Check)) => {
            let right = |config: &Config| {
                format!("the configuration is right (board {}, node {})\n", config.board.name, config.node)
            };
            with_config(&line.flags, |config, _| print(&right(&config))).into()
        }
        Some(Verb::Config(ConfigVerb::Show)) => {
            with_config(&line.flags, |_, merged| print(&config::print::show(merged))).into()
        }
    }
}

/// Runs a verb on a reactor of one thread: it waits for one socket and the terminal.
fn client(verb: cli::Verb, socket: &Path, flags: &Flags) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let machine =
                cli::Machine { settings: &|| load(flags), board: &flags.board, file: flags.config.as_deref() };
            let code = runtime.block_on(cli::run(verb, socket, &machine));
            // A read of standard input that is still waiting must not hold up the end.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            Exit::Fatal.into()
        }
    }
}

/// Runs the daemon: this executable, or the one that an update has put in its place.
fn daemon(flags: &Flags) -> Exit {
    let sources = match sources(flags) {
        Ok(sources) => sources,
        Err(error) => return refuse(&error),
    };
    match config::load(&sources) {
        Ok((config, _)) => {
            launch::launch(&config.paths.state, Some(&config.paths.lock()));
            app::main(config)
        }
        Err(error) => {
            // A later version may understand what this one does not.
            if let Some(config::Value::Text(dir)) = config::glance(&sources, "paths.state-dir") {
                launch::launch(Path::new(&dir), None);
            }
            refuse(&error)
        }
    }
}

/// Nothing is opened or bound before all of the configuration has been read and checked.
fn with_config(flags: &Flags, then: impl FnOnce(Config, &Merged) -> Exit) -> Exit {
    match load(flags) {
        Ok((config, merged)) => then(config, &merged),
        Err(error) => refuse(&error),
    }
}

fn load(flags: &Flags) -> Result<(Config, Merged), config::ConfigError> {
    sources(flags).and_then(|sources| config::load(&sources))
}

fn refuse(error: &config::ConfigError) -> Exit {
    complain(&format!("the configuration is not right\n{error}"));
    Exit::Config
}

fn sources(flags: &Flags) -> Result<Sources, config::ConfigError> {
    let files = config::files::read(flags.config.as_deref()).map_err(|p| config::ConfigError { problems: vec![p] })?;
    let named = [
        ("paths.state-dir", &flags.state_dir, "--state-dir"),
        ("paths.run-dir", &flags.run_dir, "--run-dir"),
        ("paths.manifests-dir", &flags.manifests_dir, "--manifests-dir"),
    ];
    let mut keys: Vec<(String, String, String)> = Vec::new();
    for (key, value, flag) in named {
        if let Some(value) = value {
            let absolute = std::path::absolute(value).map_or_else(|_| value.clone(), |p| p.display().to_string());
            keys.push((key.to_owned(), absolute, flag.to_owned()));
        }
    }
    for pair in &flags.set {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        keys.push((key.to_owned(), value.to_owned(), "--set".to_owned()));
    }
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    Ok(Sources { board: flags.board.clone(), files, environment: environment.collect(), flags: keys })
}

/// Prints to standard output; a reader that has gone away is no error.
pub fn print(text: &str) -> Exit {
    use std::io::Write as _;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Exit::Clean
}

/// Says what went wrong.
pub fn complain(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "edge-runtime: {text}");
}
