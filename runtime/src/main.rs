//! The executable: everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything else, above all before any thread: the shim forks.
    if arguments.next().is_some_and(|verb| verb == "shim") {
        return edge_runtime::engine::shim::main(arguments);
    }
    edge_runtime::sys::settle_c_library();
    edge_runtime::command::main()
}
