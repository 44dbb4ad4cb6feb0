//! The daemon: its threads, its signals, what systemd is told, and how it ends.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Node;
use crate::config::Config;
use crate::exit::Exit;
use crate::seen;
use crate::supervisor::{Units, chain};
use crate::telemetry::log::{self, Levels};
use crate::telemetry::notify::Notify;

/// Reactor threads. The work is small and mostly waiting; each thread costs memory that never comes back.
const WORKERS: usize = 2;
/// Threads for calls that block (files, image layers).
const BLOCKING: usize = 8;
/// The stack of each, in bytes: address space, of which only what is touched costs memory.
const STACK: usize = 1 << 20;
/// How long the start may take before systemd is told that it is up, well or not: what does not work is seen in `status`.
const SETTLE: Duration = Duration::from_secs(20);
/// How soon after the start freed memory is given back: what was needed to start is not needed any more.
const TRIM: Duration = Duration::from_secs(3);

/// Runs the daemon until it is told to stop.
pub fn main(config: Config) -> Exit {
    match Levels::parse(&config.log_level) {
        Ok(levels) => log::start(levels, &config.log_format),
        Err(message) => {
            crate::command::complain(&message);
            return Exit::Config;
        }
    }
    match runtime() {
        Ok(runtime) => {
            let ending = runtime.block_on(daemon(config));
            // A thread in a call that blocks must not hold up the end.
            runtime.shutdown_background();
            match ending {
                Ending::Exit(exit) => exit,
                Ending::Restart => {
                    let Err(error) = crate::update::launch::restart();
                    crate::command::complain(&format!("cannot start again: {error}"));
                    Exit::Fatal
                }
            }
        }
        Err(error) => {
            crate::command::complain(&format!("cannot start its threads: {error}"));
            Exit::Fatal
        }
    }
}

/// What follows the daemon.
enum Ending {
    /// The end of the process.
    Exit(Exit),
    /// The version in use, in the same process.
    Restart,
}

/// The reactor of the daemon.
///
/// # Errors
/// No threads can be had.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_stack_size(STACK)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
}

async fn daemon(config: Config) -> Ending {
    let notify = Notify::from_environment();
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        crate::command::complain("cannot listen to signals");
        return Ending::Exit(Exit::Fatal);
    };
    let (name, board) = (config.node.clone(), config.board.name.clone());
    let node = match Box::pin(Node::start(config)).await {
        Ok(node) => node,
        Err(error) => {
            tracing::error!("cannot start: {}", chain(&error));
            notify.status(&format!("cannot start: {}", chain(&error)));
            return Ending::Exit(error.exit());
        }
    };
    let settled = tokio::select! {
        () = settle(&node.units) => true,
        () = tokio::time::sleep(SETTLE) => true,
        () = either(&mut terminate, &mut interrupt) => false,
    };
    let mut restart = false;
    if settled {
        notify.ready();
        tracing::info!(node = name, board, "ready");
        restart = serve(&node, &notify, &mut terminate, &mut interrupt).await;
    }
    if restart {
        notify.restarting()
    } else {
        notify.stopping()
    }
    tracing::info!(restart, "stopping; running containers are left alone");
    tokio::select! {
        late = node.stop() => {
            if !late.is_empty() {
                tracing::error!(?late, "did not stop in time");
            }
            tracing::info!("stopped");
            if restart { Ending::Restart } else { Ending::Exit(Exit::Clean) }
        }
        () = either(&mut terminate, &mut interrupt) => {
            tracing::warn!("a signal while stopping: ending at once");
            Ending::Exit(Exit::Forced)
        }
    }
}

/// Keeps `systemctl status` true until the first signal, or until the node shall start again: then it is true.
async fn serve(node: &Node, notify: &Notify, terminate: &mut Signal, interrupt: &mut Signal) -> bool {
    let mut changes = node.units.changes();
    let trim = tokio::time::sleep(TRIM);
    tokio::pin!(trim);
    let mut trimmed = false;
    let mut told = String::new();
    loop {
        let line = seen::line(&node.units);
        if line != told {
            notify.status(&line);
            told = line;
        }
        tokio::select! {
            () = either(terminate, interrupt) => return false,
            () = node.restart.cancelled() => return true,
            Ok(()) = changes.changed() => {}
            () = &mut trim, if !trimmed => {
                crate::sys::trim_memory();
                crate::sys::forget_start_code();
                trimmed = true;
            }
        }
    }
}

async fn settle(units: &Units) {
    let mut changes = units.changes();
    while !units.settled() {
        let _ = changes.changed().await;
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
