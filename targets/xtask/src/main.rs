//! Distribution, size budgets, benchmarks: `cargo xtask --help`.

fn main() {}
