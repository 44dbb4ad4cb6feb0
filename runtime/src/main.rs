//! The executable: everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_runtime::sys::settle_c_library();
    edge_runtime::command::main().into()
}
