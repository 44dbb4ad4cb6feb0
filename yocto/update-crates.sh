#!/bin/sh
# Writes the crates that the source recipe fetches, from Cargo.lock, as cargo-update-recipe-crates.bbclass would.
# `--check` writes nothing and fails when the file is out of date. Crates by path (also patched ones) have no `source`
# in Cargo.lock: they come with the source itself and are not fetched.
set -eu
cd "$(dirname "$0")/.."
out=yocto/meta-edge-runtime/recipes-core/edge-runtime/edge-runtime-crates.inc
new=$(mktemp)
trap 'rm -f "$new"' EXIT
awk '
    function done_with() {
        if (source ~ /^registry\+/) { uris[++n] = name "/" version; sums[n] = "SRC_URI[" name "-" version ".sha256sum] = \"" sum "\"" }
        else if (source != "") { print "a crate from " source " is not handled" > "/dev/stderr"; failed = 1; exit 1 }
        name = version = source = sum = ""
    }
    /^\[\[package\]\]/ { done_with() }
    /^name = /     { split($0, part, "\""); name = part[2] }
    /^version = / && name != "" { split($0, part, "\""); version = part[2] }
    /^source = /   { split($0, part, "\""); source = part[2] }
    /^checksum = / { split($0, part, "\""); sum = part[2] }
    END {
        if (failed) exit 1
        done_with()
        print "# Made from Cargo.lock by yocto/update-crates.sh: do not edit."
        print "SRC_URI += \" \\"
        for (i = 1; i <= n; i++) print "    crate://crates.io/" uris[i] " \\"
        print "\"\n"
        for (i = 1; i <= n; i++) print sums[i]
    }
' Cargo.lock > "$new"
if [ "${1:-}" = --check ]; then
    cmp -s "$new" "$out" || { echo "$out does not match Cargo.lock: run yocto/update-crates.sh" >&2; exit 1; }
else
    cat "$new" > "$out"
fi
