//! Liveness: probes that ask the parts of the runtime for a sign of life, and the watchdogs that are fed only when all give one.

use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

use crate::supervisor::{Context, Outcome};
use crate::telemetry::notify::Notify;

/// How often probes run when no watchdog asks for more.
const PERIOD: Duration = Duration::from_secs(10);

/// A sign of life that can be asked for.
pub struct Probe {
    /// Which part it asks.
    pub name: &'static str,
    ask: Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>,
}

impl Probe {
    /// A probe that lives when the future says so in time.
    pub fn new<F, R>(name: &'static str, ask: F) -> Probe
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = bool> + Send + 'static,
    {
        Probe { name, ask: Box::new(move || Box::pin(ask())) }
    }
}

/// The names of the parts that gave no sign of life at the last round; empty when all did.
pub type Silent = watch::Sender<Vec<&'static str>>;

/// The hardware watchdog and what it waits for.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Its device.
    pub device: PathBuf,
    /// How long it waits.
    pub timeout: Duration,
}

/// Asks the probes again and again, and feeds the watchdogs while all of them answer.
///
/// # Errors
/// The hardware watchdog cannot be opened.
pub async fn run(
    probes: &[Probe],
    silent: &Silent,
    notify: &Notify,
    hardware: Option<&Hardware>,
    context: Context,
) -> Outcome {
    let mut device = hardware.map(open).transpose()?;
    let hardware_period = hardware.map(|h| h.timeout / 3);
    let period =
        [Some(PERIOD), notify.watchdog_period(), hardware_period].into_iter().flatten().min().unwrap_or(PERIOD);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    context.ready();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.stop.cancelled() => break,
        }
        let mut missing = Vec::new();
        for probe in probes {
            // All probes together must be through before the watchdog bites.
            if !matches!(tokio::time::timeout(period / 2, (probe.ask)()).await, Ok(true)) {
                missing.push(probe.name);
            }
        }
        if missing.is_empty() {
            notify.watchdog();
            if let Some(device) = &mut device {
                device.write_all(b"\0")?;
            }
        } else {
            tracing::error!(?missing, "no sign of life: the watchdogs are not fed");
        }
        silent.send_if_modified(|now| std::mem::replace(now, missing.clone()) != missing);
    }
    if let Some(device) = &mut device {
        // The magic close (Linux Documentation/watchdog/watchdog-api.rst): an orderly stop must not reset the board.
        device.write_all(b"V")?;
    }
    Ok(())
}

fn open(hardware: &Hardware) -> std::io::Result<std::fs::File> {
    let name = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", hardware.device.display()));
    let device = std::fs::OpenOptions::new().write(true).open(&hardware.device).map_err(name)?;
    let seconds = i32::try_from(hardware.timeout.as_secs()).unwrap_or(i32::MAX);
    match crate::sys::set_watchdog_timeout(&device, seconds) {
        Ok(set) if set == seconds => {}
        Ok(set) => tracing::warn!(asked = seconds, set, "the hardware watchdog waits for another time than asked"),
        Err(error) => tracing::warn!(%error, "the hardware watchdog keeps its own time-out"),
    }
    Ok(device)
}
