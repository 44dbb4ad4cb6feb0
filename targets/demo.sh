#!/bin/sh
# The whole node in one command, on a machine that has Rust and nothing else: builds the binary and runs its demo.
# No network (beyond the first build), no hardware, no container engine. As root or not; arguments go to the demo.
set -eu
cd "$(dirname "$0")/.."
. targets/setup.sh

need_rust
command -v cc >/dev/null || need_packages "The build" gcc libc6-dev

# The profile `bench` is the release build without its last and longest step; see Cargo.toml.
cargo build --profile bench --package edge-runtime
exec cargo run --quiet --profile bench --package edge-runtime -- demo "$@"
