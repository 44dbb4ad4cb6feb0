//! The executable: everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before anything else, above all before any thread: the shim forks.
    if args.next().is_some_and(|verb| verb == "shim") {
        return edge_runtime::engine::shim::main(args);
    }
    ExitCode::SUCCESS
}
