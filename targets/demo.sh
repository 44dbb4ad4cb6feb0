#!/bin/sh
# The whole node in one command, on a machine that has Rust and nothing else: builds the binary and runs its demo.
# No network (beyond the first build), no hardware, no container engine. As root or not; arguments go to the demo.
set -eu
cd "$(dirname "$0")/.."
. targets/setup.sh

need_rust
command -v cc >/dev/null || need_packages "The build" gcc libc6-dev

# A development build: it takes a few minutes the first time, and the tests use the same one.
cargo build --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/$(rustc --print host-tuple)/debug/edge-runtime" demo "$@"
