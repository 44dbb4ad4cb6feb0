//! The node beside its peers, in one run: start, memory, idle work, pods. `cargo xtask bench` runs it on the shipped
//! executable; docs/BENCHMARKS.md says how to read it.
//!
//! `EDGE_BENCH_RUNS` is how often each start is repeated (20; outages a quarter of that), `EDGE_BENCH_WINDOW` how many seconds
//! of idling are watched (60), `EDGE_BENCH_ONLY` a comma-separated choice of `start`, `memory`, `idle`, `pods`, `link`.

mod idle;
mod image;
mod link;
mod memory;
mod peers;
mod pods;
mod process;
mod start;
mod table;

fn main() {
    // `cargo bench` hands over `--bench`; there is nothing to choose from on the command line.
    let runs = number("EDGE_BENCH_RUNS", 20);
    let window = std::time::Duration::from_secs(number("EDGE_BENCH_WINDOW", 60) as u64);
    let only = std::env::var("EDGE_BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|word| word.trim() == name);
    println!("# {} on {}\n", edge_tests::binary::edge_runtime().display(), process::machine());
    if wanted("start") {
        start::run(runs);
    }
    if wanted("memory") {
        memory::run();
    }
    if wanted("idle") {
        idle::run(window);
    }
    if wanted("pods") {
        pods::run(runs);
    }
    if wanted("link") {
        link::run(runs.div_ceil(4));
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
