#!/usr/bin/env bash
# All tests, with their real peers: installs what is missing, builds the binary, runs every test of the workspace.
# Arguments go to `cargo test`, for example: tests/run.sh --test tidy
#
# Tests that need root (containers, mounts) run as root: directly, or through sudo. Without either they fail and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
. targets/setup.sh

need_rust
mapfile -t packages < <(sed 's/#.*//; s/[[:space:]]*$//; /^$/d' tests/packages.txt)
need_packages "The tests" "${packages[@]}"

# Built as the tests' own dependencies are, with the same features, so that nothing is compiled twice.
cargo build --workspace --bins --tests
host=$(rustc --print host-tuple)
export EDGE_RUNTIME_BIN="${EDGE_RUNTIME_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/$host/debug/edge-runtime}"

# The aarch64 executable, in the quickest profile unless a shipped one is given.
if [ -z "${EDGE_TESTS_AARCH64:-}" ]; then
    EDGE_TESTS_AARCH64=$(cargo xtask build --target aarch64-unknown-linux-gnu)
fi
export EDGE_TESTS_AARCH64

if [ "$(id -u)" != 0 ] && command -v sudo >/dev/null; then
    runner="CARGO_TARGET_$(printf '%s' "$host" | tr 'a-z-' 'A-Z_')_RUNNER"
    export "$runner=sudo -E env PATH=$PATH"
fi

# Every failure of a run is worth seeing, so the first one does not end it. The totals come last.
log=$(mktemp)
again=$(mktemp)
trap 'rm -f "$log" "$again"' EXIT
status=0
cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

# With EDGE_TESTS_AGAIN=1 (CI sets it) what failed is run once more, and a test that then passes is named as unsteady: it is
# to be repaired, but a busy machine must not hide whether the rest is sound.
sum() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i-1) } END { print n + 0 }' "$2"; }
passed=$(sum passed "$log") failed=$(sum failed "$log")
mapfile -t targets < <(sed -n 's/^ *`\(-p [^`]*\)`$/\1/p' "$log")
if [ "$status" != 0 ] && [ "${EDGE_TESTS_AGAIN:-}" = 1 ] && [ "${#targets[@]}" != 0 ] && [ "$failed" != 0 ]; then
    mapfile -t names < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p; s/^\(.*\) --- FAILED$/\1/p' "$log" | sort -u)
    say "failed, and run once more: ${names[*]}"
    status=0
    for target in "${targets[@]}"; do
        # shellcheck disable=SC2086 # a target is several words
        cargo test $target --no-fail-fast 2>&1 | tee -a "$again" || status=$?
    done
    still=$(sum failed "$again")
    [ "$status" != 0 ] || say "UNSTEADY, passed only the second time: ${names[*]}"
    passed=$((passed + failed - still)) failed=$still
fi
printf '\ntotal: %d passed, %d failed\n' "$passed" "$failed"
exit "$status"
