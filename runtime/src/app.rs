//! The wiring: every part of the node is made and joined here, read top to bottom in data-flow order.

use crate::config::Config;
use crate::exit::Exit;

/// Runs the daemon until it is told to stop.
pub fn main(config: Config) -> Exit {
    let _ = config;
    Exit::Clean
}
