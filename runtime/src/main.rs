//! The executable: everything else is in the library.

fn main() {}
