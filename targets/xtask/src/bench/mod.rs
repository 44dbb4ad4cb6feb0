//! `cargo xtask bench`.

use crate::error::Error;

/// Runs.
pub fn run(_arguments: &[String]) -> Result<(), Error> {
    Ok(())
}
