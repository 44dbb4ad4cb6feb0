#!/bin/sh
# Parses the layer with bitbake, works out all tasks of its images and, with --full, runs yocto-check-layer (minutes).
# usage: yocto/check.sh [--full] LAYERS-FOLDER
# LAYERS-FOLDER holds openembedded-core, bitbake and meta-raspberrypi (branches wrynose, 2.18, wrynose); of meta-rauc, meta-mender
# and meta-swupdate (with meta-openembedded) those that are there are parsed, too. bitbake refuses root: run it as another user,
# with the locale en_US.UTF-8. The build folder is made anew below TMPDIR and removed.
set -eu
full=
[ "${1:-}" = --full ] && { full=1; shift; }
layers=$(cd "${1:?usage: yocto/check.sh [--full] LAYERS-FOLDER}" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
layer=$root/yocto/meta-edge-runtime
export LC_ALL="${EDGE_LOCALE:-en_US.UTF-8}" LANG="${EDGE_LOCALE:-en_US.UTF-8}"
export PATH="$layers/openembedded-core/scripts:$layers/bitbake/bin:$PATH" PYTHONPATH="$layers/bitbake/lib"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/build/conf" "$work/dist"
# Stand-ins for the archives, with the licence only: nothing is compiled here.
doc=$work/tree/usr/share/doc/edge-runtime
mkdir -p "$doc" "$work/source/edge-runtime-0.1.0"
cp "$root/LICENSE" "$doc/copyright"
cp "$root/LICENSE" "$work/source/edge-runtime-0.1.0/LICENSE"
tar -czf "$work/dist/edge-runtime-0.1.0.tar.gz" -C "$work/source" edge-runtime-0.1.0
for triple in aarch64-unknown-linux-gnu x86_64-unknown-linux-gnu; do
    tar --zstd -cf "$work/dist/edge-runtime-0.1.0-$triple.tar.zst" -C "$work/tree" usr
done
others=
for other in meta-openembedded/meta-oe meta-rauc meta-swupdate meta-mender/meta-mender-core; do
    if [ -d "$layers/$other" ]; then others="$others $layers/$other"; fi
done
recipes="edge-image edge-runtime edge-runtime-bin"
if [ -d "$layers/meta-rauc" ]; then recipes="$recipes edge-bundle"; fi
if [ -d "$layers/meta-swupdate" ]; then recipes="$recipes edge-swu edge-runtime-commit"; fi
if [ -d "$layers/meta-mender" ]; then recipes="$recipes edge-runtime-mender"; fi
cat > "$work/build/conf/bblayers.conf" <<CONF
BBPATH = "\${TOPDIR}"
BBFILES ?= ""
BBLAYERS = "$layers/openembedded-core/meta $layers/meta-raspberrypi$others $layer"
CONF
configure() {
    cat > "$work/build/conf/local.conf" <<CONF
MACHINE = "$1"
DISTRO_FEATURES:append = " edge-runtime systemd usrmerge rauc"
INIT_MANAGER = "systemd"
LICENSE_FLAGS_ACCEPTED = "synaptics-killswitch"
EDGE_RUNTIME_DIST = "$work/dist"
BB_NO_NETWORK = "1"
CONNECTIVITY_CHECK_URIS = ""
CONF
}
cd "$work/build"
export BUILDDIR="$work/build"
fail=0
for machine in qemuarm64 raspberrypi4-64; do
    configure "$machine"
    # Parses everything and works out the tasks. Unquoted on purpose: a list of recipes.
    verdict=passed
    bitbake -g $recipes > "$work/log" 2>&1 || verdict=FAILED
    if grep -qE '^(ERROR|WARNING)' "$work/log"; then verdict=FAILED; fi
    echo "$machine: bitbake -g $recipes: $verdict"
    grep -E '^Parsing of' "$work/log" || true
    if [ $verdict = FAILED ]; then fail=1; tail -n 30 "$work/log"; fi
done
if [ -n "$full" ] && [ $fail = 0 ]; then
    configure qemuarm64
    sed -i "s, $layer,," conf/bblayers.conf
    yocto-check-layer --no-auto-dependency "$layer" || fail=1
fi
exit $fail
